"""What operators are given is in order: alerts fire when they should, manifests are what Kubernetes reads, the unit is tight."""

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gateway import Gateway, holdpoint
from parts import CACHE, REPOSITORY, Json, Process, Upstream, free_port, until

RULES = REPOSITORY / "observability/prometheus"
KUBERNETES = REPOSITORY / "deploy/kubernetes"


def done(*command: str) -> str:
    """Runs a command that must succeed, and gives what it printed."""
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, f"{' '.join(command)}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
    return ran.stdout + ran.stderr


def dashboards() -> list[tuple[str, str]]:
    """Every expression of every dashboard, with its panel."""
    found = []
    for file in sorted((REPOSITORY / "observability/dashboards").glob("*.json")):
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
            found += [(f"{file.name}: {panel['title']}", target["expr"]) for target in panel.get("targets", [])]
    return found


def concrete(expression: str) -> str:
    """An expression as Grafana sends it, with everything chosen."""
    chosen = {"$__rate_interval": "1m", "$instance": ".*", "$upstream": "notes"}
    for variable, value in chosen.items():
        expression = expression.replace(variable, value)
    return expression


def test_alerts_fire_when_they_should_and_at_no_other_time(figure: Callable[[str, object], None]) -> None:
    """promtool reads the rules and runs their tests."""
    done("promtool", "check", "rules", str(RULES / "rules.yaml"), str(RULES / "alerts.yaml"))
    assert "SUCCESS" in done("promtool", "test", "rules", str(RULES / "tests.yaml"))
    tests = yaml.safe_load((RULES / "tests.yaml").read_text(encoding="utf-8"))["tests"]
    figure("alert_tests", sum(len(test["alert_rule_test"]) for test in tests))


def test_prometheus_reads_the_gateway_and_every_panel_has_an_answer(
    directory: Path, run_gateway: Callable[..., Gateway], recorder: Upstream, figure: Callable[[str, object], None]
) -> None:
    """A real Prometheus scrapes a gateway that served a call, loads the rules, and answers every dashboard."""
    gateway = run_gateway(recorder)
    port = free_port()
    scrape = yaml.safe_load((RULES / "scrape.yaml").read_text(encoding="utf-8"))
    scrape["scrape_configs"][0].update(
        scrape_interval="1s", static_configs=[{"targets": [f"127.0.0.1:{gateway.health}"]}]
    )
    for name in ("rules.yaml", "alerts.yaml"):
        shutil.copy(RULES / name, directory / name)
    config = {"global": {"evaluation_interval": "1s"}, "rule_files": ["rules.yaml", "alerts.yaml"], **scrape}
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    done("promtool", "check", "config", str(directory / "prometheus.yml"))
    prometheus = Process.start(
        "prometheus",
        [
            "prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        directory / "prometheus.log",
    )  # fmt: skip

    def ask(path: str, **query: str) -> Json:
        url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            answer: Json = json.loads(response.read())
        assert answer["status"] == "success", answer
        return answer["data"]

    def value(expression: str) -> list[Json]:
        result: list[Json] = ask("query", query=expression)["result"]
        return result

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5) as response:
                return bool(response.status == 200)
        except urllib.error.URLError:
            return False

    try:
        prometheus.wait_port(port)
        until("Prometheus to be ready", ready)
        until("the gateway to be scraped", lambda: value('up{job="holdpoint"} == 1'))
        context = gateway.tls(gateway.agents[0])
        for _ in range(3):
            urllib.request.urlopen(f"{gateway.url(recorder)}/v1/notes", context=context, timeout=10).read()
        until("the calls to be seen", lambda: value('holdpoint_calls_total{decision="allowed"} >= 3'))
        assert [each["value"][1] for each in value("holdpoint_upstream_breaker")] == ["0"]
        asked = dashboards()
        for place, expression in asked:
            assert "$" not in concrete(expression), f"{place}: {expression}"
            value(concrete(expression))
        until("every rule to be evaluated", lambda: all(rule["health"] == "ok" for rule in rules_of(ask("rules"))))
        firing = [alert["labels"]["alertname"] for alert in ask("alerts")["alerts"] if alert["state"] == "firing"]
        assert firing == []
        figure("dashboard_expressions_answered", len(asked))
    finally:
        prometheus.stop()


def rules_of(answer: Json) -> list[Json]:
    """Every rule of an answer; there must be some."""
    found = [rule for group in answer["groups"] for rule in group["rules"]]
    assert len(found) >= 20
    return found


def test_the_manifests_are_what_kubernetes_reads(directory: Path, figure: Callable[[str, object], None]) -> None:
    """Every manifest against the schemas of Kubernetes, strictly, and the configuration within by `holdpoint check`."""
    files = [str(file) for file in sorted(KUBERNETES.glob("[0-9]*.yaml"))]
    said = done(str(CACHE / "kubernetes/bin/kubernetes-validate"), "--strict", *files)
    documents = [each for file in files for each in yaml.safe_load_all(Path(file).read_text(encoding="utf-8"))]
    assert said.count(" passed for resource ") == len(documents), said
    figure("kubernetes_resources", len(documents))

    # Labels find each other: what selects something selects what is there.
    pods = [each for each in documents if each["kind"] == "Deployment"]
    labels = [each["spec"]["template"]["metadata"]["labels"].items() for each in pods]
    for each in documents:
        spec = each.get("spec", {})
        selector = spec.get("selector") if each["kind"] == "Service" else spec.get("selector", {}).get("matchLabels")
        selector = selector or spec.get("podSelector", {}).get("matchLabels", {})
        assert any(selector.items() <= known for known in labels), each["metadata"]

    # What is mounted from elsewhere stands beside the configuration here.
    config = next(each for each in documents if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "holdpoint")
    holdpoint("pki", "init", "--dir", str(directory / "pki"))
    for name, text in config["data"].items():
        for mounted, here in (
            ("/run/identity/bundle.pem", directory / "pki/example.org.pem"),
            ("/run/identity", directory / "pki"),
            ("/usr/share/holdpoint/policies", REPOSITORY / "policies"),
            ("/var/lib/holdpoint", directory / "state"),
        ):
            text = text.replace(mounted, str(here))
        (directory / name).write_text(text, encoding="utf-8")
    holdpoint("check", "--config", str(directory / "holdpoint.yaml"))


@pytest.mark.parametrize("name", ["holdpoint.service"])
def test_the_unit_is_read_and_tight(directory: Path, name: str, figure: Callable[[str, object], None]) -> None:
    """systemd reads the unit without a word, and its exposure is low (0 is best, 10 worst)."""
    unit = directory / name
    text = (REPOSITORY / "deploy/systemd" / name).read_text(encoding="utf-8")
    # Where the binary is installed, there is none here.
    unit.write_text(text.replace("/usr/local/bin/holdpoint", "/bin/true"), encoding="utf-8")
    assert done("systemd-analyze", "verify", "--man=no", str(unit)) == ""
    said = done("systemd-analyze", "security", "--offline=true", "--threshold=15", str(unit))
    figure("systemd_exposure", said.strip().splitlines()[-1].split(": ")[1].split()[0])
