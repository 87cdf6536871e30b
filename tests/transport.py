"""Responses without a network, as streams that are not read yet, like those of a real connection."""

import inspect
from collections.abc import Awaitable, Callable

import httpx

Answer = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


class FakeTransport(httpx.AsyncBaseTransport):
    """A transport whose responses come from a function."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        answer = self._answer(request)
        response = await answer if inspect.isawaitable(answer) else answer
        if not response.is_stream_consumed:
            return response
        stream = httpx.ByteStream(response.content)
        return httpx.Response(response.status_code, headers=response.headers, stream=stream)
