"""The same histories in a real Prometheus: the alerts' own expressions, evaluated on what the exporter exposes."""

import math
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import httpx
import pytest

from exporter.metrics.catalogue import ScrapeContext
from exporter.metrics.exporter_metrics import ExporterMetrics
from exporter.metrics.exposition import Exposition
from tests.alerts.rule_files import alert_rule
from tests.builders import RUNTIME
from tests.stack.programs import program, prometheus
from tests.stalls.histories import KINDS, MINUTE, STEP, History, corpus, outages
from tests.stalls.replay import NOT_PICKED_UP, OURS, STALLED, Alert, Score, pages, play, scrapes

SEED = 2

# The metrics that the alerts use; more would make the backfill slower.
READ = (
    "spinner_api_up",
    "spinner_project_up",
    "spinner_run_last_progress_timestamp_seconds",
    "spinner_run_stall_threshold_seconds",
    "spinner_run_status",
    "spinner_run_straggler_threshold_seconds",
    "spinner_runtime_last_heartbeat_timestamp_seconds",
    "spinner_runtime_up",
)

# One series for all projects.
SHARED = (
    "spinner_api_up",
    "spinner_runtime_heartbeat_timeout_seconds",
    "spinner_runtime_last_heartbeat_timestamp_seconds",
    "spinner_runtime_up",
)

RUN_PAGES = ("SpinnerRunStalled", "SpinnerRunNotPickedUp")


def test_the_alerts_page_at_the_same_times_as_the_replay(tmp_path: Path) -> None:
    spinners = [histories[:2] for histories in corpus(SEED, 1, runs=(2,))]
    backfill(tmp_path, spinners)
    total = Score()
    with prometheus(tmp_path, keep="100y") as url:
        for histories in spinners:
            for history, (expected,) in play(histories, [OURS]):
                found = run_pages(url, history, within=history)
                assert found == pytest.approx(expected, abs=3 * STEP), (
                    f"{history.kind}: the alerts and the replay differ"
                )
                total.add(history, found)
    assert total.stalls > 5
    assert total.recall == 1.0, total.row("alerts in Prometheus")


def test_an_outage_of_the_runtime_pages_once_and_runs_that_were_lost_page_after_it(tmp_path: Path) -> None:
    histories = list(outages(SEED, 12))
    backfill(tmp_path, [histories])
    with prometheus(tmp_path, keep="100y") as url:
        for history in histories:
            outage = history.problem.outage
            assert outage is not None
            down = pages(evaluate(url, "SpinnerRuntimeDown", history).get("", []), timing("SpinnerRuntimeDown"))
            assert len(down) == 1, f"{outage}: paged at {down}"
            assert outage.since < down[0] < outage.until
            for run in (history, *history.beside):
                found = run_pages(url, run, within=history)
                if run.stalls:
                    assert len(found) == 1, f"{outage}: the runtime lost {run.run_id}, which paged at {found}"
                    assert outage.until < found[0] <= run.stalls[0].due + STEP
                else:
                    assert not found, f"{outage}: {run.run_id} continued, but paged at {found}"


def test_the_replay_has_the_waits_of_the_alerts() -> None:
    for name, alert in zip(RUN_PAGES, (STALLED, NOT_PICKED_UP), strict=True):
        assert (alert.hold, alert.keep) == (timing(name).hold, timing(name).keep), name


def test_every_kind_of_history_is_replayed() -> None:
    assert len(list(corpus(SEED, 1, runs=(1,)))) == len(KINDS)


def timing(name: str) -> Alert:
    """Return an alert's `for` and `keep_firing_for`."""
    minutes = [int(alert_rule(name)[each].removesuffix("m")) for each in ("for", "keep_firing_for")]
    return Alert(lambda: lambda shown, scrape: False, hold=minutes[0] * MINUTE, keep=minutes[1] * MINUTE)


def backfill(folder: Path, spinners: Sequence[Iterable[History]]) -> None:
    """Write what the exporter exposes at each scrape into the data folder of a Prometheus."""
    samples: dict[str, list[str]] = {name: [] for name in {*READ, *SHARED}}
    # The spinners of the corpus overlap in time; their common series are written once.
    shared: dict[tuple[str, int], str] = {}
    for number, histories in enumerate(spinners):
        exposition = Exposition(ExporterMetrics(version="0", wall=lambda: 0.0))
        for scrape in scrapes(histories, project=f"Project {number}"):
            page = str(exposition.render({RUNTIME: ScrapeContext(scrape.store, scrape.store.clock, api_up=True)}))
            for line in page.splitlines():
                name = line.partition("{")[0].partition(" ")[0]
                if name in SHARED:
                    shared[name, int(scrape.wall)] = line
                elif name in samples and not line.endswith(" 0"):
                    samples[name].append(f"{line} {scrape.wall:.3f}")
    for (name, at), line in sorted(shared.items(), key=lambda each: each[0][1]):
        samples[name].append(f"{line} {at}")
    text = "".join(f"# TYPE {name} gauge\n" + "\n".join(lines) + "\n" for name, lines in samples.items() if lines)
    (folder / "samples.om").write_text(text + "# EOF\n")
    made = subprocess.run(
        [program("promtool"), "tsdb", "create-blocks-from", "openmetrics", "samples.om", "prometheus"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr


def run_pages(url: str, history: History, *, within: History) -> list[float]:
    """Return when the alerts page for a run, by the runtime's clock, evaluated by Prometheus at each scrape."""
    found: list[float] = []
    for name in RUN_PAGES:
        found += pages(evaluate(url, name, within).get(history.run_id, []), timing(name))
    return sorted(found)


def evaluate(url: str, name: str, history: History) -> dict[str, list[tuple[float, bool]]]:
    """Return by run whether an alert's expression holds at each scrape of a history."""
    ahead = history.problem.ahead
    # Whole seconds, which Prometheus returns unchanged.
    start = math.ceil(history.snapshots[0][0] - ahead)
    times = [start + number * STEP for number in range(int((history.until + STEP - ahead - start) / STEP) + 1)]
    holds: dict[str, set[float]] = {}
    # Prometheus returns at most 11,000 points per series.
    for first in range(0, len(times), 10_000):
        chunk = times[first : first + 10_000]
        answer = httpx.post(
            f"{url}/api/v1/query_range",
            data={"query": alert_rule(name)["expr"], "start": f"{chunk[0]}", "end": f"{chunk[-1]}", "step": f"{STEP}"},
            timeout=60,
        ).json()
        assert answer["status"] == "success", answer
        for series in answer["data"]["result"]:
            holds.setdefault(series["metric"].get("run_id", ""), set()).update(float(at) for at, _ in series["values"])
    return {run_id: [(time + ahead, time in held) for time in times] for run_id, held in holds.items()}
