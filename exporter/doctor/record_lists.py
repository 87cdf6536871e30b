"""Checks the lists that are restricted to records of one status: some APIs ignore a filter that they do not know."""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence

from exporter.config import Config
from exporter.config.api_description import ListFilter, Resource, present
from exporter.doctor.diagnosis import Check
from exporter.doctor.fields import record_status_map
from exporter.doctor.filters import NOT_CHECKED, listed, long_before
from exporter.doctor.requests import Answer, Requests, mismatch
from exporter.runs.run import Run
from exporter.runtime.decoder import MALFORMED
from exporter.runtime.model import RecordCounts, RecordOfRun
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
    if (of_all := records.of_all_runs) is not None and monitored.has_records_of_all_runs is not False:
        yield await _check_of_all_runs(config, monitored, requests, statuses, of_all)


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
        restrictions=[restriction],
        may_lack=status is not Status.FAILED,
    )
    if isinstance(answer, Check):
        return answer
    if status is not Status.FAILED and restriction == ListFilter():
        # All are requested on purpose, and the others are left out.
        return Check(what, True, "selected from all records of the run")
    found = _statuses(statuses, answer)
    return _told(what, status, found, len(answer.report.items), is_mixed=_others(chosen.records, status) > 0)


def _told(what: str, status: Status, found: Sequence[Status], items: int, *, is_mixed: bool) -> Check:
    """Return what the statuses that items have show about a list of records of one status."""
    if not items:
        return Check(what, None, f"the list is empty, although a run has some: {NOT_CHECKED}")
    if others := _others_among(found, status):
        return _ignored(what, status, others)
    if status not in found:
        return Check(what, None, f"none of {items} says that its status is {status.value}: {NOT_CHECKED}")
    return Check(what, True, listed("" if is_mixed else "no run with others was seen"))


def _others_among(found: Iterable[Status], status: Status) -> list[str]:
    # Some APIs count what was cancelled among what failed.
    wanted = (status, Status.UNKNOWN, *((Status.CANCELLED,) if status is Status.FAILED else ()))
    return [each.value for each, _ in Counter(found).most_common() if each not in wanted]


def _ignored(what: str, status: Status, others: Sequence[str]) -> Check:
    is_wrong = status is Status.FAILED
    finding = (
        f"the filter seems to be ignored: records of other statuses came back ({', '.join(others)}), which "
        f"{'would be named as failed' if is_wrong else 'are not shown, and cost requests'}; describe the API's filter, "
        f"or set records.{status.value}: ~"
    )
    return Check(what, not is_wrong, finding, warns=not is_wrong)


async def _check_of_all_runs(
    config: Config, monitored: MonitoredRuntime, requests: Requests, statuses: StatusMap, of_all: Resource
) -> Check:
    """Check whether the list of all runs has failed records only, and only those of the time that is asked for."""
    what, now = "failed records of all runs", monitored.store.clock.now()
    recent, found = now - config.sync.overlap, list[Sequence[RecordOfRun]]()
    for since in (now - A_WEEK, recent):
        restrictions = [of_all.failed, of_all.changed]
        answer = await requests.send(
            what, "records", restrictions=restrictions, since=since, across=True, may_lack=True
        )
        if isinstance(answer, Check):
            return _instead(answer, monitored)
        others = _others_among(_statuses(statuses, answer), Status.FAILED)
        if others and of_all.failed is not None:
            return _ignored(what, Status.FAILED, others)
        try:
            page = monitored.decoder.failed_records_of_all_runs(answer.sample.body, has_others=of_all.failed is None)
        except MALFORMED as error:
            unfit = Check(what, False, mismatch(error))
            return _instead(unfit, monitored)
        found.append(page.items)
    time = long_before(recent, of_all)
    known, old = (sum(_failed_before(time, each) for each in of_time) for of_time in found)
    if not old:
        return Check(what, True, listed("" if known else "none that failed long before was seen"))
    finding = (
        f"the filter by time seems to be ignored: {old} of {len(found[1])} records failed long before the time that "
        "was asked for, which change no count, and cost requests; describe the API's filter, or set records.across: ~"
    )
    return Check(what, True, finding, warns=True)


def _instead(check: Check, monitored: MonitoredRuntime) -> Check:
    """Return a check of a list that cannot be used, which is a warning if the exporter reads others instead."""
    if check.ok is None or not monitored.client.can_list_records_of_a_run:
        return check
    return Check(check.what, True, f"{check.finding}; those of each run are read instead", warns=True)


A_WEEK = 7 * 86400.0
"""Seconds for which the list of all runs is asked for records that failed long ago."""


def _statuses(statuses: StatusMap, answer: Answer) -> list[Status]:
    return [statuses.status_for(str(item["status"])) for item in answer.report.items if "status" in item]


def _failed_before(time: float, each: RecordOfRun) -> bool:
    return each.record.ended_at is not None and each.record.ended_at < time


def _has_some(run: Run, status: Status) -> bool:
    """Whether some of a run's records have a status: as their number says, or the run's where no number is told."""
    number: int | None = getattr(run.records, status.value)
    return run.status is status if number is None else number > 0


def _others(counts: RecordCounts, status: Status) -> int:
    """Return how many records have another status, as far as is known."""
    numbers = {name: getattr(counts, name) or 0 for name in ("pending", "running", "waiting", "completed", "failed")}
    own = numbers.pop(status.value)
    return max((counts.total or 0) - own, sum(numbers.values()))
