"""What a call costs in a gateway with hold rules of which none matches, beside one without hold rules: instructions, as
callgrind counts them, so that the difference is no accident of the machine.

Neither has a listener for people. What that adds is the index of records that people search, by a thread of its own,
whether or not a rule holds calls; `bench/run.sh --rows controls` has it as a row.

    integration/bench/holds.sh              HOLDPOINT_BIN names the binary
"""

import os
import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import gate  # noqa: E402
import proxies  # noqa: E402
import upstream  # noqa: E402
from gateway import SUPPORT, binary  # noqa: E402
from parts import CACHE_ROOT  # noqa: E402
from proxies import LIMITS, Ports, Proxy, filler  # noqa: E402

DIFFERENCE_MAX = 0.01
"""As a share of the call. Of what runs beside it, such as the export of spans, windows of one gateway differ by more, so
that for a whole call what they differ by is added."""
WINDOWS = 3
SCENARIOS = ("tools_read", "http_read", "tools_write")
PARTS = ("call", "call_without_tls", "pipeline", "decide")
POLICY = re.compile(r"^@id\(.*?^(?:};|.*\);)$", re.MULTILINE | re.DOTALL)


@dataclass
class WithoutHolds(gate.Clocked):
    """As many policies, none of which holds a call."""

    def copy_policies(self) -> None:
        """Others stand in for those that hold."""
        super().copy_policies()
        taken = 0
        for file in (self.directory / "policies").glob("*.cedar"):
            text = file.read_text(encoding="utf-8")
            holds = [each for each in POLICY.findall(text) if "@hold(" in each]
            for each in holds:
                text = text.replace(each, "")
            assert "@hold(" not in text, f"{file.name} still holds"
            file.write_text(text, encoding="utf-8")
            taken += len(holds)
        assert taken, "no policy that ships holds a call"
        others = filler(taken).replace("other-", "instead-")
        (self.directory / "policies/instead.cedar").write_text(others, encoding="utf-8")


def counted(kind: type[gate.Clocked], kept: Path, pki: Path, ports: Ports, sink: gate.Sink) -> gate.Measured:
    """The figures of one gateway."""
    found = gate.Measured()
    run = kind(kept, gate.behind(ports), shared_pki=pki, limits=LIMITS, otlp=ports.otlp).prepare()
    try:
        run.start()
        assert run.process is not None
        proxy = Proxy("holdpoint", run.base, run.process, pki)
        bench = gate.Bench(run, gate.Client(proxy.tls(SUPPORT, "http/1.1"), run.port), sink)
        for name in SCENARIOS:
            work = gate.SCENARIOS[name]
            bench.client.calls(work, gate.WARM_UP)
            bench.settle()
            gate.note(found, name, [bench.window(work) for _ in range(WINDOWS)], run.thread_names())
    finally:
        run.stop()
    return found


def main() -> int:
    """0 when they cost the same."""
    started, kept = time.monotonic(), CACHE_ROOT / "gate" / f"holds-{os.getpid()}"
    kept.mkdir(parents=True)
    program = gate.own_copy(binary(), kept.with_suffix(".bin"))
    try:
        pki = proxies.issue(kept)
        with upstream.constants(kept) as port, gate.sink() as sink:
            ports = Ports(port, port, f"http://127.0.0.1:{sink.server_port}")
            on = counted(gate.Clocked, kept / "on", pki, ports, sink)
            off = counted(WithoutHolds, kept / "off", pki, ports, sink)
    finally:
        Path(program).unlink()
    shutil.rmtree(kept)
    print(f"{'instructions a call':<28}{'holds on':>12}{'off':>12}{'more':>9}{'windows':>9}")
    wrong = []
    for name in SCENARIOS:
        for part in PARTS:
            figure = f"{name}.{part}"
            more = on.figures[figure] / off.figures[figure] - 1
            spread = max(on.spreads[figure], off.spreads[figure])
            print(f"{figure:<28}{on.figures[figure]:>12,.0f}{off.figures[figure]:>12,.0f}{more:>+9.2%}{spread:>9.2%}")
            added = (on.figures[figure] - off.figures[figure]) / off.figures[f"{name}.call"]
            if added > DIFFERENCE_MAX + (spread if part.startswith("call") else 0):
                wrong.append(figure)
    print(f"holds_on_seconds: {time.monotonic() - started:.0f}")
    print(f"holds_on: {'FAILED: ' + ', '.join(wrong) if wrong else 'ok'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
