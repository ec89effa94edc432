"""An agent on the Python MCP SDK 2.x, 2026-07-28 where the server speaks it: plan on stdin, results on stdout."""

import asyncio
import json
import ssl
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import ElicitResult, Implementation

Json = dict[str, Any]
ME = Implementation(name="python2", version="1.0.0")


def tls(plan: Json) -> ssl.SSLContext | bool:
    """The agent's certificate, for which these SDKs have no option of their own: the HTTP client carries it."""
    if "cert" not in plan:
        return True
    context = ssl.create_default_context(cafile=plan["ca"])
    context.load_cert_chain(plan["cert"], plan["key"])
    return context


def plain(model: Any) -> Any:
    """A result as it was on the wire."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True) if model is not None else None


async def answered(_: Any, params: Any) -> ElicitResult:
    """Says yes to whatever a server asks of the user, and fills in every field that it must have."""
    fields = plain(params).get("requestedSchema", {}).get("required", [])
    return ElicitResult(action="accept", content=dict.fromkeys(fields, "Ada"))


async def call(client: Client, what: Json) -> Json:
    """Calls a tool; a call whose task is cancelled is cancelled at the server by the SDK."""
    progress: list[float] = []

    async def heard(value: float, *_: Any) -> None:
        progress.append(value)

    given: Json = {"progress_callback": heard} if what.get("progress") else {}
    calling = client.call_tool(what["name"], what.get("arguments", {}), meta=what.get("meta"), **given)
    try:
        ok = plain(await asyncio.wait_for(calling, what.get("cancel_after")))
    except TimeoutError:
        return {"error": {"type": "Cancelled", "message": "by the host"}}
    return {"ok": ok, "progress": progress} if given else {"ok": ok}


async def step(client: Client, what: Json) -> Json:
    """Does one step; an error is an answer too, because a refusal must not end the session."""
    try:
        if what["op"] == "parallel":
            return {"ok": list(await asyncio.gather(*(step(client, each) for each in what["steps"])))}
        if what["op"] == "serial":
            return {"ok": [await step(client, each) for each in what["steps"]]}
        if what["op"] == "pause":
            return {"ok": await asyncio.sleep(what["seconds"])}
        if what["op"] == "timed":
            began = time.monotonic()
            return {**await step(client, what["step"]), "seconds": time.monotonic() - began}
        if what["op"] == "list":
            return {"ok": plain(await client.list_tools())}
        return await call(client, what)
    except Exception as error:  # whatever the SDK throws is what its host would see
        return {"error": {"type": type(error).__name__, "message": str(error)}}


async def run(plan: Json) -> Json:
    """Connects as an agent would and walks the plan over one client."""
    async with AsyncExitStack() as stack:
        server: Any
        if "command" in plan:
            command, *arguments = plan["command"]
            server = StdioServerParameters(command=command, args=arguments)
        else:
            http = await stack.enter_async_context(
                httpx2.AsyncClient(verify=tls(plan), headers=plan.get("headers"), timeout=httpx2.Timeout(30, read=300))
            )
            server = streamable_http_client(plan["url"], http_client=http)
        made = Client(server, mode=plan.get("mode", "auto"), client_info=ME, elicitation_callback=answered)
        client = await stack.enter_async_context(made)
        hello = {
            "protocolVersion": client.protocol_version,
            "serverInfo": plain(client.server_info),
            "capabilities": plain(client.server_capabilities),
        }
        results = [await step(client, each) for each in plan["steps"]]
        return {"initialize": hello, "results": results}


print(json.dumps(asyncio.run(run(json.load(sys.stdin)))))
