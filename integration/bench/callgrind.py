"""A gateway whose instructions are counted: it runs under callgrind, with the same random numbers each time."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import gateway
from machine import compiled
from parts import Process, until
from proxies import Measured

HERE = Path(__file__).resolve().parent
START_SECONDS_MAX = 120
# Valgrind runs one thread at a time; fair, so that none waits by chance.
VALGRIND = "--tool=callgrind --instr-atstart=no --separate-threads=yes --fair-sched=try --dump-line=no".split()
# The allocator as it ships, but for what it does by the clock.
ALLOCATOR = "experimental_tcache_gc:false,dirty_decay_ms:-1,muzzy_decay_ms:-1,background_thread:false"
ADDED = re.compile(r"(::h[0-9a-f]{16})?('\d+)?$")  # to a name, by the compiler and, for recursion, by callgrind


@dataclass
class Counts:
    """What callgrind wrote down: instructions by the thread's number, by function with all that it calls, and by place."""

    threads: dict[int, int] = field(default_factory=dict)
    inclusive: dict[str, int] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All threads."""
        return sum(self.threads.values())

    def of(self, function: str) -> int:
        """One function with all that it calls; a function that was never called has been inlined or renamed."""
        assert function in self.inclusive, (
            f"{function} is not among the functions that ran: it was renamed, or the compiler inlined it. "
            "Give it `#[inline(never)]`, or change its name in integration/bench/gate.py."
        )
        return self.inclusive[function]

    def add(self, text: str) -> None:
        """One file of callgrind, which is one thread's. A name is written out once, and then goes by its number."""
        names: dict[str, str] = {}
        files: dict[str, str] = {}
        thread, function, file, calls = 0, "", "", False
        for line in text.splitlines():
            key, _, value = line.partition("=")
            if key == "fn":
                function = name(names, value)
            elif key in ("fl", "fi", "fe"):
                file = name(files, value)
            elif key == "cfn":
                name(names, value)
            elif key in ("cfi", "cfl"):
                name(files, value)
            elif key == "calls":
                calls = True
            elif line.startswith("thread:"):
                thread = int(line.split()[1])
            elif line[:1] in "0123456789+-*" and line:
                cost = int(line.split()[1])
                self.inclusive[function] = self.inclusive.get(function, 0) + cost
                if not calls:  # what a function calls is counted where it is spent
                    self.threads[thread] = self.threads.get(thread, 0) + cost
                    where = place(file, function)
                    self.places[where] = self.places.get(where, 0) + cost
                calls = False


# Whose work a crate's is; one that is not here goes by its name.
CRATES = {
    "HTTP (hyper)": ("http", "http-body", "http-body-util", "httparse", "httpdate", "hyper", "hyper-util"),
    "runtime (tokio)": ("tokio", "mio", "futures-channel", "futures-core", "futures-util", "parking_lot"),
    "TLS (rustls)": ("rustls", "rustls-pki-types", "rustls-webpki", "tokio-rustls"),
    "cryptography (aws-lc)": ("aws-lc-rs", "aws-lc-sys"),
    "allocation (jemalloc)": ("tikv-jemallocator", "tikv-jemalloc-sys"),
    "buffers, maps, hashes": ("bytes", "dashmap", "foldhash", "hashbrown", "indexmap", "memchr", "arc-swap"),
    "identifiers and random numbers": ("getrandom", "rand", "rand_chacha", "rand_core", "uuid", "chacha20"),
    "JSON of replies (serde)": ("serde_json", "serde_core", "serde", "itoa"),
    "protobuf (prost)": ("prost",),
    "limits (governor)": ("governor", "quanta"),
}
CRATE_OF = {crate: work for work, crates in CRATES.items() for crate in crates}


def place(file: str, function: str) -> str:
    """Whose work the lines of a file are."""
    if "sha256" in function:
        return "SHA-256: the audit's chain, digests of arguments and replies"
    if "/aws-lc/" in file:
        return "cryptography (aws-lc)"
    if "jemalloc" in file:
        return "allocation (jemalloc)"
    crate = re.search(r"/registry/src/[^/]+/(.+?)-\d+\.\d+[^/]*/", file)
    if crate:
        return CRATE_OF.get(crate.group(1), f"crate {crate.group(1)}")
    if "/library/" in file:
        # Inlined, as most of it is, it is part of the function that it was inlined into.
        into = re.match(r"[<&]*(?:mut |dyn )?([a-z_0-9]+)::([a-z_0-9]+)", function)
        crate_name, module = (into.group(1).replace("_", "-"), into.group(2)) if into else ("", "")
        if crate_name == "holdpoint":
            return f"Holdpoint: {module}"
        return CRATE_OF.get(crate_name, "Rust's standard library: formatting, texts, lists")
    own = re.search(r"/src/([a-z_]+)(\.rs$|/)", file)
    if own and file.endswith(".rs"):
        return f"Holdpoint: {own.group(1)}"
    return "libc: copying, comparing, system calls"


def name(names: dict[str, str], word: str) -> str:
    """The function that `(7) it` introduces or `(7)` refers to, without what was added."""
    number, _, told = word.partition(" ")
    if told:
        names[number] = ADDED.sub("", told)
    return names[number]


def same_random() -> str:
    """The library that makes random numbers the same each time."""
    return compiled(HERE / "same_random.c", "-shared", "-fPIC")


@dataclass
class Counted(Measured):
    """The gateway that the benchmark measures, under callgrind; nothing is counted until it is ready."""

    dumps: int = 0

    @property
    def prefix(self) -> str:
        """Where valgrind listens: of its own, since `callgrind_control` speaks to all that it finds."""
        return f"--vgdb-prefix={self.directory}/vgdb"

    def start(self) -> "Counted":
        """Starts it and waits until it is ready."""
        program = [self.program or gateway.binary(), "serve", "--config", str(self.directory / "holdpoint.yaml")]
        command = ["valgrind", *VALGRIND, f"--callgrind-out-file={self.directory}/counts", self.prefix, *program]
        env = {"TOKIO_WORKER_THREADS": "1", "LD_PRELOAD": same_random(), "_RJEM_MALLOC_CONF": ALLOCATOR}
        self.process = Process.start("holdpoint", command, self.directory / "gateway.log", **env)
        until("the gateway to be ready under valgrind", self.ready, START_SECONDS_MAX, 0.1)
        self.tell("instrumentation", "on")
        return self

    def tell(self, *words: str) -> str:
        """Has valgrind do something, and gives its answer."""
        assert self.process is not None
        command = ["vgdb", self.prefix, f"--pid={self.process.popen.pid}", "--wait=20", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def zero(self) -> None:
        """Forgets what was counted so far."""
        self.tell("zero")

    def counts(self) -> Counts:
        """What was counted since then."""
        self.tell("dump")
        self.dumps += 1
        counts = Counts()
        for file in sorted(self.directory.glob(f"counts.{self.dumps}-*")):
            counts.add(file.read_text(encoding="utf-8"))
        assert counts.total, f"callgrind wrote nothing down:\n{self.process.tail() if self.process else ''}"
        return counts

    def thread_names(self) -> dict[int, str]:
        """Names of threads by valgrind's numbers."""
        return dict(named(self.tell("v.info", "scheduler"), self.process.popen.pid if self.process else 0))


def named(told: str, pid: int) -> Iterator[tuple[int, str]]:
    """Each thread in what valgrind says of its scheduler."""
    for number, task in re.findall(r"Thread (\d+): .*lwpid (\d+)", told):
        comm = Path(f"/proc/{pid}/task/{task}/comm")
        yield int(number), comm.read_text(encoding="utf-8").strip() if comm.exists() else "gone"
