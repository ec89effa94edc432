"""The upstreams: each suite's tools as a real MCP server over Streamable HTTP, and a freight company's services.

Every request names its session in the header `X-Session`, and every session has a world of its own, which the benchmark
makes before (`PUT /sessions/ID`) and takes down after (`DELETE /sessions/ID`), when it hears what was executed in it.
"""

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

sys.path.append(str(Path(__file__).resolve().parent / "other"))

import services  # noqa: E402
import world  # noqa: E402
from agentdojo.functions_runtime import FunctionCall  # noqa: E402
from sessions import Json  # noqa: E402

HEADER = "x-session"
# Worlds that are open at a time; the benchmark runs far fewer sessions at once.
WORLDS_MAX = 256
IDLE_SECONDS_MAX = 3600


class Unknown(Exception):
    """No session of that name is open."""


class World:
    """What one session works in, and what was executed there."""

    def __init__(self, said: Json) -> None:
        """A fresh world."""
        self.said = said
        self.executed: list[Json] = []
        other = said["suite"] == "other"
        # Every session can reach the web, which is one of the freight company's services.
        self.services = services.Services(said["vector"] if other else [], said["text"] if other else "")
        self.env = None if other else world.environment(said)
        self.before = self.env and self.env.model_copy(deep=True)

    def call(self, upstream: str, tool: str, arguments: Json) -> Any:
        """Executes a call and remembers that it was executed, also when the tool fails."""
        self.executed.append({"upstream": upstream, "tool": tool, "arguments": arguments})
        if upstream in services.TOOLS:
            return services.tool(self.services, upstream, tool)(**arguments)
        return world.run(upstream, self.env, FunctionCall(function=tool, args=arguments))

    def http(self, operation: str, **arguments: Any) -> Any:
        """The same for an operation of the customer database."""
        parts = {"GET /v1/customers/{id}": self.services.customer, "GET /v1/customers": self.services.customers}
        parts |= {"PATCH /v1/customers/{id}": self.services.update_customer}
        parts |= {"POST /v1/customers/{id}/messages": self.services.message_customer}
        self.executed.append({"upstream": "crm", "tool": operation, "arguments": arguments})
        return parts[operation](**arguments)

    def useful(self) -> bool | None:
        """Whether the package finds its task solved by what was executed."""
        if self.env is None:
            return None
        task = world.SUITES[self.said["suite"]].user_tasks[self.said["task"]]
        trace = [FunctionCall(function=each["tool"], args=each["arguments"]) for each in self.executed]
        said = task.utility_from_traces(task.GROUND_TRUTH_OUTPUT, self.before, self.env, trace)
        return task.utility(task.GROUND_TRUTH_OUTPUT, self.before, self.env) if said is None else said


WORLDS: dict[str, World] = {}


def at(name: str | None) -> World:
    """The world of a session."""
    if name not in WORLDS:
        raise Unknown(f"no session {name}")
    return WORLDS[name]


# === MCP ===


def listed(upstream: str) -> list[types.Tool]:
    """The tools of a server."""
    if upstream in services.TOOLS:
        return [types.Tool(name=name, description=what, inputSchema=takes) for name, what, takes in services.described(upstream)]
    return [
        types.Tool(name=tool.name, description=tool.description, inputSchema=tool.parameters.model_json_schema())
        for tool in world.SUITES[upstream].tools
    ]


class Endpoint:
    """One MCP server, as an ASGI application."""

    def __init__(self, upstream: str) -> None:
        """The server of an upstream."""
        server: Server[Any, Any] = Server(upstream, version="1.0.0")
        tools = listed(upstream)

        @server.list_tools()  # type: ignore[no-untyped-call, untyped-decorator]
        async def list_tools() -> list[types.Tool]:
            return tools

        @server.call_tool()  # type: ignore[untyped-decorator]
        async def call_tool(name: str, arguments: Json) -> types.CallToolResult:
            request = server.request_context.request
            result = world.plain_json(at(request.headers.get(HEADER)).call(upstream, name, arguments))
            text = types.TextContent(type="text", text=world.shown(result))
            return types.CallToolResult(content=[text], structuredContent={"result": result})

        self.manager = StreamableHTTPSessionManager(server)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        await self.manager.handle_request(scope, receive, send)


# === the customer database ===


def operation(name: str, *, body: dict[str, str] | None = None) -> Callable[[Request], Awaitable[Response]]:
    """The handler of an operation. `body` names the members of the body and the parameters they become."""

    async def handle(request: Request) -> Response:
        try:
            sent = await request.json() if body else {}
            taken = {takes: sent if member == "*" else sent[member] for member, takes in (body or {}).items()}
            session = at(request.headers.get(HEADER))
            return JSONResponse(session.http(name, **request.path_params, **dict(request.query_params), **taken))
        except (services.Missing, Unknown) as fault:
            return JSONResponse({"error": str(fault)}, status_code=404)

    return handle


CUSTOMERS = [
    Route("/v1/customers", operation("GET /v1/customers"), methods=["GET"]),
    Route("/v1/customers/{id}", operation("GET /v1/customers/{id}"), methods=["GET"]),
    Route("/v1/customers/{id}", operation("PATCH /v1/customers/{id}", body={"*": "changes"}), methods=["PATCH"]),
    Route(
        "/v1/customers/{id}/messages",
        operation("POST /v1/customers/{id}/messages", body={"to": "to", "text": "text"}),
        methods=["POST"],
    ),
]


# === sessions ===


async def begin(request: Request) -> Response:
    """Makes the world of a session."""
    if len(WORLDS) >= WORLDS_MAX:
        return JSONResponse({"error": "too many sessions"}, status_code=503)
    WORLDS[request.path_params["id"]] = World(json.loads(await request.body()))
    return Response(status_code=204)


async def end(request: Request) -> Response:
    """Takes it down and says what was executed in it."""
    gone = WORLDS.pop(request.path_params["id"])
    return JSONResponse({"executed": gone.executed, "useful": gone.useful()})


def app() -> Starlette:
    """Every upstream in one application."""
    endpoints = {upstream: Endpoint(upstream) for upstream in (*world.NAMES, *services.TOOLS)}

    @asynccontextmanager
    async def running(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for endpoint in endpoints.values():
                await stack.enter_async_context(endpoint.manager.run())
            yield

    routes = [Route(f"/{upstream}/mcp", endpoint) for upstream, endpoint in endpoints.items()]
    control = [Route("/sessions/{id}", begin, methods=["PUT"]), Route("/sessions/{id}", end, methods=["DELETE"])]
    return Starlette(routes=[*routes, *CUSTOMERS, *control], lifespan=running)


if __name__ == "__main__":
    # A server that closes idle connections sooner would close one while a call is on its way, and nobody could say whether
    # it was executed.
    uvicorn.run(app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", timeout_keep_alive=IDLE_SECONDS_MAX)
