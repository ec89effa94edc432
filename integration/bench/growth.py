#!/usr/bin/env python3
"""How cost grows: `run.sh --growth` measures in process and through the gateway, draws docs/plots, and writes the
blocks `growth` and `sizing` of docs/performance.md.

`growth.py` and `plots.py` stand apart, because only the latter needs matplotlib.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import machine  # noqa: E402
import main  # noqa: E402
import sizing  # noqa: E402
from held import http1, opened  # noqa: E402
from load import Load, through  # noqa: E402
from parts import CACHE, CACHE_ROOT, REPOSITORY, Json  # noqa: E402
from proxies import Proxy  # noqa: E402
from rows import program  # noqa: E402
from upstream import tool_work  # noqa: E402
from world import RESULTS, World, world  # noqa: E402

TESTS = ("policies", "agents", "sessions", "memory", "records", "arguments")
CONNECTIONS = (1, 10, 100, 1_000, 5_000, 10_000)
RATE = 1_000  # calls a second, over 16 connections of their own


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description="How cost grows")
    parser.add_argument("--quick", action="store_true", help="short durations: shows that it works, not how fast")
    parser.add_argument("--only", default=",".join((*TESTS, "connections")), help=f"of {', '.join(TESTS)}, connections")
    parser.add_argument("--draw", action="store_true", help="measure nothing: draw and write what was measured last")
    return parser.parse_args()


def tests() -> list[str]:
    """The measurements in process: HOLDPOINT_GROWTH_BIN, or the test target in release."""
    named = os.environ.get("HOLDPOINT_GROWTH_BIN", "")
    if named:
        return [named]
    target = Path(os.environ.get("CARGO_TARGET_DIR", str(CACHE_ROOT / "target"))).resolve()
    command = ["cargo", "test", "--release", "--locked", "--test", "growth", "--target-dir", str(target)]
    subprocess.run([*command, "--no-run"], cwd=REPOSITORY, check=True)
    return [*command, "--quiet", "--"]


def in_process(command: list[str], name: str, quick: bool) -> list[Json]:
    """The points of one test."""
    words = [*command, name, "--exact", "--ignored", "--nocapture", "--test-threads=1"]
    more = {"HOLDPOINT_GROWTH_RECORDS_MAX": "100000" if quick else "10000000"}
    done = subprocess.run(
        words, cwd=REPOSITORY, env={**os.environ, **more}, stdout=subprocess.PIPE, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, f"{name}: {done.returncode}\n{done.stdout[-2000:]}"
    # The first point stands behind the name of its test.
    lines = (line[line.find("{"):] for line in done.stdout.splitlines() if '{"plot"' in line)
    points: list[Json] = [json.loads(line) for line in lines if line.startswith("{")]
    assert points, f"{name} gave no point:\n{done.stdout[-2000:]}"
    return points


def point(plot: str, series: str, x: int, values: list[float]) -> Json:
    """A point, as tests/growth.rs prints them."""
    return {"plot": plot, "series": series, "x": x, "values": values}


async def beside_idle(shared: World, proxy: Proxy) -> list[Json]:
    """CPU of a call, and memory, beside more and more connections that idle."""
    points, pairs = [], []
    load = Load(tool_work("small"), shared.short(1, 4), rate=RATE)
    for count in CONNECTIONS:
        pairs += await opened(proxy, count - len(pairs), http1, "http/1.1")
        await asyncio.to_thread(through, proxy, Load(load.work, 0.5, rate=RATE))
        rounds = [await asyncio.to_thread(through, proxy, load) for _ in range(shared.rounds)]
        gone = sum(reader.at_eof() for reader, _ in pairs)
        assert gone == 0, f"{gone} of {count} connections were closed"
        points.append(point("connections", "CPU", count, [each.cpu_us_per_call for each in rounds]))
        points.append(point("connections", "p50", count, [each.p50_us for each in rounds]))
        points.append(point("connection-memory", "anonymous", count, [proxy.memory().anonymous / 1024]))
    for _, writer in pairs:
        writer.transport.abort()
    return points


def record_bytes(shared: World, proxy: Proxy) -> list[Json]:
    """What a call leaves in the audit: an intent and an outcome."""
    audit = shared.directory / proxy.name / "state/audit"
    points = []
    for series, tool in (("read", "lookup"), ("write", "note")):
        before = sum(file.stat().st_size for file in audit.glob("*.jsonl"))
        done = through(proxy, Load(tool_work("small", tool), 1, rate=RATE))
        time.sleep(0.2)
        after = sum(file.stat().st_size for file in audit.glob("*.jsonl"))
        points.append(point("call-bytes", series, done.calls, [(after - before) / done.calls]))
    return points


def through_gateway(quick: bool) -> list[Json]:
    """The points that need the gateway."""
    with world(quick) as shared, shared.holdpoints({"growth": {}}) as (proxy,):
        points = record_bytes(shared, proxy)
        return points + asyncio.run(beside_idle(shared, proxy))


def keep(results: Json) -> Path:
    """The newest points under a fixed name, those that were not taken again included, and this run by date."""
    file = RESULTS / "growth.json"
    old: list[Json] = json.loads(file.read_text(encoding="utf-8"))["points"] if file.exists() else []
    (RESULTS / f"growth-{results['facts']['date'].replace(':', '').replace('+0000', 'Z')}.json").write_text(
        json.dumps(results, indent=1) + "\n", encoding="utf-8"
    )
    again = {each["plot"] for each in results["points"]}
    results["points"] += [each for each in old if each["plot"] not in again]
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return file


def measure(asked: argparse.Namespace) -> Path:
    """Takes all points that were asked for."""
    chosen = asked.only.split(",")
    unknown = [name for name in chosen if name not in (*TESTS, "connections")]
    assert not unknown, f"no such measurements: {', '.join(unknown)}"
    copied = main.own_copy(program())
    results: Json = {"facts": {**machine.facts(copied), "quick": asked.quick}, "points": []}
    command = tests() if any(name in TESTS for name in chosen) else []
    before, started_all = machine.Ticks.now(), time.monotonic()
    for name in chosen:
        started = time.monotonic()
        if name == "connections":
            results["points"] += beside_one_core(asked.quick)
        else:
            results["points"] += in_process(command, name, asked.quick)
        print(f"growth: {name}, {time.monotonic() - started:.0f} s", flush=True)
    results["facts"] |= machine.disturbance(before, time.monotonic() - started_all)
    return keep(results)


def beside_one_core(quick: bool) -> list[Json]:
    """The gateway alone on its core; what measures in process may have all of them."""
    machine.many_files()
    cores = os.sched_getaffinity(0)
    if len(cores) > 1:
        os.sched_setaffinity(0, {int(machine.LOAD_CORE)})
    try:
        return through_gateway(quick)
    finally:
        os.sched_setaffinity(0, cores)


def run() -> int:
    """Measures, draws, writes."""
    asked = arguments()
    file = RESULTS / "growth.json" if asked.draw else measure(asked)
    subprocess.run([str(CACHE / "plots/bin/python"), str(HERE / "plots.py"), str(file)], check=True)
    sizing.write(file)
    return 0


if __name__ == "__main__":
    sys.exit(run())
