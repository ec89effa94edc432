"""An HTTP API that writes down what it saw, streams events with their time, and takes and makes bodies of any size.

Each request is a line when it arrives (what an upstream saw even if the gateway dies the next moment) and another when
its body is complete.
"""

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

KEPT_BYTES_MAX = 64 * 1024
BLOCK_BYTES = 1024 * 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SEEN = web.AppKey("seen", int)
BLOCK = bytes(range(256)) * (BLOCK_BYTES // 256)


def write(request: web.Request, event: str, **more: object) -> None:
    """One line, in one write, so that lines of concurrent requests never mix."""
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.raw_headers]
    line = {"event": event, "at_ns": time.monotonic_ns(), "method": request.method, "path": request.raw_path}
    os.write(request.app[SEEN], (json.dumps({**line, "headers": headers, **more}) + "\n").encode())


def block(index: int) -> bytes:
    """The block at an index: no two are alike, so that a lost, doubled or moved one changes the digest."""
    return index.to_bytes(8, "big") + BLOCK[8:]


async def blocks(size: int) -> AsyncIterator[bytes]:
    """A body of a size, as a client sends it and as the server makes it."""
    for index in range((size + BLOCK_BYTES - 1) // BLOCK_BYTES):
        yield block(index)[: size - index * BLOCK_BYTES]
        await asyncio.sleep(0)


@web.middleware
async def recording(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Writes the arrival before anything else happens."""
    write(request, "arrived")
    return await handler(request)


async def take(request: web.Request) -> dict[str, object]:
    """Reads the body in passing: its size and digest, and its text when it is short."""
    digest, size, kept = hashlib.sha256(), 0, bytearray()
    async for chunk in request.content.iter_any():
        digest.update(chunk)
        size += len(chunk)
        if size <= KEPT_BYTES_MAX:
            kept.extend(chunk)
    body = kept.decode("utf-8", "replace") if size <= KEPT_BYTES_MAX else None
    seen: dict[str, object] = {"body_bytes": size, "sha256": digest.hexdigest(), "body": body}
    write(request, "complete", **seen)
    return seen


async def note(request: web.Request) -> web.Response:
    """Any method on a note: says what it got."""
    seen = await take(request)
    status = 201 if request.method == "POST" else 200
    return web.json_response({"method": request.method, "bytes": seen["body_bytes"]}, status=status)


async def events(request: web.Request) -> web.StreamResponse:
    """Server-sent events, each with the moment it was written (the monotonic clock is the machine's)."""
    await take(request)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    for index in range(int(request.query.get("n", "10"))):
        await asyncio.sleep(float(request.query.get("interval_ms", "50")) / 1000)
        data = json.dumps({"n": index, "at_ns": time.monotonic_ns()})
        try:
            await response.write(f"id: {index}\nevent: tick\ndata: {data}\n\n".encode())
        except ConnectionError:
            write(request, "left")
            raise
    return response


async def put_blob(request: web.Request) -> web.Response:
    """Takes a body of any size and answers with its digest."""
    seen = await take(request)
    return web.json_response({"bytes": seen["body_bytes"], "sha256": seen["sha256"]})


async def get_blob(request: web.Request) -> web.StreamResponse:
    """Makes a body of any size."""
    await take(request)
    size = int(request.query["bytes"])
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)})
    await response.prepare(request)
    async for chunk in blocks(size):
        await response.write(chunk)
    return response


def app(seen: str) -> web.Application:
    """The API, writing to the file named `seen`."""
    made = web.Application(middlewares=[recording], client_max_size=0)
    made[SEEN] = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    made.router.add_route("*", "/v1/notes", note)
    made.router.add_route("*", "/v1/notes/{id}", note)
    made.router.add_post("/v1/letters", note)
    made.router.add_get("/v1/events", events)
    made.router.add_put("/v1/blob", put_blob)
    made.router.add_get("/v1/blob", get_blob)
    return made


if __name__ == "__main__":
    web.run_app(app(os.environ["HOLDPOINT_SEEN"]), host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
