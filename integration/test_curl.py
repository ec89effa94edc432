"""curl, with and without a certificate, over HTTP/1.1 and HTTP/2."""

from collections.abc import Callable
from pathlib import Path

import pytest

import traffic
from gateway import READER, STRANGER, SUPPORT, Gateway, problem_decision
from parts import Json, Upstream

VERSIONS = {"--http1.1": "1.1", "--http2": "2"}


@pytest.fixture(scope="module")
def gateway(run_gateway: Callable[..., Gateway], nginx: Upstream, recorder: Upstream) -> Gateway:
    """One gateway before nginx and the recording API."""
    return run_gateway(nginx, recorder)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """Each version of HTTP in turn."""
    return str(request.param)


def files(gateway: Gateway) -> Json:
    """The agent's files."""
    return {**gateway.credentials(SUPPORT)}


def test_a_read_comes_back(gateway: Gateway, nginx: Upstream, version: str) -> None:
    reply = traffic.curl(f"{gateway.url(nginx)}/v1/customers/7", version, plan=files(gateway))
    assert (reply.exit, reply.status, reply.version) == (0, 200, VERSIONS[version]), reply.error
    assert reply.json()["name"] == "Zoë"
    assert reply.headers["holdpoint-record"]


def test_a_large_reply_is_whole(gateway: Gateway, nginx: Upstream, version: str) -> None:
    through = traffic.curl(f"{gateway.url(nginx)}/v1/report", version, plan=files(gateway))
    assert through.body == traffic.curl(f"{nginx.url}/v1/report").body


def test_a_write_arrives(gateway: Gateway, nginx: Upstream, version: str) -> None:
    before = len(nginx.seen())
    order = ["--json", '{"sku": "A-7"}']
    reply = traffic.curl(f"{gateway.url(nginx)}/v1/orders", version, *order, plan=files(gateway))
    assert (reply.exit, reply.status) == (0, 201), reply.error
    seen = [each for each in nginx.seen()[before:] if each["path"] == "/v1/orders"]
    assert [each["body"] for each in seen] == ['{"sku": "A-7"}']
    assert seen[0]["record"] == reply.headers["holdpoint-record"]


def test_without_a_certificate_nothing_answers(gateway: Gateway, nginx: Upstream, version: str) -> None:
    before = len(nginx.seen())
    bare = {"ca": files(gateway)["ca"]}
    reply = traffic.curl(f"{gateway.url(nginx)}/v1/customers/7", version, plan=bare)
    assert reply.exit != 0 and reply.status == 0, reply
    assert len(nginx.seen()) == before


def test_a_certificate_of_another_authority_is_refused(gateway: Gateway, nginx: Upstream, tmp_path: Path) -> None:
    foreign = Gateway(tmp_path, [], port=1, health=1)
    foreign.issue()
    plan = {**foreign.credentials(SUPPORT), "ca": files(gateway)["ca"]}
    before = len(nginx.seen())
    reply = traffic.curl(f"{gateway.url(nginx)}/v1/customers/7", plan=plan)
    assert reply.exit != 0 and reply.status == 0, reply
    assert len(nginx.seen()) == before


def test_an_unregistered_agent_is_forbidden(gateway: Gateway, nginx: Upstream, version: str) -> None:
    before = len(nginx.seen())
    reply = traffic.curl(f"{gateway.url(nginx)}/v1/customers/7", version, plan=gateway.credentials(STRANGER))
    assert (reply.exit, reply.status) == (0, 403), reply
    assert len(nginx.seen()) == before


def test_a_denied_write_is_a_problem_with_its_decision(gateway: Gateway, nginx: Upstream, version: str) -> None:
    before = len(nginx.seen())
    order = ["--json", '{"sku": "A-7"}']
    reply = traffic.curl(f"{gateway.url(nginx)}/v1/orders", version, *order, plan=gateway.credentials(READER))
    assert (reply.exit, reply.status) == (0, 403), reply
    assert reply.headers["content-type"].startswith("application/problem+json")
    decision = problem_decision(reply.json())
    assert decision["outcome"] == "denied"
    assert decision["reason"] and decision["record"] == reply.headers["holdpoint-record"]
    assert {"outcome", "rule", "reason", "record"} <= decision.keys()
    assert len(nginx.seen()) == before


def test_an_unknown_route_is_not_found(gateway: Gateway) -> None:
    reply = traffic.curl(f"{gateway.base}/nowhere/v1/x", plan=files(gateway))
    assert (reply.exit, reply.status) == (0, 404)


def test_the_health_listener_has_nothing_else(gateway: Gateway) -> None:
    base = f"http://127.0.0.1:{gateway.health}"
    told = {path: traffic.curl(base + path).status for path in ("/healthz", "/readyz", "/metrics", "/v1/agents", "/")}
    assert told == {"/healthz": 200, "/readyz": 200, "/metrics": 200, "/v1/agents": 404, "/": 404}
