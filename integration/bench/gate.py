"""Counts the instructions of a call and compares them with the accepted figures: deterministic, so that CI can insist."""

import argparse
import http.server
import os
import platform
import re
import shutil
import socket
import ssl
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import proxies  # noqa: E402
import report  # noqa: E402
import upstream  # noqa: E402
from callgrind import Counted, Counts  # noqa: E402
from gateway import SUPPORT, binary  # noqa: E402
from machine import said  # noqa: E402
from parts import CACHE_ROOT, Json, Upstream, tool, until  # noqa: E402
from proxies import LIMITS, Ports, Proxy  # noqa: E402
from upstream import Work, http_work, tool_work  # noqa: E402

ACCEPTED = HERE / "accepted.toml"
TOLERANCE = 0.03
# A part so small that the compiler's mood moves it by more than that is a change when it is one of its call, too.
TOLERANCE_OF_CALL = 0.001
NOISE = 0.01  # what moved by less keeps its figure and its reason
WARM_UP = 150
CALLS = 100
WINDOWS = 5
EXPORT_QUIET_SECONDS = 1.5  # spans are sent a second after the first of them
# What decides which routines of libc and of the crypto library run, as far as valgrind has it.
FLAGS = ("abm", "aes", "avx", "avx2", "bmi1", "bmi2", "cx16", "f16c", "fma", "movbe", "pclmulqdq", "sse4_2", "ssse3")

TLS = ("TLS (rustls)", "cryptography (aws-lc)")
PIPELINE = "holdpoint::pipeline::begin::{{closure}}"
DECIDE = "holdpoint::decide::call"
FLOW = "holdpoint::pipeline::leaving::InRun::enter"
CLOCK_POLICY = """@id("clock") @public("clock")
forbid (principal, action in Holdpoint::Action::"invoke", resource == Holdpoint::Tool::"tools-small/clock")
when { context.hour_utc > 24 };
"""
SCENARIOS: dict[str, Work] = {
    "tools_read": tool_work("small"),
    "http_read": http_work("small"),
    "tools_write": tool_work("small", "note"),
    "public_read": tool_work("small", "price"),  # flow control has nothing to learn from it and nothing to examine
    "decided_anew": tool_work("small", "clock"),  # its policy looks at the clock, so no decision is remembered
}


class Sink(http.server.ThreadingHTTPServer):
    """A collector that takes everything and keeps nothing."""

    taken = 0
    last = 0.0

    class Handler(http.server.BaseHTTPRequestHandler):
        """One connection."""

        protocol_version = "HTTP/1.1"
        server: "Sink"

        def do_POST(self) -> None:  # noqa: N802 - the library's name
            """Takes a batch."""
            self.rfile.read(int(self.headers["content-length"]))
            self.server.last = time.monotonic()
            self.server.taken += 1
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""


@contextmanager
def sink() -> Iterator[Sink]:
    """Runs one."""
    server = Sink(("127.0.0.1", 0), Sink.Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()


@dataclass
class Clocked(Counted):
    """The gateway under callgrind with one more policy, for one more tool."""

    def copy_policies(self) -> None:
        """As the benchmark has them, and the one that looks at the clock."""
        super().copy_policies()
        (self.directory / "policies/clock.cedar").write_text(CLOCK_POLICY, encoding="utf-8")


def behind(ports: Ports) -> list[Upstream]:
    """The benchmark's upstreams with one more tool."""
    all_of_them = proxies.upstreams(ports)
    for each in all_of_them:
        if each.kind == "mcp":
            each.catalog = {**each.catalog, "clock": tool("read", 1)}
    return all_of_them


class Client:
    """One connection that makes one call after the other, each written at once so that it is read at once."""

    def __init__(self, tls: ssl.SSLContext, port: int) -> None:
        plain = socket.create_connection(("127.0.0.1", port), timeout=60)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = tls.wrap_socket(plain, server_hostname="127.0.0.1")
        self.reader = self.socket.makefile("rb")

    def calls(self, work: Work, count: int) -> None:
        """Makes this many; each must bring the upstream's own reply."""
        request = message(work)
        for _ in range(count):
            self.socket.sendall(request)
            status, size = self.reader.readline(), 0
            while (line := self.reader.readline().lower()) not in (b"\r\n", b""):
                if line.startswith(b"content-length:"):
                    size = int(line.split(b":")[1])
            body = self.reader.read(size)
            assert status.startswith(b"HTTP/1.1 200 ") and size == work.reply_bytes, f"{work.name}: {status!r} {body!r}"


def message(work: Work) -> bytes:
    """The bytes of a request; the same whatever port the gateway has."""
    lines = [f"{work.method} {work.path} HTTP/1.1", "Host: gateway.example.org"]
    if work.body is not None:
        lines += ["Content-Type: application/json", "Accept: application/json, text/event-stream"]
        lines += [f"Content-Length: {len(work.body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n" + (work.body or "")).encode("ascii")


@dataclass
class Measured:
    """What one run of the gate found."""

    figures: dict[str, float] = field(default_factory=dict)
    spreads: dict[str, float] = field(default_factory=dict)
    threads: dict[str, dict[str, float]] = field(default_factory=dict)
    places: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass
class Bench:
    """The parts that are up while instructions are counted."""

    gateway: Clocked
    client: Client
    sink: Sink

    def settle(self) -> None:
        """Waits until the spans of all calls have been taken."""
        since = time.monotonic()
        until("the spans to be exported", lambda: time.monotonic() - max(since, self.sink.last) > EXPORT_QUIET_SECONDS)

    def window(self, work: Work) -> Counts:
        """Counts a number of calls, with all that they cause on every thread."""
        batches = self.sink.taken
        self.gateway.zero()
        self.client.calls(work, CALLS)
        self.settle()
        assert self.sink.taken > batches, "no spans were exported"
        return self.gateway.counts()


def measured(kept: Path) -> Measured:
    """Starts everything and counts every scenario in a few windows, since each has accidents of its own."""
    found = Measured()
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    pki = proxies.issue(kept)
    with upstream.constants(kept) as port, sink() as collector:
        ports = Ports(port, port, f"http://127.0.0.1:{collector.server_port}")
        options: Json = {"limits": LIMITS, "otlp": ports.otlp}
        run = Clocked(kept / "gateway", behind(ports), shared_pki=pki, **options).prepare()
        try:
            run.start()
            assert run.process is not None
            proxy = Proxy("holdpoint", run.base, run.process, pki)
            bench = Bench(run, Client(proxy.tls(SUPPORT, "http/1.1"), run.port), collector)
            for name, work in SCENARIOS.items():
                bench.client.calls(work, WARM_UP)
                bench.settle()
                note(found, name, [bench.window(work) for _ in range(WINDOWS)], run.thread_names())
        finally:
            run.stop()
    return found


def note(found: Measured, name: str, windows: list[Counts], threads: dict[int, str]) -> None:
    """The figures of one scenario."""
    parts = {
        "call": [counts.total for counts in windows],
        "call_without_tls": [counts.total - sum(counts.places.get(tls, 0) for tls in TLS) for counts in windows],
        "pipeline": [counts.of(PIPELINE) for counts in windows],
        "decide": [counts.of(DECIDE) for counts in windows],
        "flow": [counts.of(FLOW) for counts in windows],
    }
    for part, values in parts.items():
        # The least, since an accident (a reply that goes out in two records) only ever adds.
        found.figures[f"{name}.{part}"] = min(values) / CALLS
        found.spreads[f"{name}.{part}"] = (max(values) - min(values)) / min(values)
    told: dict[str, float] = {}
    for number, spent in windows[-1].threads.items():
        thread = threads.get(number, f"thread {number}")
        told[thread] = told.get(thread, 0) + spent / CALLS
    found.threads[name] = told
    found.places[name] = {place: spent / CALLS for place, spent in windows[-1].places.items()}


def told_where(found: Measured) -> str:
    """Where the instructions of a `tools/call` go, most first, as a table for docs/performance.md."""
    places = found.places["tools_read"]
    total = sum(places.values())
    most = sorted(places.items(), key=lambda each: -each[1])
    large = [(place, spent) for place, spent in most if spent >= total / 200]
    rest = total - sum(spent for _, spent in large)
    lines = [(place, report.figure(spent), f"{spent / total:.1%}") for place, spent in [*large, ("all else", rest)]]
    return report.table(("a `tools/call` that reads", "instructions", "share"), lines)


def machine_of(program: str) -> dict[str, str]:
    """What the figures hang on beside the program's own text: compared only where all of it is the same."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    words = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    compiler = re.search(rb"rustc version ([0-9.]+[^\0\n)]{0,40}\)?)", Path(program).read_bytes())
    return {
        "architecture": platform.machine(),
        "cpu_flags": " ".join(flag for flag in FLAGS if flag in words),
        "glibc": platform.libc_ver()[1],
        "rustc": compiler.group(1).decode("ascii", "replace") if compiler else "unknown",
        "valgrind": said("valgrind", "--version"),
    }


def differences(accepted: Json, figures: dict[str, float]) -> list[str]:
    """What is not as accepted, one line each."""
    known: dict[str, Any] = accepted["figures"]
    told = [f"{name}: measured and not accepted yet, {figures[name]:,.0f}" for name in figures if name not in known]
    told += [f"{name}: accepted and not measured any more" for name in known if name not in figures]
    for name, entry in known.items():
        was = entry["instructions"]
        is_now = figures.get(name, was)
        moved = is_now / was - 1
        call = known.get(f"{name.split('.')[0]}.call", entry)["instructions"]
        if abs(moved) > TOLERANCE and abs(is_now - was) > TOLERANCE_OF_CALL * call:
            word = "more" if moved > 0 else "less"
            told.append(
                f"{name}: {figures[name]:,.0f} instructions a call, {abs(moved):.1%} {word} than the accepted "
                f"{was:,} (accepted for: {entry['reason']})"
            )
    return told


def elsewhere(accepted: Json, machine: dict[str, str]) -> list[str]:
    """Why the figures cannot be compared here."""
    known: dict[str, str] = accepted["machine"]
    return [
        f"{name}: here {machine.get(name, '-')}, accepted with {known.get(name, '-')}"
        for name in sorted({*known, *machine})
        if known.get(name) != machine.get(name)
    ]


def rewritten(accepted: Json, machine: dict[str, str], figures: dict[str, float], reason: str) -> Json:
    """The accepted figures anew: those that moved get the reason, all of them where the machine is another."""
    known: Json = accepted["figures"] if not elsewhere(accepted, machine) else {}
    entries = {}
    for name, value in figures.items():
        entry = known.get(name)
        stays = entry is not None and abs(value / entry["instructions"] - 1) <= NOISE
        entries[name] = entry if stays else {"instructions": round(value), "reason": reason}
    return {"machine": machine, "figures": entries}


HEAD = """\
# Instructions a call, as callgrind counts them: `integration/bench/gate.sh` fails when one differs by more than 3 %.
# Written by `integration/bench/gate.sh --accept "reason"`. Each reason is that of the figure's last change.
"""


def written(accepted: Json) -> str:
    """The accepted figures as a file."""
    lines = [HEAD, "[machine]", *(f"{name} = {quoted(value)}" for name, value in accepted["machine"].items())]
    lines += ["", "[figures]"]
    for name, entry in accepted["figures"].items():
        lines.append(f'"{name}" = {{ instructions = {entry["instructions"]}, reason = {quoted(entry["reason"])} }}')
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A string of TOML on one line."""
    return '"' + " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"') + '"'


def read(file: Path) -> Json:
    """The accepted figures; none where there are none yet."""
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {"machine": {}, "figures": {}}


def shown(found: Measured, accepted: Json) -> str:
    """The figures as a table, then the threads."""
    lines = [f"{'instructions a call':<24}{'measured':>12}{'accepted':>12}{'moved':>9}{'windows':>9}"]
    for name, value in found.figures.items():
        entry = accepted["figures"].get(name)
        was = f"{entry['instructions']:>12,}{value / entry['instructions'] - 1:>+9.2%}" if entry else f"{'-':>12}{'-':>9}"
        lines.append(f"{name:<24}{value:>12,.0f}{was}{found.spreads[name]:>9.2%}")
    for name, threads in found.threads.items():
        busy = sorted(threads.items(), key=lambda each: -each[1])
        lines.append(f"{name}: " + ", ".join(f"{thread} {spent:,.0f}" for thread, spent in busy if spent >= 1))
    return "\n".join(lines)


def verdict(accepted: Json, machine: dict[str, str], figures: dict[str, float]) -> tuple[int, str]:
    """0 and why, or 1 and what to do."""
    reasons = elsewhere(accepted, machine)
    if reasons:
        told = ["!!! gate: MEASURED AND NOT COMPARED, because the figures were accepted with something else:"]
        told += [f"!!!   {reason}" for reason in reasons]
        told.append("!!! Another compiler than the one that Cargo.toml names, or another machine, runs other instructions.")
        return 0, "\n".join(told)
    changes = differences(accepted, figures)
    if not changes:
        return 0, f"gate: {len(figures)} figures are within {TOLERANCE:.0%} of what was accepted"
    told = ["gate: FAILED, what a call costs has changed:", *(f"  {change}" for change in changes)]
    told.append("If that is meant, less or more, say why and commit the new figures:")
    told.append('  integration/bench/gate.sh --accept "reason"')
    return 1, "\n".join(told)


def main() -> int:
    """0 when nothing changed, or when it was accepted."""
    parser = argparse.ArgumentParser(description="Compares instructions a call with integration/bench/accepted.toml")
    parser.add_argument("--accept", metavar="REASON", help="takes what is measured, for this reason")
    parser.add_argument("--where", action="store_true", help="writes into docs/performance.md where they are spent")
    asked = parser.parse_args()
    if asked.accept is not None and not asked.accept.strip():
        parser.error("--accept needs a reason")
    started, kept = time.monotonic(), CACHE_ROOT / "gate" / f"run-{os.getpid()}"
    accepted = read(ACCEPTED)
    print(f"gate: counting; when it fails, logs stay in {kept}", flush=True)
    program = own_copy(binary(), kept.with_suffix(".bin"))
    try:
        found, machine = measured(kept), machine_of(program)
    finally:
        Path(program).unlink()
    shutil.rmtree(kept)
    print(shown(found, accepted))
    print(f"gate: {time.monotonic() - started:.0f} s", flush=True)
    if asked.where:
        report.put({"where": told_where(found)})
    if asked.accept is not None:
        ACCEPTED.write_text(written(rewritten(accepted, machine, found.figures, asked.accept)), encoding="utf-8")
        print(f"gate: accepted, in {ACCEPTED}")
        return 0
    status, told = verdict(accepted, machine, found.figures)
    print(told)
    return status


def own_copy(program: str, copied: Path) -> str:
    """The gateway's binary where no build replaces it meanwhile."""
    copied.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(program, copied)
    os.environ["HOLDPOINT_BIN"] = str(copied)
    return str(copied)


if __name__ == "__main__":
    sys.exit(main())
