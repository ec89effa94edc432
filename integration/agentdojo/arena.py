"""The gateway under test with a thousand agents, and the upstreams behind it."""

import datetime
import json
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from gateway import DOMAIN, Agent, Gateway, holdpoint  # noqa: E402
from parts import Process, Upstream, free_port  # noqa: E402
from sessions import Json  # noqa: E402

# Entries of the registry, each an identity of its own.
AGENTS = 1000
# What the two organizations own.
INTERNAL = [
    "*@bluesparrowtech.com",
    "bluesparrowtech.com",
    "*.bluesparrowtech.com",
    "our-company.com",
    "www.our-company.com",
    "*@harbourfreight.example",
    "harbourfreight.example",
    "*.harbourfreight.example",
]
CERTIFICATE_DAYS = 2
PERSON, ORCHESTRATOR = "ana", "planner"


@dataclass
class Upstreams:
    """The process that serves every upstream."""

    port: int
    process: Process

    @classmethod
    def start(cls, directory: Path) -> "Upstreams":
        """Starts it."""
        port = free_port()
        command = [sys.executable, str(HERE / "server.py"), str(port)]
        return cls(port, Process.start("upstreams", command, directory / "upstreams.log").wait_port(port))

    @property
    def base(self) -> str:
        """Where they are."""
        return f"http://127.0.0.1:{self.port}"

    def each(self) -> list[Upstream]:
        """Every upstream with its catalogue."""
        return [self.upstream(file) for folder in ("", "other") for file in sorted((HERE / folder / "catalog").glob("*.yaml"))]

    def upstream(self, file: Path) -> Upstream:
        """The upstream of a catalogue."""
        catalog = yaml.safe_load(file.read_text(encoding="utf-8"))["tools"]
        kind = "http" if file.stem == "crm" else "mcp"
        url = self.base if kind == "http" else f"{self.base}/{file.stem}/mcp"
        return Upstream(file.stem, kind, url, Path("/dev/null"), None, catalog)


@dataclass
class Arena(Gateway):
    """A gateway that nobody has used yet, and its agents, each of whom is given out once."""

    profile: str = "balanced"
    agents: list[Agent] = field(default_factory=lambda: [Agent(f"agent/a{number:04}") for number in range(AGENTS)])
    given: Iterator[Agent] = field(default_factory=lambda: iter(()))

    def prepare(self) -> "Arena":
        """Makes certificates and files; what the gateway cannot do yet is left out, and `abilities` says so."""
        super().prepare()
        self.given = iter(self.agents)
        return self

    def write(self, name: str, content: object) -> None:
        """A file of the configuration. JSON is YAML, and a thousand entries are written at once."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    def issue(self) -> None:
        """A development CA, and a certificate for each agent by its key: one process for each would take minutes."""
        holdpoint("pki", "init", "--dir", str(self.pki))
        root = x509.load_pem_x509_certificate((self.pki / f"{DOMAIN}.pem").read_bytes())
        key = serialization.load_pem_private_key((self.pki / f"{DOMAIN}-key.pem").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        for agent in self.agents:
            self.issue_one(agent, root, key)

    def issue_one(self, agent: Agent, root: x509.Certificate, root_key: ec.EllipticCurvePrivateKey) -> None:
        """An X.509-SVID: one URI, a leaf, for signatures [SPIFFE X509-SVID §2, §4]."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        usages = dict.fromkeys(
            "content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign encipher_only "
            "decipher_only".split(),
            False,
        )
        both = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(root.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=CERTIFICATE_DAYS))
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(agent.id)]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(digital_signature=True, **usages), critical=True)
            .add_extension(x509.ExtendedKeyUsage(both), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
            .sign(root_key, hashes.SHA256())
        )
        (self.pki / f"{agent.short}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.pki / f"{agent.short}-key.pem").write_bytes(private)

    def configuration(self) -> Json:
        """The configuration: upstreams are inside, and nothing that they say is believed."""
        made = super().configuration()
        made["organization"] = {"name": "example", "internal": INTERNAL}
        made["limits"] = [{"per": "agent", "rate": "10000/s", "burst": 10000}]
        if self.profile != "balanced":
            made["flow"] = {"profile": self.profile}
        return made

    def upstream(self, upstream: Upstream) -> Json:
        """An upstream that is inside, and trusted with no word of its own."""
        return {**super().upstream(upstream), "trusted": False}

    def able(self, more: Json) -> bool:
        """Whether this gateway knows what would be added to its configuration."""
        self.write("probe.yaml", {**self.configuration(), **more})
        return holdpoint("check", "--config", str(self.directory / "probe.yaml"), check=False).returncode == 0

    def agent(self) -> tuple[Agent, ssl.SSLContext]:
        """An agent that has done nothing yet, and how it presents itself."""
        agent = next(self.given)
        return agent, self.tls(agent)

    @cached_property
    def root(self) -> Any:
        """The bundle, read once."""
        return (self.pki / f"{DOMAIN}.pem").read_text(encoding="ascii")
