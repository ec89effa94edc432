"""The OpenTelemetry Collector as a sink: it receives every span and keeps none."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from machine import LOAD_CORE, pinned, yielding
from parts import CACHE, Process, free_port

CONFIG = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{file: {{path: /dev/null}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}
"""


@dataclass
class Sink:
    """A running collector."""

    endpoint: str
    process: Process

    @contextmanager
    def standing_back(self) -> Iterator[None]:
        """It works only while its core has nothing else to do: where latency counts, it would else delay the load."""
        with yielding(self.process.popen.pid):
            yield


@contextmanager
def sink(directory: Path) -> Iterator[Sink]:
    """Starts it on the load's core."""
    port = free_port()
    config = directory / "sink.yaml"
    config.write_text(CONFIG.format(port=port), encoding="utf-8")
    command = pinned(LOAD_CORE, [str(CACHE / "collector/build/otelcol-holdpoint"), "--config", str(config)])
    process = Process.start("collector", command, directory / "sink.log", GOMAXPROCS="1")
    try:
        process.wait_port(port)
        yield Sink(f"http://127.0.0.1:{port}", process)
    finally:
        process.stop()
