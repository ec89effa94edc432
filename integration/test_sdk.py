"""Real SDK agents through the gateway, each with each server: what is allowed is as if it were not there, and a call
that is denied, limited or held ends alone: the session and the calls beside it go on, and the server never saw it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import parts
from gateway import STRANGER, SUPPORT, Agent, Gateway, decision_of
from parts import CLIENTS, Json, Upstream

SERVERS = ("everything", "ledger")
LIMIT = 2
HELD = {"held", "pending", "expired"}


def call(name: str, **arguments: Any) -> Json:
    """A step that calls a tool."""
    return {"op": "call", "name": name, "arguments": arguments}


READ = {"everything": call("get-sum", a=2, b=40), "ledger": call("add", a=2, b=40)}
OTHER_READS = {
    "everything": [
        call("echo", message="naïve ☕ 9007199254740993"),
        call("get-structured-content", location="New York"),
    ],
    "ledger": [call("describe", topic="holds")],
}
WRITE = {"everything": call("toggle-simulated-logging"), "ledger": call("note", text="kept")}
HIGH = {"everything": call("get-env"), "ledger": call("refund", order="A-7", amount="12.50")}


PAIRS = [(client, server) for server in SERVERS for client in CLIENTS]


def limited(client: str, server: str) -> Agent:
    """An agent of its own for each pair, because limits count by agent."""
    return Agent(f"agent/{client}-{server}")


def reader(client: str, server: str) -> Agent:
    """A read-only agent for each pair: what policy would refuse counts towards the limits too, which come first."""
    return Agent(f"agent/{client}-{server}-reader", autonomy="read-only")


@pytest.fixture(scope="module")
def gateway(run_gateway: Callable[..., Gateway], everything: Upstream, fastmcp: Upstream) -> Gateway:
    """One gateway before both servers; writes of one tool are limited."""
    agents = [SUPPORT, *(limited(*pair) for pair in PAIRS), *(reader(*pair) for pair in PAIRS)]
    limits = [
        {"per": "agent", "rate": "1000/s", "burst": 1000},
        {"per": ["agent", "tool"], "class": "write", "rate": f"{LIMIT}/1h"},
    ]
    return run_gateway(everything, fastmcp, agents=agents, limits=limits, hold_ttl="8s")


@pytest.fixture(params=["everything", "fastmcp"])
def server(request: pytest.FixtureRequest) -> Upstream:
    """Each server in turn."""
    upstream: Upstream = request.getfixturevalue(request.param)
    return upstream


def refusal(step: Json, *outcomes: str) -> Json:
    """The gateway's decision in a refused call: a tool error that the model can read, never a broken session."""
    assert "ok" in step, f"the SDK threw: {step}"
    assert step["ok"].get("isError") is True, step
    decision = decision_of(step["ok"])
    assert decision is not None, step
    assert decision["outcome"] in outcomes, decision
    assert decision["record"] and decision["reason"], decision
    assert step["ok"]["content"][0]["text"].strip(), "the model is told what to do"
    return decision


def tools(step: Json) -> dict[str, Json]:
    """A list of tools by name."""
    return {tool["name"]: tool for tool in step["ok"]["tools"]}


@pytest.mark.parametrize("client", CLIENTS)
def test_what_is_allowed_is_as_if_direct(client: str, server: Upstream, gateway: Gateway) -> None:
    steps: list[Json] = [{"op": "list"}, READ[server.name], *OTHER_READS[server.name]]
    direct = parts.agent(client, {"url": server.url, "steps": steps})
    through = parts.agent(client, gateway.plan(SUPPORT, server, steps))

    assert through["initialize"] == direct["initialize"]
    direct_tools, through_tools = tools(direct["results"][0]), tools(through["results"][0])
    assert READ[server.name]["name"] in through_tools
    assert through_tools.items() <= direct_tools.items(), "a list is filtered and otherwise untouched"
    assert through["results"][1:] == direct["results"][1:]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_denied_call_ends_alone(client: str, server: Upstream, gateway: Gateway) -> None:
    before = len(server.calls(WRITE[server.name]["name"]))
    beside = {"op": "parallel", "steps": [READ[server.name], WRITE[server.name], READ[server.name]]}
    steps = [READ[server.name], beside, READ[server.name]]
    told = parts.agent(client, gateway.plan(reader(client, server.name), server, steps))

    first, denied, last = told["results"][1]["ok"]
    refusal(denied, "denied")
    for sibling in (told["results"][0], first, last, told["results"][2]):
        assert sibling["ok"].get("isError") is not True
        assert sibling["ok"]["content"] == told["results"][0]["ok"]["content"]
    assert len(server.calls(WRITE[server.name]["name"])) == before, "the server never saw the denied call"


@pytest.mark.parametrize("client", CLIENTS)
def test_a_limited_call_ends_alone(client: str, server: Upstream, gateway: Gateway) -> None:
    before = len(server.calls(WRITE[server.name]["name"]))
    writes = [WRITE[server.name]] * (LIMIT + 2)
    told = parts.agent(
        client, gateway.plan(limited(client, server.name), server, [*writes, {"op": "list"}, READ[server.name]])
    )

    for allowed in told["results"][:LIMIT]:
        assert allowed["ok"].get("isError") is not True, allowed
    for over in told["results"][LIMIT : LIMIT + 2]:
        assert refusal(over, "limited")["retry_after_ms"] > 0
    assert tools(told["results"][-2]), "the session goes on"
    assert told["results"][-1]["ok"].get("isError") is not True
    assert len(server.calls(WRITE[server.name]["name"])) == before + LIMIT


def test_held_calls_wait_or_end_alone(gateway: Gateway, everything: Upstream, fastmcp: Upstream) -> None:
    """All pairs at once, because each may wait as long as its client bears."""
    pairs = [(client, server) for server in (everything, fastmcp) for client in CLIENTS]
    before = {server.name: len(server.calls(HIGH[server.name]["name"])) for server in (everything, fastmcp)}

    def hold(pair: tuple[str, Upstream]) -> Json:
        client, server = pair
        beside = {"op": "parallel", "steps": [READ[server.name], HIGH[server.name], READ[server.name]]}
        steps = [READ[server.name], beside, READ[server.name]]
        return parts.agent(client, gateway.plan(limited(client, server.name), server, steps), seconds=240)

    with ThreadPoolExecutor(len(pairs)) as pool:
        for (client, _), told in zip(pairs, pool.map(hold, pairs), strict=True):
            first, held, last = told["results"][1]["ok"]
            decision = refusal(held, *HELD)
            assert "high-consequence" in decision["rule"], (client, decision)
            for sibling in (first, last, told["results"][2]):
                assert sibling["ok"].get("isError") is not True, (client, sibling)
    for server in (everything, fastmcp):
        assert len(server.calls(HIGH[server.name]["name"])) == before[server.name], "nothing held was executed"


@pytest.mark.parametrize("client", CLIENTS)
def test_an_unregistered_agent_reaches_nothing(client: str, server: Upstream, gateway: Gateway) -> None:
    before = len(server.seen())
    with pytest.raises(AssertionError, match="ended with"):
        parts.agent(client, gateway.plan(STRANGER, server, [READ[server.name]]), seconds=60)
    foreign = [each for each in server.seen()[before:] if is_agents(each, client)]
    assert foreign == []


def is_agents(request: Json, client: str) -> bool:
    """Whether a request came from this client and not from the gateway's own listing of tools."""
    info = str(parts.message(request).get("params", {}))
    return f"'{client}'" in info or parts.message(request).get("method") == "tools/call"


def test_every_call_has_its_record(gateway: Gateway, everything: Upstream, fastmcp: Upstream) -> None:
    """The servers' own logs against the record: nothing reached them without an intent written first."""
    intents = {record["id"] for record in gateway.records("intent")}
    for server in (everything, fastmcp):
        calls = [each for each in server.seen() if parts.message(each).get("method") == "tools/call"]
        named = [parts.header(each["headers"], "holdpoint-record") for each in calls]
        through = [record for record in named if record is not None]
        assert through, "calls through the gateway name their record"
        assert set(through) <= intents
    parts.until("the record to be whole", lambda: gateway.verify()[1]["status"] == "ok", seconds=10, pause=0.5)
