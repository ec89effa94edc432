"""kill -9 over calls that wait for people: none is lost, none runs twice, none runs that people did not approve.

Agents make calls of high consequence and repeat them, people approve, deny or leave them, and the gateway is killed at
random moments and started again: some of them at random altogether, most a few milliseconds after a step in the life of
a hold has begun. After each kill it is read from what is on the disk at which moments holds stood (`moments.py`). The
upstream lives through it all, and what it saw is the judge.

    integration/chaos.py [HOLDS]        HOLDPOINT_BIN names the binary; CHAOS_SEED makes the moments the same again
"""

import http.client
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import moments

HOLDS = int(sys.argv[1]) if len(sys.argv) > 1 else 100
SEED = int(os.environ.get("CHAOS_SEED", "20261121"))
BINARY = os.environ.get("HOLDPOINT_BIN", "target/release/holdpoint")
AGENTS = 8
"""Workers of one agent, each with a call of its own at a time."""
TTL = 20
"""How long a hold waits, in seconds."""
PATIENCE = 240
"""How long everything may take, in seconds, beside a second for each call."""
STEPS = {"any": 0.0, "approve": 0.02, "approved": 0.03, "deny": 0.015, "expiry": 0.04, "opened": 0.02, "sent": 0.07}
"""The steps at which the gateway is killed, and within how many seconds after each."""
STEP_SECONDS_MAX = 3
"""How long a step is waited for."""
REPOSITORY = Path(__file__).resolve().parent.parent
BROKEN = (OSError, http.client.HTTPException, ssl.SSLError)


class Upstream:
    """An API that remembers which calls reached it, and under which hold: the gateway names it as the idempotency key."""

    def __init__(self) -> None:
        self.ran: list[tuple[int, str]] = []
        self.reached: Callable[[str], None] = lambda _: None
        lock, upstream = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    upstream.ran.append((body["n"], self.headers.get("idempotency-key", "")))
                upstream.reached("sent")
                # Sometimes long enough to be killed within.
                time.sleep(random.random() * 0.05)
                reply = b'{"done":true}'
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(reply)))
                self.end_headers()
                try:
                    self.wfile.write(reply)
                except OSError:
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # A gateway that is killed breaks its connections off.
        self.server.handle_error = lambda *_: None
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Gateway:
    """The gateway: the same ports and state through every life of it."""

    def __init__(self, directory: Path, upstream: int) -> None:
        self.directory, self.agents, self.admin = directory, free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.contexts: dict[str, ssl.SSLContext] = {}
        self.lives = 0
        self.command("pki", "init", "--dir", str(directory / "pki"))
        self.command("pki", "issue", "--agent", "agent/support", "--dir", str(directory / "pki"))
        self.command("pki", "issue", "--person", "olga", "--dir", str(directory / "pki"))
        owners = "{business: ana@example.org, technical: sre@example.org, risk: risk@example.org}"
        (directory / "agents.yaml").write_text(
            "- {id: spiffe://example.org/agent/support, team: care, autonomy: constrained, state: active, risk: 1, "
            f"owner: {owners}}}\n"
        )
        (directory / "people.yaml").write_text(
            "- {id: spiffe://people.example.org/olga, email: olga@example.org, roles: [oncall], teams: [care]}\n"
        )
        (directory / "crm.yaml").write_text(
            'tools:\n  "POST /do": {class: write, consequence: 3, reversible: true, '
            "returns: {confidentiality: public, integrity: trusted}}\n"
        )
        (directory / "holdpoint.yaml").write_text(f"""
organization: {{name: example, internal: ["*@example.org"]}}
trust:
  identity: {{cert: pki/gateway.pem, key: pki/gateway-key.pem}}
  domains:
    example.org: {{bundle: pki/example.org.pem, roles: [agents]}}
    people.example.org: {{bundle: pki/people.pem, roles: [people]}}
listeners:
  - {{name: agents, kind: agents, address: "127.0.0.1:{self.agents}"}}
  - {{name: admin, kind: admin, address: "127.0.0.1:{self.admin}"}}
agents: agents.yaml
people: people.yaml
upstreams:
  - {{name: crm, kind: http, url: "http://127.0.0.1:{upstream}", catalog: crm.yaml, breaker: {{failures: 0}}}}
policy: {{cedar: "{REPOSITORY / "policies"}"}}
limits: [{{per: agent, rate: 100000/s, burst: 100000}}]
holds: {{ttl: {TTL}s, pending_max: 1000, wait: 5s}}
audit: {{dir: state/audit}}
keys: {{dir: state/keys}}
""")

    def command(self, *arguments: str) -> str:
        """Runs one command of the binary."""
        done = subprocess.run([BINARY, *arguments], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            sys.exit(f"holdpoint {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self) -> None:
        """Starts it, and waits until it serves people."""
        log = (self.directory / "log").open("ab")
        config = str(self.directory / "holdpoint.yaml")
        self.process = subprocess.Popen([BINARY, "serve", "--config", config], stdout=log, stderr=log)
        self.lives += 1
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                self.ask(self.admin, "olga", "GET", "/v1/health")
                return
            except BROKEN:
                time.sleep(0.02)
        sys.exit(f"the gateway did not start:\n{(self.directory / 'log').read_text()[-3000:]}")

    def kill(self) -> None:
        """kill -9."""
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def tls(self, who: str) -> ssl.SSLContext:
        """How somebody comes. Made once: reading the files takes longer than a request."""
        if who not in self.contexts:
            pki = self.directory / "pki"
            tls = ssl.create_default_context(cafile=str(pki / "example.org.pem"))
            tls.load_cert_chain(pki / f"{who}.pem", pki / f"{who}-key.pem")
            self.contexts[who] = tls
        return self.contexts[who]

    def ask(
        self, port: int, who: str, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict]:
        """One request on a connection of its own: status and JSON."""
        connection = http.client.HTTPSConnection("localhost", port, context=self.tls(who), timeout=30)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"content-type": "application/json", **(headers or {})})
            reply = connection.getresponse()
            read = reply.read()
            return reply.status, json.loads(read) if read else {}
        finally:
            connection.close()


class Chaos:
    """What was asked, decided and told."""

    def __init__(self, gateway: Gateway, upstream: Upstream) -> None:
        self.gateway, self.upstream, self.chance = gateway, upstream, random.Random(SEED)
        self.lock, self.over = threading.Lock(), threading.Event()
        # By hold: what was asked for, whether or not the answer came; and what was surely so.
        self.asked_approve: set[str] = set()
        self.surely: dict[str, str] = {}
        self.of: dict[int, set[str]] = {}
        self.told: dict[int, str] = {}
        # Votes that were asked for and not answered, and holds that nobody decides, with the end of their time.
        self.asking: dict[str, str] = {}
        self.left: dict[str, float] = {}
        # The step at which the gateway is killed next, and that it has come.
        self.step, self.come = "any", threading.Event()
        self.kills: Counter[str] = Counter()
        self.moments: Counter[str] = Counter()
        upstream.reached = self.reached

    def reached(self, step: str) -> None:
        """That a step has begun."""
        if self.step == step:
            self.come.set()

    def agent(self, n: int) -> None:
        """One call, repeated as the gateway asks, until it is told an end."""
        seen: set[str] = set()
        while not self.over.is_set():
            try:
                status, body = self.gateway.ask(
                    self.gateway.agents, "support", "POST", "/crm/do", {"n": n}, {"prefer": "wait=2"}
                )
            except BROKEN:
                time.sleep(0.05)
                continue
            decision = body.get("dev.holdpoint/decision", {})
            if hold := decision.get("hold"):
                with self.lock:
                    self.of.setdefault(n, set()).add(hold)
            kind = body.get("type", "").rsplit(":", 1)[-1]
            if status == 200:
                self.told[n] = "reply"
                return
            if status in {403, 409}:
                self.told[n] = kind
                return
            if hold:
                if hold not in seen:
                    self.reached("opened")
                seen.add(hold)
            if len(seen) > 1:
                # The hold of before has expired, and this one would need another decision.
                self.told[n] = "expired"
                return
            time.sleep(0.01)

    def people(self) -> None:
        """Approves most, denies some, and leaves some to expire."""
        while not self.over.is_set():
            try:
                _, body = self.gateway.ask(self.gateway.admin, "olga", "GET", "/v1/holds?state=pending")
                for hold in body.get("holds", []):
                    self.decide(hold)
            except BROKEN:
                pass
            time.sleep(0.02)

    def decide(self, hold: dict) -> None:
        """What one hold gets; it stays what it was if nobody can tell whether it came through."""
        name = hold["id"]
        if name in self.left:
            return
        _, shown = self.gateway.ask(self.gateway.admin, "olga", "GET", f"/v1/holds/{name}")
        if not shown.get("text"):
            return
        number = json.loads(shown["text"])["body"]["json"]["n"]
        with self.lock:
            self.of.setdefault(number, set()).add(name)
        roll = random.Random(f"{SEED}{name}").random()
        if roll > 0.97:
            self.left[name] = datetime.fromisoformat(hold["expires"]).timestamp()
            return
        verb = "approve" if roll < 0.85 else "deny"
        if verb == "approve":
            self.asked_approve.add(name)
        body = {"digest": hold["digest"], "reason": "chaos"}
        self.asking[name] = verb
        self.reached(verb)
        status, _ = self.gateway.ask(self.gateway.admin, "olga", "POST", f"/v1/holds/{name}/{verb}", body)
        if status == 200:
            self.surely[name] = verb
            self.asking.pop(name, None)
            if verb == "approve":
                self.reached("approved")

    def killer(self) -> None:
        """Ends the gateway at one step after the other, and starts it again."""
        while not self.over.wait(self.chance.uniform(0.1, 1.0)):
            step = self.chance.choice(list(STEPS))
            self.await_step(step)
            if self.over.is_set():
                return
            time.sleep(self.chance.uniform(0, STEPS[step]))
            self.gateway.kill()
            killed = time.time()
            self.kills[step] += 1
            # Those whose connection broke off stay asked for; later ones are the next life's.
            time.sleep(0.02)
            reached = {hold for _, hold in list(self.upstream.ran)}
            self.moments += moments.found(self.gateway.directory / "state", killed, dict(self.asking), reached)
            self.asking.clear()
            self.gateway.start()

    def await_step(self, step: str) -> None:
        """Waits until a step has begun, or a while."""
        if step == "any":
            self.over.wait(self.chance.uniform(0.2, 2.0))
        elif step == "expiry":
            # As near as it gets: from a little before it on.
            soon = [end - time.time() for end in self.left.values() if 0.05 < end - time.time() < STEP_SECONDS_MAX]
            self.over.wait(min(soon) - 0.02 if soon else 0)
        else:
            self.come.clear()
            self.step = step
            self.come.wait(STEP_SECONDS_MAX)
            self.step = ""


def states(gateway: Gateway, chaos: Chaos) -> dict[str, dict]:
    """Every hold as it stands at the end."""
    found = {}
    for name in {hold for holds in chaos.of.values() for hold in holds} | chaos.asked_approve | set(chaos.surely):
        status, body = gateway.ask(gateway.admin, "olga", "GET", f"/v1/holds/{name}")
        found[name] = body["hold"] if status == 200 else {"state": f"lost ({status})"}
    return found


def main() -> int:
    """Runs everything, and judges it by what the upstream saw."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="holdpoint-chaos-") as name:
        upstream = Upstream()
        gateway = Gateway(Path(name), upstream.server.server_address[1])
        gateway.start()
        chaos = Chaos(gateway, upstream)
        helpers = [threading.Thread(target=each) for each in (chaos.people, chaos.people, chaos.killer)]
        for each in helpers:
            each.start()
        with ThreadPoolExecutor(AGENTS * 4) as pool:
            work = [pool.submit(chaos.agent, n) for n in range(HOLDS)]
            end = time.monotonic() + PATIENCE + HOLDS
            while not all(each.done() for each in work) and time.monotonic() < end:
                time.sleep(0.2)
            chaos.over.set()
        for each in helpers:
            each.join()
        # What was being executed when it was killed last is settled at a start.
        gateway.kill()
        gateway.start()
        time.sleep(TTL + 2)
        final = states(gateway, chaos)
        gateway.kill()
        gateway.start()
        assert gateway.process
        gateway.process.terminate()
        gateway.process.wait()
        verified = json.loads(gateway.command("audit", "verify", f"{name}/state/audit", "--json"))
        return judge(chaos, upstream, gateway, final, verified, time.monotonic() - begun)


def judge(
    chaos: Chaos, upstream: Upstream, gateway: Gateway, final: dict[str, dict], verified: dict, seconds: float
) -> int:
    """The figures, and whether each is as it must be."""
    numbers, under = Counter(n for n, _ in upstream.ran), Counter(hold for _, hold in upstream.ran)
    state = {hold: final.get(hold, {"state": "unknown"})["state"] for hold in under}
    count = Counter(hold["state"] for hold in final.values())
    surely = {hold for hold, verb in chaos.surely.items() if verb == "approve"}
    open_states = {"pending", "approved", "releasing"}
    figures = {
        "holds": len(final),
        "kills": gateway.lives - 1,
        "seconds": round(seconds),
        **{f"state_{state.replace(' ', '_')}": number for state, number in sorted(count.items())},
        "told_reply": sum(told == "reply" for told in chaos.told.values()),
        "calls_never_told": HOLDS - len(chaos.told),
        "ran": len(upstream.ran),
        # The time of its hold was over, so people were asked again, and approved it again.
        "ran_again_by_another_approval": sum(times - 1 for times in numbers.values()),
        "ran_twice": sum(times > 1 for times in under.values()),
        "ran_unapproved": sum(hold not in chaos.asked_approve for hold in under),
        "ran_though_denied": sum(state[hold] == "denied" or chaos.surely.get(hold) == "deny" for hold in under),
        "ran_though_expired": sum(state[hold] == "expired" for hold in under),
        "ran_though_failed": sum(state[hold] == "failed" for hold in under),
        "replied_and_never_ran": sum(told == "reply" and not numbers[n] for n, told in chaos.told.items()),
        "executed_and_never_ran": sum(
            hold["state"] == "executed" and name not in under for name, hold in final.items()
        ),
        "approved_and_lost": sum(
            final[hold]["state"] not in {"executed", "failed", "indeterminate", "expired"} for hold in surely
        ),
        "denied_and_lost": sum(
            final[hold]["state"] != "denied" for hold, verb in chaos.surely.items() if verb == "deny"
        ),
        "lost": sum(hold["state"].startswith("lost") for hold in final.values()),
        "open_at_the_end": sum(count[state] for state in open_states),
        "audit": verified["status"],
        **{f"killed_at_step_{step}": chaos.kills[step] for step in STEPS},
        **{f"killed_{moment}": chaos.moments[moment] for moment in moments.MOMENTS},
    }
    for name, value in figures.items():
        print(f"{name}: {value}")
    never = [
        "calls_never_told",
        "ran_twice",
        "ran_unapproved",
        "ran_though_denied",
        "ran_though_expired",
        "ran_though_failed",
        "replied_and_never_ran",
        "executed_and_never_ran",
        "approved_and_lost",
        "denied_and_lost",
        "lost",
        "open_at_the_end",
    ]
    wrong = [name for name in never if figures[name]]
    if figures["audit"] != "ok":
        wrong.append("audit")
    if figures["kills"] < 3 or figures["told_reply"] < HOLDS / 3:
        wrong.append("too little happened")
    print(f"chaos: {'FAILED: ' + ', '.join(wrong) if wrong else 'ok'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
