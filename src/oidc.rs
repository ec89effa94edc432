//! OpenID Connect: who a person is by what one identity provider says [OpenID Connect Core 1.0].
//!
//! The provider is asked where its endpoints and keys are, in bounded time and size, and what it said last is kept for a
//! day. A provider that is down lets nobody in, and is never asked about anybody who comes with a certificate.

mod fetch;
mod keys;
mod login;
mod token;

pub use fetch::is_acceptable;
pub use login::{Answered, Begun, CALLBACK, Entered, LOGIN_TIME_MAX, LoginError, SESSION_TIME_MAX, Why};
pub use token::TokenError;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use aws_lc_rs::hmac;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use tokio::sync::{Mutex, Semaphore};

use fetch::Fetch;
use keys::Keys;

/// How long what the provider said of itself is taken as it is.
const KNOWN_TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// How long it is still used while the provider cannot be asked.
const KNOWN_STALE_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The pause after an attempt, whether it succeeded or not.
const ASK_PAUSE: Duration = Duration::from_secs(2);
/// The pause between two attempts that are made for a key that nobody has heard of.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(30);
/// How far the provider's clock may be ahead of this one, and how long a token counts past its end.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(30);
/// Codes that are exchanged at one time.
const EXCHANGES_MAX: usize = 8;

/// What the section `oidc` says.
#[derive(Clone)]
pub struct Config {
    /// The provider, exactly as it names itself.
    pub issuer: String,
    /// What the provider knows this gateway by.
    pub client_id: String,
    /// The file of the client's secret; none for a public client.
    pub client_secret: Option<PathBuf>,
    /// The console's origin, as in `https://holdpoint.example.org`.
    pub console: String,
    /// What is asked for; `openid` is among it.
    pub scopes: Vec<String>,
    /// How a person must have been authenticated to decide: one of these. Empty for any way.
    pub acr: Vec<String>,
    /// By which means: all of these. Empty for any.
    pub amr: Vec<String>,
    /// How long ago a person who decides may have been authenticated.
    pub fresh: Duration,
    /// What bearer tokens must be made for; none, and no bearer token is taken.
    pub audience: Option<String>,
    /// TLS towards the provider.
    pub tls: Arc<rustls::ClientConfig>,
}

/// How and when somebody was authenticated, as the provider says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// The provider.
    pub issuer: Arc<str>,
    /// Who, by the provider's own name.
    pub subject: Arc<str>,
    /// When; not every token says.
    pub at: Option<SystemTime>,
    /// The class of authentication; empty when it was not said.
    pub acr: Arc<str>,
    /// Its means.
    pub amr: Vec<Arc<str>>,
    /// When the token that says so is over.
    pub until: SystemTime,
}

/// Why an authentication does not do for a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insufficient {
    /// It is too long ago, or the provider does not say when it was.
    Old,
    /// It was done in another way than is asked for.
    Weak,
}

/// Why the provider could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Too many ask it now.
    #[error("too many log in at one time")]
    Busy,
    /// It could not be reached, or answered something else than it should.
    #[error("{0}")]
    Provider(String),
}

/// The identity provider.
pub struct Provider {
    config: Config,
    fetch: Fetch,
    known: ArcSwapOption<Known>,
    asked: Mutex<Asked>,
    exchanges: Semaphore,
    /// By which a login that was begun here is known. It lives as long as the process.
    logins: hmac::Key,
}

/// What the provider said of itself.
struct Known {
    endpoints: Endpoints,
    keys: Keys,
    at: Instant,
}

/// When the provider was asked last.
#[derive(Default)]
struct Asked {
    last: Option<Instant>,
    for_a_key: Option<Instant>,
}

/// Where the provider is asked what [OpenID Connect Discovery 1.0 §3].
#[derive(Clone, Debug, Deserialize)]
struct Endpoints {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

impl Config {
    /// What of it cannot change while the gateway runs, in words; no secret is among it.
    pub fn told(&self) -> String {
        let Config { issuer, client_id, client_secret, console, scopes, acr, amr, fresh, audience, tls: _ } =
            self;
        format!(
            "{issuer} {client_id} {client_secret:?} {console} {scopes:?} {acr:?} {amr:?} {fresh:?} {audience:?}"
        )
    }
}

impl Authentication {
    /// Whether it does for a decision: recent, and done as is asked for.
    pub fn suffices(&self, config: &Config, now: SystemTime) -> Result<(), Insufficient> {
        let at = self.at.ok_or(Insufficient::Old)?;
        let recent = match now.duration_since(at) {
            Ok(age) => age <= config.fresh,
            Err(ahead) => ahead.duration() <= CLOCK_SKEW_MAX,
        };
        if !recent {
            return Err(Insufficient::Old);
        }
        let class = config.acr.is_empty() || config.acr.iter().any(|acr| **acr == *self.acr);
        let means = config.amr.iter().all(|wanted| self.amr.iter().any(|amr| **amr == **wanted));
        if class && means { Ok(()) } else { Err(Insufficient::Weak) }
    }
}

impl Provider {
    /// A provider that is not asked before somebody comes. Fails when there are no random numbers.
    pub fn new(config: Config) -> Result<Provider, String> {
        let random = aws_lc_rs::rand::SystemRandom::new();
        let logins = hmac::Key::generate(hmac::HMAC_SHA256, &random).map_err(|_| "no random numbers")?;
        Ok(Provider {
            fetch: Fetch::new(&config.issuer, Arc::clone(&config.tls)),
            config,
            known: ArcSwapOption::empty(),
            asked: Mutex::default(),
            exchanges: Semaphore::new(EXCHANGES_MAX),
            logins,
        })
    }

    /// What the configuration says.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the provider said of itself, and not long ago where it can be asked.
    async fn known(&self) -> Result<Arc<Known>, Failure> {
        let current = || self.known.load_full().filter(|known| known.at.elapsed() < KNOWN_TIME_MAX);
        if let Some(known) = current() {
            return Ok(known);
        }
        let mut asked = self.asked.lock().await;
        // Somebody else may have asked while this one waited.
        if let Some(known) = current() {
            return Ok(known);
        }
        let refused = match paused(asked.last, ASK_PAUSE) {
            true => Failure::Provider("it was asked a moment ago, in vain".to_owned()),
            false => {
                asked.last = Some(Instant::now());
                match self.ask().await {
                    Ok(known) => return Ok(known),
                    Err(failure) => failure,
                }
            }
        };
        let stale = self.known.load_full().filter(|known| known.at.elapsed() < KNOWN_STALE_TIME_MAX);
        stale.ok_or(refused)
    }

    /// The key of this id and algorithm. One that nobody has heard of is asked for, and not again for a while.
    async fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Option<DecodingKey>, Failure> {
        if let Some(key) = self.known().await?.keys.find(id, algorithm) {
            return Ok(Some(key));
        }
        let mut asked = self.asked.lock().await;
        let found = self.known.load().as_ref().and_then(|known| known.keys.find(id, algorithm));
        if found.is_some() || paused(asked.for_a_key, UNKNOWN_KEY_PAUSE) {
            return Ok(found);
        }
        let now = Some(Instant::now());
        *asked = Asked { last: now, for_a_key: now };
        // What is known stays when it cannot be asked: then the key is simply not known.
        Ok(self.ask().await.ok().and_then(|known| known.keys.find(id, algorithm)))
    }

    /// Asks the provider for its endpoints and its keys; both count or neither does.
    async fn ask(&self) -> Result<Arc<Known>, Failure> {
        let asked = self.discover().await;
        match asked {
            Ok(known) => {
                let known = Arc::new(known);
                self.known.store(Some(Arc::clone(&known)));
                Ok(known)
            }
            Err(why) => {
                let issuer = &self.config.issuer;
                tracing::warn!(
                    event = "oidc.provider_failed",
                    issuer,
                    why,
                    "the identity provider was not read"
                );
                Err(Failure::Provider(why))
            }
        }
    }

    async fn discover(&self) -> Result<Known, String> {
        let issuer = &self.config.issuer;
        let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let told = self.fetch.get(&address).await?;
        let endpoints: Endpoints =
            serde_json::from_slice(&told).map_err(|error| format!("{address}: {error}"))?;
        if endpoints.issuer != *issuer {
            return Err(format!("{address} is of another issuer"));
        }
        for endpoint in [&endpoints.authorization_endpoint, &endpoints.token_endpoint, &endpoints.jwks_uri] {
            self.fetch.allowed(endpoint)?;
        }
        let keys = self.fetch.get(&endpoints.jwks_uri).await?;
        let keys = Keys::read(&keys).map_err(|why| format!("{}: {why}", endpoints.jwks_uri))?;
        Ok(Known { endpoints, keys, at: Instant::now() })
    }
}

fn paused(last: Option<Instant>, pause: Duration) -> bool {
    last.is_some_and(|at| at.elapsed() < pause)
}
