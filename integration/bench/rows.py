"""The rows of the benchmark: each is a function that loads the proxies and gives its figures."""

import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace

import allocators
import flow
import held
import overload
import stalls
import standing
from gateway import binary
from load import Load, Round, alternating, direct, summed, through, undisturbed
from parts import CACHE_ROOT, REPOSITORY, Json
from proxies import Proxy
from upstream import SIZES, Work, http_work, tool_work
from world import World

RATE = 2_000
WRITERS = 64
WRITE_RATE = 500
CONTROLS = ("tls", "classify", "limit", "flow", "decide", "ledger", "spans")

Row = Callable[[World], Json]


def calls(work: Work) -> Row:
    """CPU for each call and saturation; latency at a fixed rate as well for small replies."""

    def row(world: World) -> Json:
        with world.three() as three:
            told: Json = {"saturated": alternating(three, Load(work, world.seconds), world.rounds)}
            if work.reply_bytes == SIZES["small"]:
                told["fixed"] = fixed(world, work, three)
            told["threads_ns"] = three[-1].by_thread()
            told["spans"] = {word: three[-1].metric(f"holdpoint_telemetry_{word}_total") for word in SPANS}
        return told

    return row


SPANS = ("exported", "dropped")


def fixed(world: World, work: Work, three: list[Proxy]) -> Json:
    """Latency at a fixed rate, and of the upstream alone: the difference is what a proxy adds.

    The machine is watched meanwhile: calls that came while one of its cores stood still are left out, and counted.
    """
    load = Load(work, world.short(2, 15), rate=RATE)
    kept: dict[str, list[Round]] = {"direct": [], **{proxy.name: [] for proxy in three}}
    with world.collector.standing_back(), stalls.watched() as watched:
        for _ in range(int(world.short(1, 7))):
            kept["direct"].append(direct(world.ports.constants, load))
            for proxy in three:
                kept[proxy.name].append(through(proxy, load))
    told = {name: {**summed(rounds), "undisturbed": undisturbed(rounds, watched)} for name, rounds in kept.items()}
    return {"rate": RATE, **told}


def connections(world: World) -> Json:
    """A full handshake with both certificates for each call."""
    with world.three() as three:
        load = Load(http_work("small"), world.seconds, keepalive=False)
        return {"saturated": alternating(three, load, world.rounds)}


def write(world: World) -> Json:
    """A write waits for its intent on the disk; calls that arrive together share a sync."""
    read_work, write_work = tool_work("small"), tool_work("small", "note")
    told: Json = {"writers": WRITERS, "rate": WRITE_RATE, "sync_us": sync_us(world)}
    with world.holdpoints({"holdpoint": {}}) as (gateway,):
        for name, work in (("read", read_work), ("write", write_work)):
            closed = Load(work, world.seconds, WRITERS)
            paced = replace(closed, rate=WRITE_RATE)
            through(gateway, replace(closed, seconds=0.5))
            told[name] = {
                "saturated": summed([through(gateway, closed) for _ in range(world.rounds)]),
                "fixed": summed([through(gateway, paced) for _ in range(world.rounds)]),
            }
        paced = Load(read_work, world.seconds, WRITERS, WRITE_RATE)
        told["direct"] = {"fixed": summed([direct(world.ports.constants, paced) for _ in range(world.rounds)])}
    return told


def sync_us(world: World) -> float:
    """What one write of 4 KiB and its sync take on this disk, alone."""
    taken = []
    file = os.open(world.directory / "sync", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for _ in range(50):
        started = time.perf_counter()
        os.write(file, b"x" * 4096)
        os.fdatasync(file)
        taken.append((time.perf_counter() - started) * 1e6)
    os.close(file)
    return statistics.median(taken)


def controls(world: World) -> Json:
    """The gateway with everything on, and with one thing less each time."""
    variants: dict[str, dict[str, object]] = {
        "everything": {},
        "shipped policies only": {"policies": 0},
        "no collector": {"otlp": None},
        "with the index of records": {"socket": "admin.sock"},
    }
    program = without_controls()
    if program:
        base: dict[str, object] = {"program": program}
        variants["everything (bench build)"] = base
        variants |= {f"without {control}": {**base, "off": control} for control in CONTROLS}
        variants["without any of these"] = {**base, "off": ",".join(CONTROLS)}
    load = Load(tool_work("small"), world.seconds)
    # Flow control has nothing to learn from it and nothing to examine.
    public = replace(load, work=tool_work("small", "price"))
    with world.holdpoints(variants) as gateways:
        told: Json = {"saturated": alternating(gateways, load, world.rounds)}
        if program:
            beside = [each for each in gateways if each.name in ("everything (bench build)", "without flow")]
            told["public"] = alternating(beside, public, 2 * world.rounds)
    return {**told, "skipped": "" if program else "HOLDPOINT_BENCH_BIN is none: controls were not switched off"}


def without_controls() -> str:
    """The binary whose controls can be switched off: HOLDPOINT_BENCH_BIN, or one that is built for it."""
    named = os.environ.get("HOLDPOINT_BENCH_BIN", "")
    if named == "none":
        print("!!! SKIPPED: rows with controls switched off, because HOLDPOINT_BENCH_BIN is none", flush=True)
        return ""
    if named:
        return named
    target = CACHE_ROOT / "target-bench"
    command = ["cargo", "build", "--release", "--locked", "--features", "bench", "--target-dir", str(target)]
    print(f"building {target}/release/holdpoint", flush=True)
    subprocess.run(command, cwd=REPOSITORY, check=True)
    return str(target / "release/holdpoint")


ROWS: dict[str, Row] = {
    "http_small": calls(http_work("small")),
    "tools_call": calls(tool_work("small")),
    **{f"http_{size}": calls(http_work(size)) for size in ("1k", "64k", "1m")},
    **{f"tools_{size}": calls(tool_work(size)) for size in ("1k", "64k", "1m")},
    "connections": connections,
    "write": write,
    "controls": controls,
    "memory": held.row,
    "standing": standing.row,
    "overload": overload.row,
    "flow": flow.row,
    "allocators": allocators.row,
}


def program() -> str:
    """The gateway that is measured."""
    return binary()
