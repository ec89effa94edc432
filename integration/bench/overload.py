"""Overload: one agent far beyond its limit beside one within it, who must not notice."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import traffic
from gateway import DOMAIN
from load import Load, oha, through
from parts import Json
from proxies import FLOOD, Proxy
from upstream import http_work
from world import World

TIMES = 3
FLOOD_CONNECTIONS = 64
CALM_RATE = 50
SAMPLE_SECONDS = 0.05


@dataclass
class Watch:
    """What is seen meanwhile: memory, and single refusals with their headers."""

    proxy: Proxy
    over: threading.Event = field(default_factory=threading.Event)
    rss_kib: list[int] = field(default_factory=list)
    refused: int = 0
    with_retry_after: int = 0

    def memory(self) -> None:
        """Looks at the memory until it is over."""
        while not self.over.wait(0.2):
            self.rss_kib.append(self.proxy.memory().rss)

    def refusals(self) -> None:
        """Calls as the flooding agent until it is over, and reads each answer's headers."""
        asyncio.run(self.sample())

    async def sample(self) -> None:
        """One call after another."""
        pki = self.proxy.pki
        files = {"cert": str(pki / f"{FLOOD.short}.pem"), "key": str(pki / f"{FLOOD.short}-key.pem")}
        async with traffic.session({"ca": str(pki / f"{DOMAIN}.pem"), **files}) as client:
            while not self.over.is_set():
                async with client.get(self.proxy.base + http_work("small").path) as reply:
                    await reply.read()
                    assert reply.status in (200, 429), reply.status
                    self.refused += reply.status == 429
                    self.with_retry_after += reply.status == 429 and "Retry-After" in reply.headers
                await asyncio.sleep(SAMPLE_SECONDS)


def row(world: World) -> Json:
    """Measures what the gateway can do, then asks for three times that."""
    work, seconds = http_work("small"), world.short(10, 60)
    with world.holdpoints({"capacity": {}}) as (gateway,):
        capacity = through(gateway, Load(work, world.seconds)).calls_per_second
    rate = max(10 * CALM_RATE, int(capacity / 4))
    limits = [{"per": "certificate", "rate": f"{rate}/s", "burst": rate}]
    limits.append({"per": "agent", "rate": f"{rate}/s", "burst": rate})
    with world.holdpoints({"overloaded": {"limits": limits}}) as (gateway,):
        calm = Load(work, seconds, 4, CALM_RATE)
        alone = through(gateway, Load(work, world.short(3, 10), 4, CALM_RATE))
        before, watch = gateway.memory(), Watch(gateway)
        flood = Load(work, seconds, FLOOD_CONNECTIONS, int(capacity * TIMES), agent=FLOOD, each_call=False)
        with ThreadPoolExecutor(4) as pool:
            watching = [pool.submit(watch.memory), pool.submit(watch.refusals)]
            flooding = pool.submit(oha, gateway.base, gateway.files(FLOOD), flood)
            try:
                beside = through(gateway, calm)  # insists that every call succeeds
                flooded: Json = json.loads(flooding.result().text)
            finally:
                watch.over.set()
            for each in watching:
                each.result()
        time.sleep(world.short(2, 10))
        after = gateway.memory()
    statuses = {int(status): count for status, count in flooded["statusCodeDistribution"].items()}
    told, errors = sum(statuses.values()), flooded.get("errorDistribution") or {}
    assert set(statuses) <= {200, 429} and not errors, f"the flood was told {statuses} {errors}"
    assert statuses.get(429) and watch.refused, "nobody was refused"
    return {
        "capacity": capacity,
        "limit": rate,
        "seconds": seconds,
        "asked_per_second": capacity * TIMES,
        "offered_per_second": told / flooded["summary"]["total"],
        "refused_share": statuses[429] / told,
        "refusals_looked_at": watch.refused,
        "refusals_with_retry_after": watch.with_retry_after,
        "calm": {"rate": CALM_RATE, "calls": beside.calls, "p50_us": beside.p50_us, "p99_us": beside.p99_us},
        "calm_alone": {"calls": alone.calls, "p50_us": alone.p50_us, "p99_us": alone.p99_us},
        "rss_kib": {"before": before.rss, "peak": max([*watch.rss_kib, after.rss]), "after": after.rss},
    }


