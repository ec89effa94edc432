"""Draws docs/plots/*.svg from the points of `growth.py`, and writes the block `growth` of docs/performance.md.

The files depend on the points alone: text is text, ids are salted with a constant, and there is no date in them.
"""

import json
import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullLocator  # noqa: E402

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import report  # noqa: E402
from parts import REPOSITORY, Json  # noqa: E402

PLOTS = REPOSITORY / "docs/plots"
# Readable on white and on black: the background is left to the reader.
INK = "#7d8590"
LETTER = 0.0108  # the width of one, in widths of a picture
COLOURS = ("#3b82f6", "#e8590c", "#2f9e44", "#b55fe6")
plt.rcParams.update(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "holdpoint",
        "font.family": "sans-serif",
        "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": INK,
        "grid.alpha": 0.25,
        "grid.linewidth": 0.6,
    }
)

Points = dict[tuple[str, str], dict[int, list[float]]]


@dataclass
class Plot:
    """One picture: which lines it has, what its axes say, and the sentence below it."""

    name: str
    x: str
    y: str
    lines: list[tuple[str, str, str]]  # plot, series, label
    says: Callable[[Points], str]
    scale: float = 1
    ticks: list[float] = field(default_factory=list)


def at(points: Points, plot: str, series: str, x: int) -> float:
    """The median of one point."""
    return statistics.median(points[plot, series][x])


def ends(points: Points, plot: str, series: str) -> tuple[float, float]:
    """The medians of the first and of the last point."""
    told = points[plot, series]
    return at(points, plot, series, min(told)), at(points, plot, series, max(told))


def short(value: float) -> str:
    """A number in few digits."""
    if value >= 1e6:
        return f"{value / 1e6:,.3g} million"
    if value >= 100:
        rounded = round(value, 2 - math.floor(math.log10(value)))
        return f"{rounded:,.0f}"
    return f"{value:.2g}" if value < 10 else f"{value:.3g}"


def from_to(points: Points, plot: str, series: str, scale: float = 1) -> str:
    """The first and the last median, as a sentence has them."""
    first, last = (short(value * scale) for value in ends(points, plot, series))
    return f"{first} to {last}"


def within(points: Points, plot: str, series: str, scale: float = 1) -> str:
    """The least and the most median: of what is flat, the rest is noise."""
    medians = [at(points, plot, series, x) * scale for x in points[plot, series]]
    return f"{short(min(medians))}–{short(max(medians))}"


def policies(points: Points) -> str:
    """The sentence of the policies."""
    return (
        "**Flat** where policies concern other tools, since only the slice that can match is asked "
        f"({within(points, 'policies', 'anew, about other tools', 1e-3)} µs anew), and wherever a decision is "
        f"remembered ({within(points, 'policies', 'remembered, about this tool', 1e-3)} µs). **Not flat**, but "
        "linear, "
        "is a decision made anew when all policies are about the very tool that is called: each has to be evaluated "
        f"({from_to(points, 'policies', 'anew, about this tool', 1e-3)} µs)."
    )


def agents(points: Points) -> str:
    """The sentence of the agents' decisions."""
    return (
        "**Flat** while policies look at attributes that agents share, such as autonomy and risk "
        f"({within(points, 'agents', 'decision by attributes', 1e-3)} µs). **Not flat** where a policy looks at the "
        "agent itself or its groups: each agent then has a decision of its own, and beyond 16,384 of them most are "
        "made anew, with the agent's entities beyond 4,096 "
        f"({from_to(points, 'agents', 'decision by identity', 1e-3)} µs). "
        "That is a step, up to the cost of one decision, and no slope."
    )


def state(points: Points) -> str:
    """The sentence of flow and limits."""
    memory = points["agent-memory", "flow and limits"]
    each = statistics.median(memory[max(memory)])
    run = ends(points, "run-memory", "a run")[0]
    return (
        "**Nearly flat**: each is a look into a table. What rises "
        f"({from_to(points, 'agents', 'entering flow', 1e-3)} µs for flow, "
        f"{from_to(points, 'agents', 'entering limits', 1e-3)} µs for two limits, "
        f"{from_to(points, 'runs', 'runs of one agent', 1e-3)} µs for runs) we put down to the processor's cache, too "
        "small for so large a table, and beyond 1,024 runs of one agent to forgetting the oldest. "
        f"**Memory is linear**: {each:,.0f} bytes for each agent with one run, and {run:,.0f} for each further run that "
        "it keeps, of which there are 1,024 at most."
    )


def connections(points: Points) -> str:
    """The sentence of the connections."""
    told = points["connection-memory", "anonymous"]
    few, many = 1_000, max(told)
    mib = at(points, "connection-memory", "anonymous", many) - at(points, "connection-memory", "anonymous", few)
    each = mib * 1024 / (many - few)
    return (
        f"**Flat**: a connection that idles costs no CPU that can be seen ({within(points, 'connections', 'CPU')} µs a call, at "
        "1,000 calls "
        f"a second over 16 further connections). **Memory is linear**, {each:.0f} KiB for each."
    )


def append(points: Points) -> str:
    """The sentence of the appends."""
    return (
        "**Flat**: a record is chained to the last one and appended, so nothing that was written before is looked at "
        f"({within(points, 'append', 'written')} µs for each record alone and written, "
        f"{within(points, 'append', 'synced')} µs for each of 64 at once and synced; the disk is what moves them)."
    )


def reopen(points: Points) -> str:
    """The sentence of the start."""
    labels = points["reopen", "labels"]
    most = max(labels)
    rate = most / at(points, "reopen", "labels", most) * 1e3
    beyond = "" if most >= 10_000_000 else " 10 million were not measured: they are taken to need ten times as long."
    return (
        "**Bounded** is reopening: the chain is checked from the segment with the oldest open intent on, usually the "
        f"last one of at most 64 MiB ({short(at(points, 'reopen', 'reopening the audit', most))} ms with {short(most)} "
        "records). "
        "**Not flat**, but linear, are verification, which must read everything, and the labels, which a restart "
        f"takes from all intents of the last day, at {short(rate)} records a second.{beyond}"
    )


def arguments(points: Points) -> str:
    """The sentence of the arguments."""
    each = {series: ends(points, "arguments", series)[1] / 64e3 for series in SHAPES}
    return (
        "**Linear**, as it must be, since every byte is looked at, with a small fixed part that one long text of 1 KiB "
        "shows. How much a KiB costs is a matter of how many values are in it: "
        + ", ".join(f"{short(cost)} µs for {series}" for series, cost in each.items())
        + "."
    )


SHAPES = ("one long text", "many short members", "many recipients")
DRAWN = (
    Plot(
        "policies", "policies beside those that ship", "one decision, µs",
        [("policies", f"{how}, {what}", f"{how}, {what}") for how in ("anew", "remembered")
         for what in ("about this tool", "about other tools")],
        policies, 1e-3,
    ),
    Plot(
        "agents", "agents that call", "one decision, µs",
        [("agents", "decision by identity", "policies look at the agent's group"),
         ("agents", "decision by attributes", "policies look at attributes")],
        agents, 1e-3,
    ),
    Plot(
        "state", "agents, or runs of one agent", "entering one call, µs",
        [("agents", "entering limits", "two limits, by agents"), ("agents", "entering flow", "flow, by agents"),
         ("runs", "runs of one agent", "flow, by runs of one agent")],
        state, 1e-3,
    ),
    Plot(
        "connections", "open connections that idle", "CPU of one call, µs",
        [("connections", "CPU", "CPU of one call")], connections,
    ),
    Plot(
        "append", "records before it", "one record, µs",
        [("append", "written", "written, alone"), ("append", "synced", "synced, 64 at once")], append,
    ),
    Plot(
        "reopen", "records in the audit", "milliseconds",
        [("reopen", "verification", "verification"), ("reopen", "labels", "restoring labels"),
         ("reopen", "reopening the audit", "reopening")],
        reopen,
    ),
    Plot("arguments", "KiB of arguments", "decode and classify, µs", [("arguments", each, each) for each in SHAPES],
         arguments, 1e-3, [1, 4, 16, 64]),
)


def tick(value: float, _position: object = None) -> str:
    """A tick's label in plain digits."""
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def apart(values: list[float], least: float) -> list[float]:
    """Heights of labels, in the logarithm, moved so that none covers another."""
    order = sorted(range(len(values)), key=values.__getitem__)
    moved = values[:]
    for _ in range(200):
        for low, high in zip(order, order[1:], strict=False):
            missing = least - (moved[high] - moved[low])
            if missing > 0:
                moved[low] -= missing / 2
                moved[high] += missing / 2
    return moved


def draw(plot: Plot, points: Points) -> None:
    """One file: the median as a line, the least and the most as a band."""
    figure, axes = plt.subplots(figsize=(7.2, 3.4))
    axes.set_xscale("log")
    axes.set_yscale("log")
    labels = []
    for colour, (name, series, label) in zip(COLOURS, plot.lines, strict=False):
        told = points[name, series]
        xs = sorted(told)
        middle = [statistics.median(told[x]) * plot.scale for x in xs]
        axes.fill_between(
            xs, [min(told[x]) * plot.scale for x in xs], [max(told[x]) * plot.scale for x in xs],
            color=colour, alpha=0.22, linewidth=0,
        )
        axes.plot(xs, middle, color=colour, linewidth=1.6, marker="o", markersize=3.2)
        labels.append((middle[-1], xs[-1], label, colour))
    low, high = axes.get_ylim()
    if high / low < 30:  # what is flat must look flat
        centre = math.sqrt(low * high)
        low, high = centre / math.sqrt(30), centre * math.sqrt(30)
        axes.set_ylim(low, high)
    heights = apart([math.log10(label[0]) for label in labels], math.log10(high / low) * 0.075)
    right = max(label[1] for label in labels)
    for height, (_value, _x, label, colour) in zip(heights, labels, strict=True):
        axes.annotate(
            label, (right, 10**height), xytext=(8, 0), textcoords="offset points", color=colour, va="center",
            annotation_clip=False,
        )
    every = sorted({x for name, series, _ in plot.lines for x in points[name, series]})
    axes.set_xticks(plot.ticks or [x for x in every if math.log10(x).is_integer()])
    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(tick))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda _value, _position: ""))
    axes.grid(axis="y", which="major")
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)
    widest = max(len(label) for _, _, label in plot.lines)
    figure.subplots_adjust(left=0.12, right=0.96 - widest * LETTER, top=0.96, bottom=0.15)
    figure.savefig(PLOTS / f"{plot.name}.svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def block(points: Points, facts: Json) -> str:
    """The pictures with a sentence each."""
    drawn = [plot for plot in DRAWN if has(plot, points)]
    told = [f"![{plot.y}, by {plot.x}](plots/{plot.name}.svg)\n\n{plot.says(points)}" for plot in drawn]
    length = ", short durations" if facts["quick"] else ""
    source = f"{facts['date'][:10]}, commit `{facts['commit']}`; connections: {facts['holdpoint']}{length}"
    return "\n\n".join([*told, f"<sub>{source}</sub>"])


def has(plot: Plot, points: Points) -> bool:
    """Whether everything that it draws was measured."""
    return all((name, series) in points for name, series, _ in plot.lines)


def main(file: Path) -> None:
    """Draws all that was measured."""
    results = json.loads(file.read_text(encoding="utf-8"))
    points: Points = {}
    for each in results["points"]:
        points.setdefault((each["plot"], each["series"]), {})[each["x"]] = each["values"]
    PLOTS.mkdir(exist_ok=True)
    for plot in DRAWN:
        if has(plot, points):
            draw(plot, points)
    text = report.DOCUMENT.read_text(encoding="utf-8")
    report.DOCUMENT.write_text(report.between(text, "growth", block(points, results["facts"])), encoding="utf-8")
    print(f"plots: {PLOTS} and {report.DOCUMENT}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
