"""Every part works without the gateway, so that a failure elsewhere is the gateway's. nginx stands in for it here:
a proxy that asks for a client certificate, knows nothing and decides nothing."""

import asyncio
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

import parts
import traffic
from parts import CLIENTS, Collector, Json, Upstream

CALLS: dict[str, tuple[Json, str]] = {
    "everything": ({"op": "call", "name": "get-sum", "arguments": {"a": 2, "b": 40}}, "42"),
    "ledger": ({"op": "call", "name": "add", "arguments": {"a": 2, "b": 40}}, "42"),
}


@pytest.fixture(params=["everything", "fastmcp"])
def mcp(request: pytest.FixtureRequest) -> Upstream:
    """Each MCP upstream in turn."""
    upstream: Upstream = request.getfixturevalue(request.param)
    return upstream


@pytest.mark.parametrize("client", CLIENTS)
def test_each_sdk_speaks_with_each_server(client: str, mcp: Upstream) -> None:
    call, expected = CALLS[mcp.name]
    steps: list[Json] = [{"op": "list"}, call, {"op": "parallel", "steps": [call, call]}]
    told = parts.agent(client, {"url": mcp.url, "steps": steps})

    names = {each["name"] for each in told["results"][0]["ok"]["tools"]}
    assert call["name"] in names
    assert expected in told["results"][1]["ok"]["content"][0]["text"]
    assert all("ok" in each for each in told["results"][2]["ok"])
    assert len(mcp.calls(call["name"])) >= 3, "the server's own log has the calls"


def test_dual_era_clients_speak_the_newest_revision_with_fastmcp(fastmcp: Upstream) -> None:
    for client, revision in [("python1", "2025-11-25"), ("python2", "2026-07-28"), ("typescript2", "2026-07-28")]:
        told = parts.agent(client, {"url": fastmcp.url, "steps": []})
        assert told["initialize"]["protocolVersion"] == revision, client


def test_nginx_serves_and_logs(nginx: Upstream) -> None:
    assert b"9007199254740993" in urllib.request.urlopen(f"{nginx.url}/v1/customers/7").read()
    order = urllib.request.Request(f"{nginx.url}/v1/orders", data=b'{"sku": "caf\xc3\xa9"}', method="POST")
    with urllib.request.urlopen(order) as response:
        assert response.status == 201
    seen = parts.until("the access log", lambda: [s for s in nginx.seen() if s["path"] == "/v1/orders"])
    assert seen[0]["body"] == '{"sku": "café"}'


def test_the_collector_writes_what_it_gets(collector: Collector) -> None:
    span: Json = {"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "hop", "kind": 2}
    batch = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    data = json.dumps(batch).encode()
    post = urllib.request.Request(f"{collector.endpoint}/v1/traces", data, {"Content-Type": "application/json"})
    urllib.request.urlopen(post).close()
    spans = parts.until("the span", lambda: collector.spans(span["traceId"]))
    assert (spans[0]["name"], spans[0]["kind"]) == ("hop", 2)


@dataclass
class StandIn:
    """nginx with a client-certificate check in front of the parts."""

    directory: Path
    port: int

    def plan(self, upstream: Upstream, steps: list[Json]) -> Json:
        """A plan that goes through it."""
        base = f"https://127.0.0.1:{self.port}/{upstream.name}"
        files = {name: str(self.directory / f"{name}.pem") for name in ("ca", "cert", "key")}
        return {"url": base + ("/mcp" if upstream.kind == "mcp" else ""), "steps": steps, **files}


def certificates(directory: Path) -> None:
    """One self-made authority and one leaf that serves as both sides' certificate."""
    extension = directory / "leaf.ext"
    extension.write_text("subjectAltName=IP:127.0.0.1,URI:spiffe://example.org/agent/support\n")
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for command in (
        ["req", "-x509", *ec, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=stand-in", "-days", "2"],
        ["req", "-new", *ec, "-keyout", "key.pem", "-out", "leaf.csr", "-subj", "/CN=leaf"],
        ["x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "cert.pem"]
        + ["-days", "2", "-extfile", "leaf.ext"],
    ):
        subprocess.run(["openssl", *command], cwd=directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def stand_in(
    directory: Path, everything: Upstream, fastmcp: Upstream, recorder: Upstream, nginx: Upstream
) -> Iterator[StandIn]:
    """Runs it."""
    place = directory / "stand-in"
    place.mkdir()
    certificates(place)
    port = parts.free_port()
    pass_on = "proxy_buffering off; proxy_request_buffering off; proxy_http_version 1.1; client_max_body_size 0;"
    locations = "".join(
        f"location /{each.name}/ {{ proxy_pass {each.base}/; proxy_set_header Connection ''; {pass_on} }}\n"
        for each in (everything, fastmcp, recorder, nginx)
    )
    tls = f"ssl_certificate {place}/cert.pem; ssl_certificate_key {place}/key.pem; ssl_verify_client on;"
    server = f"server {{ listen 127.0.0.1:{port} ssl http2; {tls} ssl_client_certificate {place}/ca.pem; {locations} }}"
    with parts.nginx(place, server, (port,)):
        yield StandIn(place, port)


@pytest.mark.parametrize("client", CLIENTS)
def test_each_sdk_presents_its_certificate(client: str, mcp: Upstream, stand_in: StandIn) -> None:
    call, expected = CALLS[mcp.name]
    told = parts.agent(client, stand_in.plan(mcp, [call]))
    assert expected in told["results"][0]["ok"]["content"][0]["text"]


def test_curl_presents_its_certificate(nginx: Upstream, stand_in: StandIn) -> None:
    plan = stand_in.plan(nginx, [])
    for version in ("--http1.1", "--http2"):
        reply = traffic.curl(f"{plan['url']}/v1/customers/7", version, plan=plan)
        assert (reply.exit, reply.status) == (0, 200)
        assert b"9007199254740993" in reply.body
    without = traffic.curl(f"{plan['url']}/v1/customers/7", plan={"ca": plan["ca"]})
    assert without.status != 200


def test_events_carry_their_time(recorder: Upstream, stand_in: StandIn) -> None:
    for plan in ({"url": recorder.url}, stand_in.plan(recorder, [])):
        delays = asyncio.run(traffic.event_delays_ms(plan, count=10, interval_ms=20))
        assert len(delays) == 10
        assert max(delays) < 500


def test_bodies_of_any_size_pass_both_ways(recorder: Upstream, stand_in: StandIn) -> None:
    size = 64 * 1024 * 1024
    for plan in ({"url": recorder.url}, stand_in.plan(recorder, [])):
        sent = asyncio.run(traffic.send_blob(plan, size))
        got = asyncio.run(traffic.fetch_blob(plan, size))
        assert sent.bytes == got.bytes == size
        assert sent.sha256 == got.sha256
        assert sent.echoed == sent.sha256


def test_load_counts_what_came_back(recorder: Upstream, stand_in: StandIn) -> None:
    async def briefly() -> traffic.Tally:
        tally = traffic.Tally()
        load = asyncio.create_task(traffic.load(stand_in.plan(recorder, []), tally, workers=4))
        await asyncio.sleep(0.5)
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
        return tally

    started = time.monotonic()
    tally = asyncio.run(briefly())
    assert tally.reads > 5 and tally.writes > 5 and tally.broken == 0
    assert len(recorder.seen("arrived")) >= tally.reads + tally.writes
    assert time.monotonic() - started < 10


def test_requests_are_recorded_as_they_were(recorder: Upstream) -> None:
    async def post() -> int:
        async with aiohttp.ClientSession() as session:
            url = URL(f"{recorder.url}/v1/notes?x=%2F", encoded=True)
            async with session.post(url, data=b"{}", headers={"X-Mark": "direct"}) as reply:
                return reply.status

    assert asyncio.run(post()) == 201
    seen = [each for each in recorder.seen() if parts.header(each["headers"], "x-mark") == "direct"]
    assert seen[0]["path"] == "/v1/notes?x=%2F"
    assert seen[0]["body"] == "{}"
