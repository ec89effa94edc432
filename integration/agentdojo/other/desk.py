"""The sessions of the freight company: honest tasks, and goals that text from outside gives the agent meanwhile."""

from pathlib import Path
from typing import Any

import yaml

from sessions import ATTACK, HONEST, INJECTED, USER, Json, Session, Step

HERE = Path(__file__).resolve().parent
SUITE = "other"


def read() -> Json:
    """The sessions as they are written."""
    found: Json = yaml.safe_load((HERE / "sessions.yaml").read_text(encoding="utf-8"))
    return found


def steps(written: list[list[Any]], origin: str = USER) -> list[Step]:
    """Written steps. Of an injected goal, the last is the one that does the harm."""
    last = len(written) - 1
    return [
        Step(upstream, tool, arguments, origin, origin == INJECTED and at == last, gt="authored")
        for at, (upstream, tool, arguments) in enumerate(written)
    ]


def honest() -> list[Session]:
    """The honest tasks."""
    return [
        Session(f"{SUITE}/{name}", SUITE, HONEST, {"suite": SUITE, "vector": [], "text": ""}, steps(written))
        for name, written in read()["honest"].items()
    ]


def attacks() -> list[Session]:
    """Every goal in every carrier."""
    written = read()
    return [
        Session(
            f"{SUITE}/{carrier}/{name}",
            SUITE,
            ATTACK,
            {"suite": SUITE, "vector": vector, "text": goal["text"]},
            [*steps(written["honest"][carrier]), *steps(goal["steps"], INJECTED)],
        )
        for carrier, vector in written["carriers"].items()
        for name, goal in written["goals"].items()
    ]
