"""kill -9 at random moments under load: the record is never worth less than what the upstream saw."""

import asyncio
import json
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import traffic
from conftest import Figure
from gateway import SUPPORT, Gateway, holdpoint
from parts import Json, Upstream, header, short

KILLS = 20
SEED = 20261121
WORKERS = 8


@dataclass
class Story:
    """What happened over all kills."""

    tally: traffic.Tally = field(default_factory=traffic.Tally)
    after_kill: list[str] = field(default_factory=list)
    after_restart: list[str] = field(default_factory=list)
    restart_seconds: list[float] = field(default_factory=list)


async def loaded_kill(gateway: Gateway, plan: Json, story: Story, seconds: float) -> None:
    """Runs load, kills the gateway in the middle of it, and lets the load notice."""
    load = asyncio.create_task(traffic.load(plan, story.tally, WORKERS))
    await asyncio.sleep(seconds)
    gateway.kill()
    await asyncio.sleep(0.05)
    load.cancel()
    await asyncio.gather(load, return_exceptions=True)


def restart(gateway: Gateway, story: Story) -> None:
    """Looks at the record as the crash left it, starts again, and looks once more."""
    story.after_kill.append(gateway.verify()[1]["status"])
    started = time.monotonic()
    gateway.start()
    story.restart_seconds.append(time.monotonic() - started)
    story.after_restart.append(gateway.verify()[1]["status"])


def test_kill_9_under_load(run_gateway: Callable[..., Gateway], recorder: Upstream, figure: Figure) -> None:
    gateway = run_gateway(recorder)
    plan, story, chance = gateway.plan(SUPPORT, recorder, []), Story(), random.Random(SEED)
    for _ in range(KILLS):
        asyncio.run(loaded_kill(gateway, plan, story, chance.uniform(0.2, short(8, 30) / 10)))
        restart(gateway, story)
    gateway.stop()

    arrived = recorder.seen("arrived")
    named = [header(each["headers"], "holdpoint-record") for each in arrived]
    intents = {record["id"] for record in gateway.records("intent")}
    closed = {record.get("intent") for record in gateway.records("outcome", "recovered")}
    unrecorded = [name for name in named if name not in intents]
    unanswered = [record for record in story.tally.records if record not in closed]
    figure("kill9_kills", KILLS)
    figure("kill9_replies_read", story.tally.reads)
    figure("kill9_replies_write", story.tally.writes)
    figure("kill9_calls_broken", story.tally.broken)
    figure("kill9_upstream_saw", len(arrived))
    figure("kill9_upstream_saw_without_intent", len(unrecorded))
    figure("kill9_replies_without_outcome", len(unanswered))
    figure("kill9_audit_verified_after_kill", sum(status in {"ok", "incomplete"} for status in story.after_kill))
    figure("kill9_audit_verified_after_restart", story.after_restart.count("ok"))
    figure("kill9_incomplete_after_kill", story.after_kill.count("incomplete"))
    figure("kill9_restart_seconds_max", f"{max(story.restart_seconds):.2f}")

    assert story.tally.reads > 10 * KILLS and story.tally.writes > 10 * KILLS, story.tally.first_refusal
    assert story.tally.refused == 0, story.tally.first_refusal
    assert story.tally.broken >= KILLS, "each kill met calls in flight"
    assert None not in named, "each call that the upstream saw names its record"
    assert unrecorded == [], "the upstream saw nothing that was not written first"
    assert unanswered == [], "no reply reached the agent before its outcome was written"
    assert set(story.after_kill) <= {"ok", "incomplete"}, story.after_kill
    assert set(story.after_restart) == {"ok"}, story.after_restart
    code, report = gateway.verify()
    assert (code, report["status"]) == (0, "ok"), report
    assert tampered(gateway.audit_dir, gateway.directory / "tampered") == (1, "tampered"), "and it would have noticed"


def tampered(audit: Path, copy: Path) -> tuple[int, str]:
    """What verification says of a copy in which one letter of one record in the middle is another."""
    shutil.copytree(audit, copy)
    segment = max(copy.glob("**/*.jsonl"), key=lambda file: file.stat().st_size)
    lines = segment.read_text(encoding="utf-8").splitlines(keepends=True)
    middle = next(number for number in range(len(lines) // 2, len(lines)) if '"type":"intent"' in lines[number])
    lines[middle] = lines[middle].replace(SUPPORT.id, SUPPORT.id[:-1] + "x", 1)
    segment.write_text("".join(lines), encoding="utf-8")
    done = holdpoint("audit", "verify", str(copy), "--json", check=False)
    return done.returncode, json.loads(done.stdout)["status"]
