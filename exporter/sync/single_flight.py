"""Lets callers that overlap share one run of an async operation, as Go's singleflight does."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger(__name__)


LATE = 1.0
"""Seconds by which a busy event loop may be late."""


class SingleFlight:
    """Lets concurrent scrapes share one sync. Starts none while the last one is recent enough."""

    def __init__(
        self,
        sync: Callable[[], Awaitable[bool]],
        *,
        min_interval: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._sync = sync
        self._monotonic = monotonic
        self._task: asyncio.Task[None] | None = None
        self._ended_at: float | None = None
        self._is_stopped = False
        self._failure: str | None = None
        self.min_interval = min_interval
        self.ok = False
        """Whether the last sync could read the API."""
        self.ever_ok = False
        """Whether any sync could read the API."""

    async def fresh(self, max_wait: float) -> bool:
        """Start a sync or join the one in progress, and wait for it at most `max_wait` seconds.

        Returns whether the store shows a good read that ended in time. A sync that takes longer continues.
        """
        if self._task is None:
            if self._is_stopped:
                return self.ok
            if self._ended_at is not None and self._monotonic() - self._ended_at < self.min_interval:
                return self.ok
            self._task = asyncio.create_task(self._run(), name="sync")
        asked_at = self._monotonic()
        done, _ = await asyncio.wait({self._task}, timeout=max(max_wait, 0.0))
        # A process that was stopped meanwhile finds its sync done, but what it read is not of now.
        is_in_time = self._monotonic() - asked_at <= max(max_wait, 0.0) + LATE
        return bool(done) and is_in_time and self.ok

    async def stop(self) -> None:
        """Cancel a sync in progress and start no more. Nothing of an unfinished read is kept."""
        task = self._task
        self.cancel()
        if task is not None:
            await asyncio.wait({task})

    def cancel(self) -> None:
        """Like `stop`, without waiting until the sync has ended."""
        self._is_stopped = True
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            self.ok = await self._sync()
        except Exception as error:
            # A bug must not stop the scrapes: it shows as an API that is down, and once in the log.
            self.ok = False
            if repr(error) != self._failure:
                log.exception("sync failed")
            self._failure = repr(error)
        else:
            self._failure = None
            self.ever_ok = self.ever_ok or self.ok
        finally:
            self._ended_at = self._monotonic()
            self._task = None
