"""What the kernel says: CPU time and memory of processes, where they run, and the facts of this machine."""

import datetime
import os
import platform
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from parts import CACHE, REPOSITORY, Json

PROXY_CORE = "0"
LOAD_CORE = "1"
FILES_MAX = 20_000


def pinned(core: str, command: list[str]) -> list[str]:
    """A command that may run on one core only; on a machine with a single core, as it is."""
    return ["taskset", "--cpu-list", core, *command] if (os.cpu_count() or 1) > 1 else command


@contextmanager
def yielding(pid: int) -> Iterator[None]:
    """Has all threads of a process run only when nobody else wants their core (`SCHED_IDLE`)."""

    def schedule(policy: int) -> None:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setscheduler(int(task.name), policy, os.sched_param(0))

    schedule(os.SCHED_IDLE)
    try:
        yield
    finally:
        schedule(os.SCHED_OTHER)


def family(pid: int) -> list[int]:
    """A process and all below it."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        parents[int(file.parent.name)] = int(fields[1])
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def cpu_ns(pid: int) -> int:
    """The time that all threads of a process and of its children have run, user and system, in nanoseconds."""
    tasks = (task for each in family(pid) for task in Path(f"/proc/{each}/task").glob("*/schedstat"))
    return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks)


def by_thread(pid: int) -> dict[str, int]:
    """The same time by the names of threads."""
    told: dict[str, int] = {}
    for task in (task for each in family(pid) for task in Path(f"/proc/{each}/task").iterdir()):
        name = (task / "comm").read_text(encoding="utf-8").strip()
        told[name] = told.get(name, 0) + int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return told


@dataclass
class Ticks:
    """Seconds of all cores since the start of the machine: not idle, and taken by the host."""

    busy: float
    stolen: float

    @classmethod
    def now(cls) -> "Ticks":
        """As of now."""
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
        user, nice, system, _idle, _wait, irq, softirq, steal = (int(word) / os.sysconf("SC_CLK_TCK") for word in words)
        return cls(user + nice + system + irq + softirq, steal)


def disturbance(before: Ticks, seconds: float) -> Json:
    """The share of the whole machine that others took meanwhile. Ours are this process and all it waited for."""
    now, cores = Ticks.now(), os.cpu_count() or 1
    own = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    ours = sum(used.ru_utime + used.ru_stime for used in own)
    others = max(0.0, now.busy - before.busy - ours)
    return {"others_share": others / seconds / cores, "stolen_share": (now.stolen - before.stolen) / seconds / cores}


@dataclass
class Memory:
    """What a process and its children occupy, in KiB."""

    rss: int
    pss: int
    anonymous: int

    def json(self) -> Json:
        """As it is kept."""
        return {"rss_kib": self.rss, "pss_kib": self.pss, "anonymous_kib": self.anonymous}


def memory(pid: int) -> Memory:
    """The resident, the proportional and the anonymous part."""
    sums = {"Rss:": 0, "Pss:": 0, "Anonymous:": 0}
    for each in family(pid):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text(encoding="ascii").splitlines():
            words = line.split()
            if words[0] in sums:
                sums[words[0]] += int(words[1])
    return Memory(sums["Rss:"], sums["Pss:"], sums["Anonymous:"])


def many_files() -> int:
    """Raises what this process and its children may open, and says how much that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(FILES_MAX, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def compiled(source: Path, *flags: str) -> str:
    """What a file of C is compiled to, in the cache; anew where the file is newer."""
    made = CACHE / source.stem
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        fresh = made.with_suffix(f".{os.getpid()}")
        subprocess.run(["cc", "-O1", *flags, "-o", str(fresh), str(source)], check=True)
        fresh.replace(made)
    return str(made)


def said(*command: str) -> str:
    """The first line that a command prints; nothing when it cannot run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return ""
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[0] if lines else ""


def cpu_model() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def facts(holdpoint: str) -> Json:
    """The machine and the versions of all parts."""
    dirty = said("git", "-C", str(REPOSITORY), "status", "--porcelain", "--untracked-files=no")
    memory_kib = int(Path("/proc/meminfo").read_text(encoding="ascii").split()[1])
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": said("git", "-C", str(REPOSITORY), "rev-parse", "--short=12", "HEAD") + ("+" if dirty else ""),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_mib": memory_kib // 1024,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "holdpoint": f"{said(holdpoint, '--version')}, SHA-256 {said('sha256sum', holdpoint)[:12]}",
        "envoy": said(str(CACHE / "envoy/bin/envoy"), "--version").split("version: ")[-1],
        "nginx": said("/usr/sbin/nginx", "-v"),
        "oha": said(str(CACHE / "oha/bin/oha"), "--version"),
        "collector": said(str(CACHE / "collector/build/otelcol-holdpoint"), "--version"),
    }
