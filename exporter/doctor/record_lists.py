"""Checks the lists that are restricted to records of one status: some APIs ignore a filter that they do not know."""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence

from exporter.config import Config
from exporter.config.api_description import ListFilter, present
from exporter.doctor.diagnosis import Check
from exporter.doctor.fields import record_status_map
from exporter.doctor.requests import Requests
from exporter.runs.run import Run
from exporter.runtime.model import RecordCounts
from exporter.runtime.statuses import StatusMap
from exporter.service.monitored_runtime import MonitoredRuntime
from exporter.status import Status
from exporter.sync.waiting_records import most_runs


async def record_lists(config: Config, monitored: MonitoredRuntime, requests: Requests) -> AsyncIterator[Check]:
    """Check each list of a runtime that has been read, with a run that has such records."""
    records = present(config.runtime.resources).get("records")
    if records is None:
        return
    client, store = monitored.client, monitored.store
    runs = [run for project_id in store.project_ids() for run in store.runs_of(project_id).values()]
    statuses = record_status_map(config)
    if client.can_list_records_of_a_run:
        if records.failed is not None:
            yield await _check(requests, statuses, "failed records", records.failed, Status.FAILED, runs)
        if records.running is not None:
            yield await _check(requests, statuses, "records in flight", records.running, Status.RUNNING, runs)
    if why := _why_not_waiting(config, monitored):
        yield Check("waiting records", True, f"how many wait is shown, and not which: {why}")
    elif records.waiting is not None:
        yield await _check(requests, statuses, "waiting records", records.waiting, Status.WAITING, runs)


def _why_not_waiting(config: Config, monitored: MonitoredRuntime) -> str:
    """Return why it is not read which records wait; empty if it may be."""
    if not monitored.client.can_list_waiting_records:
        return "no list of them is described (records.waiting)"
    if not most_runs(config):
        return "the limits allow none"
    return "the runtime does not list them" if monitored.lists_waiting_records is False else ""


async def _check(
    requests: Requests, statuses: StatusMap, what: str, restriction: ListFilter, status: Status, runs: Iterable[Run]
) -> Check:
    """Check whether a list has the records of one status, and no others."""
    having = [run for run in runs if _has_some(run, status)]
    if not having:
        return Check(what, None, f"no run has any now: {NOT_CHECKED}")
    # One that has others too shows whether the API selects.
    chosen = max(having, key=lambda each: _others(each.records, status))
    answer = await requests.send(
        what,
        "records",
        chosen.snapshot,
        project_id=chosen.snapshot.project_id,
        restriction=restriction,
        may_lack=status is not Status.FAILED,
    )
    if isinstance(answer, Check):
        return answer
    if status is not Status.FAILED and restriction == ListFilter():
        # All are requested on purpose, and the others are left out.
        return Check(what, True, "selected from all records of the run")
    found = [statuses.status_for(str(item["status"])) for item in answer.report.items if "status" in item]
    return _told(what, status, found, len(answer.report.items), is_mixed=_others(chosen.records, status) > 0)


def _told(what: str, status: Status, found: Sequence[Status], items: int, *, is_mixed: bool) -> Check:
    """Return what the statuses that items have show about a list of records of one status."""
    # Some APIs count what was cancelled among what failed.
    wanted = (status, Status.UNKNOWN, *((Status.CANCELLED,) if status is Status.FAILED else ()))
    others = [each.value for each, _ in Counter(found).most_common() if each not in wanted]
    if not items:
        return Check(what, None, f"the list is empty, although a run has some: {NOT_CHECKED}")
    if others:
        effect = "would be named as failed" if status is Status.FAILED else "are not shown, and cost requests"
        finding = (
            f"the filter seems to be ignored: records of other statuses came back ({', '.join(others)}), which "
            f"{effect}; describe the API's filter, or set records.{status.value}: ~"
        )
        return Check(what, status is not Status.FAILED, finding, warns=status is not Status.FAILED)
    if status not in found:
        return Check(what, None, f"none of {items} says that its status is {status.value}: {NOT_CHECKED}")
    unseen = "" if is_mixed else f"; no run with others was seen, so {NOT_CHECKED}"
    return Check(what, True, f"listed by the runtime{unseen}")


NOT_CHECKED = "whether the API selects them is not checked"


def _has_some(run: Run, status: Status) -> bool:
    """Whether some of a run's records have a status: as their number says, or the run's where no number is told."""
    number: int | None = getattr(run.records, status.value)
    return run.status is status if number is None else number > 0


def _others(counts: RecordCounts, status: Status) -> int:
    """Return how many records have another status, as far as is known."""
    numbers = {name: getattr(counts, name) or 0 for name in ("pending", "running", "waiting", "completed", "failed")}
    own = numbers.pop(status.value)
    return max((counts.total or 0) - own, sum(numbers.values()))
