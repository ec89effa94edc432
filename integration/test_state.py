"""A copy of the store, taken while the gateway serves and put back after a crash: what ran since does not run again."""

import json
from collections.abc import Callable
from pathlib import Path

from gateway import SUPPORT, Gateway, holdpoint
from parts import Upstream
from test_console import fetch
from test_notify import OLGA, command


def test_a_call_that_ran_after_the_copy_was_taken_does_not_run_again(
    directory: Path, run_gateway: Callable[..., Gateway], recorder: Upstream
) -> None:
    """The upstream's own log is the judge."""
    gateway = run_gateway(recorder, people=[OLGA])
    url = f"{gateway.url(recorder)}/v1/unheard-of/7"
    config = ["--config", str(gateway.directory / "holdpoint.yaml")]
    copy = directory / "copy.db"

    def ask() -> dict[str, str]:
        """What the gateway says of a call, where it says anything: what the upstream says is none of ours."""
        answer = fetch(gateway, SUPPORT, url, "POST", {"n": 7})
        mine = answer.startswith(b"{") and b"dev.holdpoint/decision" in answer
        decision: dict[str, str] = json.loads(answer)["dev.holdpoint/decision"] if mine else {}
        return decision

    def ran() -> int:
        return sum(seen["path"].endswith("/v1/unheard-of/7") for seen in recorder.seen("arrived"))

    hold = ask()["hold"]
    digest = command(gateway, "holds", "show", hold)["hold"]["digest"]
    command(gateway, "holds", "approve", hold, "--digest", digest, "--reason", "a test")
    saved = holdpoint("state", "backup", str(copy), *config)
    assert "keys" in saved.stdout and copy.stat().st_mode & 0o077 == 0, saved.stdout
    assert not ask() and ran() == 1, "it runs once"
    refused = holdpoint("state", "restore", str(copy), *config, check=False)
    assert refused.returncode == 1 and "in use by another gateway" in refused.stdout + refused.stderr, refused
    gateway.kill()
    restored = json.loads(holdpoint("state", "restore", str(copy), *config, "--json").stdout)
    assert restored["holds"] == [{"hold": hold, "state": "executed"}], restored
    gateway.start()
    told = ask()
    assert told["outcome"] == "executed" and told["hold"] == hold, told
    assert ran() == 1, "and is not run again"
    code, report = gateway.verify()
    assert code == 0, report
    assert any(record.get("what") == "state-restored" for record in gateway.records("admin"))
