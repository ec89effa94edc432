"""Loopback listeners for agents without client certificates: what comes in plain goes to the gateway as one agent."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from gateway import Agent, Gateway, binary
from parts import Process, Upstream, free_port

KINDS = ("connect", "nginx")
NGINX = """
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/nginx.error.log warn;
{user}
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {gateway}/{upstream}/;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_read_timeout 1h;
      proxy_ssl_protocols TLSv1.3;
      proxy_ssl_certificate {cert};
      proxy_ssl_certificate_key {key};
      proxy_ssl_trusted_certificate {ca};
      proxy_ssl_verify on;
      proxy_ssl_name localhost;
    }}
  }}
}}
"""


def kind() -> str:
    """Which one: HOLDPOINT_SHIM, else `holdpoint connect`."""
    chosen = os.environ.get("HOLDPOINT_SHIM", KINDS[0])
    assert chosen in KINDS, f"HOLDPOINT_SHIM is one of {', '.join(KINDS)}"
    return chosen


@contextmanager
def shim(gateway: Gateway, agent: Agent, upstream: Upstream) -> Iterator[str]:
    """A plain URL on 127.0.0.1 at which this agent reaches this upstream through the gateway."""
    port = free_port()
    directory = gateway.directory / f"shim-{agent.short}-{port}"
    directory.mkdir(parents=True)
    files = gateway.credentials(agent)
    if kind() == "connect":
        command = [binary(), "connect", "--gateway", gateway.base, "--upstream", upstream.name]
        command += ["--listen", f"127.0.0.1:{port}", "--no-local-auth"]
        command += ["--cert", files["cert"], "--key", files["key"], "--bundle", files["ca"]]
    else:
        user = "user root;" if os.geteuid() == 0 else ""
        config = directory / "nginx.conf"
        values = {"dir": directory, "port": port, "gateway": gateway.base, "upstream": upstream.name, "user": user}
        config.write_text(NGINX.format(**values, **files), encoding="utf-8")
        command = ["/usr/sbin/nginx", "-p", str(directory), "-c", str(config), "-e", str(directory / "nginx.error.log")]
    process = Process.start(f"shim ({kind()})", command, directory / "shim.log")
    try:
        process.wait_port(port)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.stop()
