"""An upstream whose every answer is an event stream: one event, and then, when a second argument says how many a second,
events that carry the time at which they were written, on one stream after the other."""

import asyncio
import itertools
import sys
import time

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
EVENT = b"data: {}\n\n"
OPEN: dict[asyncio.StreamWriter, None] = {}


def chunk(event: bytes) -> bytes:
    """An event as a chunk."""
    return f"{len(event):x}\r\n".encode() + event + b"\r\n"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One stream for one connection."""
    try:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + chunk(EVENT))
        OPEN[writer] = None
        await reader.read()
    except (asyncio.IncompleteReadError, OSError):
        pass
    finally:
        OPEN.pop(writer, None)
        writer.close()


async def tell(rate: int) -> None:
    """Writes a notification with its time on each stream in turn."""
    due = time.monotonic()
    for number in itertools.count():
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if OPEN:
            writer = next(iter(OPEN))
            OPEN[writer] = OPEN.pop(writer)
            told = f'{{"jsonrpc":"2.0","method":"notifications/message","params":{{"n":{number},"at":{time.monotonic_ns()}}}}}'
            writer.write(chunk(f"data: {told}\n\n".encode()))


async def main(port: int, rate: int) -> None:
    """Serves until it is ended."""
    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=4096)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve_forever())
        if rate:
            group.create_task(tell(rate))


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
