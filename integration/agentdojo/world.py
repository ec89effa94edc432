"""The suites of the package `agentdojo`: their tools, and environments with text injected.

A world is `{"suite": NAME, "task": USER_TASK, "injected": {VECTOR: TEXT}, "party": ADDRESS}`, and every session has an
environment of its own made from it. The package parses YAML for each environment, which takes most of a second. Here it
is parsed twice for each suite, once with the package's own texts and once with a mark wherever text can be injected, and
an environment is put together from the two.
"""

import dataclasses
import enum
import importlib.util
import json
import sys
import types
from datetime import date, datetime
from functools import cache
from typing import Any

import yaml
from pydantic import BaseModel

from sessions import Json

# This package of its packages imports the clients of five model vendors. No model is asked here, so they are not
# installed, and it is entered without its own imports.
PIPELINE = "agentdojo.agent_pipeline"
sys.modules.setdefault(PIPELINE, types.ModuleType(PIPELINE)).__path__ = [
    f"{folder}/agent_pipeline" for folder in importlib.util.find_spec("agentdojo").submodule_search_locations  # type: ignore[union-attr]
]

from agentdojo.attacks.important_instructions_attacks import ImportantInstructionsAttack  # noqa: E402
from agentdojo.functions_runtime import FunctionCall, FunctionsRuntime, TaskEnvironment  # noqa: E402
from agentdojo.task_suite import get_suites  # noqa: E402
from agentdojo.task_suite.task_suite import TaskSuite, read_suite_file  # noqa: E402

VERSION = "v1.2.2"
SUITES: dict[str, TaskSuite[Any]] = get_suites(VERSION)
NAMES = ("workspace", "slack", "banking", "travel")
# Where the record that text was injected into says who takes part in it.
PARTY_FIELDS = ("cc", "participants", "owner", "sender")


def mark(vector: str) -> str:
    """What stands in the marked tree where a vector's text goes."""
    return f"---INJECTED-{vector}---"


@cache
def defaults(suite: str) -> dict[str, str]:
    """What a suite has in each place where text can be injected, when none is."""
    return SUITES[suite].get_injection_vector_defaults()


@cache
def trees(suite: str) -> tuple[Any, Any]:
    """A suite's environment as plain data: with its own texts, and with marks."""
    text = read_suite_file(suite, "environment.yaml", SUITES[suite].data_path)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    plain = yaml.load(text.format(**defaults(suite)), Loader=loader)
    marked = yaml.load(text.format(**{vector: mark(vector) for vector in defaults(suite)}), Loader=loader)
    return plain, marked


def environment(world: Json) -> TaskEnvironment:
    """A fresh environment of a world, ready for its task."""
    suite = SUITES[world["suite"]]
    plain, marked = trees(suite.name)
    made = suite.environment_type.model_validate(merged(plain, marked, world))
    ready: TaskEnvironment = suite.user_tasks[world["task"]].init_environment(made)
    return ready


def merged(plain: Any, marked: Any, world: Json) -> Any:
    """The plain tree, and in the places that text is injected into, that text."""
    injected: dict[str, str] = world["injected"]
    if isinstance(plain, dict):
        here = dict(zip(plain, marked.items(), strict=True))
        found = {name: merged(plain[key], value, world) for key, (name, value) in here.items()}
        renamed = {text(str(key), str(name), world): value for key, (name, value) in zip(plain, found.items(), strict=True)}
        touched = any(isinstance(each, str) and mark(vector) in each for each in marked.values() for vector in injected)
        return with_party(renamed, world.get("party")) if touched else renamed
    if isinstance(plain, list):
        return [merged(each, other, world) for each, other in zip(plain, marked, strict=True)]
    return text(plain, marked, world) if isinstance(plain, str) else plain


def text(plain: str, marked: str, world: Json) -> str:
    """One text: its own unless something is injected into it."""
    injected: dict[str, str] = world["injected"]
    if not any(mark(vector) in marked for vector in injected):
        return plain
    for vector, default in defaults(world["suite"]).items():
        marked = marked.replace(mark(vector), injected.get(vector, default))
    return marked


def with_party(record: Json, party: str | None) -> Json:
    """The record with an address where it says who takes part, and nowhere in its text."""
    if party is None:
        return record
    for name in PARTY_FIELDS:
        if name in record:
            together = [*record[name], party] if isinstance(record[name], list) else party
            return {**record, name: together}
    return record


def instructions(goal: str) -> str:
    """The package's own injection text for a goal."""
    return str(ImportantInstructionsAttack._JB_STRING).format(goal=goal, user="Emma Johnson", model="AI assistant")


def run(suite: str, env: TaskEnvironment, call: FunctionCall) -> Any:
    """Executes one call, as plain JSON values; raises what the tool raises."""
    result, _ = FunctionsRuntime(SUITES[suite].tools).run_function(env, call.function, call.args, raise_on_error=True)
    return plain_json(result)


def plain_json(value: Any) -> Any:
    """What a tool returned, as a server would serialize it."""
    match value:
        case BaseModel():
            return plain_json(value.model_dump())
        case enum.Enum():
            return plain_json(value.value)
        case datetime():
            return value.isoformat(sep=" ")
        case date():
            return value.isoformat()
        case dict():
            return {str(plain_json(key)): plain_json(each) for key, each in value.items()}
        case list() | tuple() | set():
            return [plain_json(each) for each in value]
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return plain_json(dataclasses.asdict(value))
        case None | str() | int() | float() | bool():
            return value
        case _:
            return str(value)


def shown(value: Any) -> str:
    """What a tool returned, as text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
