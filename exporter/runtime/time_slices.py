"""Runs long steps one per iteration of the event loop, so that short ones wait for one of them at most."""

import asyncio


class TimeSlices:
    """Grants iterations of the event loop in the order of the requests for them."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def next(self) -> None:
        """Wait for an iteration without another long step, and use it until the next await."""
        async with self._lock:
            await asyncio.sleep(0)
