"""Whoever decides beside the agents: a person who approves held calls and has the decision remembered, and an orchestrator
who says what a task needs. Both are asked only where the gateway has what they need."""

import ssl
from dataclasses import dataclass, field

import aiohttp

from agent import Answer
from arena import ORCHESTRATOR, PERSON, Arena, authority, svid
from gateway import holdpoint
from parts import free_port
from sessions import Json, Session

PEOPLE = "people.example.org"
JOBS = "jobs.example.org"
REMEMBERED = "30d"
TASK_TTL = "30m"
REASON = "the benchmark's approver"


@dataclass
class Approver:
    """A person on the admin listener."""

    arena: Arena
    port: int = field(default_factory=free_port)

    def configure(self) -> Json:
        """The listener, and the person in the registry of people."""
        holdpoint("pki", "issue", "--person", PERSON, "--dir", str(self.arena.pki))
        who = {"id": f"spiffe://{PEOPLE}/{PERSON}", "email": f"{PERSON}@example.org", "roles": ["approver", "oncall"], "teams": ["care"]}
        self.arena.write("people.yaml", [who])
        made = self.arena.configuration()
        made["trust"]["domains"][PEOPLE] = {"bundle": "pki/people.pem", "roles": ["people"]}
        made["listeners"].append({"name": "admin", "kind": "admin", "address": f"127.0.0.1:{self.port}"})
        # Nobody waits on a stream: what is held is answered at once.
        given = {"people": "people.yaml", "holds": {"wait": "0s"}}
        return {"trust": made["trust"], "listeners": made["listeners"], **given}

    async def approve(self, answer: Answer) -> None:
        """Approves exactly what is held, and has its destination remembered."""
        hold = answer.decision["hold"]
        tls = client(self.arena, PERSON)
        async with aiohttp.ClientSession(f"https://127.0.0.1:{self.port}", connector=aiohttp.TCPConnector(ssl=tls)) as http:
            async with http.get(f"/v1/holds/{hold}") as shown:
                shown.raise_for_status()
                digest = (await shown.json())["hold"]["digest"]
            said = {"digest": digest, "reason": REASON, "remember": REMEMBERED}
            async with http.post(f"/v1/holds/{hold}/approve", json=said) as decided:
                if decided.status != 200:
                    raise aiohttp.ClientError(f"the approver was refused: {await decided.text()}")


@dataclass
class Orchestrator:
    """Who gives agents their tasks, on the tasks listener."""

    arena: Arena
    port: int = field(default_factory=free_port)

    def configure(self, made: Json) -> Json:
        """The listener and the trust domain of orchestrators, added to a configuration; a root and a certificate of theirs."""
        root, key = authority(self.arena.pki / JOBS, f"spiffe://{JOBS}")
        svid(self.arena.pki / ORCHESTRATOR, f"spiffe://{JOBS}/{ORCHESTRATOR}", root, key)
        domain = {JOBS: {"bundle": f"pki/{JOBS}.pem", "roles": ["orchestrators"]}}
        listener = {"name": "tasks", "kind": "tasks", "address": f"127.0.0.1:{self.port}"}
        trust = {**made["trust"], "domains": {**made["trust"]["domains"], **domain}}
        return {"trust": trust, "listeners": [*made["listeners"], listener]}

    async def headers(self, agent: str, session: Session) -> dict[str, str]:
        """The token of a session's task, which names the destinations that whoever gave the task named."""
        tls = client(self.arena, ORCHESTRATOR)
        named = {"destinations": session.granted, "systems": session.upstreams}
        asked = {"agent": agent, "purpose": session.name, "ttl": TASK_TTL, **named}
        async with (
            aiohttp.ClientSession(f"https://127.0.0.1:{self.port}", connector=aiohttp.TCPConnector(ssl=tls)) as http,
            http.post("/v1/tasks", json=asked) as response,
        ):
            response.raise_for_status()
            return {"Holdpoint-Task": (await response.json())["token"]}


def client(arena: Arena, name: str) -> ssl.SSLContext:
    """How a person or an orchestrator presents itself."""
    context = ssl.create_default_context(cafile=str(arena.pki / "example.org.pem"))
    context.load_cert_chain(str(arena.pki / f"{name}.pem"), str(arena.pki / f"{name}-key.pem"))
    return context
