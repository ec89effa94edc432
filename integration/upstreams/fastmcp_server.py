"""A dual-era MCP server on the Python SDK 2.x, with tools of each class; it writes down every request that it gets."""

import json
import os
import sys
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

server = MCPServer("ledger", version="1.0.0")


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def describe(topic: str) -> str:
    """Says something about a topic, beyond ASCII on purpose."""
    return f"about {topic}: naïve café ☕"


@server.tool()
def note(text: str) -> str:
    """Keeps a note."""
    return f"noted {len(text)}"


@server.tool()
def refund(order: str, amount: str) -> str:
    """Pays money back."""
    return f"refunded {amount} for {order}"


class Recorder:
    """Passes every request on and appends what it was to a file: the judge of "the upstream saw nothing"."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self.app = app
        self.file = open(path, "a", buffering=1, encoding="utf-8")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the server's own lifespan."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = bytearray()

        async def listening() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    self.write(scope, bytes(body))
            return message

        await self.app(scope, listening, send)

    def write(self, scope: Any, body: bytes) -> None:
        """One line a request."""
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
        line = {
            "event": "complete",
            "method": scope["method"],
            "path": scope["path"],
            "headers": headers,
            "body": body.decode("utf-8", "replace"),
        }
        self.file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
        sys.exit()
    app = Recorder(server.streamable_http_app(), os.environ["HOLDPOINT_SEEN"])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
