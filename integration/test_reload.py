"""Changes under load: a thousand generations, no call that fails for them, and nothing that stays behind."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import traffic
from conftest import Figure
from gateway import SUPPORT, Gateway
from parts import Upstream, short, until

WARM, WORKERS = 40, 4
GROWTH_KIB_MAX = 24 * 1024


def resident_kib(pid: int) -> int:
    """What a process has resident now."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def generation(gateway: Gateway) -> float:
    """The generation in force."""
    line = next(each for each in gateway.metrics().splitlines() if each.startswith("holdpoint_generation "))
    return float(line.rsplit(" ", 1)[1])


def change(gateway: Gateway, number: int) -> None:
    """Writes another registry, other limits and other policies, and has them read."""
    assert gateway.process is not None
    before = generation(gateway)
    entries = [agent.entry() | {"purpose": f"generation {number}"} for agent in gateway.agents]
    gateway.write("agents.yaml", entries)
    gateway.limits = [{"per": "agent", "rate": f"{100_000 + number}/s", "burst": 100_000}]
    gateway.write("holdpoint.yaml", gateway.configuration())
    policy = gateway.directory / "policies/unlisted.cedar"
    policy.write_text(policy.read_text(encoding="utf-8").split("\n// generation")[0] + f"\n// generation {number}\n", encoding="utf-8")
    os.kill(gateway.process.popen.pid, signal.SIGHUP)
    until("the next generation", lambda: generation(gateway) > before, pause=0.01)


async def reloaded(gateway: Gateway, recorder: Upstream, tally: traffic.Tally, numbers: range) -> None:
    """Changes one after another while agents call."""
    plan = {"url": gateway.url(recorder), **gateway.credentials(SUPPORT)}
    load = asyncio.create_task(traffic.load(plan, tally, WORKERS))
    for number in numbers:
        await asyncio.to_thread(change, gateway, number)
    load.cancel()
    await asyncio.gather(load, return_exceptions=True)


def test_a_thousand_changes_under_load(
    run_gateway: Callable[..., Gateway], recorder: Upstream, figure: Figure
) -> None:
    """No call breaks or is refused; memory and descriptors are as after the first few."""
    gateway, tally = run_gateway(recorder), traffic.Tally()
    assert gateway.process is not None
    pid, count = gateway.process.popen.pid, short(120, 1_000)
    asyncio.run(reloaded(gateway, recorder, tally, range(WARM)))
    time.sleep(1)
    before, open_before = resident_kib(pid), len(os.listdir(f"/proc/{pid}/fd"))
    asyncio.run(reloaded(gateway, recorder, tally, range(WARM, count)))
    time.sleep(1)
    after, open_after = resident_kib(pid), len(os.listdir(f"/proc/{pid}/fd"))
    figure("reloads", count)
    figure("reload_calls", tally.reads + tally.writes)
    figure("reload_rss_growth_kib", after - before)
    assert (tally.broken, tally.refused) == (0, 0), tally.first_refusal
    assert tally.reads + tally.writes > count
    assert open_after <= open_before + 4, (open_before, open_after)
    assert after - before < GROWTH_KIB_MAX, (before, after)
