"""Calls that wait for people, in the short form of what `patience.py` shows in full."""

from collections.abc import Callable

import patience

# Beyond the two seconds for which every call just waits, and below what any client bears.
HOLD_SECONDS = 12


def test_real_clients_bear_a_hold(figure_table: Callable[[str], None]) -> None:
    table, wrong = patience.shown(HOLD_SECONDS)
    for line in table:
        figure_table(line)
    assert wrong == []
