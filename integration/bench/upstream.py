"""What all proxies stand in front of: nginx with constant answers, and a server of event streams that idle."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from machine import LOAD_CORE, pinned
from parts import HERE, Process, free_port

# Sizes of replies: the words that paths and rows are named by.
SIZES = {"small": 200, "1k": 1024, "64k": 64 * 1024, "1m": 1024 * 1024}
IN_CONFIGURATION_MAX = 2048  # nginx takes no longer words; what is larger is a file


@dataclass(frozen=True)
class Work:
    """One kind of request, and the reply that proves it arrived."""

    name: str
    path: str
    reply_bytes: int
    body: str | None = None

    @property
    def method(self) -> str:
        """POST when there is something to say."""
        return "GET" if self.body is None else "POST"


def reply(size: int) -> str:
    """A `tools/call` result of exactly this size."""
    result = {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": ""}], "isError": False}}
    frame = json.dumps(result, separators=(",", ":"))
    return frame.replace('"text":""', '"text":"' + "x" * (size - len(frame)) + '"')


def call(tool: str) -> str:
    """A `tools/call` of about 200 bytes."""
    arguments = {"query": "refund for order 4711, please", "customer": "c-1000-2000", "limit": 10, "note": "w" * 24}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    return json.dumps(message, separators=(",", ":"))


def http_work(size: str) -> Work:
    """A GET whose reply has one of the sizes."""
    return Work(f"http_{size}", f"/api/v1/{size}", SIZES[size])


def tool_work(size: str, tool: str = "lookup") -> Work:
    """A `tools/call` whose reply has one of the sizes."""
    return Work(f"tools_{size}", f"/tools-{size}/mcp", SIZES[size], call(tool))


NGINX = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {dir}/upstream.pid;
error_log {dir}/upstream.error.log warn;
{user}
events {{ worker_connections 9000; }}
http {{
  access_log off;
  default_type application/json;
  sendfile on; tcp_nopush on;
  open_file_cache max=16; open_file_cache_valid 600s;
  keepalive_requests 1000000000; keepalive_timeout 600s;
  client_body_temp_path {dir}/u-body; proxy_temp_path {dir}/u-proxy; fastcgi_temp_path {dir}/u-fastcgi;
  uwsgi_temp_path {dir}/u-uwsgi; scgi_temp_path {dir}/u-scgi;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    root {dir}/site;
    {locations}
  }}
}}
"""


def location(directory: Path, paths: list[str], text: str) -> str:
    """Answers the paths with a text, whatever the method."""
    if len(text) <= IN_CONFIGURATION_MAX:
        return "".join(f"location = {path} {{ return 200 '{text}'; }}\n" for path in paths)
    file = directory / "site/files" / paths[0].strip("/").replace("/", "-")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="ascii")
    # A file is for GET alone: what a POST is told instead is made that file.
    send = f"try_files /files/{file.name} =404; error_page 405 =200 /files/{file.name};"
    return "".join(f"location = {path} {{ {send} }}\n" for path in paths)


@contextmanager
def constants(directory: Path) -> Iterator[int]:
    """nginx on plain HTTP with one worker: constant answers for every kind of work. Gives its port."""
    port = free_port()
    locations = ""
    for size in SIZES:
        for work, text in ((http_work(size), "y" * SIZES[size]), (tool_work(size), reply(SIZES[size]))):
            # The gateway takes the upstream's name off a path of plain HTTP; the others pass paths on.
            locations += location(directory, list({work.path: 0, work.path.removeprefix("/api"): 0}), text)
    user = "user root;" if os.geteuid() == 0 else ""
    config = directory / "upstream.conf"
    config.write_text(NGINX.format(dir=directory, port=port, locations=locations, user=user), encoding="utf-8")
    errors = str(directory / "upstream.error.log")
    command = ["/usr/sbin/nginx", "-p", str(directory), "-c", str(config), "-e", errors]
    process = Process.start("upstream", pinned(LOAD_CORE, command), directory / "upstream.log")
    try:
        process.wait_port(port)
        yield port
    finally:
        process.stop()


@contextmanager
def streams(directory: Path, rate: int = 0) -> Iterator[int]:
    """A server whose every answer is an event stream with one event and then silence, or so many events a second over
    all streams. Gives its port."""
    port = free_port()
    command = [sys.executable, str(HERE / "bench/idle_streams.py"), str(port), str(rate)]
    process = Process.start("streams", pinned(LOAD_CORE, command), directory / "streams.log")
    try:
        process.wait_port(port)
        yield port
    finally:
        process.stop()
