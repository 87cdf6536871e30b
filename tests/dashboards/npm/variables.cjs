// What Grafana makes of a dashboard's variables: reads lines of tasks from stdin, and writes a line of answers to stdout for
// each, both as JSON.
//
// The variables are those of @grafana/scenes, and the Prometheus data source's own function formats their values. Only
// the values that a query would return are given: `refreshes` has them for each refresh, by the name of the variable.
//
//   {variables, url: {run: "job_1"}, refreshes: [{spinner: ["a", "b"]}, …], queries: [expr], links: [url], row: {field: value}}
//   [{values: {run: "job_1"}, queries: [expr], links: [url]}, …], one for each refresh of the task
//
// With `since`, such as now/d, the queries are those of a panel with a time range of its own.
//
// With `destinations`, the setting of the data source, and a `panel`, `row` is an exemplar: `exemplars` has what it links
// to, which time range each link opens, and which queries of the panel ask for exemplars.

const path = require('node:path');
const requireInstalled = require('node:module').createRequire(path.join(process.cwd(), 'package.json'));

standInForABrowser();
const { firstValueFrom, of } = requireInstalled('rxjs');
const { FieldType, getLinksSupplier, locationUtil, toDataFrame } = requireInstalled('@grafana/data');
const scenes = requireInstalled('@grafana/scenes');
// The package exports the data source as a whole, which needs the editor of queries.
const { interpolateQueryExpr } = requireInstalled(ofPrometheus('escaping.cjs'));

class QueriedVariable extends scenes.QueryVariable {
  getValueOptions() {
    return of((this.found ?? []).map((value) => ({ value, label: value })));
  }
}

async function main() {
  for await (const line of require('node:readline').createInterface({ input: process.stdin })) {
    const answers = [];
    for (const task of JSON.parse(line)) {
      answers.push(await answer(task));
    }
    process.stdout.write(`${JSON.stringify(answers)}\n`);
  }
}

async function answer(task) {
  const variables = task.variables.map(variableOf);
  const panel = new scenes.SceneFlexItem({
    ...(task.since ? { $timeRange: new scenes.SceneTimeRange({ from: task.since, to: 'now', timeZone: 'utc' }) } : {}),
    body: new scenes.SceneFlexLayout({ children: [] }),
  });
  const scene = new scenes.EmbeddedScene({
    $variables: new scenes.SceneVariableSet({ variables }),
    $timeRange: new scenes.SceneTimeRange({ from: 'now-1h', to: 'now' }),
    body: new scenes.SceneFlexLayout({ children: [panel] }),
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
      queries: task.queries.map((text) => scenes.sceneGraph.interpolate(panel, text, {}, interpolateQueryExpr)),
      links: task.links.map((text) => scenes.sceneGraph.interpolate(scene, text, rowOf(task.row))),
      ...(task.destinations ? { exemplars: exemplarsOf(scene, task) } : {}),
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

// The data source adds the links to the exemplars of its answer, and the heat map resolves them.
function exemplarsOf(scene, task) {
  const { PrometheusDatasource } = requireInstalled(ofPrometheus('datasource.cjs'));
  const { transformV2 } = requireInstalled(ofPrometheus('result_transformer.cjs'));
  const { targets } = task.panel;
  const source = { languageProvider: { retrieveHistogramMetrics: () => task.histograms } };
  const asked = targets.filter((each) =>
    PrometheusDatasource.prototype.shouldRunExemplarQuery.call(source, each, { targets })
  );
  const answer = { ...frameOf(task.row), refId: asked[0].refId, meta: { custom: { resultType: 'exemplar' } } };
  const { data } = transformV2({ data: [answer] }, { targets }, { exemplarTraceIdDestinations: task.destinations });
  // Grafana ships version 7.0.1 of @braintree/sanitize-url. npm installs a later one, which decodes the URL that it checks:
  // https://github.com/grafana/grafana/issues/132413
  locationUtil.initialize({ config: { appSubUrl: '', disableSanitizeHtml: true } });
  const replaceVariables = (text, scopedVars, format) =>
    scenes.sceneGraph.interpolate(scene, text, scopedVars, format);
  const links = data[0].fields.flatMap((field) =>
    getLinksSupplier(data[0], field, {}, replaceVariables)({ valueRowIndex: 0 }).map((link) => link.href)
  );
  return { asked: asked.map((each) => each.refId), links, ranges: links.map(opened) };
}

function opened(link) {
  const range = new scenes.SceneTimeRange({});
  range.urlSync.updateFromUrl(Object.fromEntries(new URL(link, 'http://localhost/').searchParams));
  return [range.state.from, range.state.to];
}

function ofPrometheus(file) {
  return path.join(process.cwd(), 'node_modules/@grafana/prometheus/dist/cjs', file);
}

function frameOf(row) {
  const typeOf = (value) => (typeof value === 'number' ? FieldType.number : FieldType.string);
  const fields = Object.entries(row).map(([name, value]) => ({ name, type: typeOf(value), values: [value] }));
  return toDataFrame({ fields });
}

function rowOf(row) {
  const frame = frameOf(row);
  return { __dataContext: { value: { data: [frame], frame, field: frame.fields[0], rowIndex: 0 } } };
}

function standInForABrowser() {
  require.extensions['.css'] = () => {};
  const Module = require('node:module');
  const load = Module._load;
  // The editor of queries, which nothing here opens.
  Module._load = (request, ...rest) => (/monaco/i.test(request) ? {} : load(request, ...rest));
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
