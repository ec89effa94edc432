"""What is long: events pass as they arrive, and a body of any size passes without being held."""

import asyncio
import os
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

import traffic
from conftest import Figure
from gateway import SUPPORT, Gateway
from parts import Upstream, header, short, until

GROWTH_KIB_MAX = 30 * 1024
BLOB_BYTES = 1024 * 1024 * 1024
UPLOAD_H2_BYTES = 256 * 1024 * 1024
WARM_BYTES = 64 * 1024  # so little that a gateway which holds bodies cannot hide it before the first measurement
DELAY_MS_MAX = 250.0  # far above what passing costs, far below what buffering would


@pytest.fixture(scope="module")
def gateway(run_gateway: Callable[..., Gateway], recorder: Upstream) -> Gateway:
    """One gateway before the recording API."""
    return run_gateway(recorder)


def test_events_pass_as_they_arrive(gateway: Gateway, recorder: Upstream, figure: Figure) -> None:
    count, interval = short(40, 200), 25
    direct = asyncio.run(traffic.event_delays_ms({"url": recorder.url}, count, interval))
    through = asyncio.run(traffic.event_delays_ms(gateway.plan(SUPPORT, recorder, []), count, interval))
    assert len(through) == len(direct) == count
    figure("sse_event_delay_direct_ms_median", f"{statistics.median(direct):.2f}")
    figure("sse_event_delay_through_ms_median", f"{statistics.median(through):.2f}")
    figure("sse_event_delay_direct_ms_max", f"{max(direct):.2f}")
    figure("sse_event_delay_through_ms_max", f"{max(through):.2f}")
    figure("sse_event_delay_added_ms_median", f"{statistics.median(through) - statistics.median(direct):.2f}")
    assert max(through) < DELAY_MS_MAX, "an event waited for another"


def test_a_gibibyte_passes_both_ways_in_little_memory(gateway: Gateway, recorder: Upstream, figure: Figure) -> None:
    plan = gateway.plan(SUPPORT, recorder, [])
    for warm in (traffic.send_blob, traffic.fetch_blob):
        asyncio.run(warm(plan, WARM_BYTES))
    before = gateway.rss_peak_kib()
    sent = asyncio.run(traffic.send_blob(plan, BLOB_BYTES))
    between = gateway.rss_peak_kib()
    got = asyncio.run(traffic.fetch_blob(plan, BLOB_BYTES))
    after = gateway.rss_peak_kib()

    figure("blob_up_seconds", f"{sent.seconds:.1f}")
    figure("blob_down_seconds", f"{got.seconds:.1f}")
    figure("blob_up_rss_growth_kib", between - before)
    figure("blob_down_rss_growth_kib", after - between)
    assert sent.bytes == got.bytes == BLOB_BYTES
    assert sent.echoed == sent.sha256 == got.sha256
    assert after - before < GROWTH_KIB_MAX


def test_an_upload_over_http2_is_not_held_either(
    run_gateway: Callable[..., Gateway], recorder: Upstream, tmp_path: Path, figure: Figure
) -> None:
    """Through a gateway of its own: a peak that another test left would hide this one's."""
    gateway = run_gateway(recorder)
    plan = gateway.plan(SUPPORT, recorder, [])
    asyncio.run(traffic.send_blob(plan, WARM_BYTES))
    body = tmp_path / "body"
    body.touch()
    before = gateway.rss_peak_kib()
    os.truncate(body, UPLOAD_H2_BYTES)
    opaque = ["--header", "Content-Type: application/octet-stream", "--upload-file", str(body)]
    reply = traffic.curl(f"{plan['url']}/v1/blob", "--http2", *opaque, plan=plan)
    assert (reply.exit, reply.status, reply.version) == (0, 200, "2"), reply.error
    assert reply.json()["bytes"] == UPLOAD_H2_BYTES
    growth = gateway.rss_peak_kib() - before
    figure("blob_up_http2_rss_growth_kib", growth)
    assert growth < GROWTH_KIB_MAX


def test_a_body_that_is_not_marked_opaque_is_bounded(gateway: Gateway, recorder: Upstream) -> None:
    before = len(recorder.seen("arrived"))

    async def post() -> int:
        async with traffic.session(gateway.plan(SUPPORT, recorder, [])) as client:
            async with client.post(f"{gateway.url(recorder)}/v1/notes", data=bytes(5 * 1024 * 1024)) as reply:
                return reply.status

    assert asyncio.run(post()) in {400, 413}
    assert len(recorder.seen("arrived")) == before


def test_the_client_leaving_ends_a_read_upstream(gateway: Gateway, recorder: Upstream) -> None:
    """A stream that nobody reads any more does not go on behind the gateway: the upstream sees its end."""

    async def leave() -> str:
        async with traffic.session(gateway.plan(SUPPORT, recorder, [])) as client:
            reply = await client.get(f"{gateway.url(recorder)}/v1/events?n=100000&interval_ms=10")
            await reply.content.readline()
            reply.close()
            return reply.headers["Holdpoint-Record"]

    left = asyncio.run(leave())

    def seen() -> bool:
        return any(header(each["headers"], "holdpoint-record") == left for each in recorder.seen("left"))

    until("the upstream to see the end", seen, seconds=5)
    outcomes = until("its outcome", lambda: [each for each in gateway.records("outcome") if each["intent"] == left])
    assert [outcome["status"] for outcome in outcomes] == ["client-gone"]
    delays = asyncio.run(traffic.event_delays_ms(gateway.plan(SUPPORT, recorder, []), 3, 10))
    assert len(delays) == 3, "the next call works at once"
