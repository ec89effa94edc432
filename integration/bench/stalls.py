"""When the machine itself stood still: on a shared host a core stops for milliseconds, whoever would have run on it."""

import bisect
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from machine import LOAD_CORE, PROXY_CORE, compiled, pinned

# Later than this is a stall.
LATE_S = 0.0005
# A load began at most this long before it is known to have begun.
UNSURE_S = 0.03
# What waited during a stall is done this long after it, at the rates at which anything is timed.
AFTER_S = 0.02


@dataclass
class Stalls:
    """From when to when a core stood still, in seconds of the monotonic clock."""

    found: list[tuple[float, float]] = field(default_factory=list)

    def touched(self, began: list[float], start: float) -> list[bool]:
        """Which calls a stall may have delayed: they began so many seconds after the start of their load."""
        spans = [(first - start, last - start + UNSURE_S + AFTER_S) for first, last in sorted(self.found)]
        starts = [first for first, _ in spans]
        # A later stall ends later, so the last that began before a call says whether one touches it.
        before = [bisect.bisect_right(starts, at) - 1 for at in began]
        return [last >= 0 and at <= spans[last][1] for at, last in zip(began, before, strict=True)]


@contextmanager
def watched() -> Iterator[Stalls]:
    """Watches both cores; what was found is there at the end."""
    program = compiled(Path(__file__).with_name("stalls.c"))
    told = Stalls()
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in (PROXY_CORE, LOAD_CORE)]
        watching = [
            subprocess.Popen(pinned(core, [program]), stdout=file)
            for core, file in zip((PROXY_CORE, LOAD_CORE), files, strict=True)
        ]
        try:
            yield told
            for each in watching:
                assert each.poll() is None, f"stalls: ended with {each.returncode}"
        finally:
            for each in watching:
                each.terminate()
                each.wait()
        for file in files:
            file.seek(0)
            for line in file:
                due, late_s = (float(word) for word in line.split())
                if late_s > LATE_S:
                    told.found.append((due, due + late_s))
