"""Traffic that an SDK does not make: curl, long streams, large bodies, load. A plan has a `url`, maybe certificates."""

import asyncio
import hashlib
import itertools
import json
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from parts import HERE, Json

sys.path.insert(0, str(HERE / "upstreams"))
from recorder import blocks  # noqa: E402

READ_BYTES = 256 * 1024


@dataclass
class Reply:
    """What curl got."""

    exit: int
    status: int
    version: str
    headers: dict[str, str]
    body: bytes
    error: str

    def json(self) -> Json:
        """The body as JSON."""
        told: Json = json.loads(self.body)
        return told


def curl(url: str, *arguments: str, plan: Json | None = None) -> Reply:
    """Runs curl with a plan's certificate files, if it has them."""
    files = plan or {}
    options = [
        word
        for key, option in (("ca", "--cacert"), ("cert", "--cert"), ("key", "--key"))
        if key in files
        for word in (option, files[key])
    ]
    with tempfile.TemporaryDirectory() as place:
        out = Path(place)
        command = ["curl", "--silent", "--show-error", "--max-time", "90", "--dump-header", str(out / "headers")]
        command += ["--output", str(out / "body"), "--write-out", "%{http_code} %{http_version}"]
        done = subprocess.run([*command, *options, *arguments, url], capture_output=True, text=True, check=False)
        status, version = (done.stdout.split() + ["0", ""])[:2]
        head = (out / "headers").read_text("latin-1") if (out / "headers").exists() else ""
        body = (out / "body").read_bytes() if (out / "body").exists() else b""
    return Reply(done.returncode, int(status), version, headers_of(head), body, done.stderr)


def headers_of(dump: str) -> dict[str, str]:
    """The last header block of a dump, names in lower case."""
    blocks_seen = [block for block in dump.replace("\r\n", "\n").split("\n\n") if block.strip()]
    lines = blocks_seen[-1].splitlines()[1:] if blocks_seen else []
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name.strip().lower(): value.strip() for name, value in pairs}


def session(plan: Json) -> aiohttp.ClientSession:
    """A client session with a plan's certificate; no environment, no total time limit."""
    context: ssl.SSLContext | bool = True
    if "cert" in plan:
        context = ssl.create_default_context(cafile=plan["ca"])
        context.load_cert_chain(plan["cert"], plan["key"])
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60)
    return aiohttp.ClientSession(connector=connector, timeout=timeout, headers=plan.get("headers"))


async def event_delays_ms(plan: Json, count: int, interval_ms: int) -> list[float]:
    """How long after its writing each event arrived: both clocks are the machine's monotonic one."""
    delays = []
    async with session(plan) as client:
        async with client.get(f"{plan['url']}/v1/events?n={count}&interval_ms={interval_ms}") as reply:
            assert reply.status == 200, await reply.text()
            assert reply.content_type == "text/event-stream"
            async for line in reply.content:
                if line.startswith(b"data: "):
                    now = time.monotonic_ns()
                    delays.append((now - json.loads(line[6:])["at_ns"]) / 1e6)
    return delays


@dataclass
class Blob:
    """A body that went one way, and how long that took."""

    bytes: int
    sha256: str
    seconds: float
    echoed: str | None = None


async def send_blob(plan: Json, size: int) -> Blob:
    """Sends a body of a size without ever holding it; the upstream says what it got."""
    digest = hashlib.sha256()

    async def body() -> AsyncIterator[bytes]:
        async for block in blocks(size):
            digest.update(block)
            yield block

    started = time.monotonic()
    async with session(plan) as client:
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        async with client.put(f"{plan['url']}/v1/blob", data=body(), headers=headers) as reply:
            text = await reply.text()
            assert reply.status == 200, text
    told = json.loads(text)
    return Blob(told["bytes"], digest.hexdigest(), time.monotonic() - started, told["sha256"])


async def fetch_blob(plan: Json, size: int) -> Blob:
    """Fetches a body of a size without ever holding it."""
    digest, got = hashlib.sha256(), 0
    started = time.monotonic()
    async with session(plan) as client:
        async with client.get(f"{plan['url']}/v1/blob?bytes={size}") as reply:
            assert reply.status == 200, await reply.text()
            async for chunk in reply.content.iter_chunked(READ_BYTES):
                digest.update(chunk)
                got += len(chunk)
    return Blob(got, digest.hexdigest(), time.monotonic() - started)


@dataclass
class Tally:
    """What a load got back."""

    reads: int = 0
    writes: int = 0
    broken: int = 0
    refused: int = 0
    records: list[str] = field(default_factory=list)
    first_refusal: str = ""


async def load(plan: Json, tally: Tally, workers: int) -> None:
    """Reads and writes without end; whatever breaks (the gateway is being killed) is counted and tried again."""
    numbers = itertools.count()
    async with session(plan) as client:
        await asyncio.gather(*(worker(client, plan["url"], tally, numbers) for _ in range(workers)))


async def worker(client: aiohttp.ClientSession, url: str, tally: Tally, numbers: "itertools.count[int]") -> None:
    """One call after another."""
    while True:
        try:
            await one_call(client, url, tally, next(numbers))
        except (aiohttp.ClientError, OSError, TimeoutError):
            tally.broken += 1
            await asyncio.sleep(0.02)


async def one_call(client: aiohttp.ClientSession, url: str, tally: Tally, number: int) -> None:
    """A read or a write, told apart by its number; a whole reply's record id is kept."""
    write = number % 2 == 0
    path, body = ("/v1/notes", {"n": number}) if write else (f"/v1/notes/{number}", None)
    async with client.request("POST" if write else "GET", f"{url}{path}", json=body) as reply:
        text = await reply.text()
        if reply.status not in (200, 201):
            tally.refused += 1
            tally.first_refusal = tally.first_refusal or f"{reply.status}: {text[:500]}"
            return
        record = reply.headers.get("Holdpoint-Record")
        tally.writes += write
        tally.reads += not write
        if record:
            tally.records.append(record)
