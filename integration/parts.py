"""The real parts around the gateway: upstreams, SDK agents, the collector. Each is a process on 127.0.0.1."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
CACHE_ROOT = Path(os.environ.get("HOLDPOINT_CACHE", str(Path.home() / ".cache" / "holdpoint")))
CACHE = CACHE_ROOT / "integration"
MODE = os.environ.get("HOLDPOINT_INTEGRATION_MODE", "full")
START_SECONDS_MAX = 30.0
CLIENTS = ("python1", "python2", "typescript1", "typescript2")


def short(quick: int, full: int) -> int:
    """A count: the smaller one in `make test`, the whole one otherwise."""
    return full if MODE == "full" else quick


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: str, ready: Callable[[], Any], seconds: float = START_SECONDS_MAX, pause: float = 0.05) -> Any:
    """Waits for something to become true and returns it; says what did not, if it does not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = ready()
        if value:
            return value
        time.sleep(pause)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


def listening(port: int) -> bool:
    """Whether something accepts connections on a port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Process:
    """A process whose output goes to a file, so that a failure can show it."""

    name: str
    log: Path
    popen: subprocess.Popen[bytes]

    @classmethod
    def start(cls, name: str, command: list[str], log: Path, **env: str) -> "Process":
        """Starts it with an empty standard input and its output in `log`."""
        with log.open("ab") as out:
            popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **env}
            )
        return cls(name, log, popen)

    def wait_port(self, port: int) -> "Process":
        """Waits until it listens; a process that ended instead shows why."""

        def ready() -> bool:
            assert self.popen.poll() is None, f"{self.name} ended with {self.popen.returncode}:\n{self.tail()}"
            return listening(port)

        until(f"{self.name} on port {port}", ready)
        return self

    def tail(self, bytes_max: int = 4000) -> str:
        """The end of what it printed."""
        return self.log.read_bytes()[-bytes_max:].decode("utf-8", "replace")

    def stop(self) -> None:
        """Ends it as an operator would, and for good after a while."""
        self.popen.terminate()
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()

    def kill(self) -> None:
        """kill -9."""
        self.popen.kill()
        self.popen.wait()


@dataclass
class Upstream:
    """A tool server or API that writes down what it saw."""

    name: str
    kind: str
    url: str
    seen_file: Path
    process: Process | None
    catalog: Json = field(default_factory=dict)
    stdio: Json | None = None

    @property
    def base(self) -> str:
        """Scheme and authority."""
        return self.url.removesuffix("/mcp")

    def seen(self, event: str = "complete") -> list[Json]:
        """Every request it saw, in order."""
        if not self.seen_file.exists():
            return []
        lines = self.seen_file.read_text(encoding="utf-8").splitlines()
        return [line for line in map(json.loads, lines) if line.get("event", "complete") == event]

    def calls(self, tool: str) -> list[Json]:
        """The tools/call requests it saw for one tool."""
        return [body for body in map(message, self.seen()) if is_call(body, tool)]


def message(request: Json) -> Json:
    """The JSON-RPC message of a recorded request, or nothing."""
    try:
        body = json.loads(request["body"])
    except (TypeError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def is_call(body: Json, tool: str) -> bool:
    """Whether a message calls this tool."""
    return body.get("method") == "tools/call" and body.get("params", {}).get("name") == tool


def header(headers: list[list[str]], name: str) -> str | None:
    """The value of the first header of a name, whatever its case."""
    return next((value for key, value in headers if key.lower() == name.lower()), None)


@contextmanager
def everything(directory: Path) -> Iterator[Upstream]:
    """`server-everything` over streamable HTTP: the reference implementation's own legacy-era server."""
    port, seen = free_port(), directory / "everything.seen"
    server = CACHE / "node/node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    command = ["node", "--require", str(HERE / "upstreams/loopback.cjs"), str(server), "streamableHttp"]
    process = Process.start(
        "server-everything", command, directory / "everything.log", PORT=str(port), HOLDPOINT_SEEN=str(seen)
    )
    try:
        process.wait_port(port)
        yield Upstream("everything", "mcp", f"http://127.0.0.1:{port}/mcp", seen, process, EVERYTHING_TOOLS)
    finally:
        process.stop()


@contextmanager
def fastmcp(directory: Path) -> Iterator[Upstream]:
    """A FastMCP server (class MCPServer since 2.0) that speaks both eras."""
    port, seen = free_port(), directory / "fastmcp.seen"
    command = [str(CACHE / "python2/bin/python"), str(HERE / "upstreams/fastmcp_server.py"), str(port)]
    process = Process.start("fastmcp", command, directory / "fastmcp.log", HOLDPOINT_SEEN=str(seen))
    try:
        process.wait_port(port)
        yield Upstream("ledger", "mcp", f"http://127.0.0.1:{port}/mcp", seen, process, LEDGER_TOOLS)
    finally:
        process.stop()


@contextmanager
def desk(directory: Path) -> Iterator[Upstream]:
    """An MCP server whose words change once the file `desk.changed` exists."""
    port, seen = free_port(), directory / "desk.seen"
    command = [sys.executable, str(HERE / "upstreams/desk.py"), str(port)]
    env = {"HOLDPOINT_SEEN": str(seen), "HOLDPOINT_CHANGED": str(directory / "desk.changed")}
    process = Process.start("desk", command, directory / "desk.log", **env)
    try:
        process.wait_port(port)
        yield Upstream("desk", "mcp", f"http://127.0.0.1:{port}/mcp", seen, process, DESK_TOOLS)
    finally:
        process.stop()


def over_stdio(name: str, command: list[str], directory: Path, catalog: Json) -> Upstream:
    """A server that the gateway itself runs, behind a tee that writes down what it is sent."""
    seen = directory / f"{name}.seen"
    stdio = {
        "command": [sys.executable, str(HERE / "upstreams/stdio_tee.py"), *command],
        "env": {"HOLDPOINT_SEEN": str(seen)},
        **({"user": "root"} if os.geteuid() == 0 else {}),
    }
    return Upstream(name, "mcp", "", seen, None, catalog, stdio)


@contextmanager
def recorder(directory: Path) -> Iterator[Upstream]:
    """The recording HTTP API."""
    port, seen = free_port(), directory / "recorder.seen"
    command = [sys.executable, str(HERE / "upstreams/recorder.py"), str(port)]
    process = Process.start("recorder", command, directory / "recorder.log", HOLDPOINT_SEEN=str(seen))
    try:
        process.wait_port(port)
        yield Upstream("notes", "http", f"http://127.0.0.1:{port}", seen, process, NOTES_OPERATIONS)
    finally:
        process.stop()


@contextmanager
def reference(directory: Path) -> Iterator[Upstream]:
    """The reference upstream on rmcp: both eras, with the fixtures of the official conformance suite."""
    port, seen = free_port(), directory / "reference.seen"
    process = Process.start(
        "reference-server",
        [str(CACHE / "reference/debug/reference-server")],
        directory / "reference.log",
        PORT=str(port),
        HOLDPOINT_SEEN=str(seen),
    )
    try:
        process.wait_port(port)
        yield Upstream("reference", "mcp", f"http://127.0.0.1:{port}/mcp", seen, process, REFERENCE_TOOLS)
    finally:
        process.stop()


NGINX = """
daemon off;
worker_processes 1;
pid {dir}/nginx.pid;
error_log {dir}/nginx.error.log warn;
{user}
events {{ worker_connections 512; }}
http {{
  log_format seen escape=json '{{"event":"complete","method":"$request_method","path":"$request_uri",'
    '"status":"$status","body":"$request_body","record":"$http_holdpoint_record","headers":['
    '["holdpoint-record","$http_holdpoint_record"],["authorization","$http_authorization"],'
    '["content-type","$http_content_type"],["user-agent","$http_user_agent"],["via","$http_via"],'
    '["x-forwarded-for","$http_x_forwarded_for"],["accept","$http_accept"],["traceparent","$http_traceparent"]]}}';
  access_log {dir}/nginx.seen seen;
  default_type application/json;
  client_body_buffer_size 1m;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{
    listen 127.0.0.1:{port};
    root {dir}/site;
    location /v1/orders {{ proxy_pass http://127.0.0.1:{inner}; }}
  }}
  server {{
    listen 127.0.0.1:{inner};
    access_log off;
    location / {{ return 201 '{{"accepted": true}}\\n'; }}
  }}
  {more}
}}
"""


@contextmanager
def nginx(directory: Path, more: str = "", ports: tuple[int, ...] = ()) -> Iterator[Upstream]:
    """nginx as somebody's HTTP API: static JSON, a large file, and an endpoint whose requests are in its access log."""
    port, inner = free_port(), free_port()
    site = directory / "site/v1"
    (site / "customers").mkdir(parents=True)
    (site / "customers/7").write_text('{"id": 7, "name": "Zoë", "balance": 9007199254740993}\n', encoding="utf-8")
    (site / "report").write_bytes(bytes(range(256)) * 4 * 1024 * 32)
    user = "user root;" if os.geteuid() == 0 else ""
    config = directory / "nginx.conf"
    config.write_text(NGINX.format(dir=directory, port=port, inner=inner, more=more, user=user))
    command = ["/usr/sbin/nginx", "-p", str(directory), "-c", str(config), "-e", str(directory / "nginx.error.log")]
    process = Process.start("nginx", command, directory / "nginx.log")
    try:
        for each in (port, *ports):
            process.wait_port(each)
        yield Upstream("crm", "http", f"http://127.0.0.1:{port}", directory / "nginx.seen", process, CRM_OPERATIONS)
    finally:
        process.stop()


def tool(level: str, consequence: int = 0, **more: Any) -> Json:
    """A catalogue entry of ours: inside, trusted, so that only class and consequence decide."""
    returns = {"confidentiality": "internal", "integrity": "trusted"}
    return {"class": level, "consequence": consequence, "returns": returns, **more}


EVERYTHING_TOOLS = {
    "echo": tool("read"),
    "get-sum": tool("read"),
    "get-structured-content": tool("read"),
    "get-tiny-image": tool("read"),
    "trigger-long-running-operation": tool("read"),
    "toggle-simulated-logging": tool("write", 1),
    "toggle-subscriber-updates": tool("write", 1),
    "get-env": tool("write", 3),
}
LEDGER_TOOLS = {
    "add": tool("read"),
    "describe": tool("read"),
    "note": tool("write", 1),
    "refund": tool("write", 3),
}
REFERENCE_READS = (
    "greet json_schema_2020_12_tool slow_compute failing_job protocol_error_job multi_input "
    "test_simple_text test_image_content test_audio_content test_embedded_resource test_multiple_content_types "
    "test_tool_with_logging test_logging_tool test_error_handling test_tool_with_progress test_reconnection "
    "test_sampling test_elicitation test_elicitation_sep1034_defaults test_elicitation_sep1330_enums "
    "test_missing_capability test_streaming_elicitation test_tool_with_task test_header_mirror test_slow "
    "test_input_required_result_elicitation test_input_required_result_sampling "
    "test_input_required_result_list_roots test_input_required_result_request_state "
    "test_input_required_result_multiple_inputs test_input_required_result_multi_round "
    "test_input_required_result_tampered_state test_input_required_result_capabilities "
    "completion/complete prompts/get resources/read resources/subscribe resources/unsubscribe "
    "tasks/cancel tasks/get tasks/update elicitation/create roots/list sampling/createMessage"
)
REFERENCE_WRITES = "confirm_delete test_trigger_prompt_change test_trigger_tool_change test_write"
REFERENCE_TOOLS = {
    **{name: tool("read") for name in REFERENCE_READS.split()},
    **{name: tool("write", 1) for name in REFERENCE_WRITES.split()},
}
DESK_TOOLS = {
    "lookup_customer": {**tool("read"), "description": "Finds a customer by name."},
    "read_inbox": tool("read", 1),
    "send_letter": {
        **tool("external", 1, sink={"kind": "message", "destinations": ["/to"], "payload": ["/text"]}),
        "when": [{"destinations": "internal", "class": "write"}],
    },
    "close_account": tool("write", 4, effects=["delete"], reversible=False),
    "pay_refund": tool("write", 3, effects=["spend"], reversible=False),
    "send_voucher": tool("write", 3, reversible=True),
}
NOTES_OPERATIONS = {
    "GET /v1/notes": tool("read"),
    "GET /v1/notes/{id}": tool("read"),
    "POST /v1/notes": tool("write", 1),
    "DELETE /v1/notes/{id}": tool("write", 3),
    "POST /v1/letters": {
        **tool("external", 1, sink={"kind": "message", "destinations": ["/body/to"]}),
        "returns": {"confidentiality": "public", "integrity": "trusted"},
    },
    "GET /v1/events": tool("read"),
    "GET /v1/blob": tool("read"),
    "PUT /v1/blob": tool("write", 1, body="opaque"),
}
CRM_OPERATIONS = {
    "GET /v1/customers/{id}": tool("read"),
    "GET /v1/report": tool("read"),
    "POST /v1/orders": tool("write", 1),
}


def agent(client: str, plan: Json, seconds: float = 120) -> Json:
    """Runs a plan with one real SDK client in a process of its own and returns what that client saw."""
    script = HERE / "clients"
    commands = {
        "python1": [str(CACHE / "python1/bin/python"), str(script / "python1.py")],
        "python2": [str(CACHE / "python2/bin/python"), str(script / "python2.py")],
        "rmcp": [str(CACHE / "reference/debug/reference-client")],
        "typescript1": ["node", str(script / "typescript1.cjs")],
        "typescript2": ["node", str(script / "typescript2.cjs")],
    }
    done = subprocess.run(
        commands[client],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, "HOLDPOINT_NODE": str(CACHE / "node")},
        check=False,
    )
    assert done.returncode == 0, f"{client} ended with {done.returncode}:\n{done.stderr[-4000:]}"
    told: Json = json.loads(done.stdout.strip().splitlines()[-1])
    return told


COLLECTOR = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters:
  file: {{path: {dir}/spans.jsonl, flush_interval: 100ms}}
  debug: {{verbosity: basic}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [file, debug]}}
    metrics: {{receivers: [otlp], exporters: [file, debug]}}
"""


@dataclass
class Collector:
    """The official OpenTelemetry Collector, and the spans it wrote."""

    directory: Path
    port: int
    process: Process

    @property
    def endpoint(self) -> str:
        """Where OTLP over HTTP goes."""
        return f"http://127.0.0.1:{self.port}"

    def spans(self, trace: str | None = None) -> list[Json]:
        """Every span that arrived (of one trace, if given), attributes as a plain mapping."""
        file = self.directory / "spans.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        found = [span for line in lines for span in spans_of(line)]
        return [span for span in found if trace is None or span["traceId"] == trace]


def spans_of(line: str) -> Iterator[Json]:
    """The spans of one exported batch; a line still being written holds none yet."""
    try:
        batch = json.loads(line)
    except ValueError:
        return
    for resource in batch.get("resourceSpans", []):
        for scope in resource.get("scopeSpans", []):
            for span in scope.get("spans", []):
                yield {**span, "attributes": attributes(span.get("attributes", []))}


def attributes(pairs: list[Json]) -> Json:
    """OTLP's typed pairs as a mapping."""
    return {pair["key"]: next(iter(pair["value"].values()), None) for pair in pairs}


@contextmanager
def collector(directory: Path) -> Iterator[Collector]:
    """Starts the collector on a free port."""
    port = free_port()
    config = directory / "collector.yaml"
    config.write_text(COLLECTOR.format(port=port, dir=directory))
    command = [str(CACHE / "collector/build/otelcol-holdpoint"), "--config", str(config)]
    process = Process.start("collector", command, directory / "collector.log")
    try:
        process.wait_port(port)
        yield Collector(directory, port, process)
    finally:
        process.stop()
