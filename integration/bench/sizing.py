#!/usr/bin/env python3
"""The sizing table: what so many calls a second need, from the newest measured figures. `sizing.py [growth.json]`."""

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import report  # noqa: E402
from parts import CACHE_ROOT, Json  # noqa: E402

RESULTS = CACHE_ROOT / "bench"
CALLS = (100, 1_000, 5_000, 20_000)
WRITES = (0.1, 0.5)
CONNECTIONS = (1_000, 10_000)
AGENTS = 1_000
RUNS_MAX = 1_024  # of src/flow.rs
BUSY = 0.6
DAY = 86_400
GIB = 1024**3


class Missing(Exception):
    """A figure that was not measured yet."""


@dataclass
class Input:
    """One measured figure, and where it is from."""

    what: str
    value: float
    unit: str
    source: str

    def row(self) -> tuple[str, str, str]:
        """As the table of inputs has it."""
        digits = 1 if self.value < 1000 and self.value != int(self.value) else 0
        return self.what, f"{report.figure(self.value, digits)} {self.unit}", self.source


def newest(row: str) -> tuple[Json, str]:
    """The figures of a row of `make bench`: of the newest run in full that has it, else of the newest short one."""
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in RESULTS.glob("results-*.json")]
    having = [run for run in runs if row in run["rows"]]
    if not having:
        raise Missing(f"no results in {RESULTS} have the row {row}: run integration/bench/run.sh --rows {row}")
    run = max(having, key=lambda run: (not run["facts"]["quick"], run["facts"]["date"]))
    told: Json = run["rows"][row]
    return told, f"`{row}`, {when(run['facts'])}"


def when(facts: Json) -> str:
    """The day and the commit of a run."""
    return f"{facts['date'][:10]}, `{facts['commit']}`" + (", short" if facts["quick"] else "")


def median(points: list[Json], plot: str, series: str) -> tuple[float, int]:
    """The median at the largest x of a series of `growth.py`, and that x."""
    told = [each for each in points if (each["plot"], each["series"]) == (plot, series)]
    if not told:
        raise Missing(f"{plot}, {series} was not measured: run integration/bench/run.sh --growth")
    last = max(told, key=lambda each: int(each["x"]))
    return statistics.median(last["values"]), int(last["x"])


def inputs(file: Path) -> dict[str, Input]:
    """Every figure that the table is computed from."""
    grown: Json = json.loads(file.read_text(encoding="utf-8"))
    points, source = grown["points"], f"growth, {when(grown['facts'])}"
    write, of_write = newest("write")
    memory, of_memory = newest("memory")
    overload, of_overload = newest("overload")
    own = memory["holdpoint"]
    labels_ms, labels_records = median(points, "reopen", "labels")
    rss = overload["rss_kib"]

    def cpu(kind: str) -> float:
        return float(write[kind]["saturated"]["cpu_us_per_call"]["median"])

    def kib(kind: str) -> float:
        return float(own[kind]["each"]["anonymous_kib"])

    def grew(plot: str, series: str) -> float:
        return median(points, plot, series)[0]

    return {
        "read": Input("CPU of a call that reads", cpu("read"), "µs", of_write),
        "write": Input("CPU of a call that writes", cpu("write"), "µs", of_write),
        "base": Input("resident after the start", own["idle"]["rss_kib"], "KiB", of_memory),
        "load": Input("more under full load", max(0, max(rss.values()) - min(rss.values())), "KiB", of_overload),
        "connection": Input("a connection of HTTP/1.1", kib("HTTP/1.1 connection"), "KiB", of_memory),
        "stream": Input("an event stream", kib("event stream"), "KiB", of_memory),
        "agent": Input("an agent with one run", grew("agent-memory", "flow and limits"), "bytes", source),
        "run": Input("a further run, of at most 1,024 an agent", grew("run-memory", "a run"), "bytes", source),
        "bytes_read": Input("audit of a call that reads", grew("call-bytes", "read"), "bytes", source),
        "bytes_write": Input("audit of a call that writes", grew("call-bytes", "write"), "bytes", source),
        "labels": Input("records read for labels at a restart", labels_records / labels_ms * 1e3, "a second", source),
    }


def rows(told: dict[str, Input]) -> list[list[str]]:
    """The table, by the formulas that stand below it."""
    value = {name: each.value for name, each in told.items()}
    lines = []
    for calls in CALLS:
        for share in WRITES:
            cpu = share * value["write"] + (1 - share) * value["read"]
            pair = share * value["bytes_write"] + (1 - share) * value["bytes_read"]
            base = (value["base"] + value["load"]) * 1024 + AGENTS * value["agent"]
            memory = (base + count * value["connection"] * 1024 for count in CONNECTIONS)
            per_day = 2 * calls * DAY
            lines.append(
                [
                    report.figure(calls),
                    f"{share:.0%}",
                    cores(calls * cpu / 1e6 / BUSY),
                    *(f"{report.figure(each / 1024**2)} MiB" for each in memory),
                    report.figure(2 * calls),
                    f"{report.figure(calls * pair / 1e6, 1)} MB/s",
                    f"{report.figure(calls * pair * DAY / GIB)} GiB",
                    duration(per_day / value["labels"]),
                ]
            )
    return lines


def cores(needed: float) -> str:
    """Cores, of which there are no tenths to buy below one."""
    return report.figure(needed, 2 if needed < 1 else 1)


def duration(seconds: float) -> str:
    """A duration as people say it."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"


def block(file: Path) -> str:
    """The table, the formulas, the inputs."""
    told = inputs(file)
    head = (
        "calls/s", "writes", f"cores at {BUSY:.0%}",
        *(f"memory, {report.figure(each)} connections" for each in CONNECTIONS),
        "audit records/s", "audit", "disk a day", "restart after a day, at least",
    )
    table = report.table(head, rows(told))
    return "\n\n".join(
        [
            table,
            "- **cores** = calls/s × (writes × CPU of a write + (1 − writes) × CPU of a read) ÷ "
            f"{BUSY}. Threads for audit and telemetry are in the CPU of a call. All was measured with one worker on "
            "one "
            "core: that several share the work without loss is assumed. The upstream, and a collector, come on top.\n"
            "- **memory** = resident after the start + more under full load + connections × KiB for each + "
            f"{report.figure(AGENTS)} agents × bytes of an agent with one run. An event stream takes "
            f"{told['stream'].value:.0f} KiB instead of a connection's {told['connection'].value:.0f}. Where agents "
            "begin a trace for each call, each keeps up to 1,024 runs, "
            f"{RUNS_MAX * told['run'].value / 1024:,.0f} KiB.\n"
            "- **audit records** = 2 × calls/s, an intent and an outcome. **disk a day** = calls/s × bytes of such a "
            "pair × 86,400, uncompressed. Nothing removes old segments: archive them.\n"
            "- **restart after a day** = records of a day ÷ records read for labels a second. That was measured from the "
            "page cache: a disk that cannot be read so fast, or a day that does not fit into memory, takes longer. Segments "
            "that were last written to more than a day ago are not read, so it gets no longer with the days.\n"
            "- **holds** have no column: a held call takes 17 KiB while it waits (`integration/pending.sh`, 10,000 of them), and no CPU.",
            "What it is computed from:",
            report.table(("figure", "is", "from"), (each.row() for each in told.values())),
        ]
    )


def write(file: Path) -> None:
    """Writes the block of the document; where a figure is missing it stays as it is."""
    try:
        content = block(file)
    except Missing as missing:
        print(f"!!! the sizing table stays as it is: {missing}", flush=True)
        return
    text = report.DOCUMENT.read_text(encoding="utf-8")
    report.DOCUMENT.write_text(report.between(text, "sizing", content), encoding="utf-8")
    print(f"sizing: {report.DOCUMENT}")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "growth.json")
