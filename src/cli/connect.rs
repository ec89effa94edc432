//! `holdpoint connect`: the agent's side of the gateway.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};

use super::USAGE;
use crate::connect::gateway::Place;
use crate::connect::identity::Source;
use crate::connect::{self, Admission, Failure, Local, Settings};
use crate::identify::svid::parse_id;
use crate::record::tail::Format;
use crate::secret::Secret;

/// Where the Workload API is, when no flag says it [SPIFFE Workload Endpoint §4].
const WORKLOAD_API_VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";
/// The shortest token: one that cannot be guessed by trying.
const TOKEN_BYTES_MIN: usize = 16;
/// The longest token.
const TOKEN_BYTES_MAX: u64 = 4096;

/// What `holdpoint connect` is told.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("agent-side").args(["stdio", "listen"]).required(true)),
    group(ArgGroup::new("local-auth").args(["allow_uid", "token_file", "no_local_auth"]))
)]
pub struct Arguments {
    /// The gateway, as https://HOST:PORT.
    #[arg(long)]
    gateway: String,
    /// The upstream's name at the gateway.
    #[arg(long)]
    upstream: String,
    /// Exactly who the gateway must be; by default any workload of the trust domain.
    #[arg(long, value_name = "SPIFFE_ID")]
    gateway_id: Option<String>,
    /// Speak MCP on standard input and output.
    #[arg(long, conflicts_with = "local-auth")]
    stdio: bool,
    /// Speak HTTP on a loopback address or on unix:///PATH.
    #[arg(long, value_name = "ADDR", requires = "local-auth")]
    listen: Option<String>,
    /// The workload's certificate and its intermediates, PEM.
    #[arg(long, requires_all = ["key", "bundle"], conflicts_with = "workload_api")]
    cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
    /// The roots by which the gateway is verified, PEM.
    #[arg(long, requires = "cert")]
    bundle: Option<PathBuf>,
    /// The SPIFFE Workload API, as unix:///PATH; SPIFFE_ENDPOINT_SOCKET by default.
    #[arg(long, value_name = "SOCKET")]
    workload_api: Option<String>,
    /// Only processes of this user may use the socket.
    #[arg(long, value_name = "UID")]
    allow_uid: Option<u32>,
    /// Only who sends the token in this file may use the socket.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Whoever reaches the socket may use it.
    #[arg(long)]
    no_local_auth: bool,
}

/// Runs the connector: 0 after an orderly end, 2 when it cannot run, 64 when a flag or a file is wrong.
pub fn connect(arguments: Arguments, format: Format) -> u8 {
    super::serve::log(format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Failure::CouldNotRun(error.to_string())),
    };
    let ran = runtime.block_on(async {
        let end = super::serve::end().map_err(|error| Failure::CouldNotRun(error.to_string()))?;
        let settings = settings(arguments)?;
        let told = format!("upstream {} at {}", settings.place.upstream(), settings.place.authority());
        connect::run(settings, end, |place| ready(place, &told, format)).await
    });
    // A read of standard input cannot be broken off, so nothing waits for it.
    runtime.shutdown_background();
    match ran {
        Ok(()) => 0,
        Err(failure) => failed(&failure),
    }
}

fn ready(place: &str, told: &str, format: Format) {
    match format {
        Format::Json => eprintln!("{}", serde_json::json!({"listening": place})),
        Format::Text => eprintln!("holdpoint connect: {place} is {told}"),
    }
}

fn failed(failure: &Failure) -> u8 {
    eprintln!("holdpoint connect: {failure}");
    match failure {
        Failure::Usage(_) => USAGE,
        Failure::CouldNotRun(_) => 2,
    }
}

fn settings(arguments: Arguments) -> Result<Settings, Failure> {
    let place = Place::read(&arguments.gateway, &arguments.upstream).map_err(Failure::Usage)?;
    let gateway_id = arguments.gateway_id.as_deref().map(|id| {
        parse_id(id).map_err(|error| {
            Failure::Usage(format!("--gateway-id {id}: {error}; expected spiffe://TRUST_DOMAIN/PATH"))
        })
    });
    Ok(Settings {
        place,
        gateway_id: gateway_id.transpose()?,
        source: source(&arguments)?,
        local: local(&arguments)?,
    })
}

fn source(arguments: &Arguments) -> Result<Source, Failure> {
    if let Arguments { cert: Some(cert), key: Some(key), bundle: Some(bundle), .. } = arguments {
        return Ok(Source::Files { cert: cert.clone(), key: key.clone(), bundle: bundle.clone() });
    }
    let (from, endpoint) = match &arguments.workload_api {
        Some(endpoint) => ("--workload-api", Some(endpoint.clone())),
        None => (WORKLOAD_API_VARIABLE, std::env::var(WORKLOAD_API_VARIABLE).ok()),
    };
    let endpoint = endpoint.filter(|endpoint| !endpoint.is_empty()).ok_or_else(|| {
        Failure::Usage(format!(
            "who this workload is must be said: expected --cert, --key and --bundle, or --workload-api (or \
             {WORKLOAD_API_VARIABLE})"
        ))
    })?;
    if !endpoint.starts_with("unix:/") {
        return Err(Failure::Usage(format!("{from} {endpoint}: expected unix:///PATH")));
    }
    Ok(Source::WorkloadApi(endpoint))
}

fn local(arguments: &Arguments) -> Result<Local, Failure> {
    let Some(listen) = &arguments.listen else { return Ok(Local::Stdio) };
    let admission = match (arguments.allow_uid, &arguments.token_file) {
        (Some(uid), _) => Admission::Uid(uid),
        (None, Some(file)) => Admission::Token(token(file).map_err(Failure::Usage)?),
        (None, None) => {
            eprintln!(
                "holdpoint connect: WARNING: --no-local-auth: every process that reaches {listen} acts as this \
                 workload; prefer --allow-uid or --token-file"
            );
            Admission::Anyone
        }
    };
    if let Some(path) = listen.strip_prefix("unix://") {
        return Ok(Local::Unix(PathBuf::from(path), admission));
    }
    let address = listen.replacen("localhost:", "127.0.0.1:", 1).parse().map_err(|_| {
        Failure::Usage(format!(
            "--listen {listen}: expected a loopback address and a port, as in 127.0.0.1:8444, or unix:///PATH"
        ))
    })?;
    Ok(Local::Tcp(address, admission))
}

/// Reads the token: one line, in a file that only its owner can read.
fn token(file: &Path) -> Result<Secret, String> {
    use std::io::Read;
    let wrong = |what: &dyn std::fmt::Display| format!("--token-file {}: {what}", file.display());
    let mut open = std::fs::File::open(file).map_err(|error| wrong(&error))?;
    let mode = open.metadata().map_err(|error| wrong(&error))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(wrong(&format!("others can read it (mode {mode:04o}); expected mode 0600")));
    }
    let mut text = zeroize::Zeroizing::new(String::new());
    let read = (&mut open).take(TOKEN_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| wrong(&error))?;
    let token = text.trim_end_matches(['\r', '\n']);
    if token.len() < TOKEN_BYTES_MIN || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wrong(&format!(
            "expected one line of at least {TOKEN_BYTES_MIN} visible characters, as from `openssl rand -hex 32`"
        )));
    }
    Ok(Secret::new(token.to_owned()))
}
