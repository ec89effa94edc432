"""Nothing is decided differently from what an upstream would execute, whichever parser it has: what the gateway passes,
the parsers of Go, Node.js, Python and Rust read alike and as it was judged, and of what it refuses the upstream sees
nothing."""

import asyncio
import base64
import hashlib
import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from yarl import URL

import cases
import parts
import traffic
from cases import Case
from conftest import Figure
from gateway import SUPPORT, Gateway
from parts import CACHE, HERE, Json, Process, Upstream, tool

READERS = {
    "go": [str(CACHE / "readers/go-reader")],
    "node": ["node", str(HERE / "differentials/node.cjs")],
    "python": ["python3", str(HERE / "differentials/python.py")],
    "rust": [str(CACHE / "readers/rust-reader")],
    "rust structs": [str(CACHE / "readers/rust-reader"), "struct"],
}
IN_FLIGHT_MAX = 32
# `act` is a write unless its mode is exactly `dry`; nobody described `rm`.
MODES = [{"equals": {"at": "/mode", "value": "dry"}, "class": "read"}]
TOOLS = {"act": {**tool("write", 1), "when": MODES}}
OPERATIONS = {
    "GET /v1/notes": tool("read"),
    "GET /v1/notes/{id}": tool("read"),
    "GET /v1/search": {**tool("write", 1), "when": [{"equals": {"at": "/query/mode", "value": "dry"}, "class": "read"}]},
    "POST /v1/forms": {**tool("write", 1), "when": [{"equals": {"at": "/body/mode", "value": "dry"}, "class": "read"}]},
}


@dataclass
class Sent:
    """What became of a case."""

    case: Case
    status: int
    record: str
    seen: list[Json] = field(default_factory=list)
    intent: Json = field(default_factory=dict)


def upstream(directory: Path, name: str, kind: str, catalog: Json) -> Upstream:
    """An upstream that writes down bytes."""
    port, seen = parts.free_port(), directory / f"{name}.seen"
    command = [str(CACHE / "runner/bin/python"), str(HERE / "upstreams/raw.py"), str(port)]
    process = Process.start(name, command, directory / f"{name}.log", HOLDPOINT_SEEN=str(seen))
    process.wait_port(port)
    url = f"http://127.0.0.1:{port}" + ("/mcp" if kind == "mcp" else "")
    return Upstream(name, kind, url, seen, process, catalog)


@pytest.fixture(scope="module")
def upstreams(directory: Path) -> Iterator[dict[str, Upstream]]:
    """One of each kind."""
    made = {
        "mcp": upstream(directory, "tools", "mcp", TOOLS),
        "http": upstream(directory, "notes", "http", OPERATIONS),
    }
    yield made
    for each in made.values():
        each.process.stop()


@pytest.fixture(scope="module")
def gateway(run_gateway: Callable[..., Gateway], upstreams: dict[str, Upstream]) -> Gateway:
    """The gateway before both."""
    return run_gateway(*upstreams.values())


def send(gateway: Gateway, to: Upstream, them: list[Case]) -> list[Sent]:
    """Sends every case as it is, and finds what the upstream saw of it and what was decided."""

    async def all_of_them() -> list[Sent]:
        turn = asyncio.Semaphore(IN_FLIGHT_MAX)
        async with traffic.session(gateway.plan(SUPPORT, to, [])) as client:

            async def one(index: int, case: Case) -> Sent:
                headers = {"X-Case": str(index), "Accept": "application/json, text/event-stream"}
                # A revision without batches, of which each message would be a call of its own.
                headers["MCP-Protocol-Version"] = "2025-11-25"
                if case.content_type is not None:
                    headers["Content-Type"] = case.content_type
                skip = () if case.content_type is not None else ("Content-Type",)
                target = URL(f"{gateway.base}/{to.name}{case.path}", encoded=True)
                async with turn, client.request(
                    case.method, target, data=case.body or None, headers=headers, skip_auto_headers=skip, allow_redirects=False
                ) as reply:
                    await reply.read()
                    return Sent(case, reply.status, reply.headers.get("Holdpoint-Record", ""))

            return await asyncio.gather(*(one(index, case) for index, case in enumerate(them)))

    before = len(to.seen())
    sent = asyncio.run(all_of_them())
    intents = {record["id"]: record for record in gateway.records("intent")}
    for each in sent:
        each.intent = intents.get(each.record, {})
    for line in to.seen()[before:]:
        sent[int(line["case"])].seen.append(line)
    return sent


def read(kind: str, texts: list[bytes]) -> dict[str, list[str]]:
    """How each parser reads each text, as a line of JSON."""
    lines = "".join(f"{kind} {base64.b64encode(text).decode()}\n" for text in texts)
    told = {}
    for name, command in READERS.items():
        done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{name}: {done.stderr[-2000:]}"
        told[name] = done.stdout.rstrip("\n").split("\n")
        assert len(told[name]) == len(texts), f"{name} said {len(told[name])} lines for {len(texts)} texts"
    return told


def plain(value: Any) -> Any:
    """A value in which numbers are what every reader has of them: 1 and 1.0 are one, and serde_json, as it is built by
    default, may give the double beside the nearest."""
    match value:
        case bool() | None | str():
            return value
        case int() | float():
            return float(f"{value:.14e}") + 0.0
        case list():
            return [plain(each) for each in value]
        case dict():
            return {key: plain(each) for key, each in value.items()}
    raise AssertionError(f"no JSON: {value!r}")


def accepted(told: dict[str, list[str]], index: int) -> dict[str, Json]:
    """What the parsers that accept a text make of it."""
    try:
        views = [(name, json.loads(lines[index])) for name, lines in told.items()]
        return {name: plain(view) for name, view in views if view["ok"]}
    except RecursionError:
        # Deeper than this very test can read, and far deeper than the gateway passes.
        return {}


@dataclass
class Table:
    """Cases by group, and everything that is read differently."""

    COLUMNS: ClassVar = ("cases", "ambiguous", "refused", "forwarded", "stricter", "differences")
    rows: dict[str, Counter[str]] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    def count(self, each: Sent, found: Iterable[str], views: list[Json]) -> None:
        """Adds a case with what is wrong about it. Ambiguous is what two parsers accept and read differently. Stricter is
        what was judged as a write although some parser finds `dry`: a class is lowered only by what has one reading."""
        modes = [mode(view) for view in views]
        row = self.rows.setdefault(each.case.group, Counter())
        row["cases"] += 1
        row["forwarded" if each.seen else "refused"] += 1
        row["stricter"] += bool(each.seen) and each.intent.get("class") == "write" and "dry" in modes
        row["ambiguous"] += not alike(views) or any(found != modes[0] for found in modes)
        wrong = [f"{each.case.name}: {what}" for what in found]
        row["differences"] += len(wrong)
        self.differences += wrong

    def show(self, what: str) -> None:
        """Prints it."""
        print(f"\n{what:32}" + "".join(f"{name:>13}" for name in self.COLUMNS))
        for group, row in self.rows.items():
            print(f"{group:32}" + "".join(f"{row[name]:>13}" for name in self.COLUMNS))

    def total(self, column: str) -> int:
        """The sum of a column."""
        return sum(row[column] for row in self.rows.values())


def sent_or_not(each: Sent) -> Iterator[str]:
    """What must hold of every case: sent once with an intent, or not at all."""
    if len(each.seen) > 1:
        yield f"the upstream saw it {len(each.seen)} times"
    if each.seen and not each.intent:
        yield "sent without an intent"
    if not each.seen and each.status < 400 and each.intent:
        yield f"allowed, and the upstream saw nothing ({each.status})"


def judged_as_called(each: Sent, before: dict[str, Json], after: dict[str, Json]) -> Iterator[str]:
    """What must hold of an MCP message that was passed: as it came and as it went, every parser that accepts it reads the
    call that was judged."""
    yield from sent_or_not(each)
    if not each.seen:
        return
    views = [*before.items(), *((f"{name}, as sent", view) for name, view in after.items())]
    if not views:
        yield "passed, and no parser reads it"
    for name, view in views:
        if not alike([view, views[0][1]]):
            yield f"{name} reads {view}, {views[0][0]} reads {views[0][1]}"
        if view["method"] == "tools/call" and (view["name"] != each.intent["tool"] or lowered(each, view["mode"])):
            yield f"judged as {each.intent['tool']} ({each.intent['class']}), and {name} executes {view}"
    digest = each.intent["arguments"]
    if views and views[0][1]["method"] == "tools/call" and digest not in digests(each):
        yield "the digest on record is not that of the arguments sent"


def alike(views: Iterable[Json]) -> bool:
    """Whether all say the same, the mode apart: a struct in Go finds it under `Mode` too, so it is judged by itself."""
    told = [{key: value for key, value in view.items() if key != "mode"} for view in views]
    return all(view == told[0] for view in told)


def lowered(each: Sent, found: object) -> bool:
    """Whether a call was judged as a read although this mode makes it a write."""
    return each.intent["class"] == "read" and found != "dry"


def digests(each: Sent) -> set[str]:
    """The digests of every JSON value that begins with `{` or is null in what was sent: the arguments are one."""
    text = base64.b64decode(each.seen[0]["base64"]).decode()
    found = set()
    for start, char in enumerate(text):
        if char in "{n":
            try:
                _, end = json.JSONDecoder().raw_decode(text, start)
            except ValueError:
                continue
            found.add("sha256:" + hashlib.sha256(text[start:end].encode()).hexdigest())
            # The first object with a name are the parameters; whatever they hold is looked at too.
    return found


def test_calls_are_judged_as_every_parser_reads_them(
    gateway: Gateway, upstreams: dict[str, Upstream], figure: Figure
) -> None:
    them = [*cases.suite(), *cases.calls()]
    sent = send(gateway, upstreams["mcp"], them)
    before = read("json", [case.body for case in them])
    passed = [index for index, each in enumerate(sent) if each.seen]
    after = read("json", [base64.b64decode(sent[index].seen[0]["base64"]) for index in passed])
    place = {index: at for at, index in enumerate(passed)}

    table = Table()
    for index, each in enumerate(sent):
        as_came = accepted(before, index)
        as_sent = accepted(after, place[index]) if each.seen else {}
        table.count(each, judged_as_called(each, as_came, as_sent), [*as_came.values(), *as_sent.values()])
    assert table.total("ambiguous") > 100, "the parsers agree about everything: this shows nothing"
    finish(table, "JSON", figure)


def judged_as_requested(each: Sent, targets: dict[str, Json], values: dict[str, Json]) -> Iterator[str]:
    """What must hold of an HTTP request that was passed: every parser finds the operation and the mode that were judged."""
    yield from sent_or_not(each)
    if not each.seen:
        return
    seen = each.seen[0]
    if (seen["method"], base64.b64decode(seen["base64"])) != (each.case.method, each.case.body):
        yield f"arrived as {seen}"
    for name, view in targets.items():
        operation = f"{each.case.method} {template(view['path'])}"
        if each.intent["tool"] != operation:
            yield f"judged as {each.intent['tool']}, and {name} serves {operation} at {view['path']}"
    modes = {name: mode(view) for name, view in values.items()}
    for name, found in modes.items():
        if values_of(each)[0] != "none" and lowered(each, found):
            yield f"judged as {each.intent['class']}, and {name} finds mode {found!r}"


def template(path: str) -> str:
    """The operation of the catalogue at a decoded path."""
    match path.split("/")[1:]:
        case ["v1", "notes", last] if last:
            return "/v1/notes/{id}"
        case _:
            return path


def mode(view: Json) -> object:
    """The mode in JSON, or the values that a query or form has for it, one of which a server would take."""
    if "pairs" not in view:
        return view["mode"]
    found = view["pairs"].get("mode", [])
    return found[0] if len(found) == 1 else found


def test_requests_are_judged_as_every_parser_reads_them(
    gateway: Gateway, upstreams: dict[str, Upstream], figure: Figure
) -> None:
    them = list(cases.requests())
    sent = send(gateway, upstreams["http"], them)
    targets = read("path", [path_sent(each) for each in sent])
    queries = read("query", [text if kind == "query" else b"" for kind, text in map(values_of, sent)])
    bodies = read("json", [b'{"params":{"arguments":' + each.case.body + b"}}" for each in sent])

    table = Table()
    for index, each in enumerate(sent):
        kind, _ = values_of(each)
        values = accepted({"query": queries, "json": bodies}.get(kind, {}), index)
        table.count(each, judged_as_requested(each, accepted(targets, index), values), list(values.values()))
    finish(table, "HTTP", figure)


def path_sent(each: Sent) -> bytes:
    """The target that arrived, else the one that was asked for."""
    target: str = each.seen[0]["path"] if each.seen else each.case.path
    return target.encode()


def values_of(each: Sent) -> tuple[str, bytes]:
    """Where an upstream looks for the mode: in which form, and in which bytes."""
    case = each.case
    if case.group == "http: queries":
        return "query", path_sent(each).partition(b"?")[2]
    if case.method == "POST":
        essence = (case.content_type or "").partition(";")[0].lower()
        return {cases.FORM: ("query", case.body), "application/json": ("json", case.body)}.get(essence, ("none", b""))
    return "none", b""


def finish(table: Table, what: str, figure: Figure) -> None:
    """Shows the table, keeps its sums, and fails when there is a difference."""
    table.show(what)
    for column in table.COLUMNS:
        figure(f"{what} differentials, {column}", table.total(column))
    assert table.total("forwarded") > 50, "hardly anything passed: this shows nothing"
    assert not table.differences, "\n".join(table.differences[:40])
