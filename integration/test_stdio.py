"""Servers that the gateway itself runs, spoken to over their standard input and output, with real SDK agents: it is as
if they were servers over HTTP, in the era that agent and server find between them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import parts
from gateway import READER, SUPPORT, Gateway, decision_of
from parts import CACHE, CLIENTS, EVERYTHING_TOOLS, HERE, LEDGER_TOOLS, Json, Upstream, until


def call(name: str, **arguments: Any) -> Json:
    """A step that calls a tool."""
    return {"op": "call", "name": name, "arguments": arguments}


READ = {"everything": call("get-sum", a=2, b=40), "ledger": call("add", a=2, b=40)}
WRITE = {"everything": call("toggle-simulated-logging"), "ledger": call("note", text="kept")}
HIGH = {"everything": call("get-env"), "ledger": call("refund", order="A-7", amount="12.50")}


@pytest.fixture(scope="module")
def servers(directory: Path) -> dict[str, Upstream]:
    """The reference implementation's example server, which speaks the legacy era, and a dual-era Python server."""
    node = shutil.which("node")
    assert node is not None
    everything = CACHE / "node/node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    python = [str(CACHE / "python2/bin/python"), str(HERE / "upstreams/fastmcp_server.py"), "stdio"]
    return {
        "everything": parts.over_stdio("everything", [node, str(everything), "stdio"], directory, EVERYTHING_TOOLS),
        "ledger": parts.over_stdio("ledger", python, directory, LEDGER_TOOLS),
    }


@pytest.fixture(scope="module")
def gateway(run_gateway: Callable[..., Gateway], servers: dict[str, Upstream]) -> Gateway:
    """One gateway that runs both."""
    return run_gateway(*servers.values())


def text(step: Json) -> str:
    """The text of a tool's result."""
    assert "ok" in step, f"the SDK threw: {step}"
    return str(step["ok"]["content"][0]["text"])


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", ["everything", "ledger"])
def test_an_agent_works_with_a_program_as_with_a_server(
    gateway: Gateway, servers: dict[str, Upstream], client: str, name: str
) -> None:
    """It lists and calls, several calls at once too; what is held ends alone and the program never saw it."""
    steps = [{"op": "list"}, READ[name], HIGH[name], {"op": "parallel", "steps": [READ[name]] * 4}, WRITE[name]]
    told = parts.agent(client, gateway.plan(SUPPORT, servers[name], steps))["results"]
    names = {tool["name"] for tool in told[0]["ok"]["tools"]}
    assert READ[name]["name"] in names and HIGH[name]["name"] in names
    assert "42" in text(told[1])
    decision = decision_of(told[2]["ok"])
    assert decision is not None and decision["outcome"] == "pending", told[2]
    assert all("42" in text(each) for each in told[3]["ok"])
    assert decision_of(told[4]["ok"]) is None, told[4]
    assert servers[name].calls(HIGH[name]["name"]) == []


@pytest.mark.parametrize("client", CLIENTS)
def test_what_policy_denies_reaches_no_program(gateway: Gateway, servers: dict[str, Upstream], client: str) -> None:
    """A read-only agent's write."""
    before = len(servers["ledger"].calls("note"))
    told = parts.agent(client, gateway.plan(READER, servers["ledger"], [WRITE["ledger"], READ["ledger"]]))["results"]
    decision = decision_of(told[0]["ok"])
    assert decision is not None and decision["outcome"] == "denied"
    assert "42" in text(told[1])
    assert len(servers["ledger"].calls("note")) == before


def test_a_dual_era_agent_and_program_speak_the_modern_era(gateway: Gateway, servers: dict[str, Upstream]) -> None:
    """The Python SDK 2.x finds 2026-07-28 with a program that has it, and falls back with one that has not."""
    hello = {
        name: parts.agent("python2", gateway.plan(SUPPORT, servers[name], [READ[name]]))["initialize"]
        for name in servers
    }
    assert hello["ledger"]["protocolVersion"] == "2026-07-28"
    assert hello["everything"]["protocolVersion"] == "2025-11-25"


def test_programs_end_with_the_gateway(run_gateway: Callable[..., Gateway], servers: dict[str, Upstream]) -> None:
    """No child outlives a gateway that ends in good order, nor one that is killed."""
    for end in ("stop", "kill"):
        gateway = run_gateway(servers["everything"])
        before = {line["pid"] for line in servers["everything"].seen()}
        parts.agent("python1", gateway.plan(SUPPORT, servers["everything"], [READ["everything"]]))
        pids = {line["pid"] for line in servers["everything"].seen()} - before
        assert pids
        getattr(gateway, end)()
        until(f"the children's end after {end}", lambda: not any(map(running, pids)))


def running(pid: int) -> bool:
    """Whether a process of this id is there, and no zombie."""
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (ProcessLookupError, FileNotFoundError):
        return False
