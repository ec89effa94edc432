"""People are told of holds: through the receiver that ships, past a receiver that is down and a gateway that is killed, and
with signatures that the official library and OpenSSL verify."""

import base64
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gateway import SUPPORT, Gateway, Person, holdpoint
from parts import CACHE, REPOSITORY, Json, Process, Upstream, free_port, until
from test_console import fetch

OLGA = Person("olga", roles=["oncall", "approver"], teams=["care"])
GUS = Person("gus", roles=["breakglass"], teams=["care"])
SECRET = base64.b64encode(b"a secret of a chat, 32 bytes ok.").decode()
OLD = base64.b64encode(b"the secret that is replaced now.").decode()
ARGUMENT = "4929-1111-2222-3333"
CONSOLE = "https://gateway.internal:8480"
VERIFY = """
import json, sys
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
told = json.load(sys.stdin)
try:
    print(json.dumps(Webhook(told["secret"]).verify(told["body"], told["headers"])))
except WebhookVerificationError as error:
    sys.exit(str(error))
"""


class Listener:
    """An HTTP server in this process that keeps what it was sent, and answers as it is told to."""

    def __init__(self, answers: list[int], port: int = 0) -> None:
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.answers = answers
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                listener.seen.append(({name.lower(): value for name, value in self.headers.items()}, body))
                status = listener.answers.pop(0) if listener.answers else 200
                self.send_response(status)
                if status in {301, 302, 307, 308}:
                    self.send_header("location", f"http://127.0.0.1:{listener.port}/elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = int(self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def events(self) -> list[Json]:
        """The bodies, parsed."""
        return [json.loads(body) for _, body in self.seen]


@contextmanager
def receiver(directory: Path, port: int, chat: Listener) -> Iterator[Process]:
    """The receiver that ships, before a chat."""
    environment = {
        "WEBHOOK_SECRET_FILE": str(directory / "secret"),
        "CHAT_URL": f"http://127.0.0.1:{chat.port}/",
        "LISTEN": f"127.0.0.1:{port}",
    }
    command = ["python3", str(REPOSITORY / "deploy/receiver/receiver.py")]
    process = Process.start("receiver", command, directory / "receiver.log", **environment).wait_port(port)
    yield process
    process.stop()


def private(file: Path, text: str) -> str:
    """A file that only its owner may read."""
    file.touch(mode=0o600)
    file.write_text(text, encoding="ascii")
    return str(file)


def held(gateway: Gateway, upstream: Upstream) -> str:
    """A call that is held; the hold's id."""
    url = f"{gateway.url(upstream)}/v1/unheard-of/{ARGUMENT}"
    answer = json.loads(fetch(gateway, SUPPORT, url, "POST", {"card": ARGUMENT}))
    decision = answer["dev.holdpoint/decision"]
    assert decision["outcome"] in {"held", "pending"}, answer
    return str(decision["hold"])


def command(gateway: Gateway, *words: str, person: Person = OLGA) -> Json:
    """What a person is told by the program."""
    pki = gateway.pki
    where = ["--addr", f"https://localhost:{gateway.admin}", "--cacert", str(pki / "example.org.pem")]
    who = ["--cert", str(pki / f"{person.name}.pem"), "--key", str(pki / f"{person.name}-key.pem"), "--json"]
    told: Json = json.loads(holdpoint(*words, *where, *who).stdout)
    return told


def waiting(gateway: Gateway, *state: str) -> list[Json]:
    """What was not confirmed."""
    told: list[Json] = command(gateway, "notify", "list", *state)["notifications"]
    return told


def deny(gateway: Gateway, hold: str) -> None:
    """Ends a hold."""
    command(gateway, "holds", "deny", hold, "--reason", "a test")


def test_a_hold_reaches_the_chat_through_a_receiver_that_was_down_and_a_gateway_that_was_killed(
    directory: Path, run_gateway: Callable[..., Gateway], recorder: Upstream, figure: Callable[[str, object], None]
) -> None:
    """Nothing is lost, and the chat gets the link and no argument."""
    place, chat, port = directory / "down", Listener([]), free_port()
    place.mkdir()
    secret = private(place / "secret", f"whsec_{SECRET}\n")
    webhook = {"name": "chat", "url": f"http://127.0.0.1:{port}/", "secret_file": secret, "events": ["hold.opened", "hold.ended"]}
    gateway = run_gateway(recorder, people=[OLGA], more={"notify": {"console": CONSOLE, "webhooks": [webhook]}})
    hold = held(gateway, recorder)
    until("the first attempt", lambda: any(one["attempts"] > 0 for one in waiting(gateway)))
    [one] = waiting(gateway, "--state", "waiting")
    assert (one["event"], one["hold"], one["webhook"]) == ("hold.opened", hold, "chat"), one
    assert "not reached" in one["failure"], one
    gateway.kill()
    gateway.start()
    assert [again["id"] for again in waiting(gateway)] == [one["id"]], "it is the same one after kill -9"
    with receiver(place, port, chat) as running:
        deny(gateway, hold)
        until("the chat to be told", lambda: len(chat.seen) == 2)
        texts = [event["text"] for event in chat.events()]
        assert all(f"{CONSOLE}/holds/{hold}" in text for text in texts), texts
        assert "waits for approval" in texts[0] and "has ended, state denied" in texts[1], "in their order"
        assert ARGUMENT not in json.dumps(texts)
        until("everything to be confirmed", lambda: not waiting(gateway))
        # What nobody signed, somebody else signed, or was signed long ago, does not reach the chat.
        now = int(time.time())
        for name, signature, stamp in [("none", "", now), ("forged", "v1," + "A" * 43 + "=", now), ("old", "v1,x", now - 3600)]:
            headers = {"webhook-id": name, "webhook-timestamp": str(stamp), "webhook-signature": signature}
            asked = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", json.dumps({"type": "hold.opened"})]
            for key, value in headers.items():
                asked += ["-H", f"{key}: {value}"]
            done = subprocess.run([*asked, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, timeout=60, check=True)
            assert done.stdout == "401", f"{name}: {done.stdout}\n{running.tail()}"
        assert len(chat.seen) == 2
    figure("notifications_delivered", len(chat.seen))


def test_an_emergency_reaches_the_chat_with_a_link_and_no_reason(
    directory: Path, run_gateway: Callable[..., Gateway], recorder: Upstream
) -> None:
    """Whoever did not open it learns that it is open, and that its review is owed."""
    place, chat, port = directory / "emergency", Listener([]), free_port()
    place.mkdir()
    secret = private(place / "secret", f"whsec_{SECRET}\n")
    webhook = {"name": "chat", "url": f"http://127.0.0.1:{port}/", "secret_file": secret}
    gateway = run_gateway(recorder, people=[OLGA, GUS], more={"notify": {"console": CONSOLE, "webhooks": [webhook]}})
    wish = ["--rule", "hold-high-consequence", "--agent", SUPPORT.id, "--for", "5m", "--reason", f"for {ARGUMENT}"]
    lift = str(command(gateway, "breakglass", "open", *wish, person=GUS)["id"])
    until("the first attempt", lambda: any(one["attempts"] > 0 for one in waiting(gateway)))
    assert [(one["event"], one["lift"], one["hold"]) for one in waiting(gateway)] == [("breakglass.opened", lift, None)]
    gateway.kill()
    gateway.start()
    with receiver(place, port, chat):
        command(gateway, "breakglass", "close", lift, "--reason", "it is over")
        command(gateway, "breakglass", "review", lift, "--reason", "nothing was done")
        until("the chat to be told", lambda: len(chat.seen) == 3)
    texts = [event["text"] for event in chat.events()]
    assert all(f"{CONSOLE}/breakglass#{lift}" in text and "hold-high-consequence" in text for text in texts), texts
    said = ["is open", "was closed: its review is owed", "is reviewed"]
    assert all(words in text for words, text in zip(said, texts, strict=True)), "in their order"
    assert ARGUMENT not in json.dumps(texts) and "spiffe://people.example.org/gus" in texts[0]


def test_every_signature_is_what_the_official_library_and_openssl_verify(
    directory: Path, run_gateway: Callable[..., Gateway], recorder: Upstream
) -> None:
    """Two shared secrets and an Ed25519 key sign; a redirect is a failure; what is tried again has its id."""
    place, raw = directory / "signed", Listener([500, 302])
    place.mkdir()
    pem = place / "key.pem"
    pem.touch(mode=0o600)
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(pem)], check=True, timeout=60)
    secrets = private(place / "secrets", f"whsec_{SECRET}\nwhsec_{OLD}\n")
    webhook = {"name": "raw", "url": f"http://127.0.0.1:{raw.port}/hook?x=1", "secret_file": secrets, "key_file": str(pem), "events": ["hold.opened"]}
    gateway = run_gateway(recorder, people=[OLGA], more={"notify": {"console": f"{CONSOLE}/", "webhooks": [webhook]}})
    hold = held(gateway, recorder)
    until("the third attempt", lambda: len(raw.seen) == 3 and not waiting(gateway))
    assert len({headers["webhook-id"] for headers, _ in raw.seen}) == 1, "each attempt has the same id"
    assert len({body for _, body in raw.seen}) == 1, "and the same body"
    headers, body = raw.seen[-1]
    for secret in (SECRET, OLD):
        told = {"secret": f"whsec_{secret}", "headers": headers, "body": body.decode()}
        assert json.loads(official(told).stdout)["type"] == "hold.opened"
    other = {"secret": f"whsec_{base64.b64encode(bytes(32)).decode()}", "headers": headers, "body": body.decode()}
    assert official(other).returncode != 0, "another secret verifies nothing"
    changed = {"secret": f"whsec_{SECRET}", "headers": headers, "body": body.decode().replace("pending", "approved")}
    assert official(changed).returncode != 0, "nor is another body verified"
    asymmetric = next(one for one in headers["webhook-signature"].split(" ") if one.startswith("v1a,"))
    (place / "signature").write_bytes(base64.b64decode(asymmetric.removeprefix("v1a,")))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    (place / "signed").write_bytes(signed)
    check = ["openssl", "pkeyutl", "-verify", "-rawin", "-inkey", str(pem), "-in", str(place / "signed"), "-sigfile", str(place / "signature")]
    subprocess.run(check, check=True, timeout=60, capture_output=True)
    event = json.loads(body)
    assert event["link"] == f"{CONSOLE}/holds/{hold}" and event["data"]["hold"] == hold, event
    assert event["data"]["state"] == "pending" and event["data"]["agent"] == SUPPORT.id, event
    assert ARGUMENT not in json.dumps(event["data"].get("digest"))
    deny(gateway, hold)


def official(told: Json) -> subprocess.CompletedProcess[str]:
    """The official package for Python, in an environment of its own."""
    python = str(CACHE / "webhooks/bin/python")
    return subprocess.run([python, "-c", VERIFY], input=json.dumps(told), capture_output=True, text=True, timeout=60, check=False)


def test_what_nobody_takes_is_dead_after_its_bound_and_can_be_told_again(
    directory: Path, run_gateway: Callable[..., Gateway], recorder: Upstream
) -> None:
    """It is listed, counted, and delivered after all once somebody asks for it."""
    place, port = directory / "dead", free_port()
    place.mkdir()
    secret = private(place / "secret", f"whsec_{SECRET}\n")
    webhook = {"name": "pager", "url": f"http://127.0.0.1:{port}/", "secret_file": secret, "events": ["hold.opened"]}
    more = {"notify": {"console": CONSOLE, "give_up_after": "2s", "webhooks": [webhook]}}
    gateway = run_gateway(recorder, people=[OLGA], more=more)
    hold = held(gateway, recorder)
    [dead] = until("it to be given up", lambda: waiting(gateway, "--state", "dead"))
    assert dead["hold"] == hold and dead["attempts"] >= 1, dead
    until("the metric", lambda: "holdpoint_notifications_dead 1" in gateway.metrics())
    assert 'outcome="dead"' in gateway.metrics()
    pager = Listener([], port)
    told = command(gateway, "notify", "retry", dead["id"])
    assert told["id"] == dead["id"] and told["state"] == "waiting", told
    until("it to be delivered", lambda: len(pager.seen) == 1 and not waiting(gateway))
    assert pager.seen[0][0]["webhook-id"] == dead["id"], "under the id that it always had"
    until("the metric", lambda: "holdpoint_notifications_dead 0" in gateway.metrics())
    deny(gateway, hold)
