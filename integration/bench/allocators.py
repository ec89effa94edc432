"""Allocators: the same gateway with the one that is built in, and with others that are preloaded into a build without."""

import asyncio
import os
import subprocess
import time
from pathlib import Path

import held
from load import Load, alternating
from parts import CACHE_ROOT, REPOSITORY, Json
from upstream import tool_work
from world import World

# What Debian's packages install (setup.sh), by what it is called here.
PRELOADED = {
    "mimalloc, preloaded": "libmimalloc.so.2",
    "tcmalloc, preloaded": "libtcmalloc_minimal.so.4",
    "jemalloc, preloaded": "libjemalloc.so.2",
}
CONNECTIONS = ("HTTP/1.1 connection", "HTTP/2 connection")


def library(name: str) -> str:
    """The file that the loader knows by this name."""
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        if line.split()[:1] == [name]:
            return line.rsplit(" => ", 1)[1]
    raise FileNotFoundError(name)


def without() -> str:
    """The gateway without an allocator of its own: HOLDPOINT_BENCH_SYSTEM, or an example that is built for it."""
    named = os.environ.get("HOLDPOINT_BENCH_SYSTEM", "")
    if named:
        return named
    target = Path(os.environ.get("CARGO_TARGET_DIR", CACHE_ROOT / "target"))
    command = ["cargo", "build", "--release", "--locked", "--example", "system-allocator", "--target-dir", str(target)]
    print(f"building {target}/release/examples/system-allocator", flush=True)
    subprocess.run(command, cwd=REPOSITORY, check=True)
    return str(target / "release/examples/system-allocator")


def row(world: World) -> Json:
    """CPU for each call, and memory: when it has just started, after the load, and for each idle connection."""
    program = without()
    variants: dict[str, dict[str, object]] = {
        "jemalloc, built in (as shipped)": {},
        "glibc": {"program": program},
        **{name: {"program": program, "preload": library(file)} for name, file in PRELOADED.items()},
    }
    count = int(world.short(300, 2000))
    with world.holdpoints(variants) as gateways:
        time.sleep(held.SETTLE_SECONDS)
        memory = {each.name: {"idle": each.memory().json()} for each in gateways}
        saturated = alternating(gateways, Load(tool_work("small"), world.seconds), world.rounds)
        time.sleep(held.SETTLE_SECONDS)
        for each in gateways:
            memory[each.name]["after"] = each.memory().json()
            for kind in CONNECTIONS:
                opening, alpn = held.KINDS[kind]
                memory[each.name][kind] = asyncio.run(held.measured(each, count, opening, alpn))
    return {"saturated": saturated, "memory": memory, "count": count}
