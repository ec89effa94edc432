"""Load by oha on one core, and what came of it. A reply that is not the upstream's own is a failure, never a figure.

At a fixed rate each call is looked at: those of the first second, which has the handshakes, are left out of the
percentiles, and those that came while the machine stood still.
"""

import csv
import json
import math
import select
import statistics
import subprocess
import time
from dataclasses import dataclass, field

from gateway import SUPPORT, Agent
from machine import LOAD_CORE, pinned
from parts import CACHE, Json
from proxies import Proxy
from stalls import Stalls
from upstream import Work

OHA = str(CACHE / "oha/bin/oha")
CONNECTIONS = 16
# At a fixed rate: how long handshakes may delay calls, and of how many calls a percentile is worth something.
WARM_S = 1.0
UNDISTURBED_MIN = 2_000
MCP_HEADERS = ["-T", "application/json", "-A", "application/json, text/event-stream"]


@dataclass
class Round:
    """One load through one proxy."""

    calls: int
    seconds: float
    p50_us: float
    p99_us: float
    cpu_ns: int
    paced: "Paced | None" = None

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
class Paced:
    """The calls of a load at a fixed rate: when each began, in seconds from the load's beginning, how long it took in
    microseconds from when it was due, and when the load began by the monotonic clock, at the latest."""

    began: list[float]
    late_us: list[float]
    start: float

    def undisturbed_us(self, stalls: Stalls) -> list[float]:
        """What calls took that no handshake and no stall delayed."""
        touched = stalls.touched(self.began, self.start)
        calls = zip(self.began, self.late_us, touched, strict=True)
        return [late for began, late, was in calls if began >= WARM_S and not was]


@dataclass
class Load:
    """What to ask for, and how."""

    work: Work
    seconds: float
    connections: int = CONNECTIONS
    rate: int | None = None
    keepalive: bool = True
    agent: Agent = field(default_factory=lambda: SUPPORT)
    each_call: bool = True  # whether a load at a fixed rate is told call by call, rather than as a summary

    @property
    def written(self) -> str:
        """The form of oha's report."""
        return "csv" if self.rate and self.each_call else "json"

    def options(self) -> list[str]:
        """oha's words for it."""
        words = ["--no-tui", "--output-format", self.written, "--disable-compression", "--worker-threads", "1", "-w"]
        words += ["-z", f"{self.seconds}s", "-c", str(self.connections), "-t", "30s"]
        if self.rate:
            words += ["-q", str(self.rate), "--latency-correction"]
        if not self.keepalive:
            words += ["--disable-keepalive"]
        if self.work.body is not None:
            words += ["-m", "POST", *MCP_HEADERS, "-d", self.work.body]
        return words


@dataclass
class Told:
    """What oha wrote, how long it took in all, and when it began to write, by the monotonic clock."""

    text: str
    elapsed: float
    wrote: float


def oha(base: str, files: list[str], load: Load) -> Told:
    """Runs it on the load's core and gives its own report."""
    command = pinned(LOAD_CORE, [OHA, *load.options(), *files, base + load.work.path])
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout and running.stderr
        ready = select.select([running.stdout], [], [], load.seconds + 90)[0]
        wrote = time.monotonic()
        if not ready:
            running.kill()
        text, errors = running.communicate(timeout=90)
    assert running.returncode == 0, f"oha: {running.returncode}\n{errors[-2000:]}{text[-2000:]}"
    return Told(text, time.monotonic() - started, wrote)


def through(proxy: Proxy, load: Load) -> Round:
    """Loads a proxy, and insists that each call came back with the upstream's reply."""
    before = proxy.cpu_ns()
    told = oha(proxy.base, proxy.files(load.agent), load)
    ended = proxy.process.popen.poll()
    assert ended is None, f"{proxy.name} ended with {ended} under load:\n{proxy.process.tail()}"
    return round_of(proxy.name, load, told, proxy.cpu_ns() - before)


def direct(port: int, load: Load) -> Round:
    """The same load without a proxy and without TLS."""
    return round_of("direct", load, oha(f"http://127.0.0.1:{port}", [], load), 0)


def round_of(who: str, load: Load, told: Told, spent: int) -> Round:
    """The figures of a report."""
    if load.written == "csv":
        return paced(who, load, told, spent)
    written: Json = json.loads(told.text)
    insist(who, load, written)
    percentiles, summary = written["latencyPercentiles"], written["summary"]
    calls = sum(written["statusCodeDistribution"].values())
    seconds = min(summary["total"], told.elapsed)
    return Round(calls, seconds, percentiles["p50"] * 1e6, percentiles["p99"] * 1e6, spent)


def paced(who: str, load: Load, told: Told, spent: int) -> Round:
    """The figures of a report that has a line for each call. It is written as soon as the last call is done."""
    calls = list(csv.DictReader(told.text.splitlines()))
    wrong = [each for each in calls if each["status"] != "200" or int(each["bytes"]) != load.work.reply_bytes]
    assert calls and not wrong, f"{who}, {load.work.name}: {len(wrong)} of {len(calls)} are no replies: {wrong[:3]}"
    began = [float(each["request-start"]) for each in calls]
    late_us = [float(each["request-duration"]) * 1e6 for each in calls]
    kept = Paced(began, late_us, told.wrote - load.seconds)
    return Round(len(calls), max(began), percentile(late_us, 50), percentile(late_us, 99), spent, kept)


def percentile(values: list[float], which: int) -> float:
    """One percentile, by the nearest rank."""
    return sorted(values)[math.ceil(len(values) * which / 100) - 1]


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


def undisturbed(rounds: list[Round], stalls: Stalls) -> Json:
    """The percentiles of calls that no stall of the machine delayed, and which share of all that is."""
    calls = [each.paced.undisturbed_us(stalls) for each in rounds if each.paced]
    enough = [each for each in calls if len(each) >= UNDISTURBED_MIN]
    assert enough, f"the machine stands still too often: {[len(each) for each in calls]} calls were not disturbed"
    return {
        "share": sum(map(len, calls)) / sum(each.calls for each in rounds),
        "p50_us": spread([percentile(each, 50) for each in enough]),
        "p99_us": spread([percentile(each, 99) for each in enough]),
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
