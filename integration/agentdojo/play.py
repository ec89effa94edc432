"""One session through the gateway: what became of every call, as its agents and the upstreams saw it."""

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import aiohttp

from agent import EXECUTED, Agent, Answer, Unexpected
from arena import Arena, Upstreams
from sessions import HONEST, INJECTED, Json, Session, Step

# Sessions at a time: the machine has two processors, and one of them is the upstreams'.
SESSIONS_AT_ONCE = 6
NUMBERS = itertools.count(1)

# Lets a held call through and says how: the hold, and the step to repeat.
Approve = Callable[[Answer], Awaitable[None]]
# The headers that an agent sends for a session, such as a task token.
Headers = Callable[[str, Session], Awaitable[dict[str, str]]]


@dataclass
class Stop:
    """A call that was held or denied."""

    at: int
    step: Step
    word: str
    decision: Json
    # What the gateway's audit says was found, which no agent is told.
    found: str = "nothing on record"

    def told(self) -> str:
        """In words, without what it carried."""
        return f"call {self.at + 1}, {self.step.upstream}.{self.step.tool} ({self.step.origin}), {self.word}: {self.found}"


@dataclass
class Result:
    """What became of a session."""

    session: Session
    agent: str = ""
    calls: int = 0
    stops: list[Stop] = field(default_factory=list)
    # An attack ends with one of these: something it wanted was stopped in time, or the harm was done.
    stopped: bool = False
    harmed: bool = False
    useful: bool | None = None
    # What should never happen: another answer than a result or a decision, or an upstream that saw something else.
    fault: str = ""

    def count(self, word: str) -> int:
        """How many calls were held, or denied."""
        return sum(stop.word == word for stop in self.stops)

    @property
    def untouched(self) -> bool:
        """Whether nothing was held or denied."""
        return not self.stops


@dataclass
class Stage:
    """Where sessions are played."""

    arena: Arena
    upstreams: Upstreams
    headers: Headers | None = None
    approve: Approve | None = None

    async def play_all(self, sessions: Iterable[Session]) -> list[Result]:
        """Plays sessions, some at a time, each with agents of its own."""
        gate = asyncio.Semaphore(SESSIONS_AT_ONCE)

        async def one(session: Session) -> Result:
            async with gate:
                return await self.play(session)

        return list(await asyncio.gather(*map(one, sessions)))

    async def play(self, session: Session, identities: list[tuple[str, object]] | None = None) -> Result:
        """Plays one session."""
        number = str(next(NUMBERS))
        who = identities or [self.arena.agent() for _ in range(session.agents)]
        result = Result(session, str(getattr(who[0][0], "id", who[0][0])))
        async with aiohttp.ClientSession() as control, AsyncExitStack() as stack:
            here = f"{self.upstreams.base}/sessions/{number}"
            async with control.put(here, json=session.world) as made:
                made.raise_for_status()
            try:
                shared = trace(session)
                agents = [await stack.enter_async_context(await self.enter(each, number, session, shared)) for each in who]
                released = await stack.enter_async_context(Agent(self.upstreams.base, number, None))
                sent = await self.steps(session, agents, released, result)
            except (Unexpected, aiohttp.ClientError, TimeoutError) as fault:
                result.fault, sent = f"{type(fault).__name__}: {fault}", None
            async with control.delete(here) as ended:
                seen = await ended.json()
            result.useful = seen["useful"]
            if sent is not None:
                result.fault = result.fault or difference(sent, seen["executed"])
        return result

    async def enter(
        self, identity: tuple[object, object], number: str, session: Session, shared: dict[str, str]
    ) -> Agent:
        """An agent with its certificate, on a connection of its own, with what the session's agents share."""
        who, tls = identity
        headers = await self.headers(str(getattr(who, "id", who)), session) if self.headers else {}
        return Agent(self.arena.base, number, tls, {**shared, **headers})  # type: ignore[arg-type]

    async def steps(self, session: Session, agents: list[Agent], released: Agent, result: Result) -> list[Step]:
        """Makes the calls; returns those that the upstreams must have seen."""
        sent: list[Step] = []
        harmful = 0
        for at, step in enumerate(session.steps):
            result.calls += 1
            answer = await agents[step.agent].call(step)
            if answer.word == EXECUTED:
                sent.append(step)
                harmful += step.harmful
                if harmful > session.harmless_calls:
                    result.harmed = True
                    break
                continue
            result.stops.append(Stop(at, step, answer.word, answer.decision))
            if step.origin == INJECTED:
                result.stopped = True
                break
            # The task is to go on: whoever approves a call has it executed.
            if self.approve and answer.decision.get("hold"):
                await self.approve(answer)
                if (await agents[step.agent].call(step)).word != EXECUTED:
                    raise Unexpected(f"{step.tool} was approved and not executed")
            else:
                await released.call(step)
            sent.append(step)
        return sent


def trace(session: Session) -> dict[str, str]:
    """The trace that a session's agents share, if they do."""
    return {"traceparent": f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"} if session.traced else {}


def difference(sent: list[Step], executed: list[Json]) -> str:
    """What the upstreams executed otherwise than the agent was told, in words; empty if nothing."""
    told = [(step.upstream, step.tool) for step in sent]
    seen = [(each["upstream"], each["tool"]) for each in executed]
    if told == seen:
        return ""
    at = next((at for at, pair in enumerate(zip(told, seen, strict=False)) if pair[0] != pair[1]), min(len(told), len(seen)))
    return f"call {at + 1}: the agent was told of {told[at : at + 1]}, the upstreams executed {seen[at : at + 1]}"


def look_up(arena: Arena, results: list[Result]) -> None:
    """Adds to each stop what the audit says of it."""
    found = {record["call"]: record for record in arena.records("finding")}
    for stop in (stop for result in results for stop in result.stops):
        record = found.get(stop.decision.get("record", ""))
        if record:
            how = [f"{each['finding']} by {each['how']} of {each.get('tool', '?')}" for each in record.get("evidence", [])]
            stop.found = "; ".join([", ".join(record.get("findings", ["frozen"])), *dict.fromkeys(how)])


def is_honest(result: Result) -> bool:
    """Whether a session was an honest task."""
    return result.session.kind == HONEST
