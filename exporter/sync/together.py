"""Runs coroutines concurrently."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


async def together(*coroutines: Coroutine[None, None, T]) -> list[T]:
    """Run coroutines concurrently and return their results in order; if one raises, the others are cancelled."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
    return [task.result() for task in tasks]
