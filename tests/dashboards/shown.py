"""What the panels of a dashboard show: texts and colours, and whether a reader takes them as good, bad or unknown.

A fake of Grafana's panels: it runs each panel's own queries on a real Prometheus, as Grafana does (`grafana`), and
applies transformations, reducers, value mappings, thresholds and the text for no value (`display`). It draws nothing:
what does not fit, or who covers whom, it cannot say.

    page = Page(board, prometheus_url, now=time.time(), project="Clinic")
    shown = show(page)
    shown["Stalled"].marks      # {"": Mark("✔ none", GREEN)}
    shown["Stalled"].verdicts   # {Verdict.GOOD}
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dashboards.style import TEXT
from tests.dashboards.display import GAP, Mark, Value, Verdict, display
from tests.dashboards.grafana import Page, Series

Row = dict[str, Value]


@dataclass(frozen=True)
class Shown:
    """What a panel shows."""

    title: str
    type: str
    marks: Mapping[str, Mark] = field(default_factory=dict)
    """By the name of the series. A graph has the last value of each line, and `GAP` for a line that has ended."""
    rows: Sequence[Mapping[str, Mark]] = ()
    """Of a table, by the title of the column."""
    empty: Mark | None = None
    """The text that fills the panel if there is nothing to show."""

    def __iter__(self) -> Iterator[Mark]:
        """Yield everything that is shown."""
        if self.empty:
            yield self.empty
        yield from self.marks.values()
        for row in self.rows:
            yield from row.values()

    @property
    def verdicts(self) -> set[Verdict]:
        """What a reader takes it for. A line that has ended says nothing while others go on."""
        return {mark.verdict for mark in self if mark != GAP} or {Verdict.UNKNOWN}

    def __str__(self) -> str:
        marks = [f"{name}: {mark}" if name else str(mark) for name, mark in self.marks.items()]
        rows = [" | ".join(map(str, row.values())) for row in self.rows]
        return "; ".join([*([str(self.empty)] if self.empty else []), *marks, *rows])


def show(page: Page) -> dict[str, Shown]:
    """Return what each panel of a dashboard shows, by its title."""
    return {panel["title"]: show_panel(page, panel) for panel in page.board["panels"]}


def show_panel(page: Page, panel: Mapping[str, Any]) -> Shown:
    """Return what a panel shows."""
    found = [page.query(panel, target) for target in panel["targets"]]
    return _PANELS[panel["type"]](page, panel, found)


def _stat(page: Page, panel: Mapping[str, Any], found: Sequence[Sequence[Series]]) -> Shown:
    options = panel["options"]
    marks: dict[str, Mark] = {}
    for series in (each for result in found for each in result):
        config = _config(panel, series.name, series.ref_id)
        mark = display(_reduced(series, options["reduceOptions"]["calcs"]), config)
        if config.get("color", {}).get("mode") == "fixed":
            # That of a bar tells it from the others, and judges nothing; that of a card is its status.
            mark = Mark(mark.text, config["color"]["fixedColor"] if panel["type"] == "stat" else TEXT)
        marks[series.name] = Mark(series.name, mark.colour) if options.get("textMode") == "name" else mark
    if not marks and options.get("textMode") == "name":
        return Shown(panel["title"], panel["type"], empty=GAP)  # "No data" has no name
    if not marks:
        return _empty(panel)
    if panel["type"] == "stat" and len(marks) == 1 and options.get("textMode") != "value_and_name":
        marks = {"": next(iter(marks.values()))}  # the name is not shown
    return Shown(panel["title"], panel["type"], marks)


def _reduced(series: Series, calcs: Sequence[str]) -> float | None:
    (calc,) = calcs
    values = [value for _, value in series.points if value is not None]
    assert calc in ("lastNotNull", "max"), calc
    if not values:
        return None
    return max(values) if calc == "max" else values[-1]


def _table(page: Page, panel: Mapping[str, Any], found: Sequence[Sequence[Series]]) -> Shown:
    fields, rows = _merged(
        [
            _frame(result, target["refId"], alone=len(found) == 1)
            for result, target in zip(found, panel["targets"], strict=True)
        ]
    )
    for transformation in panel["transformations"]:
        if transformation["id"] != "merge":
            fields, rows = _TRANSFORMATIONS[transformation["id"]](transformation["options"], fields, rows)
    if not rows:
        return _empty(panel)
    configs = {name: _config(panel, name) for name in fields}
    visible = {name: config for name, config in configs.items() if not config.get("custom", {}).get("hidden")}
    return Shown(
        panel["title"],
        panel["type"],
        rows=[
            {config.get("displayName", name): display(row.get(name), config) for name, config in visible.items()}
            for row in rows
        ],
    )


def _frame(result: Sequence[Series], ref_id: str, *, alone: bool) -> tuple[list[str], list[Row]]:
    """Return the fields and rows of one query with the format `table`."""
    names = list(dict.fromkeys(name for series in result for name in sorted(series.labels)))
    value = "Value" if alone else f"Value #{ref_id}"
    rows: list[Row] = [
        {"Time": time, **{name: series.labels.get(name, "") for name in names}, value: point}
        for series in result
        for time, point in series.points
    ]
    return (["Time", *names, value], rows) if result else ([], [])


def _merged(frames: Sequence[tuple[list[str], list[Row]]]) -> tuple[list[str], list[Row]]:
    """Join rows that agree in every field that they share: the transformation `merge`."""
    frames = [frame for frame in frames if frame[0]]
    fields = list(dict.fromkeys(name for names, _ in frames for name in names))
    merged: list[Row] = []
    for _, rows in frames:
        for row in rows:
            fits = next(
                (other for other in merged if all(row[name] == other[name] for name in row.keys() & other)), None
            )
            if fits is None:
                merged.append(dict(row))
            else:
                fits.update(row)
    return fields, merged


def _calculated(options: Mapping[str, Any], fields: list[str], rows: list[Row]) -> tuple[list[str], list[Row]]:
    if options["mode"] == "binary":
        binary = options["binary"]
        assert binary["operator"] == "+", options
        for row in rows:
            value = row[binary["left"]]
            assert isinstance(value, int | float), row
            row[options["alias"]] = value + float(binary["right"])
        return [*fields, options["alias"]], rows
    assert options["mode"] == "reduceRow", options
    assert options["reduce"]["reducer"] == "min", options
    for row in rows:
        values = [value for name in options["reduce"]["include"] if isinstance(value := row.get(name), int | float)]
        row[options["alias"]] = min(values, default=None)
    return [*fields, options["alias"]], rows


def _sorted(options: Mapping[str, Any], fields: list[str], rows: list[Row]) -> tuple[list[str], list[Row]]:
    (by,) = options["sort"]
    if by["field"] not in fields:
        return fields, rows
    # Grafana compares a number with none as if they were the same, and so returns rows in no order at all.
    unsortable = [row for row in rows if row.get(by["field"]) is None]
    assert not unsortable or len(rows) == 1, f"{by['field']} has no value in {unsortable}"

    def key(row: Row) -> tuple[bool, Any]:
        value = row.get(by["field"])
        # An empty text goes to the end, an empty number counts as 0.
        return (False, value or 0) if not isinstance(value, str) else (not value, value.casefold())

    return fields, sorted(rows, key=key, reverse=by.get("desc", False))


def _organized(options: Mapping[str, Any], fields: list[str], rows: list[Row]) -> tuple[list[str], list[Row]]:
    order = options["indexByName"]
    kept = [name for name in fields if not options["excludeByName"].get(name)]
    return sorted(kept, key=lambda name: order.get(name, math.inf)), rows


_TRANSFORMATIONS = {"calculateField": _calculated, "sortBy": _sorted, "organize": _organized}


def _graph(page: Page, panel: Mapping[str, Any], found: Sequence[Sequence[Series]]) -> Shown:
    marks: dict[str, Mark] = {}
    for result, target in zip(found, panel["targets"], strict=True):
        step = page.step(panel, target)
        for series in result:
            time, value = series.points[-1]
            has_ended = value is None or time + step < math.floor(page.time_of(panel).end / step) * step
            marks[series.name] = GAP if has_ended else _drawn(panel, series, value)
    return Shown(panel["title"], panel["type"], marks) if marks else _empty(panel)


def _drawn(panel: Mapping[str, Any], series: Series, value: float | None) -> Mark:
    mark = display(value, _config(panel, series.name))
    # The colour of a line tells it from the others, and judges nothing.
    return Mark(mark.text) if panel["type"] == "timeseries" else mark


def _hours(page: Page, panel: Mapping[str, Any], found: Sequence[Sequence[Series]]) -> Shown:
    """Return the mean of each hour of the day."""
    assert [each["id"] for each in panel["transformations"]] == ["formatTime", "groupBy", "sortBy"]
    hours: dict[str, list[float]] = {}
    for series in found[0]:
        for time, value in series.points:
            if value is not None:
                hours.setdefault(datetime.fromtimestamp(time, UTC).strftime("%H"), []).append(value)
    config = _config(panel, "Value (mean)")
    marks = {hour: Mark(display(sum(each) / len(each), config).text) for hour, each in sorted(hours.items())}
    return Shown(panel["title"], panel["type"], marks) if marks else _empty(panel)


_PANELS: dict[str, Callable[[Page, Mapping[str, Any], Sequence[Sequence[Series]]], Shown]] = {
    "stat": _stat,
    "bargauge": _stat,
    "table": _table,
    "timeseries": _graph,
    "heatmap": _graph,
    "state-timeline": _graph,
    "barchart": _hours,
}


def _empty(panel: Mapping[str, Any]) -> Shown:
    mark = display(None, panel["fieldConfig"]["defaults"])
    in_cards = panel["type"] in ("stat", "bargauge")
    return Shown(panel["title"], panel["type"], empty=Mark(mark.text or "No data", mark.colour if in_cards else TEXT))


def _config(panel: Mapping[str, Any], name: str, ref_id: str = "") -> dict[str, Any]:
    """Return the config of a field: the defaults, and the overrides that match its name or its query."""
    config: dict[str, Any] = dict(panel["fieldConfig"]["defaults"])
    for override in panel["fieldConfig"]["overrides"]:
        matcher = override["matcher"]
        assert matcher["id"] in ("byName", "byFrameRefID"), matcher
        if matcher["options"] == (name if matcher["id"] == "byName" else ref_id):
            for each in override["properties"]:
                _, custom, key = each["id"].rpartition("custom.")
                if custom:
                    config["custom"] = {**config.get("custom", {}), key: each["value"]}
                else:
                    config[each["id"]] = each["value"]
    return config
