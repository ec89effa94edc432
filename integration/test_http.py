"""Plain HTTP through the gateway: the same bytes, and no header but those that the documentation names."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from multidict import CIMultiDictProxy

import parts
import traffic
from gateway import READER, SUPPORT, Agent, Gateway, problem_decision
from parts import Json, Upstream

# What may differ, and why: the record's id, trace context, hop-by-hop fields and the clock. `host` names who was asked.
DIFFER_IN_REPLY = {"holdpoint-record", "traceparent", "tracestate", "date", "connection", "keep-alive"}
DIFFER_IN_REPLY |= {"transfer-encoding", "te", "trailer", "upgrade"}
DIFFER_IN_REQUEST = DIFFER_IN_REPLY | {"host"}
CLEAN = Agent("agent/clean")


@dataclass
class Answer:
    """A reply, in full."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def comparable(headers: CIMultiDictProxy[str]) -> list[tuple[str, str]]:
    """The fields that must not differ, in order for each name."""
    return sorted((name.lower(), value) for name, value in headers.items() if name.lower() not in DIFFER_IN_REPLY)


def ask(plan: Json, method: str, path: str, **options: object) -> Answer:
    """One request, with nothing decoded on the way."""

    async def once() -> Answer:
        async with traffic.session(plan) as client:
            target = plan["url"] + path
            async with client.request(method, target, allow_redirects=False, **options) as reply:  # type: ignore[arg-type]
                return Answer(reply.status, comparable(reply.headers), await reply.read())

    return asyncio.run(once())


@pytest.fixture(scope="module")
def gateway(run_gateway: Callable[..., Gateway], nginx: Upstream, recorder: Upstream) -> Gateway:
    """One gateway before nginx and the recording API."""
    return run_gateway(nginx, recorder)


REQUESTS = [
    ("GET", "/v1/customers/7", {}),
    ("GET", "/v1/customers/none", {}),
    ("GET", "/v1/report", {}),
    ("GET", "/v1/report", {"headers": {"Range": "bytes=1000-1999"}}),
    ("POST", "/v1/orders", {"data": '{"sku": "café",  "n": 9007199254740993}'.encode()}),
    ("POST", "/v1/orders", {"data": b"", "headers": {"Content-Type": "application/json"}}),
]


@pytest.mark.parametrize(("method", "path", "options"), REQUESTS)
def test_replies_are_as_if_direct(method: str, path: str, options: Json, gateway: Gateway, nginx: Upstream) -> None:
    if "data" in options:
        options = {"headers": {"Content-Type": "application/json"}, **options}
    direct = ask({"url": nginx.url}, method, path, **options)
    through = ask(gateway.plan(SUPPORT, nginx, []), method, path, **options)
    assert through == direct


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_requests_arrive_as_if_direct(method: str, gateway: Gateway, recorder: Upstream) -> None:
    options = {"data": b'{"text": "caf\xc3\xa9"}', "headers": {"Content-Type": "application/json"}}
    if method == "GET":
        options = {"headers": {"X-Mark": "a, b", "Accept": "application/json"}}
    path = "/v1/notes?tag=a,b&Tag%20two=%2F"
    ask({"url": recorder.url}, method, path, **options)
    ask(gateway.plan(SUPPORT, recorder, []), method, path, **options)

    direct, through = recorder.seen()[-2:]
    for member in ("method", "path", "body", "sha256"):
        assert through[member] == direct[member]
    assert kept(through) == kept(direct)
    assert parts.header(through["headers"], "holdpoint-record")


def kept(request: Json) -> list[tuple[str, str]]:
    """The fields of a recorded request that must not differ."""
    pairs = ((name.lower(), value) for name, value in request["headers"])
    return sorted(pair for pair in pairs if pair[0] not in DIFFER_IN_REQUEST)


def test_a_denied_write_never_leaves(gateway: Gateway, recorder: Upstream) -> None:
    before = len(recorder.seen("arrived"))
    denied = ask(gateway.plan(READER, recorder, []), "POST", "/v1/notes", json={"text": "no"})
    assert denied.status == 403
    assert dict(denied.headers)["content-type"].startswith("application/problem+json")
    assert decision(denied)["outcome"] == "denied"
    assert len(recorder.seen("arrived")) == before


def decision(answer: Answer) -> Json:
    """The decision object in a problem body."""
    problem = json.loads(answer.body)
    assert problem["status"] == answer.status
    return problem_decision(problem)


def test_a_held_delete_waits_or_says_so(gateway: Gateway, recorder: Upstream) -> None:
    before = len(recorder.seen("arrived"))
    options = {"headers": {"Prefer": "wait=1"}}
    held = ask(gateway.plan(SUPPORT, recorder, []), "DELETE", "/v1/notes/7", **options)
    check_held(held, "high-consequence")
    assert len(recorder.seen("arrived")) == before


def check_held(held: Answer, rule: str) -> None:
    """Never a success code, and the agent is told when to ask again."""
    assert held.status == 503, held
    assert json.loads(held.body)["type"].endswith("hold-pending")
    assert any(name == "retry-after" for name, _ in held.headers)
    assert (decision(held)["outcome"], decision(held)["rule"]) == ("pending", rule)


def test_an_unlisted_operation_is_held(gateway: Gateway, recorder: Upstream) -> None:
    before = len(recorder.seen("arrived"))
    options = {"headers": {"Prefer": "wait=1"}}
    unlisted = ask(gateway.plan(SUPPORT, recorder, []), "PATCH", "/v1/unknown", **options)
    assert (unlisted.status, decision(unlisted)["outcome"]) == (503, "pending")
    assert len(recorder.seen("arrived")) == before


def test_what_was_read_decides_what_may_leave(
    run_gateway: Callable[..., Gateway], nginx: Upstream, recorder: Upstream
) -> None:
    """The same call to the outside passes before a customer was read, and is held when it carries what was read there."""
    agents = [SUPPORT, CLEAN]
    gateway = run_gateway(nginx, recorder, agents=agents)

    def send(agent: Agent) -> Answer:
        letter = {"to": "eve@elsewhere.test", "text": "Zoë has 9007199254740993 with us"}
        return ask(gateway.plan(agent, recorder, []), "POST", "/v1/letters", json=letter)

    assert [send(agent).status for agent in agents] == [201, 201]
    assert ask(gateway.plan(SUPPORT, nginx, []), "GET", "/v1/customers/7").status == 200
    before = len(recorder.seen("arrived"))
    check_held(send(SUPPORT), "flow")
    assert len(recorder.seen("arrived")) == before, "what was held never left"
    assert send(CLEAN).status == 201, "an agent that read nothing is not held"
    gateway.kill()
    gateway.start()
    check_held(send(SUPPORT), "flow")


def test_every_reply_names_a_record(gateway: Gateway, recorder: Upstream) -> None:
    async def records() -> list[str | None]:
        async with traffic.session(gateway.plan(SUPPORT, recorder, [])) as client:
            replies = [await client.get(f"{gateway.url(recorder)}/v1/notes/{n}") for n in range(5)]
            return [reply.headers.get("Holdpoint-Record") for reply in replies]

    named = asyncio.run(records())
    assert None not in named and len(set(named)) == 5
    assert set(named) <= {record["id"] for record in gateway.records("intent")}


def test_a_limit_answers_429(run_gateway: Callable[..., Gateway], recorder: Upstream) -> None:
    limits = [{"per": ["agent", "tool"], "class": "write", "rate": "2/1h"}]
    limited = run_gateway(recorder, limits=limits)
    before = len(recorder.seen("arrived"))
    answers = [ask(limited.plan(SUPPORT, recorder, []), "POST", "/v1/notes", json={"n": n}) for n in range(4)]
    assert [answer.status for answer in answers] == [201, 201, 429, 429]
    assert {"retry-after", "ratelimit", "ratelimit-policy"} <= {name for name, _ in answers[3].headers}
    assert decision(answers[3])["outcome"] == "limited"
    assert len(recorder.seen("arrived")) == before + 2
