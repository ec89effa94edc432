"""Standing streams of MCP over HTTP/2: what each takes in memory beside its connection, and how much later an event is."""

import asyncio
import re
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import proxies
from gateway import SUPPORT
from held import AT_ONCE, PREFACE, SETTINGS_ACK, SETTLE_SECONDS
from parts import Json
from proxies import Proxy
from upstream import streams as server
from world import World

PER_CONNECTION = 100  # HTTP/2 streams that the gateway allows on one connection
RATE = 500  # events a second, over all streams
DIRECT = 100  # streams without the gateway
AT = re.compile(rb'"at":(\d+)')
DATA, HEADERS, SETTINGS, PING, GOAWAY, RESET = 0, 1, 4, 6, 7, 3


def literal(text: bytes) -> bytes:
    """A string of HPACK, plain [RFC 7541 §5.2]."""
    return bytes([len(text)]) + text


# GET, https, and four fields with names of the static table or their own [RFC 7541 §6.2.2].
FIELDS = (
    bytes([0x82, 0x87, 0x04]) + literal(b"/standing/mcp") + bytes([0x01]) + literal(b"127.0.0.1")
    + bytes([0x0F, 0x04]) + literal(b"text/event-stream")
    + bytes([0x00]) + literal(b"mcp-protocol-version") + literal(b"2025-11-25")
)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2 [RFC 9113 §4.1]."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


@dataclass
class Connection:
    """One connection with many streams."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    begun: set[int] = field(default_factory=set)
    ended: list[str] = field(default_factory=list)
    late_us: list[float] = field(default_factory=list)

    def open(self, stream: int) -> None:
        """Asks for one more stream."""
        self.writer.write(frame(HEADERS, 0x5, stream, FIELDS))

    async def read(self) -> None:
        """Takes frames until the connection ends."""
        while True:
            head = await self.reader.readexactly(9)
            payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind == DATA:
                now = time.monotonic_ns()
                self.begun.add(stream)
                self.late_us += [(now - int(at)) / 1000 for at in AT.findall(payload)]
            if kind == SETTINGS and not flags & 1:
                self.writer.write(SETTINGS_ACK)
            if kind == PING and not flags & 1:
                self.writer.write(frame(PING, 1, 0, payload))
            if kind in (GOAWAY, RESET) or (kind in (DATA, HEADERS) and flags & 1):
                self.ended.append(f"frame {kind} of stream {stream}: {payload[:80]!r}")


@asynccontextmanager
async def connected(proxy: Proxy, count: int) -> AsyncIterator[list[Connection]]:
    """Connections without a stream yet."""
    tls, gate = proxy.tls(SUPPORT, "h2"), asyncio.Semaphore(AT_ONCE)

    async def one() -> Connection:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=tls)
        writer.write(PREFACE)
        return Connection(reader, writer)

    connections = list(await asyncio.gather(*(one() for _ in range(count))))
    reading = [asyncio.create_task(each.read()) for each in connections]
    try:
        yield connections
    finally:
        for task, each in zip(reading, connections, strict=True):
            task.cancel()
            each.writer.transport.abort()


async def filled(connections: list[Connection], streams: int) -> None:
    """Opens the streams, a connection's all at once, until the first event of each has come."""
    for at, each in enumerate(connections):
        mine = min(PER_CONNECTION, streams - at * PER_CONNECTION)
        for number in range(mine):
            each.open(2 * number + 1)
        deadline = time.monotonic() + 60
        while len(each.begun) < mine:
            assert not each.ended, each.ended[:3]
            assert time.monotonic() < deadline, f"only {len(each.begun)} of {mine} streams began"
            await asyncio.sleep(0.005)


@asynccontextmanager
async def direct(port: int) -> AsyncIterator[list[float]]:
    """How late events are without the gateway, as they come."""
    late: list[float] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        while True:
            line = await reader.readline()
            late.extend((time.monotonic_ns() - int(at)) / 1000 for at in AT.findall(line))

    tasks = [asyncio.create_task(one()) for _ in range(DIRECT)]
    try:
        yield late
    finally:
        for task in tasks:
            task.cancel()


def spread(late: list[float]) -> Json:
    """The delays of events."""
    cut = statistics.quantiles(late, n=100)
    return {"events": len(late), "p50_us": cut[49], "p99_us": cut[98]}


async def measured(world: World, proxy: Proxy, ports: tuple[int, int], streams: int) -> Json:
    """Opens everything, and listens for a while: to the streams, and to some that come directly at the same time, so
    that a machine that stands still for a moment is seen on both ways."""
    async with connected(proxy, -(-streams // PER_CONNECTION)) as connections, direct(ports[1]) as without:
        await asyncio.sleep(SETTLE_SECONDS)
        before = proxy.memory()
        await filled(connections, streams)
        await asyncio.sleep(SETTLE_SECONDS)
        after = proxy.memory()
        windows: list[Json] = []
        for _ in range(int(world.short(2, 7))):
            without.clear()
            for each in connections:
                each.late_us.clear()
            await asyncio.sleep(world.short(2, 5))
            ended = [why for each in connections for why in each.ended]
            assert not ended, f"{len(ended)} streams ended: {ended[:3]}"
            late = [us for each in connections for us in each.late_us]
            windows.append({"direct": spread(without), "through": spread(late)})
    return {
        "streams": streams,
        "connections": len(connections),
        "each_kib": (after.anonymous - before.anonymous) / streams,
        "windows": windows,
    }


def row(world: World) -> Json:
    """Ten thousand streams; the upstream writes events on one after the other."""
    streams = int(world.short(1_000, 10_000))
    with server(world.directory, RATE) as port, server(world.directory, RATE) as beside:
        with proxies.holdpoint(world.directory, world.pki, replace(world.ports, standing=port), "standing") as proxy:
            return asyncio.run(measured(world, proxy, (port, beside), streams))
