"""What an agent does in one session, and in which world: plain values that the benchmark and the servers share."""

from dataclasses import dataclass, field, replace
from typing import Any

Json = dict[str, Any]

# Who wants a step: the task that the agent was given, or text that it read while it did it.
USER, INJECTED = "user", "injected"
# What a session is there to show.
HONEST, ATTACK = "honest", "attack"


@dataclass(frozen=True)
class Step:
    """One call. `tool` of a plain HTTP API is `METHOD /path/{parameter}`, and then the arguments are its parts."""

    upstream: str
    tool: str
    arguments: Json
    origin: str = USER
    # Whether the harm of the session is done once this is executed.
    harmful: bool = False
    # `agentdojo` where the package says what the call is; `authored` where it leaves that open and we filled it in.
    gt: str = "agentdojo"
    # Which of the session's agents makes it.
    agent: int = 0


@dataclass(frozen=True)
class Session:
    """One piece of work of one agent, or of two that share a trace."""

    name: str
    suite: str
    kind: str
    # What the servers need to make the world: see `world.py`.
    world: Json
    steps: list[Step]
    # Destinations that an orchestrator would name, because whoever gave the task did.
    granted: list[str] = field(default_factory=list)
    # How many harmful calls may be executed before the harm is done; splitting needs more than one.
    harmless_calls: int = 0
    agents: int = 1
    # Whether the session's agents send the same trace id.
    traced: bool = False

    @property
    def upstreams(self) -> list[str]:
        """Every upstream that it calls, each once."""
        return list(dict.fromkeys(step.upstream for step in self.steps))

    def with_steps(self, steps: list[Step], **more: Any) -> "Session":
        """The same session with other steps."""
        return replace(self, steps=steps, **more)
