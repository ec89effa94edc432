"""The OpenTelemetry Collector as a sink: it receives every span and keeps none."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import LOAD_CORE, pinned
from parts import CACHE, Process, free_port

CONFIG = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{file: {{path: /dev/null}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}
"""


@contextmanager
def sink(directory: Path) -> Iterator[str]:
    """Starts it on the load's core and gives its endpoint."""
    port = free_port()
    config = directory / "sink.yaml"
    config.write_text(CONFIG.format(port=port), encoding="utf-8")
    command = pinned(LOAD_CORE, [str(CACHE / "collector/build/otelcol-holdpoint"), "--config", str(config)])
    process = Process.start("collector", command, directory / "sink.log", GOMAXPROCS="1")
    try:
        process.wait_port(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop()
