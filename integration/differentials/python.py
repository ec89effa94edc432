"""Says how Python reads requests: json.loads on the bytes, as web frameworks do, and urllib.

A line on standard input is a kind (json, query, path) and the bytes in Base64; a line of JSON on standard output is what
was read, or {"ok": false}.
"""

import base64
import json
import posixpath
import sys
import urllib.parse
from collections.abc import Callable
from typing import Any

Told = dict[str, Any]


def member(value: object, key: str) -> Any:
    """A member of an object; nothing of anything else."""
    return value.get(key) if isinstance(value, dict) else None


def read_json(text: bytes) -> Told:
    """A call."""
    read = json.loads(text)
    params = member(read, "params")
    given = member(params, "arguments")
    return {
        "method": member(read, "method"),
        "id": member(read, "id"),
        "name": member(params, "name"),
        "arguments": given,
        "mode": member(given, "mode"),
    }


def read_query(text: bytes) -> Told:
    """The pairs of a query or a form, by key."""
    pairs = urllib.parse.parse_qs(text.decode("latin-1"), keep_blank_values=True, errors="strict")
    return {"pairs": pairs}


def read_path(text: bytes) -> Told:
    """A path as a file server would take it."""
    found = urllib.parse.unquote(urllib.parse.urlsplit(text.decode("latin-1")).path, errors="strict")
    normal = posixpath.normpath(found)
    return {"path": normal + "/" if found.endswith("/") and normal != "/" else normal}


READERS: dict[str, Callable[[bytes], Told]] = {"json": read_json, "query": read_query, "path": read_path}

for line in sys.stdin:
    kind, _, encoded = line.rstrip("\n").partition(" ")
    try:
        told = json.dumps({"ok": True, **READERS[kind](base64.b64decode(encoded))})
    except (ValueError, RecursionError):
        told = json.dumps({"ok": False})
    print(told)
