"""An upstream that writes down the very bytes of what it saw, and answers an MCP call or anything else with success."""

import base64
import json
import os
import sys

from aiohttp import web

SEEN = web.AppKey("seen", int)


async def take(request: web.Request) -> web.Response:
    """One line for each request."""
    body = await request.read()
    line = {
        "event": "complete",
        "case": request.headers.get("X-Case"),
        "record": request.headers.get("Holdpoint-Record"),
        "method": request.method,
        "path": request.raw_path,
        "type": request.headers.get("Content-Type"),
        "base64": base64.b64encode(body).decode("ascii"),
    }
    os.write(request.app[SEEN], (json.dumps(line) + "\n").encode())
    return web.json_response({"jsonrpc": "2.0", "id": 1, "result": {"content": []}})


def app(seen: str) -> web.Application:
    """The upstream, writing to the file named `seen`."""
    made = web.Application(client_max_size=64 << 20)
    made[SEEN] = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    made.router.add_route("*", "/{path:.*}", take)
    return made


if __name__ == "__main__":
    web.run_app(app(os.environ["HOLDPOINT_SEEN"]), host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
