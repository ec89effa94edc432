"""Load by oha on one core, and what came of it. A reply that is not the upstream's own is a failure, never a figure."""

import json
import statistics
import subprocess
import time
from dataclasses import dataclass, field

from gateway import SUPPORT, Agent
from machine import LOAD_CORE, pinned
from parts import CACHE, Json
from proxies import Proxy
from upstream import Work

OHA = str(CACHE / "oha/bin/oha")
CONNECTIONS = 16
MCP_HEADERS = ["-T", "application/json", "-A", "application/json, text/event-stream"]


@dataclass
class Round:
    """One load through one proxy."""

    calls: int
    seconds: float
    p50_us: float
    p99_us: float
    cpu_ns: int

    @property
    def cpu_us_per_call(self) -> float:
        """What one call cost the proxy."""
        return self.cpu_ns / self.calls / 1000

    @property
    def calls_per_second(self) -> float:
        """How many went through."""
        return self.calls / self.seconds

    @property
    def busy(self) -> float:
        """The share of its core that the proxy used; below 0.9 the load was the bottleneck."""
        return self.cpu_ns / self.seconds / 1e9


@dataclass
class Load:
    """What to ask for, and how."""

    work: Work
    seconds: float
    connections: int = CONNECTIONS
    rate: int | None = None
    keepalive: bool = True
    agent: Agent = field(default_factory=lambda: SUPPORT)

    def options(self) -> list[str]:
        """oha's words for it."""
        words = ["--no-tui", "--output-format", "json", "--disable-compression", "--worker-threads", "1", "-w"]
        words += ["-z", f"{self.seconds}s", "-c", str(self.connections), "-t", "30s"]
        if self.rate:
            words += ["-q", str(self.rate), "--latency-correction"]
        if not self.keepalive:
            words += ["--disable-keepalive"]
        if self.work.body is not None:
            words += ["-m", "POST", *MCP_HEADERS, "-d", self.work.body]
        return words


def oha(base: str, files: list[str], load: Load) -> Json:
    """Runs it on the load's core and gives its own report."""
    command = pinned(LOAD_CORE, [OHA, *load.options(), *files, base + load.work.path])
    done = subprocess.run(command, capture_output=True, text=True, timeout=load.seconds + 90, check=False)
    assert done.returncode == 0, f"oha: {done.returncode}\n{done.stderr[-2000:]}{done.stdout[-2000:]}"
    told: Json = json.loads(done.stdout)
    return told


def through(proxy: Proxy, load: Load) -> Round:
    """Loads a proxy, and insists that each call came back with the upstream's reply."""
    before, started = proxy.cpu_ns(), time.monotonic()
    told = oha(proxy.base, proxy.files(load.agent), load)
    ended = proxy.process.popen.poll()
    assert ended is None, f"{proxy.name} ended with {ended} under load:\n{proxy.process.tail()}"
    spent, elapsed = proxy.cpu_ns() - before, time.monotonic() - started
    insist(proxy.name, load, told)
    return round_of(told, spent, elapsed)


def direct(port: int, load: Load) -> Round:
    """The same load without a proxy and without TLS."""
    told = oha(f"http://127.0.0.1:{port}", [], load)
    insist("direct", load, told)
    return round_of(told, 0, 0)


def round_of(told: Json, spent: int, elapsed: float) -> Round:
    """The figures of a report."""
    percentiles, summary = told["latencyPercentiles"], told["summary"]
    calls = sum(told["statusCodeDistribution"].values())
    seconds = min(summary["total"], elapsed) if elapsed else summary["total"]
    return Round(calls, seconds, percentiles["p50"] * 1e6, percentiles["p99"] * 1e6, spent)


def insist(who: str, load: Load, told: Json) -> None:
    """Every status is 200, nothing failed, and the bytes are exactly the upstream's: a refusal has another size."""
    statuses, errors = told["statusCodeDistribution"], told.get("errorDistribution") or {}
    assert set(statuses) == {"200"} and not errors, f"{who}, {load.work.name}: {statuses} {errors}"
    got, expected = told["summary"]["totalData"], load.work.reply_bytes * statuses["200"]
    assert got == expected, f"{who}, {load.work.name}: {got} bytes of replies and not {expected}"


def spread(values: list[float]) -> Json:
    """The median, the least and the most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summed(rounds: list[Round]) -> Json:
    """Several rounds as they are kept."""
    return {
        "rounds": len(rounds),
        "calls": sum(each.calls for each in rounds),
        "cpu_us_per_call": spread([each.cpu_us_per_call for each in rounds]),
        "calls_per_second": spread([each.calls_per_second for each in rounds]),
        "p50_us": spread([each.p50_us for each in rounds]),
        "p99_us": spread([each.p99_us for each in rounds]),
        "busy": spread([each.busy for each in rounds]),
    }


def alternating(proxies: list[Proxy], load: Load, rounds: int) -> dict[str, Json]:
    """Loads the proxies in turn, several times over, so that whatever else the machine does meets all of them."""
    kept: dict[str, list[Round]] = {proxy.name: [] for proxy in proxies}
    for proxy in proxies:  # nothing is measured cold
        through(proxy, Load(load.work, 0.5, load.connections, None, load.keepalive))
    for turn in range(rounds):
        for proxy in proxies if turn % 2 == 0 else reversed(proxies):
            kept[proxy.name].append(through(proxy, load))
    return {name: summed(each) for name, each in kept.items()}
