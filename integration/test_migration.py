"""The migration guide, run: a team brings ten agents and three upstreams in by discovery, in shadow, reads what would have
been held, tunes, enforces one group, then everything. docs/migration.md says the same for people."""

import datetime
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import parts
import traffic
from gateway import Agent, Gateway, decision_of, holdpoint, problem_decision
from parts import CACHE, EVERYTHING_TOOLS, Json, Upstream, until

FIRST = [Agent(f"agent/first-{at}", groups=["first"]) for at in range(3)]
LATER = [Agent(f"agent/later-{at}", groups=["later"]) for at in range(7)]
UNTIL = (datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=14)).isoformat()
OPENAPI: Json = {
    "openapi": "3.1.0",
    "info": {"title": "Notes", "version": "1"},
    "paths": {
        "/v1/notes": {
            "get": {"summary": "Lists notes", "responses": {"200": {"description": "Notes"}}},
            "post": {"summary": "Writes a note", "responses": {"200": {"description": "A note"}}},
        },
        "/v1/notes/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
            "get": {"summary": "Reads a note", "responses": {"200": {"description": "A note"}}},
            "delete": {"summary": "Deletes a note", "responses": {"204": {"description": "Gone"}}},
        },
    },
}


def call(name: str, **arguments: Any) -> Json:
    """A step that calls a tool."""
    return {"op": "call", "name": name, "arguments": arguments}


@pytest.fixture(scope="module")
def program(directory: Path) -> Upstream:
    """The third upstream: a server that is a program."""
    node = shutil.which("node")
    assert node is not None
    everything = CACHE / "node/node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    return parts.over_stdio("everything", [node, str(everything), "stdio"], directory, EVERYTHING_TOOLS)


@pytest.fixture(scope="module")
def gateway(directory: Path, fastmcp: Upstream, recorder: Upstream, program: Upstream) -> Gateway:
    """A gateway that knows nothing of its upstreams yet."""
    gateway = Gateway(directory / "migration", [fastmcp, recorder, program], agents=[*FIRST, *LATER])
    gateway.prepare()
    for upstream in gateway.upstreams:
        (gateway.directory / f"catalog/{upstream.name}.yaml").write_text("tools: {}\n", encoding="utf-8")
    gateway.write("catalog/notes.openapi.yaml", OPENAPI)
    return gateway


def configure(gateway: Gateway, enforcement: Json | None) -> None:
    """Writes the configuration with this enforcement for every upstream."""
    told = gateway.configuration()
    for upstream in told["upstreams"]:
        if upstream["name"] == "notes":
            upstream["openapi"] = "catalog/notes.openapi.yaml"
        if enforcement:
            upstream["enforcement"] = enforcement
    gateway.write("holdpoint.yaml", told)


def work(gateway: Gateway, agent: Agent) -> Counter[str]:
    """What each agent does all day, and how each call ended."""
    ledger, notes, program = gateway.upstreams
    ended: Counter[str] = Counter()
    for upstream, steps in (
        (ledger, [call("add", a=2, b=40), call("note", text="kept"), call("refund", order="A-7", amount="12.50")]),
        (program, [call("get-sum", a=2, b=40)]),
    ):
        for step in parts.agent("python2", gateway.plan(agent, upstream, steps))["results"]:
            decision = decision_of(step["ok"])
            ended[decision["outcome"] if decision else "passed"] += 1
    plan = {"url": gateway.url(notes), **gateway.credentials(agent)}
    for method, path in (("GET", "/v1/notes"), ("POST", "/v1/notes"), ("DELETE", "/v1/notes/7")):
        more = ["--data", '{"text": "x"}', "--header", "content-type: application/json"] if method == "POST" else []
        reply = traffic.curl(plan["url"] + path, "--request", method, *more, plan=plan)
        refused = reply.headers.get("content-type", "").startswith("application/problem+json")
        ended[problem_decision(reply.json())["outcome"] if refused else "passed"] += 1
    return ended


def would_be(gateway: Gateway, since: int = 0) -> Counter[str]:
    """What would have been stopped, by upstream and tool."""
    intents = [each for each in gateway.records("intent") if each["seq"] > since]
    return Counter(f"{each['upstream']}/{each['tool']}" for each in intents if "would_be" in each)


def last(gateway: Gateway) -> int:
    """The number of the last record."""
    return max(each["seq"] for each in gateway.records())


def reload(gateway: Gateway) -> None:
    """SIGHUP, until the new generation is in force."""
    assert gateway.process is not None
    before = generation(gateway)
    gateway.process.popen.send_signal(signal.SIGHUP)
    until("the new generation", lambda: generation(gateway) > before)


def generation(gateway: Gateway) -> float:
    """The generation in force."""
    line = next(each for each in gateway.metrics().splitlines() if each.startswith("holdpoint_generation"))
    return float(line.rsplit(" ", 1)[1])


def command(gateway: Gateway, *words: str) -> str:
    """Runs a command with the gateway's configuration."""
    return holdpoint(*words, "--config", str(gateway.directory / "holdpoint.yaml")).stdout


def tune(gateway: Gateway, name: str, entries: Json) -> None:
    """What the team says where it knows better than a draft."""
    path = gateway.directory / f"catalog/{name}.yaml"
    catalog = yaml.safe_load(path.read_text(encoding="utf-8"))
    for tool, entry in entries.items():
        catalog["tools"][tool] |= entry
    gateway.write(f"catalog/{name}.yaml", catalog)


def test_a_team_comes_in(gateway: Gateway, figure: Callable[[str, object], None]) -> None:
    """From nothing to enforcement, and no call of an honest agent is lost on the way."""
    ledger, notes, program = gateway.upstreams
    # Discovery: each catalogue is drafted, and the configuration is in order.
    configure(gateway, {"mode": "shadow", "until": UNTIL})
    for upstream in gateway.upstreams:
        command(gateway, "catalog", "discover", "--upstream", upstream.name, "--write")
    told = command(gateway, "check")
    assert f"upstream `ledger` is in shadow for all agents to the end of {UNTIL}" in told
    drafted = yaml.safe_load((gateway.directory / "catalog/ledger.yaml").read_text(encoding="utf-8"))["tools"]
    assert {"add", "note", "refund"} <= drafted.keys()
    assert all(entry["class"] == "external" and entry["consequence"] == 3 for entry in drafted.values())
    operations = yaml.safe_load((gateway.directory / "catalog/notes.yaml").read_text(encoding="utf-8"))["tools"]
    assert operations["GET /v1/notes"]["class"] == "read" and operations["DELETE /v1/notes/{id}"]["class"] == "write"

    # Shadow: ten agents work as before, and the record says what would have been.
    gateway.start()
    passed = sum((work(gateway, agent) for agent in [*FIRST, *LATER]), Counter())
    assert passed == Counter(passed=10 * 7), passed
    drafts = would_be(gateway)
    assert drafts["ledger/refund"] == drafts["ledger/add"] == drafts["everything/get-sum"] == 10
    assert "notes/GET /v1/notes" not in drafts

    # Tuning: the catalogue says less where the team knows better, and pins what it has read.
    tune(gateway, "ledger", {"add": {"class": "read", "consequence": 0}, "note": {"class": "write", "consequence": 1}})
    tune(gateway, "ledger", {"refund": {"class": "write", "consequence": 3}, "describe": {"class": "read", "consequence": 0}})
    tune(gateway, "everything", {"get-sum": {"class": "read", "consequence": 0}})
    tune(gateway, "notes", {"POST /v1/notes": {"consequence": 1}, "DELETE /v1/notes/{id}": {"consequence": 3}})
    command(gateway, "catalog", "pin")
    assert "pin: sha256:" in (gateway.directory / "catalog/ledger.yaml").read_text(encoding="utf-8")
    since = last(gateway)
    reload(gateway)
    assert work(gateway, FIRST[0]) == Counter(passed=7)
    tuned = would_be(gateway, since)
    assert set(tuned) == {"ledger/refund", "notes/DELETE /v1/notes/{id}"}, tuned

    # One group is enforced: shadow is for the others alone.
    configure(gateway, {"mode": "shadow", "until": UNTIL, "groups": ["later"]})
    reload(gateway)
    assert work(gateway, FIRST[1]) == Counter(passed=5, pending=2)
    assert work(gateway, LATER[1]) == Counter(passed=7)

    # All: nothing is in shadow any more.
    configure(gateway, None)
    reload(gateway)
    refunds = len(ledger.calls("refund"))
    assert work(gateway, LATER[2]) == Counter(passed=5, pending=2)
    assert len(ledger.calls("refund")) == refunds
    assert "in shadow" not in command(gateway, "check")
    gateway.stop()
    code, verified = gateway.verify()
    assert code == 0, verified
    figure("migration_calls_that_would_have_been_stopped_by_drafts", sum(drafts.values()))
    figure("migration_calls_that_would_have_been_stopped_after_tuning", sum(tuned.values()))
