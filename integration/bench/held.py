"""Memory: a proxy that has just started, and what an idle connection or an open stream adds to it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

import proxies
from gateway import SUPPORT
from parts import Json
from proxies import Proxy
from world import World

AT_ONCE = 32
SETTLE_SECONDS = 1.0
OPEN_SECONDS_MAX = 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and empty SETTINGS
SETTINGS_ACK = bytes([0, 0, 0, 4, 1, 0, 0, 0, 0])

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Opening = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One call, after which the connection idles."""
    writer.write(b"GET /api/v1/small HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    await reader.readexactly(200)


async def http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The preface and both sides' settings, after which the connection idles."""
    writer.write(PREFACE)
    frame = await reader.readexactly(9)
    assert frame[3] == 4, f"the first frame has type {frame[3]}"
    await reader.readexactly(int.from_bytes(frame[:3], "big"))
    writer.write(SETTINGS_ACK)
    await writer.drain()


async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An event stream, of which the first event has come."""
    writer.write(b"GET /events/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    await reader.readuntil(b"data: {}\n\n")


KINDS: dict[str, tuple[Opening, str]] = {
    "HTTP/1.1 connection": (http1, "http/1.1"),
    "HTTP/2 connection": (http2, "h2"),
    "event stream": (stream, "http/1.1"),
}


async def opened(proxy: Proxy, count: int, opening: Opening, alpn: str) -> list[Pair]:
    """This many connections, each of them opened in its way."""
    tls, gate = proxy.tls(SUPPORT, alpn), asyncio.Semaphore(AT_ONCE)

    async def one() -> Pair:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=tls, limit=2**12)
            chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
            assert chosen in (alpn, None), f"{proxy.name} chose {chosen} instead of {alpn}"
            await asyncio.wait_for(opening(reader, writer), OPEN_SECONDS_MAX)
            return reader, writer

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def measured(proxy: Proxy, count: int, opening: Opening, alpn: str) -> Json:
    """Memory before the connections and with them; all of them must still be open then."""
    pairs = await opened(proxy, AT_ONCE, opening, alpn)  # what the first ones allocate once is not theirs
    await asyncio.sleep(SETTLE_SECONDS)
    before = proxy.memory()
    pairs += await opened(proxy, count, opening, alpn)
    await asyncio.sleep(SETTLE_SECONDS)
    after = proxy.memory()
    gone = sum(reader.at_eof() for reader, _ in pairs)
    assert gone == 0, f"{proxy.name}: {gone} of {len(pairs)} connections were closed"
    for _, writer in pairs:
        writer.transport.abort()
    kib = {name: (after.json()[name] - before.json()[name]) / count for name in before.json()}
    return {"count": count, "before": before.json(), "with": after.json(), "each": kib}


def row(world: World) -> Json:
    """Each proxy starts anew for each kind of connection."""
    count = int(world.short(600, 5000))
    told: Json = {}
    for name, start in (("nginx", proxies.nginx), ("envoy", proxies.envoy), ("holdpoint", proxies.holdpoint)):
        told[name] = {}
        for kind, (opening, alpn) in KINDS.items():
            running: AbstractContextManager[Proxy] = start(world.directory, world.pki, world.ports)
            with running as proxy:
                time.sleep(SETTLE_SECONDS)
                told[name]["idle"] = proxy.memory().json()
                streams = min(count, 2000) if kind == "event stream" else count
                told[name][kind] = asyncio.run(measured(proxy, streams, opening, alpn))
    return told
