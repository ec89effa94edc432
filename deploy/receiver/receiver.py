#!/usr/bin/env python3
"""Receives Holdpoint's webhooks, verifies them, and posts the link of each to a chat's incoming webhook.

WEBHOOK_SECRET_FILE has the secret (whsec_…, one a line while it is replaced); CHAT_URL is where {"text": …} is posted.
LISTEN is 127.0.0.1:9000 by default: put a server that speaks TLS before it, or let it run beside the gateway.
"""

import base64
import hashlib
import hmac
import json
import os
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BODY_BYTES_MAX = 64 * 1024
AGE_SECONDS_MAX = 300
TEXT_CHARS_MAX = 100
NAMES_MAX = 5
WORDS = {
    "hold.opened": "waits for approval", "hold.escalated": "still waits: half of its time is over",
    "hold.expiring": "expires soon", "hold.ended": "has ended", "hold.voted": "has a vote", "hold.released": "runs",
    "breakglass.opened": "is open", "breakglass.closed": "was closed: its review is owed",
    "breakglass.expired": "has ended: its review is owed", "breakglass.unreviewed": "ended 12 hours ago, and nobody has reviewed it",
    "breakglass.reviewed": "is reviewed",
}


def verified(secrets: list[bytes], headers: dict[str, str], body: bytes) -> bool:
    """Whether a signature of a secret that is known here is among them, of just now."""
    stamp = headers.get("webhook-timestamp", "")
    if not (stamp.isascii() and stamp.isdigit()) or abs(time.time() - int(stamp)) > AGE_SECONDS_MAX:
        return False
    signed = f"{headers.get('webhook-id', '')}.{stamp}.".encode() + body
    known = [b"v1," + base64.b64encode(hmac.new(each, signed, hashlib.sha256).digest()) for each in secrets]
    given = headers.get("webhook-signature", "").encode().split(b" ")
    return any(hmac.compare_digest(one, other) for one in known for other in given)


def plain(value: object) -> str:
    """A value as text that a chat takes for nothing but text: an agent may have chosen the name of a tool."""
    text = "".join(c if c.isascii() and c.isprintable() and c not in "<>&*_~`@|[]()!" else "?" for c in str(value))
    return text[:TEXT_CHARS_MAX]


def message(event: dict[str, object]) -> str:
    """One line for people, and the link. What decides is the page behind it, never this chat."""
    data = event["data"]
    assert isinstance(data, dict)
    if str(event["type"]).startswith("breakglass."):
        whom = ", ".join(plain(one) for one in [*data["agents"], *data["groups"], *data["upstreams"]][:NAMES_MAX])
        rules = ", ".join(plain(rule) for rule in data["rules"][:NAMES_MAX])
        what = f"Break-glass by {plain(data['opened_by'])}, lifting {rules} for {whom},"
        return f"{what} {WORDS.get(str(event['type']), 'changed')}. {event['link']}"
    what = f"{plain(data['agent'])}: {plain(data['upstream'])} {plain(data['tool'])} (consequence {int(data['consequence'])})"
    return f"{what} {WORDS.get(str(event['type']), 'changed')}, state {plain(data['state'])}. {event['link']}"


class Receiver(BaseHTTPRequestHandler):
    """Confirms what was verified and passed on, and nothing else: Holdpoint sends the rest again."""

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        if not 0 < length <= BODY_BYTES_MAX:
            return self.send_error(413)
        body = self.rfile.read(length)
        secrets = [base64.b64decode(line.removeprefix("whsec_")) for line in Path(os.environ["WEBHOOK_SECRET_FILE"]).read_text().split()]
        if not verified(secrets, {name.lower(): value for name, value in self.headers.items()}, body):
            return self.send_error(401)
        # At least once: whoever must not say a thing twice keeps the webhook-id of what was passed on.
        text = json.dumps({"text": message(json.loads(body))}).encode()
        chat = urllib.request.Request(os.environ["CHAT_URL"], text, {"content-type": "application/json"})
        try:
            urllib.request.urlopen(chat, timeout=10).close()
        except OSError:
            return self.send_error(502)
        self.send_response(204)
        self.end_headers()


if __name__ == "__main__":
    host, port = os.environ.get("LISTEN", "127.0.0.1:9000").rsplit(":", 1)
    ThreadingHTTPServer((host, int(port)), Receiver).serve_forever()
