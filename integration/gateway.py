"""The gateway under test: its certificates, its configuration, its process, and its record read back."""

import json
import os
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from parts import CACHE_ROOT, REPOSITORY, Json, Process, Upstream, free_port, until

DOMAIN = "example.org"
PEOPLE_DOMAIN = "people.example.org"
OWNERS = {"business": "ana@example.org", "technical": "sre@example.org", "risk": "risk@example.org"}


def binary() -> str:
    """The gateway's binary: HOLDPOINT_BIN, else the release build, else the debug build."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", str(CACHE_ROOT / "target")))
    candidates = [os.environ.get("HOLDPOINT_BIN", ""), *(str(target / p / "holdpoint") for p in ("release", "debug"))]
    found = next((each for each in candidates if each and os.access(each, os.X_OK)), None)
    assert found, f"no gateway to test: none of {candidates[1:]} exists and HOLDPOINT_BIN is not set"
    return found


def holdpoint(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs one command of the binary; its own words are the failure's."""
    done = subprocess.run([binary(), *arguments], capture_output=True, text=True, timeout=120, check=False)
    if check:
        assert done.returncode == 0, f"holdpoint {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


@dataclass
class Agent:
    """A workload of the registry."""

    path: str
    autonomy: str = "constrained"
    groups: list[str] = field(default_factory=list)

    @property
    def short(self) -> str:
        """The name its certificate's files have."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def id(self) -> str:
        """Its SPIFFE ID."""
        return f"spiffe://{DOMAIN}/{self.path}"

    def entry(self) -> Json:
        """Its entry in the registry."""
        return {
            "id": self.id,
            "owner": OWNERS,
            "team": "care",
            "groups": self.groups,
            "purpose": "integration tests",
            "autonomy": self.autonomy,
            "state": "active",
            "risk": 1,
            "review_due": "2030-01-01",
        }


@dataclass
class Person:
    """Somebody who looks after agents."""

    name: str
    roles: list[str] = field(default_factory=list)
    teams: list[str] = field(default_factory=list)

    def entry(self) -> Json:
        """Their entry among the people."""
        who = {"id": f"spiffe://{PEOPLE_DOMAIN}/{self.name}", "email": f"{self.name}@{DOMAIN}"}
        return {**who, "roles": self.roles, "teams": self.teams}


SUPPORT = Agent("agent/support")
READER = Agent("agent/reader", autonomy="read-only")
STRANGER = Agent("agent/stranger")  # has a certificate of the trust domain and is not in the registry


@dataclass
class Gateway:
    """One gateway in a directory of its own; the same ports and state through every restart."""

    directory: Path
    upstreams: list[Upstream]
    agents: list[Agent] = field(default_factory=lambda: [SUPPORT, READER])
    people: list[Person] = field(default_factory=list)
    limits: list[Json] = field(default_factory=lambda: [{"per": "agent", "rate": "100000/s", "burst": 100000}])
    otlp: str | None = None
    hold_ttl: str | None = None
    # Nobody waits: what is held is answered at once, and repeated.
    holds: Json = field(default_factory=lambda: {"wait": "0s"})
    more: Json = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    health: int = field(default_factory=free_port)
    admin: int = field(default_factory=free_port)
    process: Process | None = None
    starts: int = 0

    def prepare(self) -> "Gateway":
        """Makes the certificates and writes every file that `serve` reads."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.issue()
        self.write("agents.yaml", [agent.entry() for agent in self.agents])
        self.write("people.yaml", [person.entry() for person in self.people])
        for upstream in self.upstreams:
            self.write(f"catalog/{upstream.name}.yaml", {"tools": upstream.catalog})
        self.copy_policies()
        self.write("holdpoint.yaml", self.configuration())
        return self

    def copy_policies(self) -> None:
        """The policies that ship; where a test waits for a hold to end, they end sooner."""
        shutil.copytree(REPOSITORY / "policies", self.directory / "policies", dirs_exist_ok=True)
        for policy in (self.directory / "policies").glob("*.cedar") if self.hold_ttl else ():
            text = policy.read_text(encoding="utf-8")
            policy.write_text(text.replace('@ttl("30m")', f'@ttl("{self.hold_ttl}")'), encoding="utf-8")

    def issue(self) -> None:
        """A development CA, and a certificate for each agent, registered or not."""
        holdpoint("pki", "init", "--dir", str(self.pki))
        for agent in [*self.agents, STRANGER]:
            holdpoint("pki", "issue", "--agent", agent.path, "--dir", str(self.pki))
        for person in self.people:
            holdpoint("pki", "issue", "--person", person.name, "--dir", str(self.pki))

    def write(self, name: str, content: object) -> None:
        """One YAML file below the directory."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")

    def configuration(self) -> Json:
        """The configuration, as an operator would write it."""
        telemetry = {"otlp": {"endpoint": self.otlp, "protocol": "http/protobuf"}, "sample": 1.0, "stages": "spans"}
        return {
            "organization": {"name": "example", "internal": ["*@example.org", "*.example.org"]},
            "trust": {
                "identity": {"cert": "pki/gateway.pem", "key": "pki/gateway-key.pem"},
                "domains": {DOMAIN: {"bundle": f"pki/{DOMAIN}.pem", "roles": ["agents"]}},
            },
            "listeners": [
                {"name": "agents", "kind": "agents", "address": f"127.0.0.1:{self.port}"},
                {"name": "health", "kind": "health", "address": f"127.0.0.1:{self.health}"},
            ],
            "agents": "agents.yaml",
            "upstreams": [self.upstream(each) for each in self.upstreams],
            "bounds": {"body_bytes_max": "4MiB", "headers_bytes_max": "64KiB", "json_depth_max": 64},
            "policy": {"cedar": "policies/"},
            "limits": self.limits,
            "audit": {"dir": "state/audit", "capture": "digest"},
            "keys": {"dir": "state/keys"},
            **({"telemetry": telemetry} if self.otlp else {}),
            **self.more,
        } | (self.for_people() if self.people else {})

    def for_people(self) -> Json:
        """What people need of the configuration: their trust domain, their listener, and the store."""
        agents = {"bundle": f"pki/{DOMAIN}.pem", "roles": ["agents"]}
        people = {"bundle": "pki/people.pem", "roles": ["people"]}
        return {
            "trust": {
                "identity": {"cert": "pki/gateway.pem", "key": "pki/gateway-key.pem"},
                "domains": {DOMAIN: agents, PEOPLE_DOMAIN: people},
            },
            "listeners": [
                {"name": "agents", "kind": "agents", "address": f"127.0.0.1:{self.port}"},
                {"name": "health", "kind": "health", "address": f"127.0.0.1:{self.health}"},
                {"name": "admin", "kind": "admin", "address": f"127.0.0.1:{self.admin}"},
            ],
            "people": "people.yaml",
            "store": {"sqlite": "state/holdpoint.db"},
            "holds": self.holds,
        }

    def upstream(self, upstream: Upstream) -> Json:
        """An upstream that is inside and trusted, so that class and consequence alone decide."""
        return {
            "name": upstream.name,
            "kind": upstream.kind,
            **({"stdio": upstream.stdio} if upstream.stdio else {"url": upstream.url}),
            "catalog": f"catalog/{upstream.name}.yaml",
            "boundary": "inside",
            "trusted": True,
            # What an upstream sees is then what agents sent.
            **({"list_every": "never"} if upstream.kind == "mcp" else {}),
        }

    @property
    def pki(self) -> Path:
        """Where the certificates are."""
        return self.directory / "pki"

    @property
    def audit_dir(self) -> Path:
        """Where the record is."""
        return self.directory / "state/audit"

    @property
    def base(self) -> str:
        """The agents' listener."""
        return f"https://127.0.0.1:{self.port}"

    def url(self, upstream: Upstream) -> str:
        """Where agents reach an upstream."""
        return f"{self.base}/{upstream.name}" + ("/mcp" if upstream.kind == "mcp" else "")

    def credentials(self, agent: Agent) -> dict[str, str]:
        """The files of an agent's certificate."""
        return {
            "ca": str(self.pki / f"{DOMAIN}.pem"),
            "cert": str(self.pki / f"{agent.short}.pem"),
            "key": str(self.pki / f"{agent.short}-key.pem"),
        }

    def tls(self, agent: Agent) -> ssl.SSLContext:
        """A context that presents an agent's certificate and checks the gateway's."""
        files = self.credentials(agent)
        context = ssl.create_default_context(cafile=files["ca"])
        context.load_cert_chain(files["cert"], files["key"])
        return context

    def plan(self, agent: Agent, upstream: Upstream, steps: list[Json], **more: Any) -> Json:
        """A plan for an SDK client that goes through the gateway as this agent."""
        return {"url": self.url(upstream), "steps": steps, **self.credentials(agent), **more}

    def start(self) -> "Gateway":
        """Starts it and waits until it is ready."""
        self.starts += 1
        command = [binary(), "serve", "--config", str(self.directory / "holdpoint.yaml")]
        log = self.directory / "gateway.log"
        self.process = Process.start("holdpoint", command, log, OTEL_BSP_SCHEDULE_DELAY="200")
        until("the gateway to be ready", self.ready, pause=0.02)
        return self

    def ready(self) -> bool:
        """Whether /readyz says so; a gateway that ended instead shows why."""
        assert self.process is not None
        ended = self.process.popen.poll()
        assert ended is None, f"holdpoint serve ended with {ended}:\n{self.process.tail()}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/readyz", timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        """SIGTERM, if it runs."""
        if self.process is not None and self.process.popen.poll() is None:
            self.process.stop()

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()

    def rss_peak_kib(self) -> int:
        """The most memory it ever had resident."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.popen.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))

    def records(self, *kinds: str) -> list[Json]:
        """The record, in order; a line still being written is left out, as a crash may leave one."""
        lines = [line for file in sorted(self.audit_dir.glob("**/*.jsonl")) for line in whole_lines(file)]
        records = sorted(lines, key=lambda record: record["seq"])
        return [record for record in records if not kinds or record["type"] in kinds]

    def verify(self) -> tuple[int, Json]:
        """What `holdpoint audit verify` says, with its exit code."""
        done = holdpoint("audit", "verify", str(self.audit_dir), "--json", check=False)
        assert done.returncode in (0, 1), f"audit verify: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.returncode, json.loads(done.stdout)

    def metrics(self) -> str:
        """The Prometheus text."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/metrics", timeout=5) as response:
            return str(response.read(), "utf-8")


def whole_lines(file: Path) -> Iterable[Json]:
    """The records of a segment that are whole."""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def decision_of(result: Json) -> Json | None:
    """The decision in a result that the gateway made, if it made it."""
    return (result.get("_meta") or {}).get("dev.holdpoint/decision")


def problem_decision(problem: Json) -> Json:
    """The decision in a problem body."""
    decision: Json = problem["dev.holdpoint/decision"]
    return decision
