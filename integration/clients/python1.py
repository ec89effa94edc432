"""An agent on the Python MCP SDK 1.x: reads a plan on stdin, writes what came of it on stdout.

A script of its own because each SDK lives in its own virtual environment, as agents do in the field.
"""

import asyncio
import json
import ssl
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

import httpx
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import (
    CancelledNotification,
    CancelledNotificationParams,
    ClientNotification,
    ElicitRequestParams,
    ElicitResult,
    Implementation,
)

Json = dict[str, Any]
ME = Implementation(name="python1", version="1.0.0")


def tls(plan: Json) -> ssl.SSLContext | bool:
    """The agent's certificate, for which these SDKs have no option of their own: the HTTP client carries it."""
    if "cert" not in plan:
        return True
    context = ssl.create_default_context(cafile=plan["ca"])
    context.load_cert_chain(plan["cert"], plan["key"])
    return context


def plain(model: Any) -> Json:
    """A result as it was on the wire."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


async def answered(_: Any, params: ElicitRequestParams) -> ElicitResult:
    """Says yes to whatever a server asks of the user, and fills in every field that it must have."""
    fields = getattr(params, "requestedSchema", {}).get("required", [])
    return ElicitResult(action="accept", content=dict.fromkeys(fields, "Ada"))


async def call(session: ClientSession, what: Json) -> Json:
    """Calls a tool; this SDK cancels nothing by itself, so that the host sends the notification."""
    progress: list[float] = []

    async def heard(value: float, *_: Any) -> None:
        progress.append(value)

    given: Json = {"progress_callback": heard} if what.get("progress") else {}
    calling = session.call_tool(what["name"], what.get("arguments", {}), meta=what.get("meta"), **given)
    if "cancel_after" not in what:
        ok = plain(await calling)
        return {"ok": ok, "progress": progress} if given else {"ok": ok}
    number = session._request_id  # the id that the call is about to have
    task = asyncio.ensure_future(calling)
    await asyncio.wait([task], timeout=what["cancel_after"])
    params = CancelledNotificationParams(requestId=number, reason="no longer wanted")
    await session.send_notification(ClientNotification(CancelledNotification(params=params)))
    task.cancel()
    await asyncio.wait([task])
    return {"error": {"type": "Cancelled", "message": "by the host"}} if task.cancelled() else {"ok": None}


async def step(session: ClientSession, what: Json) -> Json:
    """Does one step; an error is an answer too, because a refusal must not end the session."""
    try:
        if what["op"] == "parallel":
            return {"ok": list(await asyncio.gather(*(step(session, each) for each in what["steps"])))}
        if what["op"] == "serial":
            return {"ok": [await step(session, each) for each in what["steps"]]}
        if what["op"] == "pause":
            return {"ok": await asyncio.sleep(what["seconds"])}
        if what["op"] == "timed":
            began = time.monotonic()
            return {**await step(session, what["step"]), "seconds": time.monotonic() - began}
        if what["op"] == "list":
            return {"ok": plain(await session.list_tools())}
        return await call(session, what)
    except Exception as error:  # whatever the SDK throws is what its host would see
        return {"error": {"type": type(error).__name__, "message": str(error)}}


async def run(plan: Json) -> Json:
    """Connects as an agent would and walks the plan in one session."""
    async with AsyncExitStack() as stack:
        if "command" in plan:
            command, *arguments = plan["command"]
            server = StdioServerParameters(command=command, args=arguments)
            read, write = await stack.enter_async_context(stdio_client(server))
        else:
            http = await stack.enter_async_context(
                httpx.AsyncClient(verify=tls(plan), headers=plan.get("headers"), timeout=httpx.Timeout(30, read=300))
            )
            read, write, _ = await stack.enter_async_context(streamable_http_client(plan["url"], http_client=http))
        session = await stack.enter_async_context(ClientSession(read, write, client_info=ME, elicitation_callback=answered))
        hello = await session.initialize()
        results = [await step(session, each) for each in plan["steps"]]
        return {"initialize": plain(hello), "results": results}


print(json.dumps(asyncio.run(run(json.load(sys.stdin)))))
