"""Misfortunes: what agents see while the disk is full, slow or gone, the store is locked, the clock is set, or there is
far too much to do; and that nothing reached an upstream without an intent, whatever happened.

Needs root, for disks of its own."""

import asyncio
import http.client
import json
import mmap
import os
import socket
import sqlite3
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import aiohttp
import pytest

import traffic
from conftest import Figure
from gateway import DOMAIN, READER, SUPPORT, Agent, Gateway, problem_decision
from parts import HERE, Json, Upstream, free_port, header, short, until

DISK_BYTES, FREE_BYTES_MIN = 96 << 20, 16 << 20
SLOW_SECONDS, HUNG_SECONDS = 0.3, 60.0
HOUR_NS = 3600 * 10**9
RATE, TIMES, WORKERS = 20, 3, 32
GROWTH_KIB_MAX = 16 * 1024
# What each kind of call comes to; `unavailable` is 503 with `Retry-After`, and the code -31010 in MCP.
SHAPES = ("HTTP write", "MCP write", "HTTP read", "MCP read")
DONE = dict.fromkeys(SHAPES, "done")
REFUSED = dict.fromkeys(SHAPES, "unavailable")
WRITES_REFUSED = {shape: "unavailable" if "write" in shape else "done" for shape in SHAPES}

Seen = dict[str, str]
TABLE: list[tuple[str, ...]] = []


class Misfortune:
    """What goes wrong for the gateway's process, as misfortune.c has it."""

    def __init__(self, directory: Path) -> None:
        self.library, self.file = directory / "misfortune.so", directory / "misfortune"
        compile_ = ["cc", "-shared", "-fPIC", "-O2", "-o", str(self.library), str(HERE / "misfortune.c")]
        subprocess.run(compile_, check=True)
        self.file.write_bytes(bytes(24))
        with self.file.open("r+b") as file:
            self.told = mmap.mmap(file.fileno(), 24)

    def set(self, clock_ns: int = 0, sync_seconds: float = 0.0, device: int = 0) -> None:
        """From now on this is wrong, and nothing else."""
        self.told[:] = struct.pack("=qqq", clock_ns, int(sync_seconds * 1e9), device)

    def environment(self) -> dict[str, str]:
        """With which the gateway is started."""
        return {"LD_PRELOAD": str(self.library), "MISFORTUNE": str(self.file)}


class Work:
    """Agents at work in the background, whatever happens."""

    def __init__(self, plan: Json) -> None:
        self.tally, self.over = traffic.Tally(), threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.run(plan)))
        self.thread.start()

    async def run(self, plan: Json) -> None:
        """Calls until it is over."""
        load = asyncio.create_task(traffic.load(plan, self.tally, 2))
        while not self.over.is_set():
            await asyncio.sleep(0.05)
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)

    def end(self) -> None:
        """It is over."""
        self.over.set()
        self.thread.join()


@dataclass
class World:
    """A gateway whose audit has a disk of its own, an upstream of each kind, and an agent who calls both."""

    gateway: Gateway
    notes: Upstream
    ledger: Upstream
    misfortune: Misfortune
    before: tuple[int, int]
    work: Work | None = None
    session: str = ""
    ids: int = 0
    answers: dict[str, Seen] = field(default_factory=dict)

    def up(self) -> None:
        """Starts it, and opens a session."""
        with mock.patch.dict(os.environ, self.misfortune.environment()):
            self.gateway.start()
        self.session = ""
        reply = self.ask("POST", "/ledger/mcp", self.rpc("initialize", INITIALIZE))
        self.session = reply.headers["mcp-session-id"]
        self.ask("POST", "/ledger/mcp", {"jsonrpc": "2.0", "method": "notifications/initialized"})

    def rpc(self, method: str, params: Json) -> Json:
        """A request of JSON-RPC."""
        self.ids += 1
        return {"jsonrpc": "2.0", "id": self.ids, "method": method, "params": params}

    def ask(self, method: str, path: str, body: Json | None = None, agent: Agent = SUPPORT) -> "Reply":
        """One request on a connection of its own."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.gateway.port, context=self.gateway.tls(agent), timeout=60)
        headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
        if self.session and path.endswith("/mcp"):
            headers |= {"mcp-session-id": self.session, "mcp-protocol-version": INITIALIZE["protocolVersion"]}
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def http(self, method: str) -> str:
        """What became of a call of the HTTP upstream."""
        path = "/notes/v1/notes" if method == "POST" else "/notes/v1/notes/1"
        reply = self.ask(method, path, {"n": 1} if method == "POST" else None)
        if reply.status in (200, 201):
            return "done"
        decision = problem_decision(reply.json())
        assert reply.status == 503 and "retry-after" in reply.headers, (reply.status, reply.body)
        return str(decision["outcome"])

    def tool(self, name: str, arguments: Json) -> str:
        """What became of a call of a tool."""
        reply = self.ask("POST", "/ledger/mcp", self.rpc("tools/call", {"name": name, "arguments": arguments})).json()
        if "error" in reply:
            assert reply["error"]["code"] == -31010, reply
            return "unavailable"
        assert not reply["result"].get("isError"), reply
        return "done"

    def four(self) -> Seen:
        """What becomes of each kind of call just now."""
        write, tool = self.http("POST"), self.tool("note", {"text": "x"})
        return dict(zip(SHAPES, (write, tool, self.http("GET"), self.tool("add", {"a": 1, "b": 2})), strict=True))

    def sees(self, what: str, expected: Seen) -> None:
        """Waits until agents see this, and keeps it for the table."""
        seen: Seen = {}

        def looks() -> bool:
            seen.update(self.four())
            return seen == expected

        try:
            until(what, looks, seconds=60, pause=0.2)
        finally:
            self.answers[what] = seen

    def rests(self) -> None:
        """Ends the work in the background."""
        if self.work is not None:
            self.work.end()

    def settled(self, figure: Figure) -> None:
        """Stops it; what the upstreams saw was written first, what agents got has its outcome, and the audit verifies."""
        self.misfortune.set()
        self.rests()
        self.gateway.stop()
        code, report = self.gateway.verify()
        assert (code, report["status"]) == (0, "ok"), report
        intents = {record["id"] for record in self.gateway.records("intent")}
        notes, tools = self.before
        arrived = [*self.notes.seen("arrived")[notes:], *self.ledger.seen()[tools:]]
        named = [header(each["headers"], "holdpoint-record") for each in arrived if each["method"] in ("GET", "POST")]
        unrecorded = [name for name in named if name not in intents]
        closed = {record.get("intent") for record in self.gateway.records("outcome", "recovered")}
        tally = self.work.tally if self.work else traffic.Tally()
        TABLE.extend((what, *(seen[shape] for shape in SHAPES)) for what, seen in self.answers.items())
        name = list(self.answers)[-1].replace(" ", "_").replace(",", "")
        figure(f"misfortune_calls_sent_until_{name}", len(named))
        figure(f"misfortune_without_intent_until_{name}", len(unrecorded))
        assert [record for record in tally.records if record not in closed] == [], "no reply came before its outcome"
        assert named and unrecorded == [], f"{len(unrecorded)} of {len(named)} calls reached an upstream without an intent"


@dataclass
class Reply:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Json:
        """Its body, or the last message of its stream."""
        text = self.body.decode()
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            text = [line for line in text.splitlines() if line.startswith("data:")][-1].removeprefix("data:")
        told: Json = json.loads(text)
        return told


INITIALIZE: Json = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}


@contextmanager
def disk(place: Path) -> Iterator[None]:
    """A disk of its own, in memory."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


DOMAINS = {
    DOMAIN: {"bundle": f"pki/{DOMAIN}.pem", "roles": ["agents"]},
    f"people.{DOMAIN}": {"bundle": "pki/people.pem", "roles": ["people"]},
}
# What the configuration has beside the usual.
MORE: Json = {
    "trust": {"identity": {"cert": "pki/gateway.pem", "key": "pki/gateway-key.pem"}, "domains": DOMAINS},
    "people": "people.yaml",
    "store": {"sqlite": "state/holdpoint.db"},
    "audit": {"dir": "state/audit", "free_bytes_min": f"{FREE_BYTES_MIN >> 20}MiB"},
}


@contextmanager
def worlds(directory: Path, upstreams: list[Upstream], at_work: int = 1, **options: Any) -> Iterator[World]:
    """A world that serves, with agents at work in it or none."""
    notes, ledger = upstreams
    gateway = Gateway(directory / "gateway", upstreams, more=MORE, **options).prepare()
    gateway.write("people.yaml", [{"id": f"spiffe://people.{DOMAIN}/olga", "email": "olga@example.org", "roles": ["oncall"]}])
    configuration = gateway.configuration()
    admin = {"name": "admin", "kind": "admin", "address": f"127.0.0.1:{free_port()}", "socket": "state/admin.sock"}
    configuration["listeners"].append(admin)
    gateway.write("holdpoint.yaml", configuration)
    with disk(gateway.audit_dir):
        before = len(notes.seen("arrived")), len(ledger.seen())
        world = World(gateway, notes, ledger, Misfortune(directory), before)
        try:
            world.up()
            world.sees("as it should be", DONE)
            world.work = Work(gateway.plan(SUPPORT, notes, [])) if at_work else None
            yield world
        finally:
            world.misfortune.set()
            world.rests()
            gateway.stop()


@pytest.fixture(scope="module", autouse=True)
def table(figure_table: Callable[[str], None]) -> Iterator[None]:
    """What agents saw, at the end of the run."""
    yield
    rows = [("misfortune", *SHAPES), *dict.fromkeys(TABLE)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        figure_table("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@pytest.fixture
def world(tmp_path: Path, recorder: Upstream, fastmcp: Upstream) -> Iterator[World]:
    """A world of its own for each misfortune."""
    with worlds(tmp_path, [recorder, fastmcp]) as world:
        yield world


def fill(world: World, left: int) -> None:
    """Takes what is free of the disk but for so many bytes."""
    ballast = world.gateway.audit_dir / "ballast"
    ballast.unlink(missing_ok=True)
    free = os.statvfs(world.gateway.audit_dir)
    with ballast.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - left)
        except OSError:
            pass


def test_the_disk_is_full(world: World, figure: Figure) -> None:
    """First what changes the world is refused, then all of it; and once there is room, nothing."""
    fill(world, FREE_BYTES_MIN // 2)
    world.sees("disk low", WRITES_REFUSED)
    fill(world, 64 << 10)
    world.sees("disk full", REFUSED)
    until("the gateway to say so", lambda: not world.gateway.ready())
    (world.gateway.audit_dir / "ballast").unlink()
    world.sees("disk has room again", DONE)
    world.settled(figure)


def test_the_disk_is_slow_and_then_hangs(world: World, figure: Figure) -> None:
    """What is slow is waited for by whoever needs it; what hangs is waited for so long, by writes alone."""
    world.misfortune.set(sync_seconds=SLOW_SECONDS)
    started = time.monotonic()
    assert world.http("POST") == "done"
    waited = time.monotonic() - started
    figure("misfortune_slow_write_seconds", f"{waited:.2f}")
    assert waited >= SLOW_SECONDS, "a write is on the disk before it is sent"
    world.sees("disk slow", DONE)
    world.misfortune.set(sync_seconds=HUNG_SECONDS)
    world.sees("disk hangs", WRITES_REFUSED)
    world.misfortune.set()
    world.sees("disk syncs again", DONE)
    world.settled(figure)


def test_the_disk_is_gone(world: World, figure: Figure) -> None:
    """Nothing is known of what a disk has that failed: nothing more is sent until a new start has looked at it."""
    world.misfortune.set(device=world.gateway.audit_dir.stat().st_dev)
    world.sees("disk gone", REFUSED)
    sent = [len(world.notes.seen("arrived")), len(world.ledger.seen())]
    world.four()
    time.sleep(1)
    assert sent == [len(world.notes.seen("arrived")), len(world.ledger.seen())], "nothing is sent any more"
    world.misfortune.set()
    world.gateway.stop()
    world.up()
    world.sees("disk back, started again", DONE)
    world.settled(figure)


def local(world: World, path: str, body: Json) -> tuple[int, str]:
    """Asks the machine's own socket."""
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(60)
    connection.sock.connect(str(world.gateway.directory / "state/admin.sock"))
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    told = answer.status, answer.read().decode()
    connection.close()
    return told


def test_the_store_is_locked(world: World, figure: Figure) -> None:
    """No call waits for the store; an order to suspend works at once, and says that it could not be kept."""
    other = sqlite3.connect(world.gateway.directory / "state/holdpoint.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    world.sees("store locked", DONE)
    assert world.ask("GET", "/notes/v1/notes/1", agent=READER).status == 200
    status, told = local(world, "/v1/agents/agent%2Freader/suspend", {"reason": "the store is locked"})
    assert "kept" in told and "stor" in told, (status, told)
    assert world.ask("GET", "/notes/v1/notes/1", agent=READER).status == 403, "it is in force all the same"
    other.execute("ROLLBACK")
    other.close()
    status, told = local(world, "/v1/agents/agent%2Freader/suspend", {"reason": "now it is kept"})
    assert status == 200, told
    world.sees("store free again", DONE)
    world.gateway.kill()
    world.up()
    assert world.ask("GET", "/notes/v1/notes/1", agent=READER).status == 403, "what was kept survives kill -9"
    world.settled(figure)


def test_the_clock_goes_back_and_forward(world: World, figure: Figure) -> None:
    """Calls go on, the log stays in its order, and nothing is put away by a clock that was set."""
    # No further than the certificates are old.
    world.misfortune.set(clock_ns=-HOUR_NS // 15)
    world.sees("clock four minutes back", DONE)
    world.misfortune.set(clock_ns=48 * HOUR_NS)
    world.sees("clock two days forward", DONE)
    world.misfortune.set()
    world.sees("clock right again", DONE)
    records = world.gateway.records()
    times = [record["ts"] for record in records]
    assert times != sorted(times), "the clock did go back and forward"
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    assert not (world.gateway.audit_dir / "archive").exists()
    world.settled(figure)


async def flood(world: World, seconds: float) -> dict[int, int]:
    """Calls as often as it can, and counts the answers by status."""
    counts: dict[int, int] = {}
    plan = {"url": world.gateway.url(world.notes), **world.gateway.credentials(SUPPORT)}
    end = time.monotonic() + seconds

    async def calls(client: aiohttp.ClientSession, number: int) -> None:
        while time.monotonic() < end:
            method, path = ("POST", "/v1/notes") if number % 2 else ("GET", "/v1/notes/1")
            async with client.request(method, plan["url"] + path, json={"n": 1} if number % 2 else None) as reply:
                await reply.read()
                counts[reply.status] = counts.get(reply.status, 0) + 1

    async with traffic.session(plan) as client:
        await asyncio.gather(*(calls(client, number) for number in range(WORKERS)))
    return counts


def resident_kib(world: World) -> int:
    """What the gateway has resident now."""
    assert world.gateway.process is not None
    status = Path(f"/proc/{world.gateway.process.popen.pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def test_three_times_what_an_agent_may(tmp_path: Path, recorder: Upstream, fastmcp: Upstream, figure: Figure) -> None:
    """Beyond the limit it is told to wait; another agent is served all the while, and memory does not grow."""
    limits = [{"per": "agent", "rate": f"{RATE}/s", "burst": RATE}]
    with worlds(tmp_path, [recorder, fastmcp], at_work=0, limits=limits) as world:
        flooded(world, figure)


def flooded(world: World, figure: Figure) -> None:
    """One agent calls as often as it can, at least three times as often as it may, and another now and then."""
    seconds = short(10, 60)

    async def both() -> tuple[dict[int, int], list[int], list[int]]:
        flooding = asyncio.create_task(flood(world, seconds))
        served, resident = [], []
        while not flooding.done():
            reply = await asyncio.to_thread(world.ask, "GET", "/notes/v1/notes/1", None, READER)
            served.append(reply.status)
            resident.append(resident_kib(world))
            await asyncio.sleep(0.1)
        return flooding.result(), served, resident

    counts, served, resident = asyncio.run(both())
    offered, third = sum(counts.values()), len(resident) // 3
    growth = max(resident[-third:]) - max(resident[:third])
    figure("misfortune_overload_offered", offered)
    figure("misfortune_overload_answers", json.dumps(counts))
    figure("misfortune_overload_other_agent_served", f"{served.count(200)} of {len(served)}")
    figure("misfortune_overload_memory_growth_kib", growth)
    assert set(counts) <= {200, 201, 429} and offered >= TIMES * RATE * seconds, counts
    assert set(served) == {200}, "another agent does not notice"
    assert growth < GROWTH_KIB_MAX, resident
    world.settled(figure)
