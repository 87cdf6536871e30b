// What Grafana makes of a dashboard's variables: reads tasks from stdin, and writes the answers to stdout, both as JSON.
//
// The variables are those of @grafana/scenes, and the Prometheus data source's own function formats their values. Only
// the values that a query would return are given: `refreshes` has them for each refresh, by the name of the variable.
//
//   {variables, url: {run: "job_1"}, refreshes: [{spinner: ["a", "b"]}, …], queries: [expr], links: [url], row: {field: value}}
//   [{values: {run: "job_1"}, queries: [expr], links: [url]}, …], one for each refresh of the task

const path = require('node:path');
const requireInstalled = require('node:module').createRequire(path.join(process.cwd(), 'package.json'));

standInForABrowser();
const { firstValueFrom, of } = requireInstalled('rxjs');
const { FieldType, toDataFrame } = requireInstalled('@grafana/data');
const scenes = requireInstalled('@grafana/scenes');
// The package exports the data source as a whole, which needs the editor of queries.
const { interpolateQueryExpr } = requireInstalled(
  path.join(process.cwd(), 'node_modules/@grafana/prometheus/dist/cjs/escaping.cjs')
);

class QueriedVariable extends scenes.QueryVariable {
  getValueOptions() {
    return of((this.found ?? []).map((value) => ({ value, label: value })));
  }
}

async function main() {
  const answers = [];
  for (const task of JSON.parse(require('node:fs').readFileSync(0, 'utf8'))) {
    answers.push(await answer(task));
  }
  process.stdout.write(JSON.stringify(answers));
}

async function answer(task) {
  const variables = task.variables.map(variableOf);
  const scene = new scenes.EmbeddedScene({
    $variables: new scenes.SceneVariableSet({ variables }),
    $timeRange: new scenes.SceneTimeRange({ from: 'now-1h', to: 'now' }),
    body: new scenes.SceneFlexLayout({ children: [] }),
  });
  for (const variable of variables) {
    variable.urlSync?.updateFromUrl({ [`var-${variable.state.name}`]: task.url[variable.state.name] });
  }
  const answers = [];
  for (const refresh of task.refreshes) {
    for (const variable of variables) {
      variable.found = refresh[variable.state.name];
      if (variable.validateAndUpdate) {
        await firstValueFrom(variable.validateAndUpdate());
      }
    }
    answers.push({
      values: Object.fromEntries(variables.map((each) => [each.state.name, each.getValueText?.() ?? each.getValue()])),
      queries: task.queries.map((text) => scenes.sceneGraph.interpolate(scene, text, {}, interpolateQueryExpr)),
      links: task.links.map((text) => scenes.sceneGraph.interpolate(scene, text, rowOf(task.row))),
    });
  }
  return answers;
}

// After Grafana's createSceneVariableFromVariableModel.
function variableOf(model) {
  const common = { name: model.name, label: model.label, skipUrlSync: model.skipUrlSync, hide: model.hide };
  const { value, text } = model.current;
  if (model.type === 'textbox') {
    return new scenes.TextBoxVariable({ ...common, value: value || model.query });
  }
  if (model.type === 'datasource') {
    return new scenes.ConstantVariable({ ...common, value });
  }
  const { multi: isMulti, includeAll, allValue } = model;
  const multi = { ...common, value, text, isMulti, includeAll, allValue, defaultToAll: Boolean(includeAll) };
  const custom = { ...multi, query: model.query };
  return model.type === 'custom' ? new scenes.CustomVariable(custom) : new QueriedVariable(multi);
}

function rowOf(row) {
  const typeOf = (value) => (typeof value === 'number' ? FieldType.number : FieldType.string);
  const fields = Object.entries(row).map(([name, value]) => ({ name, type: typeOf(value), values: [value] }));
  const frame = toDataFrame({ fields });
  return { __dataContext: { value: { data: [frame], frame, field: frame.fields[0], rowIndex: 0 } } };
}

function standInForABrowser() {
  require.extensions['.css'] = () => {};
  const { JSDOM } = requireInstalled('jsdom');
  const { window } = new JSDOM('', { url: 'http://localhost/', pretendToBeVisual: true });
  const observer = class {
    observe() {}
    unobserve() {}
    disconnect() {}
  };
  const listening = { addEventListener() {}, removeEventListener() {}, addListener() {}, removeListener() {} };
  Object.assign(window, {
    IntersectionObserver: observer,
    ResizeObserver: observer,
    matchMedia: () => ({ matches: false, ...listening }),
  });
  for (const name of Object.getOwnPropertyNames(window)) {
    if (!(name in globalThis) || name.endsWith('Event') || name === 'EventTarget' || name === 'navigator') {
      Object.defineProperty(globalThis, name, { value: window[name], configurable: true, writable: true });
    }
  }
  console.log = console.warn = () => {};
}

main();
