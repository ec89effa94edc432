"""Real SDK clients, with their default settings, in front of a call that waits for people longer than they are used to.

Each client calls a tool whose call is held, and goes on with others meanwhile; people approve it after a while, and the
client makes the same call once more. It must have its result, or be told in time that approval is pending (the last rung),
while its session and its other calls go on; and the upstream must have executed it once.

    integration/patience.sh [SECONDS]       330 by default; HOLDPOINT_BIN names the binary
"""

import http.client
import json
import ssl
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import parts
from gateway import Agent, Gateway, Person, decision_of
from parts import Json, Upstream

SECONDS = 330
PATIENCE_SECONDS = 120
"""How long everything else of a cell may take."""
AFTER_SECONDS = 6
"""How long after the approval its repeat comes."""
SIBLINGS = 5
OLGA = Person("olga", roles=["oncall"], teams=["care"])
READ: Json = {"op": "call", "name": "add", "arguments": {"a": 2, "b": 40}}


@dataclass(frozen=True)
class Cell:
    """One client in one era, with or without a listener for progress."""

    client: str
    era: str
    progress: bool

    @property
    def name(self) -> str:
        """As its agent and its order are called."""
        return f"{self.client}-{self.era}" + ("-progress" if self.progress else "")

    @property
    def rung(self) -> str:
        """How it can wait, by `docs/holds.md`."""
        return "2 legs" if self.era == "modern" else "3 progress" if self.progress else "4 stream"

    @property
    def agent(self) -> Agent:
        """An agent of its own."""
        return Agent(f"agent/{self.name}")

    def plan(self, gateway: Gateway, upstream: Upstream, seconds: int) -> Json:
        """What it does in its one session."""
        held = {"op": "call", "name": "refund", "arguments": {"order": self.name, "amount": "12.50"}}
        if self.progress:
            held["progress"] = True
        pause = {"op": "pause", "seconds": (seconds + AFTER_SECONDS) / SIBLINGS}
        during = {"op": "serial", "steps": [pause, READ] * SIBLINGS}
        beside = {"op": "parallel", "steps": [{"op": "timed", "step": held}, during]}
        steps = [READ, beside, held, READ]
        return gateway.plan(self.agent, upstream, steps, mode="legacy" if self.era == "legacy" else "auto")


CELLS = [
    *(Cell(client, "legacy", progress) for client in parts.CLIENTS for progress in (False, True)),
    Cell("python2", "modern", False),
    Cell("typescript2", "modern", False),
]
"""SDK 1.x speaks no 2026-07-28."""


@dataclass
class Row:
    """What came of a cell."""

    ended: str
    siblings: int
    repeat: str
    executed: int
    wrong: str = ""


def fine(step: Json) -> bool:
    """Whether a read had its result."""
    return "ok" in step and step["ok"].get("isError") is not True


def outcome(step: Json) -> str:
    """What a held call was told: `result`, an outcome of the gateway, or what the client threw."""
    if "ok" not in step:
        return f"{step['error'].get('type')} {step['error'].get('code') or ''}".strip()
    decision = decision_of(step["ok"])
    return str(decision["outcome"]) if decision else "tool error" if step["ok"].get("isError") else "result"


def row(cell: Cell, told: Json, upstream: Upstream) -> Row:
    """What is seen of a cell, and whether it is as it must be."""
    before, beside, again, after = told["results"]
    held, during = beside["ok"]
    siblings = [before, *[each for each in during["ok"] if each["ok"] is not None], after]
    ran = [call for call in upstream.calls("refund") if call["params"]["arguments"]["order"] == cell.name]
    first, second = outcome(held), outcome(again)
    made = Row(f"{first}, {held['seconds']:.0f} s", sum(map(fine, siblings)), second, len(ran))
    wrong = []
    if first not in ("result", "pending"):
        # Where it listens for progress, this SDK gives up after a minute whatever comes, by its own default.
        gave_up = cell.progress and cell.client.startswith("typescript") and "timed out" in str(held).lower()
        wrong += [] if gave_up and held["seconds"] >= 59 else [f"the client threw: {str(held)[:300]}"]
    if second != ("executed" if first == "result" else "result"):
        wrong.append(f"the repeat was told {str(again)[:300]}")
    if made.siblings != SIBLINGS + 2:
        wrong.append(f"siblings: {str([each for each in siblings if not fine(each)])[:300]}")
    if len(ran) != 1:
        wrong.append(f"executed {len(ran)} times")
    made.wrong = "; ".join(wrong)
    return made


def ask(gateway: Gateway, method: str, path: str, body: Json | None = None) -> Json:
    """A request of a person to the API."""
    tls = ssl.create_default_context(cafile=str(gateway.pki / "example.org.pem"))
    tls.load_cert_chain(gateway.pki / "olga.pem", gateway.pki / "olga-key.pem")
    connection = http.client.HTTPSConnection("localhost", gateway.admin, context=tls, timeout=30)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), {"content-type": "application/json"})
        reply = connection.getresponse()
        told: Json = json.loads(reply.read())
        assert reply.status == 200, f"{method} {path}: {reply.status} {told}"
        return told
    finally:
        connection.close()


def people(gateway: Gateway, seconds: int, over: threading.Event) -> None:
    """Approves each call once it has waited so long."""
    while not over.wait(0.2):
        for hold in ask(gateway, "GET", "/v1/holds?state=pending")["holds"]:
            if time.time() - datetime.fromisoformat(hold["opened"]).timestamp() >= seconds:
                body = {"digest": hold["digest"], "reason": "it was looked at"}
                ask(gateway, "POST", f"/v1/holds/{hold['id']}/approve", body)


def rows(gateway: Gateway, upstream: Upstream, seconds: int) -> dict[Cell, Row]:
    """All cells at once."""
    over = threading.Event()
    approving = threading.Thread(target=people, args=(gateway, seconds, over))
    approving.start()

    def one(cell: Cell) -> Row:
        plan = cell.plan(gateway, upstream, seconds)
        try:
            told = parts.agent(cell.client, plan, seconds=seconds + PATIENCE_SECONDS)
            return row(cell, told, upstream)
        except (AssertionError, LookupError, TypeError, ValueError, OSError, parts.subprocess.TimeoutExpired) as fault:
            return Row("-", 0, "-", 0, f"{type(fault).__name__}: {str(fault)[-600:]}")

    try:
        with ThreadPoolExecutor(len(CELLS)) as pool:
            return dict(zip(CELLS, pool.map(one, CELLS), strict=True))
    finally:
        over.set()
        approving.join()


def lines(table: dict[Cell, Row]) -> list[str]:
    """The table."""
    made = [f"{'client':<12} {'era':<7} {'rung':<11} {'how it ended':<26} {'siblings':<9} {'its repeat':<11} executions"]
    for cell, each in table.items():
        seen = f"{each.ended:<26} {each.siblings}/{SIBLINGS + 2:<7} {each.repeat:<11} {each.executed}"
        made.append(f"{cell.client:<12} {cell.era:<7} {cell.rung:<11} {seen}")
    return made


def shown(seconds: int) -> tuple[list[str], list[str]]:
    """Runs everything: the table, and what is wrong."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdpoint-patience-")))
        upstream = stack.enter_context(parts.fastmcp(directory))
        agents = [cell.agent for cell in CELLS]
        holds = {"wait": "280s"}
        gateway = Gateway(directory / "gateway", [upstream], agents=agents, people=[OLGA], holds=holds).prepare().start()
        stack.callback(gateway.stop)
        table = rows(gateway, upstream, seconds)
        gateway.stop()
        verified, audit = gateway.verify()
    wrong = [f"{cell.name}: {each.wrong}" for cell, each in table.items() if each.wrong]
    return lines(table), wrong if verified == 0 else [*wrong, f"the audit is {audit['status']}"]


def main() -> int:
    """0 when every cell is as it must be."""
    began, seconds = time.monotonic(), int(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    table, wrong = shown(seconds)
    print("\n".join([*table, *wrong]))
    print(f"patience_hold_seconds: {seconds}")
    print(f"patience_seconds: {time.monotonic() - began:.0f}")
    print(f"patience: {'FAILED' if wrong else 'ok'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
