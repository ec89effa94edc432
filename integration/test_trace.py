"""One trace of every hop, read from a real collector; and a dead collector costs no call."""

import asyncio
import secrets
import statistics
import time
from collections.abc import Callable

import pytest

import parts
import traffic
from conftest import Figure
from gateway import READER, SUPPORT, Gateway, decision_of
from parts import CLIENTS, Collector, Json, Upstream, short

SERVER, CLIENT, INTERNAL = 2, 3, 1
STAGES = {"holdpoint.identify", "holdpoint.decode", "holdpoint.classify", "holdpoint.decide", "holdpoint.commit"}
ADD: Json = {"op": "call", "name": "add", "arguments": {"a": 1, "b": 2}}


@pytest.fixture(scope="module")
def gateway(
    run_gateway: Callable[..., Gateway], fastmcp: Upstream, recorder: Upstream, collector: Collector
) -> Gateway:
    """One gateway that exports to the collector."""
    return run_gateway(fastmcp, recorder, otlp=collector.endpoint)


def parent() -> tuple[str, str, str]:
    """A trace of the agent's own: its id, the calling span's id, and the header's value."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, f"00-{trace}-{span}-01"


def kind(span: Json) -> int:
    """OTLP's JSON may give the kind as a number or by name."""
    names = {"SPAN_KIND_SERVER": SERVER, "SPAN_KIND_CLIENT": CLIENT, "SPAN_KIND_INTERNAL": INTERNAL}
    return int(names.get(span["kind"], span["kind"]))


def hop(collector: Collector, trace: str, calling: str) -> tuple[Json, list[Json]]:
    """The server span whose parent is the agent's own span, with everything of its trace, once its hop is complete."""

    def complete() -> tuple[Json, list[Json]] | None:
        spans = collector.spans(trace)
        servers = [span for span in spans if kind(span) == SERVER and span.get("parentSpanId") == calling]
        return (servers[0], spans) if servers else None

    found: tuple[Json, list[Json]] = parts.until(f"the server span below {calling}", complete, seconds=20)
    return found


def below(root: Json, spans: list[Json]) -> list[Json]:
    """Every span that descends from one."""
    known, found, grew = {root["spanId"]}, [], True
    while grew:
        new = [span for span in spans if span.get("parentSpanId") in known and span["spanId"] not in known]
        known |= {span["spanId"] for span in new}
        found += new
        grew = bool(new)
    return found


def check_hop(collector: Collector, trace: str, calling: str, gateway: Gateway) -> tuple[Json, Json]:
    """Server span, stage spans inside it, client span to the upstream; returns the server's and the client's."""
    server, spans = hop(collector, trace, calling)
    inside = below(server, spans)
    stages = [span for span in inside if kind(span) == INTERNAL and span["name"].startswith("holdpoint.")]
    assert STAGES <= {span["name"] for span in stages}, sorted(span["name"] for span in stages)
    for stage in stages:
        assert int(server["startTimeUnixNano"]) <= int(stage["startTimeUnixNano"])
        assert int(stage["endTimeUnixNano"]) <= int(server["endTimeUnixNano"])
    clients = [span for span in inside if kind(span) == CLIENT]
    assert len(clients) == 1, [span["name"] for span in clients]
    record = server["attributes"]["holdpoint.record.id"]
    assert record in {each["id"] for each in gateway.records("intent")}
    return server, clients[0]


def expected_upstream(trace: str, client_span: Json) -> str:
    """The trace context that the upstream must have seen: the client span's."""
    return f"00-{trace}-{client_span['spanId']}-01"


@pytest.mark.parametrize("client", CLIENTS)
def test_an_mcp_call_is_one_trace(client: str, gateway: Gateway, fastmcp: Upstream, collector: Collector) -> None:
    """The parent is the `_meta` of the call; what the HTTP header says is somebody else's span."""
    trace, calling, traceparent = parent()
    other = parent()[2]
    step = {**ADD, "meta": {"traceparent": traceparent}}
    told = parts.agent(client, gateway.plan(SUPPORT, fastmcp, [step], headers={"traceparent": other}))
    assert told["results"][0]["ok"].get("isError") is not True

    server, client_span = check_hop(collector, trace, calling, gateway)
    assert server["name"] == "tools/call add"
    assert server["attributes"]["mcp.method.name"] == "tools/call"
    assert server["attributes"]["holdpoint.decision"] == "allowed"
    assert server["attributes"]["holdpoint.agent.id"] == SUPPORT.id
    seen = [each for each in fastmcp.seen() if trace in str(each)]
    calls = [each for each in seen if parts.is_call(parts.message(each), "add")]
    assert len(calls) == 1
    assert parts.header(calls[0]["headers"], "traceparent") == expected_upstream(trace, client_span)
    assert parts.message(calls[0])["params"]["_meta"]["traceparent"] == expected_upstream(trace, client_span)


def test_an_mcp_call_without_meta_goes_by_the_header(gateway: Gateway, fastmcp: Upstream, collector: Collector) -> None:
    trace, calling, traceparent = parent()
    plan = gateway.plan(SUPPORT, fastmcp, [ADD], headers={"traceparent": traceparent})
    assert "ok" in parts.agent("typescript1", plan)["results"][0]

    def call_span() -> Json | None:
        spans = [span for span in collector.spans(trace) if kind(span) == SERVER and span["name"] == "tools/call add"]
        return spans[0] if spans else None

    assert parts.until("the call's server span", call_span, seconds=20)["parentSpanId"] == calling


def test_an_http_call_is_one_trace(gateway: Gateway, recorder: Upstream, collector: Collector) -> None:
    trace, calling, traceparent = parent()

    async def post() -> int:
        async with traffic.session(gateway.plan(SUPPORT, recorder, [])) as client:
            headers = {"traceparent": traceparent}
            async with client.post(f"{gateway.url(recorder)}/v1/notes", json={}, headers=headers) as reply:
                return reply.status

    assert asyncio.run(post()) == 201
    server, client_span = check_hop(collector, trace, calling, gateway)
    assert server["name"] == "POST /v1/notes"
    seen = [each for each in recorder.seen() if trace in str(each["headers"])]
    assert parts.header(seen[0]["headers"], "traceparent") == expected_upstream(trace, client_span)


def test_a_refusal_is_an_error_in_the_trace(gateway: Gateway, fastmcp: Upstream, collector: Collector) -> None:
    trace, calling, traceparent = parent()
    before = len(fastmcp.calls("note"))
    step = {"op": "call", "name": "note", "arguments": {"text": "no"}, "meta": {"traceparent": traceparent}}
    told = parts.agent("python1", gateway.plan(READER, fastmcp, [step]))
    assert (decision_of(told["results"][0]["ok"]) or {})["outcome"] == "denied"

    server, spans = hop(collector, trace, calling)
    assert server["attributes"]["error.type"] == "denied"
    assert server["status"]["code"] in (2, "STATUS_CODE_ERROR")
    assert [span for span in below(server, spans) if kind(span) == CLIENT] == []
    assert len(fastmcp.calls("note")) == before


async def timed_calls(plan: Json, count: int) -> list[float]:
    """How long each of a number of reads took, in milliseconds; every one must succeed."""
    taken = []
    async with traffic.session(plan) as client:
        for number in range(count):
            started = time.monotonic()
            async with client.get(f"{plan['url']}/v1/notes/{number}") as reply:
                assert reply.status == 200, await reply.text()
                await reply.read()
            taken.append((time.monotonic() - started) * 1000)
    return taken


def test_the_collector_gets_every_span(
    gateway: Gateway, recorder: Upstream, collector: Collector, figure: Figure
) -> None:
    """Of each call its server span, its client span and its stages; and a server span for each record there is."""
    calling = {parent_span: traceparent for _, parent_span, traceparent in (parent() for _ in range(short(100, 1000)))}

    async def run() -> None:
        async with traffic.session(gateway.plan(SUPPORT, recorder, [])) as client:
            for number, traceparent in enumerate(calling.values()):
                headers = {"traceparent": traceparent}
                async with client.get(f"{gateway.url(recorder)}/v1/notes/{number}", headers=headers) as reply:
                    assert reply.status == 200

    asyncio.run(run())
    recorded = {record["id"] for record in gateway.records("intent", "refused")}

    def missing() -> tuple[set[str], set[str]]:
        traces: dict[str, list[Json]] = {}
        for span in collector.spans():
            traces.setdefault(span["traceId"], []).append(span)
        servers = [span for spans in traces.values() for span in spans if kind(span) == SERVER]
        whole = {span.get("parentSpanId") for span in servers if is_whole_hop(span, traces[span["traceId"]])}
        named = {span["attributes"].get("holdpoint.record.id") for span in servers}
        return calling.keys() - whole, recorded - named

    parts.until("every span", lambda: missing() == (set(), set()), seconds=30, pause=0.5)
    figure("collector_calls", len(calling))
    figure("collector_calls_whole", len(calling) - len(missing()[0]))
    figure("collector_records", len(recorded))
    figure("collector_records_without_server_span", len(missing()[1]))
    figure("collector_spans", len(collector.spans()))
    figure("collector_spans_dropped", dropped(gateway))
    assert dropped(gateway) == 0


def is_whole_hop(server: Json, trace: list[Json]) -> bool:
    """Whether a server span's client span and stages are there too."""
    inside = below(server, trace)
    clients = [span for span in inside if kind(span) == CLIENT]
    return len(clients) == 1 and {span["name"] for span in inside} >= STAGES


def dropped(gateway: Gateway) -> int:
    """What telemetry says that it lost."""
    samples = [line for line in gateway.metrics().splitlines() if line.startswith("holdpoint_telemetry_dropped")]
    assert samples, "the metric is always there"
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in samples))


def test_a_dead_collector_costs_no_call(
    gateway: Gateway, recorder: Upstream, collector: Collector, figure: Figure
) -> None:
    """Last in this file: the collector does not come back."""
    plan, count = gateway.plan(SUPPORT, recorder, []), short(300, 3000)
    alive = asyncio.run(timed_calls(plan, count))
    collector.process.kill()
    dead = asyncio.run(timed_calls(plan, count))
    figure("collector_alive_call_ms_p50", f"{statistics.median(alive):.2f}")
    figure("collector_dead_call_ms_p50", f"{statistics.median(dead):.2f}")
    figure("collector_dead_call_ms_max", f"{max(dead):.2f}")
    assert len(dead) == count
    assert gateway.ready()
