"""An upstream whose every answer is an event stream: one event, and then nothing until the client leaves."""

import asyncio
import sys

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
EVENT = b"data: {}\n\n"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One stream for one connection."""
    try:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + f"{len(EVENT):x}\r\n".encode() + EVENT + b"\r\n")
        await reader.read()
    except (asyncio.IncompleteReadError, OSError):
        pass
    finally:
        writer.close()


async def main(port: int) -> None:
    """Serves until it is ended."""
    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))
