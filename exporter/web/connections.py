"""Which clients may be connected: limits on connections and on unread responses, shared fairly between addresses.

A stranger can open connections faster than the exporter can answer them. What he holds is limited, and what is above
the limit is taken from the address that holds the most, so that a scraper with another address gets in.
"""

import asyncio
import dataclasses
import ipaddress
import itertools
import resource
import socket
import ssl
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

from exporter.web.refusals import Refusals

MAX_CONNECTIONS = 256
"""Connections of clients. Over TLS each takes 0.3 MB, most of it asyncio's buffer for reading."""

MAX_UNREAD = 64_000_000
"""Bytes of responses that clients have not taken yet. A single larger response is sent nevertheless."""

REQUEST_TIMEOUT = 10.0
"""Seconds that a client has to send a request, and before its first one to complete the TLS handshake."""

BACKLOG = 128
"""Connections that wait to be accepted."""

AT_ONCE = 16
"""Connections that are accepted before something else is done."""

RETRY = 1.0
"""Seconds until the next attempt to accept a connection if that failed."""


def connection_limit() -> int:
    """Return how many connections clients may have: at most half of the process's files, the rest is for the API."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, files // 2)


def client_of(address: Any) -> str:
    """Return what an address counts as: of IPv6 the network of 64 bits, because a client can use all of it."""
    host = ipaddress.ip_address(str(address[0]).partition("%")[0])
    if isinstance(host, ipaddress.IPv4Address):
        return str(host)
    if host.ipv4_mapped is not None:
        return str(host.ipv4_mapped)
    return str(ipaddress.ip_network((host, 64), strict=False))


@dataclasses.dataclass(eq=False)
class Connection:
    """A client's connection, from its acceptance to its end."""

    client: str
    end: Callable[[], object]
    """Disconnects the client at once."""
    is_waiting: bool = True
    """Whether the client has to send something: a handshake or a request."""
    deadline: asyncio.TimerHandle | None = None
    """Disconnects the client if the request does not arrive."""

    def cancel_deadline(self) -> None:
        """Forget the deadline: the request has arrived, or the connection is closed."""
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None


CONNECTION = "connection"
"""Key of a request's `Connection` in the state of its scope."""


class Connections:
    """The open connections of one listener."""

    def __init__(
        self, limit: int, *, max_unread: int = MAX_UNREAD, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`limit` is in connections, `max_unread` in bytes."""
        self._limit = limit
        self._max_unread = max_unread
        # In the order in which they began to wait.
        self._open: dict[Connection, None] = {}
        self._counts: Counter[str] = Counter()
        # In the order in which they began to be unread.
        self._unread: dict[Connection, int] = {}
        self._refusals = Refusals("clients are disconnected", "clients are no longer disconnected", clock)

    def admit(self, client: str, end: Callable[[], object]) -> Connection | None:
        """Count a new connection, if necessary in exchange for another one; None: there is no room for it."""
        self._refusals.note_calm()
        if len(self._open) >= self._limit and not self._make_room(client, "more connections than the limit"):
            return None
        connection = Connection(client, end)
        self._open[connection] = None
        self._counts[client] += 1
        return connection

    def closed(self, connection: Connection) -> None:
        """Note that a connection is closed."""
        connection.cancel_deadline()
        self._unread.pop(connection, None)
        if connection in self._open:
            del self._open[connection]
            self._counts[connection.client] -= 1
            if not self._counts[connection.client]:
                del self._counts[connection.client]

    def waits(self, connection: Connection) -> None:
        """Note that a client has got its response, and may send another request."""
        connection.is_waiting = True
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None

    def unread(self, connection: Connection, size: int) -> bool:
        """Note that a response of `size` bytes is sent; return whether others had to make room for it."""
        self._unread[connection] = size
        is_over = False
        while len(self._unread) > 1 and sum(self._unread.values()) > self._max_unread:
            is_over = True
            sizes: Counter[str] = Counter()
            for each, its_size in self._unread.items():
                sizes[each.client] += its_size
            ((client, _),) = sizes.most_common(1)
            self._refusals.note("more unread responses than the limit", client)
            self._end(next(each for each in self._unread if each.client == client))
        return is_over

    def read(self, connection: Connection) -> None:
        """Note that a client has taken its response."""
        self._unread.pop(connection, None)

    def exhausted(self, error: OSError) -> None:
        """Note that a connection could not be accepted, and make room, which helps if the process has no files left."""
        self._make_room("", f"a connection cannot be accepted: {error.strerror}")

    def _make_room(self, newcomer: str, reason: str) -> bool:
        """End a connection for a new one of a client; return whether one was ended.

        It is one that waits, of the client that has the most. A request in progress ends only for a client with fewer.
        """
        most = max((count + (client == newcomer) for client, count in self._counts.items()), default=0)
        greediest = [client for client, count in self._counts.items() if count + (client == newcomer) == most]
        self._refusals.note(reason, greediest[0] if greediest else newcomer)
        theirs = [each for each in self._open if each.client in greediest]
        victim = next((each for each in theirs if each.is_waiting), None)
        if victim is None and theirs and self._counts[newcomer] + 1 < most:
            victim = theirs[-1]
        if victim is not None:
            self._end(victim)
        return victim is not None

    def _end(self, connection: Connection) -> None:
        # No longer counted, although it is closed only in the event loop's next iteration.
        self.closed(connection)
        connection.end()


class Acceptor:
    """Accepts the connections of one listener.

    asyncio's own server would accept as many as there are files, and log each that is too many; on Python 3.11 it
    then logs thousands per second. It would also allow a minute for the TLS handshake.
    """

    def __init__(
        self,
        listener: socket.socket,
        connections: Connections,
        protocol: Callable[[Connection], asyncio.Protocol],
        tls: ssl.SSLContext | None,
    ) -> None:
        """`protocol` makes the protocol of a connection; it then sets how the connection is ended."""
        self._listener = listener
        self._connections = connections
        self._protocol = protocol
        self._tls = tls
        self._starting: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Accept connections until cancelled."""
        loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        self._listener.listen(BACKLOG)
        for count in itertools.count():
            if not count % AT_ONCE:
                # While connections wait, `sock_accept` would not let anybody else have a turn.
                await asyncio.sleep(0)
            try:
                accepted, address = await loop.sock_accept(self._listener)
            except ConnectionError:
                continue  # the client has left already
            except OSError as error:
                self._connections.exhausted(error)
                await asyncio.sleep(RETRY)
                continue
            task = loop.create_task(self._start(accepted, client_of(address)), name="connection")
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _start(self, accepted: socket.socket, client: str) -> None:
        """Do the TLS handshake, and pass the connection to its protocol."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        connection = self._connections.admit(client, lambda: task and task.cancel())
        if connection is None:
            accepted.close()
            return
        connection.deadline = loop.call_later(REQUEST_TIMEOUT, lambda: connection.end())
        try:
            await loop.connect_accepted_socket(lambda: self._protocol(connection), accepted, ssl=self._tls)
        except (OSError, asyncio.CancelledError) as error:
            self._connections.closed(connection)
            # asyncio's frames refer to the error, and it to them. Until the garbage collector finds that, the buffers
            # of a failed handshake would stay.
            traceback.clear_frames(error.__traceback__)
