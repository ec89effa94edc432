"""The gateway under test with a thousand agents, and the upstreams behind it."""

import datetime
import json
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

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
KEY_USAGES = (
    "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign "
    "encipher_only decipher_only"
).split()
# The person is not whom the agents belong to: nobody decides about their own.
PERSON, ORCHESTRATOR = "oda", "planner"


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
            svid(self.pki / agent.short, agent.id, root, key)

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
        """Whether this gateway knows what would be added to its configuration; any other mistake in it is one of ours."""
        self.write("probe.yaml", {**self.configuration(), **more})
        said = holdpoint("check", "--config", str(self.directory / "probe.yaml"), check=False)
        known = "not supported yet" not in said.stderr
        assert said.returncode == 0 or not known, said.stderr
        return known

    def agent(self) -> tuple[Agent, ssl.SSLContext]:
        """An agent that has done nothing yet, and how it presents itself."""
        agent = next(self.given)
        return agent, self.tls(agent)


def svid(stem: Path, id: str, root: x509.Certificate, root_key: ec.EllipticCurvePrivateKey) -> None:
    """An X.509-SVID and its key: one URI, a leaf, for signatures [SPIFFE X509-SVID §2, §4]."""
    key = ec.generate_private_key(ec.SECP256R1())
    both = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    made = builder(id, key, root.subject, authority=False)
    made = made.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
    write(stem, made.sign(root_key, hashes.SHA256()), key)


def authority(stem: Path, id: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A root for a trust domain, which `holdpoint pki` makes for agents and people alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{stem.name} DEVELOPMENT ONLY")])
    root = builder(id, key, name, authority=True, subject=name).sign(key, hashes.SHA256())
    write(stem, root, key)
    return root, key


def builder(
    id: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    *,
    authority: bool,
    subject: x509.Name = x509.Name([]),  # noqa: B008
) -> x509.CertificateBuilder:
    """What a root and a leaf have in common."""
    now = datetime.datetime.now(datetime.UTC)
    usages = dict.fromkeys(KEY_USAGES, False) | {"key_cert_sign" if authority else "digital_signature": True}
    uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(id)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=CERTIFICATE_DAYS))
        .add_extension(uri, critical=not subject.rdns)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usages), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def write(stem: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    """`STEM.pem` and `STEM-key.pem`."""
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    stem.with_name(f"{stem.name}.pem").write_bytes(certificate.public_bytes(pem))
    stem.with_name(f"{stem.name}-key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
