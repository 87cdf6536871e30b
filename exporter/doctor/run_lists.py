"""Checks the lists of runs that are restricted to those that have not ended, and to what changed since a time.

What comes back besides costs requests. It changes no count, since the exporter knows it or does not need it.
"""

import dataclasses
from collections.abc import AsyncIterator, Sequence

from exporter.config import Config
from exporter.config.api_description import ListFilter
from exporter.doctor.diagnosis import Check
from exporter.doctor.filters import listed, long_before
from exporter.doctor.requests import Answer, Requests, mismatch
from exporter.runs.run import ended_before
from exporter.runtime.client import RawResponse
from exporter.runtime.decoder import MALFORMED, Decoder, RunDefaults
from exporter.runtime.model import RunSnapshot


class RunLists:
    """The lists of the runs of one project, or those of all projects."""

    def __init__(
        self, config: Config, requests: Requests, decoder: Decoder, known: RunDefaults, *, across: bool = False
    ) -> None:
        """`known` is what runs need not tell; `across`: the lists are those of all projects."""
        self._jobs = config.runtime.resources.jobs
        self._overlap = config.sync.overlap
        self._requests = requests
        self._decoder = decoder
        self._known = known
        self._across = across

    async def checks(self, whole: RawResponse | None = None) -> AsyncIterator[Check]:
        """Yield a check of each list, compared with the first page of the `whole` list, which is requested if need be.

        Yields nothing if that page has no runs.
        """
        if whole is None:
            answer = await self._send("runs")
            if isinstance(answer, Check):
                yield answer
                return
            whole = answer.sample
        try:
            runs = self._runs(whole)
            if runs and self._jobs.narrowings:
                yield await self._check_active(runs)
            if runs and self._jobs.changed is not None:
                yield await self._check_changed(runs, self._jobs.changed, whole)
        except MALFORMED as error:
            yield Check(self._named("lists of runs"), False, mismatch(error))

    async def _check_active(self, whole: Sequence[RunSnapshot]) -> Check:
        what, found = self._named("runs that have not ended"), list[RunSnapshot]()
        for narrowing in self._jobs.narrowings:
            answer = await self._send("runs that have not ended", narrowing)
            if isinstance(answer, Check):
                return answer
            found += self._runs(answer.sample)
        ended = sum(run.status.ended for run in found)
        if ended:
            finding = (
                f"the filter seems to be ignored: {ended} of {len(found)} runs have ended, which change no count, and "
                "cost requests with each sweep (sync.sweep_interval); describe the API's filter, or set jobs.active: ~"
            )
            return Check(what, True, finding, warns=True)
        is_mixed = any(run.status.ended for run in whole)
        return Check(what, True, listed("" if is_mixed else "no run that has ended was seen"))

    async def _check_changed(self, whole: Sequence[RunSnapshot], changed: ListFilter, sample: RawResponse) -> Check:
        what = self._named("runs that changed")
        since = sample.time - self._overlap
        answer = await self._send("runs that changed", changed, since=since)
        if isinstance(answer, Check):
            return answer
        found, time = self._runs(answer.sample), long_before(since, self._jobs)
        old = sum(self._is_unchanged_since(time, run) for run in found)
        if old:
            finding = (
                f"the filter seems to be ignored: {old} of {len(found)} runs ended and changed long before the time "
                "that was asked for, which change no count, and cost requests with each scrape; describe the API's "
                "filter, or set jobs.changed: ~"
            )
            return Check(what, True, finding, warns=True)
        is_mixed = any(self._is_unchanged_since(time, run) for run in whole)
        return Check(what, True, listed("" if is_mixed else "no run that changed long before was seen"))

    async def _send(
        self, what: str, restriction: ListFilter | None = None, since: float | None = None
    ) -> Answer | Check:
        return await self._requests.send(
            self._named(what),
            "jobs",
            project_id=self._known.project_id or "",
            restrictions=[restriction],
            since=since,
            across=self._across,
        )

    def _named(self, what: str) -> str:
        return f"{what}, of all projects" if self._across else what

    def _runs(self, sample: RawResponse) -> Sequence[RunSnapshot]:
        """Return the runs of a response. Raises one of `MALFORMED`."""
        return self._decoder.jobs(sample.body, dataclasses.replace(self._known, now=sample.time)).items

    def _is_unchanged_since(self, time: float, run: RunSnapshot) -> bool:
        """Whether a run ended before a time, and has not changed since; not all APIs say when an open one changed."""
        return ended_before(run, time) and (run.updated_at < time or not self._jobs.can_have("updatedAt"))
