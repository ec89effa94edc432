"""The proxies side by side: Holdpoint, Envoy and nginx, one worker each, with certificates of the same CA."""

import json
import os
import shutil
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import gateway
from gateway import DOMAIN, SUPPORT, Agent, Gateway
from machine import PROXY_CORE, Memory, by_thread, cpu_ns, memory, pinned
from parts import CACHE, Json, Process, Upstream, free_port, tool, until
from upstream import SIZES

FLOOD = Agent("agent/flood")
POLICIES = 100
GENEROUS = 1_000_000  # a second: counted, and never reached
PUBLIC: Json = {"returns": {"confidentiality": "public", "integrity": "trusted"}}
CATALOG_TOOLS = {"lookup": tool("read", 1), "note": tool("write", 1), "price": tool("read", 1, **PUBLIC)}
CATALOG_HTTP = {f"GET /v1/{size}": tool("read", 1) for size in SIZES} | {"GET /v1/events": tool("read", 1)}


@dataclass
class Ports:
    """What stands behind the proxies."""

    constants: int
    streams: int
    otlp: str | None
    standing: int = 0


@dataclass
class Proxy:
    """One of the proxies while it runs."""

    name: str
    base: str
    process: Process
    pki: Path
    health: int = 0

    @property
    def pid(self) -> int:
        """The process, or the first of its processes."""
        return self.process.popen.pid

    def cpu_ns(self) -> int:
        """The time that it has run so far."""
        return cpu_ns(self.pid)

    def memory(self) -> Memory:
        """What it occupies now."""
        return memory(self.pid)

    def by_thread(self) -> dict[str, int]:
        """The same, by the names of threads."""
        return by_thread(self.pid)

    def metric(self, name: str) -> int:
        """The sum of a counter over its labels; nothing where there are no metrics."""
        if not self.health:
            return 0
        with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/metrics", timeout=5) as response:
            lines = str(response.read(), "utf-8").splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith(name))

    def files(self, agent: Agent = SUPPORT) -> list[str]:
        """oha's options for an agent's certificate; none where there is no TLS."""
        if self.base.startswith("http://"):
            return []
        named = {"--cacert": f"{DOMAIN}.pem", "--cert": f"{agent.short}.pem", "--key": f"{agent.short}-key.pem"}
        return [word for option, file in named.items() for word in (option, str(self.pki / file))]

    def tls(self, agent: Agent, *alpn: str) -> ssl.SSLContext:
        """A context that presents an agent's certificate."""
        context = ssl.create_default_context(cafile=str(self.pki / f"{DOMAIN}.pem"))
        context.load_cert_chain(str(self.pki / f"{agent.short}.pem"), str(self.pki / f"{agent.short}-key.pem"))
        context.set_alpn_protocols(list(alpn))
        return context

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.base.rsplit(":", 1)[1])


def issue(directory: Path) -> Path:
    """The development CA and the certificates that all proxies and all loads share."""
    made = directory / "pki"
    gateway.holdpoint("pki", "init", "--dir", str(made))
    for agent in (SUPPORT, FLOOD):
        gateway.holdpoint("pki", "issue", "--agent", agent.path, "--dir", str(made))
    return made


def filler(count: int) -> str:
    """Policies about other tools: half name theirs, half must be evaluated to see that they do not apply."""
    rules = []
    for number in range(count):
        head = f'@id("other-{number}") @public("other")\nforbid (principal, action in Holdpoint::Action::"invoke", '
        if number % 2:
            rules.append(f'{head}resource == Holdpoint::Tool::"other/tool{number}")\nwhen {{ principal.risk >= 2 }};\n')
        else:
            where = f'resource.upstream == "other{number}" && context.consequence >= 2 && !resource.reversible'
            rules.append(f"{head}resource)\nwhen {{ {where} }};\n")
    return "\n".join(rules)


@dataclass
class Measured(Gateway):
    """A gateway with every control on, on one core with one worker thread."""

    shared_pki: Path = Path()
    policies: int = POLICIES
    program: str = ""
    preload: str = ""
    off: str = ""
    socket: str = ""
    agents: list[Agent] = field(default_factory=lambda: [SUPPORT, FLOOD])

    def issue(self) -> None:
        """All proxies have the same certificates."""
        shutil.copytree(self.shared_pki, self.pki)

    def configuration(self) -> Json:
        """With a socket for the machine's root where one is asked for: then records are indexed."""
        made = super().configuration()
        if self.socket:
            made["listeners"].append({"name": "admin", "kind": "admin", "address": f"unix://{self.directory}/{self.socket}"})
        return made

    def copy_policies(self) -> None:
        """The policies that ship, and others until there are as many as asked for."""
        super().copy_policies()
        texts = [file.read_text(encoding="utf-8") for file in (self.directory / "policies").glob("*.cedar")]
        missing = self.policies - sum(text.count("@id(") for text in texts)
        if missing > 0:
            (self.directory / "policies/other.cedar").write_text(filler(missing), encoding="utf-8")

    def start(self) -> "Measured":
        """Starts it on the proxies' core and waits until it is ready."""
        command = [self.program or gateway.binary(), "serve", "--config", str(self.directory / "holdpoint.yaml")]
        more = {"HOLDPOINT_BENCH_OFF": self.off, "HOLDPOINT_BENCH_AGENT": SUPPORT.id} if self.off else {}
        if self.preload:
            more["LD_PRELOAD"] = self.preload
        log = self.directory / "gateway.log"
        self.process = Process.start("holdpoint", pinned(PROXY_CORE, command), log, TOKIO_WORKER_THREADS="1", **more)
        until("the gateway to be ready", self.ready, pause=0.02)
        return self


LIMITS: list[Json] = [
    {"per": "certificate", "rate": f"{GENEROUS}/s", "burst": GENEROUS},
    {"per": "agent", "rate": f"{GENEROUS}/s", "burst": GENEROUS},
    {"per": ["agent", "tool"], "rate": f"{GENEROUS}/s", "burst": GENEROUS, "concurrency": 20_000},
]


def upstreams(ports: Ports) -> list[Upstream]:
    """One MCP server for each size of reply, the HTTP API, and the streams."""
    nowhere: Any = Path(os.devnull)
    process: Any = None  # not started here, and not asked what it saw
    behind = [("api", "http", f"http://127.0.0.1:{ports.constants}", CATALOG_HTTP)]
    behind += [("events", "http", f"http://127.0.0.1:{ports.streams}", CATALOG_HTTP)]
    if ports.standing:
        behind.append(("standing", "mcp", f"http://127.0.0.1:{ports.standing}/mcp", CATALOG_TOOLS))
    for size in SIZES:
        behind.append((f"tools-{size}", "mcp", f"http://127.0.0.1:{ports.constants}/tools-{size}/mcp", CATALOG_TOOLS))
    return [Upstream(name, kind, url, nowhere, process, tools) for name, kind, url, tools in behind]


@contextmanager
def holdpoint(
    directory: Path, pki: Path, ports: Ports, name: str = "holdpoint", **options: object
) -> Iterator[Proxy]:
    """Holdpoint: mTLS, registry, catalogue, limits, labels, 100 policies, audit, and a span for every stage."""
    place = directory / name
    shutil.rmtree(place, ignore_errors=True)
    settings: Json = {"limits": LIMITS, "otlp": ports.otlp, "more": {"bounds": {"connections_max": 20_000}}, **options}
    run = Measured(place, upstreams(ports), shared_pki=pki, **settings).prepare()
    try:
        run.start()
        assert run.process is not None
        scheme = "http" if "tls" in run.off.split(",") else "https"
        yield Proxy(name, f"{scheme}://127.0.0.1:{run.port}", run.process, pki, run.health)
    finally:
        run.stop()
        shutil.rmtree(place / "state", ignore_errors=True)  # gigabytes, after a load


ENVOY = Path(__file__).with_name("envoy.yaml")


@contextmanager
def envoy(directory: Path, pki: Path, ports: Ports) -> Iterator[Proxy]:
    """Envoy: mTLS, the MCP filter, RBAC on SPIFFE ID and method, a local rate limit."""
    port = free_port()
    text = ENVOY.read_text(encoding="utf-8")
    told = {"PORT": port, "PKI": pki, "CONSTANTS": ports.constants, "STREAMS": ports.streams, "AGENT": SUPPORT.id}
    for word, value in told.items():
        text = text.replace(f"@{word}@", str(value))
    config = directory / "envoy.json"
    config.write_text(json.dumps(yaml.safe_load(text)), encoding="utf-8")
    options = ["--config-path", str(config), "--concurrency", "1", "--log-level", "warning", "--use-dynamic-base-id"]
    command = [str(CACHE / "envoy/bin/envoy"), *options]
    process = Process.start("envoy", pinned(PROXY_CORE, command), directory / "envoy.log").wait_port(port)
    try:
        yield Proxy("envoy", f"https://127.0.0.1:{port}", process, pki)
    finally:
        process.stop()


NGINX = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {dir}/proxy.pid;
error_log {dir}/proxy.error.log warn;
{user}
events {{ worker_connections 18000; }}
http {{
  access_log off;
  client_body_temp_path {dir}/p-body; proxy_temp_path {dir}/p-proxy; fastcgi_temp_path {dir}/p-fastcgi;
  uwsgi_temp_path {dir}/p-uwsgi; scgi_temp_path {dir}/p-scgi;
  keepalive_requests 1000000000; keepalive_timeout 600s;
  upstream constants {{
    server 127.0.0.1:{constants};
    keepalive 256; keepalive_requests 1000000000; keepalive_timeout 600s;
  }}
  server {{
    listen 127.0.0.1:{port} ssl http2 backlog=4096;
    ssl_protocols TLSv1.3;
    ssl_certificate {pki}/gateway.pem;
    ssl_certificate_key {pki}/gateway-key.pem;
    ssl_client_certificate {pki}/example.org.pem;
    ssl_verify_client on;
    ssl_session_tickets off;
    ssl_session_cache off;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    location / {{ proxy_pass http://constants; }}
    location /events/ {{ proxy_pass http://127.0.0.1:{streams}/; proxy_read_timeout 600s; }}
  }}
}}
"""


@contextmanager
def nginx(directory: Path, pki: Path, ports: Ports) -> Iterator[Proxy]:
    """nginx: mTLS, and everything passed through."""
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    config = directory / "proxy.conf"
    told = {"constants": ports.constants, "streams": ports.streams}
    config.write_text(NGINX.format(dir=directory, port=port, pki=pki, user=user, **told), encoding="utf-8")
    errors = str(directory / "proxy.error.log")
    command = ["/usr/sbin/nginx", "-p", str(directory), "-c", str(config), "-e", errors]
    process = Process.start("nginx", pinned(PROXY_CORE, command), directory / "proxy.log").wait_port(port)
    try:
        yield Proxy("nginx", f"https://127.0.0.1:{port}", process, pki)
    finally:
        process.stop()
