"""Long steps, one in a round of the event loop: whoever wants something short waits for one of them, not for all."""

import asyncio


class TimeSlices:
    """Gives out rounds of the event loop in the order in which they are asked for."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def next(self) -> None:
        """Return in a round that no other long step has: what follows, up to the next await, has it to itself."""
        async with self._lock:
            await asyncio.sleep(0)
