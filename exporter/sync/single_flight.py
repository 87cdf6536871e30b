"""Lets callers that overlap share one run of an async operation, as Go's singleflight does."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger(__name__)


class SingleFlight:
    """Lets any number of scrapes share one sync at a time, and none at all when the last is recent enough."""

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
        self.min_interval = min_interval
        self.ok = False
        """Whether the last sync that ended could read the API."""
        self.ever_ok = False
        """Whether any sync could."""

    async def fresh(self, patience: float) -> bool:
        """Have the store read, by a sync of our own or one under way, and wait for it at most `patience` seconds.

        Returns whether what the store shows is a good read. The sync goes on when the time is up.
        """
        if self._task is None:
            if self._is_stopped:
                return self.ok
            if self._ended_at is not None and self._monotonic() - self._ended_at < self.min_interval:
                return self.ok
            self._task = asyncio.create_task(self._run(), name="sync")
        done, _ = await asyncio.wait({self._task}, timeout=max(patience, 0.0))
        return bool(done) and self.ok

    async def stop(self) -> None:
        """Cancel a sync in progress, with nothing of its unfinished reads kept, and start no more."""
        task = self._task
        self.cancel()
        if task is not None:
            await asyncio.wait({task})

    def cancel(self) -> None:
        """Do the same without waiting until the sync has ended."""
        self._is_stopped = True
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            self.ok = await self._sync()
        except Exception:
            # A fault of ours must not end the scrapes: it shows as an API that is down, and in the log.
            self.ok = False
            log.exception("sync failed")
        else:
            self.ever_ok = self.ever_ok or self.ok
        finally:
            self._ended_at = self._monotonic()
            self._task = None
