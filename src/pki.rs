//! A development CA in a directory of PEM files, marked as such: enough to try mutual TLS without SPIRE.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::identify::svid;

/// The trust domain of agents and the gateway.
const AGENTS: &str = "example.org";
/// The trust domain of people.
const PEOPLE: &str = "people.example.org";
/// The trust domain of orchestrators.
const ORCHESTRATORS: &str = "jobs.example.org";
/// How long a development root is valid.
const ROOT_VALID: Duration = Duration::days(365);
/// How long what it issues is valid.
const LEAF_VALID: Duration = Duration::days(30);
/// Clocks of a development machine's containers differ a little.
const BACKDATED: Duration = Duration::minutes(5);

/// A root by the stem of its files and its trust domain.
struct Root {
    stem: &'static str,
    domain: &'static str,
}

const AGENTS_ROOT: Root = Root { stem: "example.org", domain: AGENTS };
const PEOPLE_ROOT: Root = Root { stem: "people", domain: PEOPLE };
const JOBS_ROOT: Root = Root { stem: "jobs", domain: ORCHESTRATORS };

/// Makes the three roots and the gateway's certificate; gives the files written.
pub fn init(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let stems = [AGENTS_ROOT.stem, PEOPLE_ROOT.stem, JOBS_ROOT.stem, "gateway"];
    stems.iter().try_for_each(|stem| refuse_overwriting(dir, stem))?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut files = Vec::new();
    for root in [AGENTS_ROOT, PEOPLE_ROOT, JOBS_ROOT] {
        let key = KeyPair::generate().map_err(|error| error.to_string())?;
        let certificate = root_params(root.domain)?.self_signed(&key).map_err(|error| error.to_string())?;
        files.extend(write_pair(dir, root.stem, &certificate.pem(), &key)?);
    }
    files.extend(issue_gateway(dir, "gateway")?);
    Ok(files)
}

/// Issues an agent's certificate, as in `agent/support`; the files are named by the last segment.
pub fn issue_agent(dir: &Path, path: &str) -> Result<Vec<PathBuf>, String> {
    issue(dir, &AGENTS_ROOT, path, Vec::new())
}

/// Issues a person's certificate, as in `ana`.
pub fn issue_person(dir: &Path, name: &str) -> Result<Vec<PathBuf>, String> {
    issue(dir, &PEOPLE_ROOT, name, Vec::new())
}

/// Issues an orchestrator's certificate, as in `planner`.
pub fn issue_orchestrator(dir: &Path, name: &str) -> Result<Vec<PathBuf>, String> {
    issue(dir, &JOBS_ROOT, name, Vec::new())
}

/// Issues a gateway's certificate for this machine's own addresses.
pub fn issue_gateway(dir: &Path, name: &str) -> Result<Vec<PathBuf>, String> {
    let localhost = "localhost".try_into().map_err(|error: rcgen::Error| error.to_string())?;
    let names = vec![
        SanType::DnsName(localhost),
        SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
        SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
    ];
    issue(dir, &AGENTS_ROOT, name, names)
}

fn issue(dir: &Path, root: &Root, path: &str, names: Vec<SanType>) -> Result<Vec<PathBuf>, String> {
    let id = format!("spiffe://{}/{path}", root.domain);
    svid::parse_id(&id).map_err(|error| format!("{id}: {error}"))?;
    let stem = path.rsplit('/').next().unwrap_or(path);
    refuse_overwriting(dir, stem)?;
    let key_file = dir.join(format!("{}-key.pem", root.stem));
    let pem = std::fs::read_to_string(&key_file).map_err(|error| {
        format!("{}: {error}; is there a development CA? (holdpoint pki init)", key_file.display())
    })?;
    let root_key = KeyPair::from_pem(&pem).map_err(|error| format!("{}: {error}", key_file.display()))?;
    let issuer = Issuer::new(root_params(root.domain)?, root_key);
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let mut params = marked_params(path, LEAF_VALID);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = names;
    params.subject_alt_names.push(uri(&id)?);
    let certificate = params.signed_by(&key, &issuer).map_err(|error| error.to_string())?;
    write_pair(dir, stem, &certificate.pem(), &key)
}

/// The same every time, so that the key alone is enough to issue.
fn root_params(domain: &str) -> Result<CertificateParams, String> {
    let mut params = marked_params(domain, ROOT_VALID);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))?];
    Ok(params)
}

fn marked_params(name: &str, valid: Duration) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATED;
    params.not_after = now + valid;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Holdpoint DEVELOPMENT ONLY");
    params.distinguished_name.push(DnType::CommonName, format!("{name} (DEVELOPMENT ONLY)"));
    params
}

fn uri(text: &str) -> Result<SanType, String> {
    Ok(SanType::URI(text.try_into().map_err(|error: rcgen::Error| error.to_string())?))
}

fn pair(dir: &Path, stem: &str) -> [PathBuf; 2] {
    [dir.join(format!("{stem}.pem")), dir.join(format!("{stem}-key.pem"))]
}

fn refuse_overwriting(dir: &Path, stem: &str) -> Result<(), String> {
    match pair(dir, stem).iter().find(|file| file.exists()) {
        Some(file) => Err(format!("{} is already there; nothing was changed", file.display())),
        None => Ok(()),
    }
}

/// Writes a certificate and its key, which only its owner may read.
fn write_pair(dir: &Path, stem: &str, certificate: &str, key: &KeyPair) -> Result<Vec<PathBuf>, String> {
    let [certificate_file, key_file] = pair(dir, stem);
    write_new(&key_file, 0o600, &zeroize::Zeroizing::new(key.serialize_pem()))?;
    write_new(&certificate_file, 0o644, certificate)?;
    Ok(vec![certificate_file, key_file])
}

fn write_new(file: &Path, mode: u32, text: &str) -> Result<(), String> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(file);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| format!("{}: {error}", file.display()))
}
