"""What flow control takes by itself, in process: learning replies, examining what leaves, the memory of runs."""

import json
import os
import subprocess
from pathlib import Path

from parts import CACHE_ROOT, REPOSITORY, Json
from world import World

TESTS = ("figures_of_speed_and_memory", "memory_of_ten_thousand_runs_that_each_read_100_kb")


def command() -> list[str]:
    """The program that measures: HOLDPOINT_LINEAGE_BIN, or the test target in release."""
    named = os.environ.get("HOLDPOINT_LINEAGE_BIN", "")
    if named:
        return [named]
    target = Path(os.environ.get("CARGO_TARGET_DIR", str(CACHE_ROOT / "target"))).resolve()
    words = ["cargo", "test", "--release", "--locked", "--test", "lineage", "--target-dir", str(target)]
    print(f"building tests/lineage.rs in {target}/release", flush=True)
    subprocess.run([*words, "--no-run"], cwd=REPOSITORY, check=True)
    return [*words, "--quiet", "--"]


def row(_: World) -> Json:
    """Runs each test by itself, and keeps the figures that it prints as lines of JSON."""
    words, figures = command(), []
    for name in TESTS:
        done = subprocess.run(
            [*words, name, "--exact", "--ignored", "--nocapture", "--test-threads=1"],
            cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, timeout=1800, check=False,
        )
        assert done.returncode == 0, f"{name}: {done.returncode}\n{done.stdout[-2000:]}"
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert lines, f"{name} gave no figure:\n{done.stdout[-2000:]}"
        figures += lines
    return {kind: [each for each in figures if kind in each] for kind in ("in", "out", "runs")}
