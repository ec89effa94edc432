"""Runs the rows and keeps what they gave: the tables on stdout, everything as JSON in the cache directory."""

import argparse
import atexit
import json
import os
import shutil
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import machine  # noqa: E402
import report  # noqa: E402
from parts import Json  # noqa: E402
from rows import ROWS, program  # noqa: E402
from world import RESULTS, world  # noqa: E402


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description="Holdpoint, Envoy and nginx side by side")
    parser.add_argument("--quick", action="store_true", help="short durations: shows that it works, not how fast")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"of {', '.join(ROWS)}")
    return parser.parse_args()


def main() -> int:
    """0 when every row has its figures."""
    asked = arguments()
    chosen = asked.rows.split(",")
    unknown = [name for name in chosen if name not in ROWS]
    if unknown:
        print(f"no such rows: {', '.join(unknown)}; there are {', '.join(ROWS)}", file=sys.stderr)
        return 64
    machine.many_files()
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {int(machine.LOAD_CORE)})  # what measures does not disturb what is measured
    copied = own_copy(program())
    results: Json = {"facts": {**machine.facts(copied), "quick": asked.quick}, "rows": {}, "failed": []}
    before, started_all = machine.Ticks.now(), time.monotonic()
    with world(asked.quick) as shared:
        for name in chosen:
            started = time.monotonic()
            try:
                results["rows"][name] = ROWS[name](shared)
            except Exception:  # noqa: BLE001 - the other rows still have their figures
                traceback.print_exc()
                results["failed"].append(name)
                shared.failed = True
                print(f"!!! {name} FAILED", flush=True)
            print(f"bench: {name}, {time.monotonic() - started:.0f} s", flush=True)
    results["facts"] |= machine.disturbance(before, time.monotonic() - started_all)
    keep(results)
    for title, table in report.tables(results).items():
        print(f"\n== {title} ==\n{table}")
    for name in results["failed"]:
        print(f"!!! {name} FAILED: there are no figures of it", flush=True)
    return 1 if results["failed"] else 0


def own_copy(binary: str) -> str:
    """The gateway's binary where no build replaces it meanwhile."""
    copied = RESULTS / f"binary-{os.getpid()}" / "holdpoint"
    copied.parent.mkdir(parents=True)
    shutil.copy2(binary, copied)
    atexit.register(shutil.rmtree, copied.parent)
    os.environ["HOLDPOINT_BIN"] = str(copied)
    return str(copied)


def keep(results: Json) -> None:
    """This run by date; under a fixed name with the rows of the run before that it did not take again, if that had the
    same binary and the same durations."""
    stamp = results["facts"]["date"].replace(":", "").replace("+0000", "Z")
    (RESULTS / f"results-{stamp}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    file = RESULTS / "results.json"
    old: Json = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"facts": {}, "rows": {}}
    same = all(old["facts"].get(name) == results["facts"][name] for name in ("holdpoint", "quick"))
    rows = {**(old["rows"] if same else {}), **results["rows"]}
    file.write_text(json.dumps({**results, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"bench: {file}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
