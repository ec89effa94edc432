"""Ten thousand calls that wait for people at once: what each takes in memory, how soon an approval reaches its client, and
that each ends as it was decided, by what the upstream saw.

    integration/pending.sh [HOLDS]          HOLDPOINT_BIN names the binary

All wait as streams of HTTP/2, a hundred on a connection, and each connection is of another agent: half are `tools/call` of MCP 2025-11-25 with a
`progressToken`, half are plain HTTP with `Prefer: wait`. Memory is the gateway's anonymous memory with all of them
waiting, less the same with the connections open and idle; so the streams are counted with their holds. Event streams of
MCP through the same gateway are measured first, for comparison; each of those has a connection upstream too.
"""

import asyncio
import json
import os
import re
import ssl
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "bench")]

import machine  # noqa: E402
from gateway import Agent, Gateway, Person  # noqa: E402
from parts import Json, Process, Upstream, free_port, tool  # noqa: E402

PER_CONNECTION = 100
KIB_EACH_MAX = 20.0
LATENCY_MS_P99_MAX = 50.0
ROUNDS, PER_ROUND = 5, 100
APPROVERS = 8  # at once, once latency has been measured
# More than the two seconds for which every call just waits, and than the allocator keeps pages that were given back.
SETTLE_SECONDS = 13.0
WAIT_SECONDS = 280
OPEN_SECONDS_MAX = 900.0
END_SECONDS_MAX = 600.0
OLGA = Person("olga", roles=["oncall"], teams=["care"])
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2 [RFC 9113 §4.1]."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(text: str) -> bytes:
    """A string of HPACK, plain, shorter than 127 bytes [RFC 7541 §5.2]."""
    return bytes([len(text)]) + text.encode()


def fields(method: str, path: str, **more: str) -> bytes:
    """Fields of a request, without compression: https, and names of their own but for the pseudo ones [RFC 7541 §6.2.2]."""
    head = bytes([0x82 if method == "GET" else 0x83, 0x87, 0x04]) + literal(path) + b"\x01" + literal("127.0.0.1")
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return head + b"".join(b"\x00" + literal(name) + literal(value) for name, value in named.items())


@dataclass
class Call:
    """One call: its number, and what has become of it."""

    number: int
    sent: int = 0
    got: bytearray = field(default_factory=bytearray)
    status: int = 0
    ended_ns: int = 0
    outcome: str = ""

    @property
    def mcp(self) -> bool:
        """Every other one."""
        return self.number % 2 == 0

    def request(self) -> tuple[bytes, bytes]:
        """Its fields and its body; the same each time it is made, but for the id, which is not part of what is approved."""
        if not self.mcp:
            body = json.dumps({"n": self.number}).encode()
            more = {"content_type": "application/json", "prefer": f"wait={WAIT_SECONDS}"}
            return fields("POST", "/crm/do", content_length=str(len(body)), **more), body
        params = {"name": "do", "arguments": {"n": self.number}, "_meta": {"progressToken": self.number}}
        message = {"jsonrpc": "2.0", "id": f"{self.number}.{self.sent}", "method": "tools/call", "params": params}
        body = json.dumps(message).encode()
        more = {"accept": "application/json, text/event-stream", "mcp_protocol_version": "2025-11-25"}
        return fields("POST", "/desk/mcp", content_type="application/json", content_length=str(len(body)), **more), body

    def told(self) -> str:
        """What its reply says: `done`, or the gateway's outcome."""
        if self.mcp:
            lines = [line for line in self.got.decode().splitlines() if line.startswith(("data: {", "{"))]
            messages = [json.loads(line.removeprefix("data: ")) for line in lines]
            result = next(each["result"] for each in messages if "result" in each)
            decision = result.get("_meta", {}).get("dev.holdpoint/decision")
            return str(decision["outcome"]) if decision else str(result["content"][0]["text"])
        body = json.loads(self.got)
        return str(body["dev.holdpoint/decision"]["outcome"]) if "dev.holdpoint/decision" in body else "done"


@dataclass
class Connection:
    """One connection with many streams."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    streams: dict[int, Call] = field(default_factory=dict)
    next: int = 1
    first: set[int] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)

    def make(self, call: Call) -> None:
        """Makes a call."""
        head, body = call.request()
        call.sent += 1
        call.got.clear()
        self.streams[self.next] = call
        self.writer.write(frame(HEADERS, 0x4, self.next, head) + frame(DATA, 0x1, self.next, body))
        self.next += 2

    def listen(self) -> None:
        """Opens an event stream of MCP."""
        more = {"accept": "text/event-stream", "mcp_protocol_version": "2025-11-25"}
        self.writer.write(frame(HEADERS, 0x5, self.next, fields("GET", "/standing/mcp", **more)))
        self.next += 2

    async def read(self) -> None:
        """Takes frames until the connection ends."""
        while True:
            head = await self.reader.readexactly(9)
            payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            call = self.streams.get(stream)
            if kind == DATA:
                self.first.add(stream)
                if call:
                    call.got += payload
            if kind in (DATA, HEADERS) and flags & 1 and call:
                self.ended(stream, call)
            if kind == SETTINGS and not flags & 1:
                self.writer.write(frame(SETTINGS, 1, 0, b""))
            if kind == PING and not flags & 1:
                self.writer.write(frame(PING, 1, 0, payload))
            if kind in (GOAWAY, RESET):
                self.broken.append(f"frame {kind} of stream {stream}: {payload[:80]!r}")

    def ended(self, stream: int, call: Call) -> None:
        """A reply is there; one that says that approval is pending is made again, as an agent would."""
        call.ended_ns = time.monotonic_ns()
        del self.streams[stream]
        told = call.told()
        if told in ("pending", "held"):
            self.make(call)
        else:
            call.outcome = told


@asynccontextmanager
async def connected(gateway: Gateway, agents: list[Agent]) -> AsyncIterator[list[Connection]]:
    """Connections without a stream yet, one of each agent."""

    async def one(agent: Agent) -> Connection:
        tls = gateway.tls(agent)
        tls.set_alpn_protocols(["h2"])
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=tls)
        # All that comes fits in the connection's window.
        writer.write(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(WINDOW, 0, 0, (2**30).to_bytes(4, "big")))
        return Connection(reader, writer)

    connections = [await one(agent) for agent in agents]
    reading = [asyncio.create_task(each.read()) for each in connections]
    try:
        yield connections
    finally:
        for task, each in zip(reading, connections, strict=True):
            task.cancel()
            each.writer.transport.abort()


class Approver:
    """A person's connection to the API."""

    def __init__(self, gateway: Gateway) -> None:
        pki = gateway.pki
        self.tls = ssl.create_default_context(cafile=str(pki / "example.org.pem"))
        self.tls.load_cert_chain(str(pki / "olga.pem"), str(pki / "olga-key.pem"))
        self.port, self.pipe = gateway.admin, None

    async def ask(self, method: str, path: str, body: Json | None = None) -> Json:
        """One request; anything but 200 is a failure."""
        if self.pipe is None:
            self.pipe = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, server_hostname="localhost", limit=2**24)
        reader, writer = self.pipe
        text = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(text)}"
        writer.write(head.encode() + b"\r\n\r\n" + text)
        told = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        size = re.search(r"content-length: (\d+)", told)
        assert size, told
        answer = await reader.readexactly(int(size.group(1)))
        assert " 200 " in told.splitlines()[0], f"{method} {path}: {told.splitlines()[0]} {answer[:300]!r}"
        return json.loads(answer)

    async def oldest(self) -> list[Json]:
        """The oldest thousand that are pending."""
        return list((await self.ask("GET", "/v1/holds?state=pending"))["holds"])

    async def seen(self, hold: Json) -> tuple[int, str]:
        """The number of a held call and the digest of the text that it was read in."""
        shown = await self.ask("GET", f"/v1/holds/{hold['id']}")
        body = json.loads(shown["text"])["body"]["json"]
        number = body["params"]["arguments"]["n"] if "params" in body else body["n"]
        return int(number), str(shown["hold"]["digest"])

    async def says(self, verb: str, hold: Json, digest: str) -> None:
        """Votes."""
        await self.ask("POST", f"/v1/holds/{hold['id']}/{verb}", {"digest": digest, "reason": "it was looked at"})


def denied(number: int) -> bool:
    """Each tenth, of both kinds."""
    return number % 20 in (7, 12)


@dataclass
class Latency:
    """From an approval to its client, in milliseconds: from the request, and from its reply (which may come later)."""

    request_ms: list[float] = field(default_factory=list)
    reply_ms: list[float] = field(default_factory=list)


async def paced(approver: Approver, calls: list[Call], holds: list[Json]) -> Latency:
    """One approval after the other, each until its client has its reply."""
    latency = Latency()
    for hold in holds:
        number, digest = await approver.seen(hold)
        call = calls[number]
        began = time.monotonic_ns()
        await approver.says("approve", hold, digest)
        answered = time.monotonic_ns()
        while not call.outcome:
            await asyncio.sleep(0.0005)
            assert time.monotonic_ns() - began < 30e9, f"call {number} has no reply 30 s after its approval"
        latency.request_ms.append((call.ended_ns - began) / 1e6)
        latency.reply_ms.append((call.ended_ns - answered) / 1e6)
    return latency


async def decided(gateway: Gateway, first: Approver) -> int:
    """Everything that is left, by several people at once (one person's several connections); how many."""
    approvers, count = [first, *(Approver(gateway) for _ in range(APPROVERS - 1))], 0
    while holds := await first.oldest():
        async def share(approver: Approver, mine: list[Json]) -> None:
            for hold in mine:
                number, digest = await approver.seen(hold)
                await approver.says("deny" if denied(number) else "approve", hold, digest)

        await asyncio.gather(*(share(each, holds[at::APPROVERS]) for at, each in enumerate(approvers)))
        count += len(holds)
    return count


def anonymous_kib(gateway: Gateway) -> int:
    """What the gateway has resident of its own."""
    assert gateway.process
    return machine.memory(gateway.process.popen.pid).anonymous


def pending(gateway: Gateway) -> int:
    """How many calls wait, by the gateway's own metric."""
    line = next(line for line in gateway.metrics().splitlines() if line.startswith("holdpoint_holds_pending"))
    return int(float(line.split()[-1]))


def quantile(values: list[float], percent: int) -> float:
    """A percentile."""
    return statistics.quantiles(values, n=100)[percent - 1]


async def standing(gateway: Gateway, streams: int) -> float:
    """KiB of an event stream that stands, beside its connection."""
    async with connected(gateway, gateway.agents) as connections:
        await asyncio.sleep(1)
        before = anonymous_kib(gateway)
        for at in range(streams):
            connections[at // PER_CONNECTION].listen()
        end = time.monotonic() + OPEN_SECONDS_MAX
        while (begun := sum(len(each.first) for each in connections)) < streams:
            assert time.monotonic() < end, f"only {begun} of {streams} streams began"
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        return (anonymous_kib(gateway) - before) / streams


async def waiting(gateway: Gateway, connections: list[Connection], calls: list[Call], mcp: bool) -> tuple[float, float]:
    """Makes the calls of one kind, and waits until people could see them all: KiB each, and how long that took."""
    wanted, before, began = [call for call in calls if call.mcp == mcp], anonymous_kib(gateway), time.monotonic()
    already = pending(gateway)
    for at, call in enumerate(wanted):
        connections[at * len(connections) // len(wanted)].make(call)
        if at % PER_CONNECTION == 0:
            await asyncio.sleep(0)
    while (now := pending(gateway)) < already + len(wanted):
        assert time.monotonic() - began < OPEN_SECONDS_MAX, f"only {now - already} of {len(wanted)} calls wait"
        await asyncio.sleep(0.2)
    took = time.monotonic() - began
    await asyncio.sleep(SETTLE_SECONDS)
    return (anonymous_kib(gateway) - before) / len(wanted), took


async def measured(gateway: Gateway, count: int) -> tuple[Json, list[Call]]:
    """Everything, and the calls as they ended."""
    calls, approver = [Call(number) for number in range(count)], Approver(gateway)
    async with connected(gateway, gateway.agents) as connections:
        await asyncio.sleep(1)
        before = anonymous_kib(gateway)
        mcp_kib, mcp_seconds = await waiting(gateway, connections, calls, mcp=True)
        http_kib, http_seconds = await waiting(gateway, connections, calls, mcp=False)
        each_kib = (anonymous_kib(gateway) - before) / count
        assert not any(call.outcome for call in calls), "a call has ended that nobody decided"
        rounds: list[Latency] = []
        for _ in range(ROUNDS):
            holds = (await approver.oldest())[: min(PER_ROUND, count // 10)]
            rounds.append(await paced(approver, calls, holds))
        began = time.monotonic()
        approved = sum(len(each.request_ms) for each in rounds)
        rest = await decided(gateway, approver)
        while not all(call.outcome for call in calls):
            broken = [why for each in connections for why in each.broken]
            assert not broken, broken[:3]
            assert time.monotonic() - began < END_SECONDS_MAX, Counter(call.outcome for call in calls)
            await asyncio.sleep(0.1)
        seconds = time.monotonic() - began
    return {
        "pending_at_once": count,
        "kib_each": each_kib,
        "kib_each_mcp": mcp_kib,
        "kib_each_http": http_kib,
        "opened_a_second": count / (mcp_seconds + http_seconds),
        "approved_one_by_one": approved,
        "decided_at_once": rest,
        "decided_a_second": rest / seconds,
        "latency": rounds,
    }, calls


def told(found: Json, calls: list[Call], seen: list[int], paced_numbers: int) -> list[str]:
    """Prints the figures; what is not as it must be."""
    rounds: list[Latency] = found.pop("latency")
    for name, value in found.items():
        print(f"{name}: {value:,.2f}" if isinstance(value, float) else f"{name}: {value:,}")
    print(f"{'round':<8}{'from the request: p50':>24}{'p99 ms':>9}{'from its reply: p50':>22}{'p99 ms':>9}")
    for at, each in enumerate(rounds):
        ms = [quantile(values, percent) for values in (each.request_ms, each.reply_ms) for percent in (50, 99)]
        print(f"{at + 1:<8}{ms[0]:>24.1f}{ms[1]:>9.1f}{ms[2]:>22.1f}{ms[3]:>9.1f}")
    best = min(quantile(each.request_ms, 99) for each in rounds)
    outcomes, times = Counter(call.outcome for call in calls), Counter(seen)
    ran = [call.number for call in calls if call.outcome in ("done", "executed")]
    print(f"outcomes: {dict(outcomes)}")
    print(f"made_again: {sum(call.sent - 1 for call in calls):,}")
    print(f"upstream_saw: {len(seen):,}")
    print(f"latency_ms_p50: {statistics.median(ms for each in rounds for ms in each.request_ms):.1f}")
    print(f"latency_ms_p99_of_the_quietest_round: {best:.1f}")
    checks = {
        "each approved call ran exactly once": times == Counter(ran) and len(ran) + outcomes["denied"] == len(calls),
        "no denied call ran": not any(times[call.number] for call in calls if call.outcome == "denied"),
        "every tenth that was left was denied": outcomes["denied"] > 0,
        f"less than {KIB_EACH_MAX:.0f} KiB each": found["kib_each"] < KIB_EACH_MAX,
        f"p99 within {LATENCY_MS_P99_MAX:.0f} ms in a round": best < LATENCY_MS_P99_MAX,
    }
    return [name for name, holds in checks.items() if not holds]


def main() -> int:
    """Measures and judges."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    machine.many_files()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdpoint-pending-")))
        seen, port, streams = directory / "seen", free_port(), free_port()
        command = [sys.executable, str(HERE / "upstreams/counting.py"), str(port)]
        counting = Process.start("counting", command, directory / "counting.log", HOLDPOINT_SEEN=str(seen)).wait_port(port)
        stack.callback(counting.stop)
        command = [sys.executable, str(HERE / "bench/idle_streams.py"), str(streams)]
        idle = Process.start("streams", command, directory / "streams.log").wait_port(streams)
        stack.callback(idle.stop)
        held = tool("write", 3, reversible=True)
        base = f"http://127.0.0.1:{port}"
        behind = [
            Upstream("desk", "mcp", f"{base}/mcp", seen, counting, {"do": held}),
            Upstream("crm", "http", base, seen, counting, {"POST /do": held}),
            Upstream("standing", "mcp", f"http://127.0.0.1:{streams}/mcp", seen, idle, {}),
        ]
        bounds = {"bounds": {"connections_max": 20_000}}
        holds = {"wait": f"{WAIT_SECONDS}s", "pending_max": PER_CONNECTION}
        agents = [Agent(f"agent/a{number}") for number in range(-(-count // PER_CONNECTION))]
        options: Json = {"agents": agents, "people": [OLGA], "holds": holds, "more": bounds}
        gateway = Gateway(directory / "gateway", behind, **options).prepare().start()
        stack.callback(gateway.stop)
        print(f"load_average_before: {os.getloadavg()[0]:.2f}", flush=True)
        beside = asyncio.run(standing(gateway, count))
        gateway.stop()
        gateway.start()
        found, calls = asyncio.run(measured(gateway, count))
        numbers = [int(line) for line in seen.read_text(encoding="ascii").split()]
        gateway.stop()
        verified, audit = gateway.verify()
        print(f"kib_each_standing_stream: {beside:,.2f}")
        wrong = told(found, calls, numbers, ROUNDS)
        print(f"load_average_after: {os.getloadavg()[0]:.2f}")
        print(f"audit: {audit['status']}")
    if verified != 0:
        wrong.append("the audit is whole")
    print(f"pending: {'FAILED: ' + ', '.join(wrong) if wrong else 'ok'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
