"""An upstream that says `done` to every POST, and writes down the number in each: cheap, so that ten thousand calls that
come at once are the gateway's work and not this one's. MCP on /mcp, plain HTTP on any other path."""

import asyncio
import json
import os
import sys


async def answer(seen: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The requests of one connection."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            path, fields = head.split(" ", 2)[1], head.lower()
            size = int(fields.split("content-length:", 1)[1].split("\r\n", 1)[0])
            body = json.loads(await reader.readexactly(size))
            mcp = path == "/mcp"
            number = body["params"]["arguments"]["n"] if mcp else body["n"]
            os.write(seen, f"{number}\n".encode())
            done = {"content": [{"type": "text", "text": "done"}]}
            told = json.dumps({"jsonrpc": "2.0", "id": body["id"], "result": done} if mcp else {"done": number}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(told) + told)
    except (asyncio.IncompleteReadError, OSError):
        pass
    finally:
        writer.close()


async def main(port: int, seen: str) -> None:
    """Serves until it is ended."""
    file = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    server = await asyncio.start_server(lambda reader, writer: answer(file, reader, writer), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1]), os.environ["HOLDPOINT_SEEN"]))
