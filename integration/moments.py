"""What a gateway that was just killed was doing: read from its store and its audit, as they lie, before it starts again.

The moments in the life of a hold at which a crash could lose a call or run it twice. A run of `chaos.py` says how many of
its kills fell into each, so that "at random moments" is a figure.
"""

import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path

MOMENTS = {
    "before_a_vote": "a vote had been asked for, and the store did not have it",
    "before_a_denial": "a denial had been asked for, and the store did not have it",
    "after_approval": "approved, and nobody had taken it",
    "before_released_record": "taken, and the audit had no `released`",
    "before_intent": "`released`, and the audit had no intent",
    "before_forward": "intended, and the upstream had not seen it",
    "after_forward": "the upstream had it, and the audit had no outcome",
    "before_settled": "the audit had the outcome, and the store did not",
    "before_its_record": "the store had a change that the audit did not have",
    "at_expiry": "a hold's time ran out within a tenth of a second",
}
EXPIRY_SECONDS = 0.1
"""How near to the end of a hold's time a kill is one at expiry."""
TAIL_BYTES = 4 << 20
"""How much of the newest segment is read: far more than is written while one call is executed."""


def found(state: Path, killed: float, asked: dict[str, str], reached: Collection[str]) -> Counter[str]:
    """The moments at which holds stood, by the state directory of a gateway that was killed then, in seconds since 1970;
    `asked` is which vote had been asked for by hold, without an answer so far, and `reached` the holds that the upstream
    has seen."""
    moments = Counter[str]()
    with tempfile.TemporaryDirectory(prefix="holdpoint-moment-") as copied:
        # A copy, since whoever opens the database of a crash repairs it.
        for file in state.glob("holdpoint.db*"):
            shutil.copy(file, copied)
        with sqlite3.connect(f"{copied}/holdpoint.db") as store:
            rows = store.execute(
                "SELECT id, state, record, expires FROM hold WHERE state IN ('pending', 'approved', 'releasing')"
                " OR (state = 'expired' AND expires > ?)",
                [(killed - EXPIRY_SECONDS) * 1e6],
            ).fetchall()
            waiting = store.execute("SELECT count(*) FROM audit_row").fetchone()[0]
    audit = records(state / "audit") if any(row[1] == "releasing" for row in rows) else []
    for hold, stands, record, expires in rows:
        if abs(expires / 1e6 - killed) < EXPIRY_SECONDS:
            moments["at_expiry"] += 1
        if stands == "pending" and hold in asked:
            moments["before_a_vote" if asked[hold] == "approve" else "before_a_denial"] += 1
        elif stands == "approved":
            moments["after_approval"] += 1
        elif stands == "releasing":
            moments[taken(audit, hold, record, reached)] += 1
    if waiting:
        moments["before_its_record"] += 1
    return moments


def taken(audit: list[dict], hold: str, record: str, reached: Collection[str]) -> str:
    """How far the execution of a hold had come."""
    if not any(each["type"] == "released" and each.get("hold") == hold for each in audit):
        return "before_released_record"
    kinds = {each["type"] for each in audit if record in (each["id"], each.get("intent"))}
    if "intent" not in kinds:
        return "before_intent"
    if hold not in reached:
        return "before_forward"
    return "before_settled" if "outcome" in kinds else "after_forward"


def records(audit: Path) -> list[dict]:
    """The newest records of an audit; a line that was being written is left out."""
    newest = max(audit.glob("**/*.jsonl"), key=lambda file: file.stat().st_mtime)
    with newest.open("rb") as file:
        file.seek(max(0, newest.stat().st_size - TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    kept = []
    for line in lines:
        try:
            kept.append(json.loads(line))
        except ValueError:
            continue
    return kept
