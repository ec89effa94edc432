"""The gate's own judgement: what it lets pass, what it stops, and what it refuses to compare. Nothing is measured here."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "bench"))

import callgrind  # noqa: E402
import gate  # noqa: E402
from parts import Json  # noqa: E402

MACHINE = {"rustc": "1.95.0", "cpu_flags": "avx avx2"}
FIGURES = {"tools_read.call": 300_000.4, "tools_read.decide": 1_600.0}


def accepted() -> Json:
    """What a first acceptance writes, read back from a file's text."""
    first = gate.rewritten({"machine": {}, "figures": {}}, MACHINE, FIGURES, 'the "first" one')
    return dict(gate.tomllib.loads(gate.written(first)))


def test_figures_as_accepted_pass() -> None:
    assert accepted()["figures"]["tools_read.call"] == {"instructions": 300_000, "reason": 'the "first" one'}
    assert gate.verdict(accepted(), MACHINE, FIGURES)[0] == 0
    little = {name: value * 1.02 for name, value in FIGURES.items()}
    assert gate.verdict(accepted(), MACHINE, little)[0] == 0


@pytest.mark.parametrize(("by", "word"), [(1.4, "more"), (0.7, "less")])
def test_a_tampered_figure_fails_either_way(by: float, word: str) -> None:
    tampered = accepted()
    tampered["figures"]["tools_read.decide"]["instructions"] = round(1_600 / by)
    status, told = gate.verdict(tampered, MACHINE, FIGURES)
    assert status == 1
    assert "tools_read.decide" in told and word in told and "--accept" in told, told
    assert "tools_read.call" not in told, told


def test_a_small_part_moves_by_one_in_a_thousand_of_its_call() -> None:
    assert gate.verdict(accepted(), MACHINE, {**FIGURES, "tools_read.decide": 1_600 + 290.0})[0] == 0
    assert gate.verdict(accepted(), MACHINE, {**FIGURES, "tools_read.decide": 1_600 + 310.0})[0] == 1
    assert gate.verdict(accepted(), MACHINE, {**FIGURES, "tools_read.call": 300_000 * 1.031})[0] == 1


def test_a_figure_that_is_new_or_gone_fails() -> None:
    assert gate.verdict(accepted(), MACHINE, {**FIGURES, "new.call": 1.0})[0] == 1
    assert gate.verdict(accepted(), MACHINE, {"tools_read.call": 300_000.0})[0] == 1


def test_figures_of_another_machine_are_not_compared_and_that_is_said() -> None:
    status, told = gate.verdict(accepted(), {**MACHINE, "rustc": "1.96.0"}, {name: 1.0 for name in FIGURES})
    assert status == 0
    assert "NOT COMPARED" in told and "1.96.0" in told and "1.95.0" in told, told


def test_acceptance_gives_the_reason_to_what_moved_only() -> None:
    moved = {**FIGURES, "tools_read.decide": 2_000.0}
    anew = gate.rewritten(accepted(), MACHINE, moved, "a new control")["figures"]
    assert anew["tools_read.decide"] == {"instructions": 2_000, "reason": "a new control"}
    assert anew["tools_read.call"]["reason"] == 'the "first" one'
    elsewhere = gate.rewritten(accepted(), {**MACHINE, "rustc": "1.96.0"}, FIGURES, "rustc 1.96")["figures"]
    assert {entry["reason"] for entry in elsewhere.values()} == {"rustc 1.96"}


# What callgrind writes of a thread: `outer` spends 5, and calls `inner`, which spends 20, three times.
PROFILE = """# callgrind format
thread: 3
positions: line
events: Ir

fn=(1) outer::{{closure}}
0 5
cfn=(2) inner::h0123456789abcdef
calls=3 0
0 20

fn=(2)
0 18
+1 2
totals: 25
"""


def test_what_a_function_calls_is_counted_in_it_and_once_in_the_thread() -> None:
    counts = callgrind.Counts()
    counts.add(PROFILE)
    assert counts.threads == {3: 25} and counts.total == 25
    assert (counts.of("outer::{{closure}}"), counts.of("inner")) == (25, 20)


def test_a_function_that_was_inlined_is_named() -> None:
    with pytest.raises(AssertionError, match=r"decide::call .*inline\(never\)"):
        callgrind.Counts().of("decide::call")
