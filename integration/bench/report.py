#!/usr/bin/env python3
"""Tables from results: `report.py [RESULTS.json]` writes them into docs/performance.md between its markers."""

import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parts import CACHE_ROOT, REPOSITORY, Json  # noqa: E402

DOCUMENT = REPOSITORY / "docs/performance.md"
PROXIES = ("nginx", "envoy", "holdpoint")
SMALL = {"http_small": "HTTP GET", "tools_call": "`tools/call`"}
SIZES = {"1k": "1 KiB", "64k": "64 KiB", "1m": "1 MiB"}
SIZED = {f"http_{size}": f"HTTP GET, {text}" for size, text in SIZES.items()}
SIZED |= {f"tools_{size}": f"`tools/call`, {text}" for size, text in SIZES.items()}


def table(head: Iterable[str], lines: Iterable[Iterable[Any]]) -> str:
    """A table in Markdown: words left, figures right."""
    names = list(head)
    rows = [f"| {' | '.join(names)} |", f"|---|{'---:|' * (len(names) - 1)}"]
    return "\n".join([*rows, *(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)])


def figure(value: float, digits: int = 0) -> str:
    """A number as people read it."""
    return f"{value:,.{digits}f}"


def spread(values: Json, scale: float = 1, digits: int = 0) -> str:
    """The median, and in brackets the least and the most."""
    told = (figure(values[name] / scale, digits) for name in ("median", "min", "max"))
    return "{} ({}–{})".format(*told)


def facts(results: Json) -> str:
    """The machine, and the versions of everything."""
    told = results["facts"]
    return table(
        ("what", "is"),
        (
            ("date", told["date"]),
            ("commit", f"`{told['commit']}`"),
            ("processor", f"{told['cpu']}, {told['cores']} cores"),
            ("memory", f"{figure(told['memory_mib'])} MiB"),
            ("kernel", told["kernel"]),
            ("taken meanwhile by other programs", f"{told['others_share']:.0%} of the machine"),
            ("taken meanwhile by other machines on the host", f"{told['stolen_share']:.0%}"),
            ("Holdpoint", told["holdpoint"]),
            ("Envoy", told["envoy"]),
            ("nginx", told["nginx"].removeprefix("nginx version: ")),
            ("oha", told["oha"]),
            ("collector", told["collector"]),
            ("durations", "short (`--quick`): not figures to quote" if told["quick"] else "full"),
        ),
    )


def calls(rows: Json, names: dict[str, str]) -> str:
    """CPU and saturation of several rows."""
    lines = []
    for name, text in names.items():
        for proxy in PROXIES if name in rows else ():
            told = rows[name]["saturated"][proxy]
            cpu = spread(told["cpu_us_per_call"], 1, 1)
            latency = figure(told["p50_us"]["median"]), figure(told["p99_us"]["median"])
            busy = f"{told['busy']['median']:.0%}"
            lines.append((text, proxy, cpu, spread(told["calls_per_second"]), busy, *latency))
    return table(("call", "proxy", "CPU µs a call", "calls/s", "core busy", "p50 µs", "p99 µs"), lines)


def latency(rows: Json) -> str:
    """What the proxies add at a fixed rate."""
    lines = []
    for name, text in SMALL.items():
        if name not in rows:
            continue
        told = rows[name]["fixed"]
        base = told["direct"]["undisturbed"]
        base50, base99 = base["p50_us"]["median"], base["p99_us"]["median"]
        for who in ("direct", *PROXIES):
            each = told[who]
            calm = each["undisturbed"]
            p50, p99 = calm["p50_us"]["median"], calm["p99_us"]["median"]
            added = ("–", "–") if who == "direct" else (figure(p50 - base50), figure(p99 - base99))
            cpu = "–" if who == "direct" else figure(each["cpu_us_per_call"]["median"], 1)
            reached = figure(each["calls_per_second"]["median"])
            all99 = f"{figure(each['p99_us']['median'])}, {1 - calm['share']:.0%}"
            lines.append((text, who, reached, figure(p50), spread(calm["p99_us"]), *added, all99, cpu))
    head = ("call", "through", "calls/s reached", "p50 µs", "p99 µs", "added p50 µs", "added p99 µs", "p99 µs with stalls, share of calls", "CPU µs a call")
    return table(head, lines)


def connections(row: Json) -> str:
    """New connections."""
    told = row["saturated"]
    lines = []
    for name in PROXIES:
        each = told[name]
        busy = f"{each['busy']['median']:.0%}"
        lines.append((name, spread(each["cpu_us_per_call"]), spread(each["calls_per_second"]), busy))
    return table(("proxy", "CPU µs a connection", "connections/s", "core busy"), lines)


def write(row: Json) -> str:
    """Reads against writes."""
    base = row["direct"]["fixed"]["p50_us"]["median"]
    lines = []
    for name in ("read", "write"):
        closed, paced = row[name]["saturated"], row[name]["fixed"]
        added = figure(paced["p50_us"]["median"] - base)
        cpu = spread(closed["cpu_us_per_call"], 1, 1)
        p99 = figure(paced["p99_us"]["median"])
        lines.append((name, spread(closed["calls_per_second"]), spread(closed["p50_us"]), cpu, added, p99))
    head = (
        "`tools/call`", f"calls/s, {row['writers']} at once", f"p50 µs, {row['writers']} at once", "CPU µs a call",
        f"added p50 µs at {row['rate']}/s", f"p99 µs at {row['rate']}/s",
    )
    alone = f"One write of 4 KiB with its sync takes {figure(row['sync_us'])} µs on this disk, alone."
    return f"{table(head, lines)}\n\n{alone}"


def controls(row: Json) -> str:
    """One control less each time, against the same build with all of them."""
    told = row["saturated"]
    lines = []
    for name, each in told.items():
        own = "everything (bench build)" if name.startswith("without") else "everything"
        saved = told[own]["cpu_us_per_call"]["median"] - each["cpu_us_per_call"]["median"]
        difference = "–" if name.startswith("everything") else figure(saved, 1)
        lines.append((name, spread(each["cpu_us_per_call"], 1, 1), difference, spread(each["calls_per_second"])))
    public = row.get("public", {})
    for name, each in public.items():
        saved = public["everything (bench build)"]["cpu_us_per_call"]["median"] - each["cpu_us_per_call"]["median"]
        difference = figure(saved, 1) if name.startswith("without") else "–"
        cpu, rate = spread(each["cpu_us_per_call"], 1, 1), spread(each["calls_per_second"])
        lines.append((f"public read: {name}", cpu, difference, rate))
    text = table(("Holdpoint", "CPU µs a call", "less µs", "calls/s"), lines)
    return text + (f"\n\nSkipped: {row['skipped']}." if row["skipped"] else "")


def memory(row: Json) -> str:
    """Idle, and what each connection adds."""
    kinds = [kind for kind in row["holdpoint"] if kind != "idle"]
    lines = []
    for proxy in PROXIES:
        idle = row[proxy]["idle"]
        each = (figure(row[proxy][kind]["each"]["anonymous_kib"], 1) for kind in kinds)
        start = (figure(idle[name] / 1024, 1) for name in ("rss_kib", "pss_kib", "anonymous_kib"))
        lines.append((proxy, *start, *each))
    counts = ", ".join(f"{figure(row['holdpoint'][kind]['count'])} × {kind}" for kind in kinds)
    head = ("proxy", "idle RSS MiB", "idle PSS MiB", "idle anonymous MiB", *(f"KiB per {kind}" for kind in kinds))
    return table(head, lines) + f"\n\nAdded anonymous memory, over {counts}."


def overload(row: Json) -> str:
    """The flood, and who stood beside it."""
    rss, calm, alone = row["rss_kib"], row["calm"], row["calm_alone"]
    return table(
        ("overload", "figure"),
        (
            ("capacity measured before, calls/s", figure(row["capacity"])),
            ("limit of each agent, calls/s", figure(row["limit"])),
            ("asked of the load, calls/s", figure(row["asked_per_second"])),
            ("what the load managed to offer, calls/s", figure(row["offered_per_second"])),
            ("for, seconds", figure(row["seconds"])),
            ("share refused", f"{row['refused_share']:.1%}"),
            ("refusals looked at, and with `Retry-After`",
             f"{row['refusals_looked_at']}, {row['refusals_with_retry_after']}"),
            ("RSS before, at most, after, MiB", ", ".join(figure(rss[name] / 1024, 1) for name in rss)),
            ("agent within its limit: calls, all of which succeeded", figure(calm["calls"])),
            ("its p50 and p99 µs beside the flood", f"{figure(calm['p50_us'])}, {figure(calm['p99_us'])}"),
            ("its p50 and p99 µs alone", f"{figure(alone['p50_us'])}, {figure(alone['p99_us'])}"),
        ),
    )


def flow(row: Json) -> str:
    """What is learnt, what leaves, and what is kept, alone."""
    learnt = table(
        ("100 KB that come in", "MB/s", "to learn it", "to remember it", "to write it for the journal", "KiB kept"),
        [
            (each["in"], *(figure(each[name]) for name in ("mb_s", "learn_mb_s", "remember_mb_s", "journal_mb_s")),
             figure(each["kib_of_100_kb"], 1))
            for each in row["in"]
        ],
    )
    after = list(dict.fromkeys(each["after"] for each in row["out"]))
    times: dict[str, Json] = {}
    for each in row["out"]:
        times.setdefault(each["out"], {})[each["after"]] = each["us"]
    left = table(
        ("a call with an argument of", *(f"µs, after {name}" for name in after)),
        [(what, *(figure(told[name], 2) for name in after)) for what, told in times.items()],
    )
    kept = table(
        ("runs that each read 100 KB", "MiB in all", "KiB a run"),
        [
            (f"{figure(each['runs'])}, {each['of']}", figure(each["mib"]), figure(each["kib_a_run"], 1))
            for each in row["runs"]
        ],
    )
    return f"{learnt}\n\n{left}\n\n{kept}"


def standing(row: Json) -> str:
    """Standing streams over HTTP/2."""

    def of(way: str, at: str) -> list[float]:
        return sorted(each[way][at] for each in row["windows"])

    def told(values: list[float]) -> str:
        return f"{figure(statistics.median(values))} ({figure(values[0])} to {figure(values[-1])})"

    def both(way: str) -> str:
        return ", ".join(told(of(way, at)) for at in ("p50_us", "p99_us"))

    added = [
        told(sorted(each["through"][at] - each["direct"][at] for each in row["windows"])) for at in ("p50_us", "p99_us")
    ]
    return table(
        ("standing streams", "figure"),
        (
            ("streams, on connections", f"{figure(row['streams'])}, {figure(row['connections'])}"),
            ("KiB a stream, with its upstream connection", figure(row["each_kib"], 1)),
            ("windows of time, each with its own percentiles", figure(len(row["windows"]))),
            ("an event's delay, p50 and p99 µs: median (least to most) of the windows", both("through")),
            ("the same at the same time without the gateway", both("direct")),
            ("added, p50 and p99 µs", ", ".join(added)),
        ),
    )


def allocators(row: Json) -> str:
    """The same gateway with one allocator and another."""
    lines = []
    for name, each in row["saturated"].items():
        memory = row["memory"][name]
        mib = [figure(memory[when]["rss_kib"] / 1024, 1) for when in ("idle", "after")]
        kib = [figure(memory[kind]["each"]["anonymous_kib"], 1) for kind in ("HTTP/1.1 connection", "HTTP/2 connection")]
        lines.append((name, spread(each["cpu_us_per_call"], 1, 1), *mib, *kib))
    head = (
        "allocator", "CPU µs a call", "RSS MiB at the start", "after the load", "KiB an idle HTTP/1.1 connection",
        "KiB an idle HTTP/2 connection",
    )
    return table(head, lines)


def tables(results: Json) -> dict[str, str]:
    """Every table whose rows there are, by the name of its marker."""
    rows, made = results["rows"], {"facts": facts(results)}
    if SMALL.keys() & rows.keys():
        made["calls"] = calls(rows, SMALL) + spans(rows)
        made["latency"] = latency(rows)
    if SIZED.keys() & rows.keys():
        made["sizes"] = calls(rows, SIZED)
    for name, render in (
        ("connections", connections), ("write", write), ("controls", controls), ("memory", memory),
        ("standing", standing), ("overload", overload), ("allocators", allocators),
        ("flow", flow),
    ):
        if name in rows:
            made[name] = render(rows[name])
    return made


def spans(rows: Json) -> str:
    """How many spans the collector got while the figures were taken."""
    told = [rows[name]["spans"] for name in SMALL if name in rows]
    sums = {word: figure(sum(each[word] for each in told)) for word in ("exported", "dropped")}
    text = f"The collector confirmed {sums['exported']} spans of Holdpoint meanwhile; {sums['dropped']} were dropped."
    return f"\n\n{text} Holdpoint's CPU time by thread: {threads(rows)}."


def threads(rows: Json) -> str:
    """The share of each thread that matters."""
    sums: dict[str, int] = {}
    for told in (rows[name]["threads_ns"] for name in SMALL if name in rows):
        for thread, spent in told.items():
            sums[thread] = sums.get(thread, 0) + spent
    whole = sum(sums.values())
    shares = sorted(((spent / whole, thread) for thread, spent in sums.items()), reverse=True)
    return ", ".join(f"{thread} {share:.0%}" for share, thread in shares if share >= 0.005)


def between(text: str, name: str, content: str) -> str:
    """The document with other content between the markers of a name."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    assert begin in text and end in text, f"{DOCUMENT} has no markers for {name}"
    head, rest = text.split(begin, 1)
    return f"{head}{begin}\n{content}\n{end}{rest.split(end, 1)[1]}"


def put(blocks: dict[str, str]) -> None:
    """Writes blocks into the document, each between its markers."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, content in blocks.items():
        text = between(text, name, content)
    DOCUMENT.write_text(text, encoding="utf-8")


def main(file: Path) -> None:
    """Writes each table that the results have; the others stay as they are."""
    results = json.loads(file.read_text(encoding="utf-8"))
    source = f"\n\n<sub>{results['facts']['date'][:10]}, commit `{results['facts']['commit']}`" + (
        ", short durations</sub>" if results["facts"]["quick"] else "</sub>"
    )
    put({name: content + ("" if name == "facts" else source) for name, content in tables(results).items()})
    print(f"report: {DOCUMENT} has {', '.join(tables(results))} of {file}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else CACHE_ROOT / "bench/results.json")
