"""An agent: one identity, its MCP sessions and its requests, and what became of each call as the agent saw it."""

import itertools
import json
import ssl
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp

from sessions import Json, Step

# What can become of a call. Anything else is a fault of the benchmark or the gateway, and no result.
EXECUTED, HELD, DENIED = "executed", "held", "denied"
DECISION = "dev.holdpoint/decision"
MCP = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
VERSION = "2025-11-25"
CALL_SECONDS_MAX = 60


class Unexpected(Exception):
    """An answer that is neither a result nor a decision to hold or deny."""


@dataclass(frozen=True)
class Answer:
    """What became of a call, and the gateway's decision where it made the answer."""

    word: str
    decision: Json = field(default_factory=dict)
    # The tool's own error, which is no decision.
    failed: bool = False


class Agent:
    """One identity on its own connection. Without a certificate it goes straight to the upstreams, as an approver would
    have a call released."""

    def __init__(self, base: str, session: str, tls: ssl.SSLContext | None, headers: dict[str, str] | None = None) -> None:
        """`base` is where upstreams are: below it `/NAME/mcp`, and `/crm/v1/…` of the gateway or `/v1/…` of the upstream."""
        self.base, self.tls = base, tls
        self.headers = {"X-Session": session, **(headers or {})}
        connector = aiohttp.TCPConnector(ssl=tls if tls else False)
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS_MAX)
        self.http = aiohttp.ClientSession(connector=connector, timeout=timeout)
        self.sessions: dict[str, str] = {}
        self.ids = itertools.count(1)

    async def __aenter__(self) -> Self:
        """The agent itself."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        """Ends its MCP sessions and its connection."""
        for upstream, id in self.sessions.items():
            await self.http.delete(f"{self.base}/{upstream}/mcp", headers={**self.headers, "Mcp-Session-Id": id})
        await self.http.close()

    async def call(self, step: Step) -> Answer:
        """Makes a call."""
        return await (self.operation(step) if step.upstream == "crm" else self.tool(step))

    # === MCP ===

    async def tool(self, step: Step) -> Answer:
        """A tool call, in the agent's MCP session with that upstream."""
        if step.upstream not in self.sessions:
            await self.open(step.upstream)
        said = await self.ask(step.upstream, "tools/call", {"name": step.tool, "arguments": step.arguments})
        if "result" not in said:
            raise Unexpected(f"{step.upstream}.{step.tool}: {said}")
        result = said["result"]
        return answer(step, (result.get("_meta") or {}).get(DECISION), failed=result.get("isError") is True)

    async def open(self, upstream: str) -> None:
        """Opens a session."""
        about = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "benchmark", "version": "1"}}
        said = await self.ask(upstream, "initialize", about)
        if "result" not in said:
            raise Unexpected(f"{upstream} initialize: {said}")
        await self.post(upstream, {"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def ask(self, upstream: str, method: str, params: Json) -> Json:
        """A request and its answer."""
        body = {"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": params}
        said = await self.post(upstream, body)
        if said is None or said.get("id") != body["id"]:
            raise Unexpected(f"{upstream} {method}: {said}")
        return said

    async def post(self, upstream: str, body: Json) -> Json | None:
        """Posts a message and reads the one that answers it, whole or as an event."""
        session = {"Mcp-Session-Id": self.sessions[upstream]} if upstream in self.sessions else {}
        url, headers = f"{self.base}/{upstream}/mcp", {**MCP, **self.headers, **session}
        async with self.http.post(url, data=json.dumps(body).encode(), headers=headers) as response:
            text = await response.text()
            if response.status not in (200, 202):
                raise Unexpected(f"{upstream}: HTTP {response.status}: {text[:400]}")
            self.sessions.setdefault(upstream, response.headers.get("Mcp-Session-Id", ""))
            return message(response.content_type, text) if response.status == 200 else None

    # === plain HTTP ===

    async def operation(self, step: Step) -> Answer:
        """A request to the customer database."""
        method, path = step.tool.split(" ", 1)
        for name, value in step.arguments.get("path", {}).items():
            path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
        below = f"{self.base}/crm" if self.tls else self.base
        sent: Json = {"params": step.arguments.get("query"), "headers": self.headers}
        if "body" in step.arguments:
            sent["json"] = step.arguments["body"]
        async with self.http.request(method, below + path, **sent) as response:
            text = await response.text()
            problem = json.loads(text) if response.content_type == "application/problem+json" else {}
            if response.status >= 400 and DECISION not in problem:
                raise Unexpected(f"{step.tool}: HTTP {response.status}: {text[:400]}")
            return answer(step, problem.get(DECISION), failed=False)


def answer(step: Step, decision: Json | None, *, failed: bool) -> Answer:
    """The answer to a call, from the decision in it if the gateway made it."""
    if decision is None:
        return Answer(EXECUTED, failed=failed)
    if decision.get("outcome") not in (HELD, "pending", DENIED):
        raise Unexpected(f"{step.upstream}.{step.tool}: {decision}")
    return Answer(DENIED if decision["outcome"] == DENIED else HELD, decision)


def message(kind: str, text: str) -> Json:
    """The JSON-RPC message of an answer."""
    if kind != "text/event-stream":
        whole: Json = json.loads(text)
        return whole
    data = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
    messages: list[Json] = [json.loads(each) for each in data if each]
    return next(each for each in messages if "result" in each or "error" in each)
