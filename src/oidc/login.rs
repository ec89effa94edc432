//! A login by the authorisation code flow with PKCE [OpenID Connect Core 1.0 §3.1; RFC 7636; RFC 9207].
//!
//! A login that is under way is kept in the browser that began it, in a cookie that only this process can make. Nothing
//! is kept here of those who begin logins and never end them, however many they are. State, nonce and verifier are
//! derived from what is in the cookie, and are of no use to anybody who reads it.

use std::time::{Duration, SystemTime};

use aws_lc_rs::{digest, hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::fetch::Form;
use super::token::TokenError;
use super::{Authentication, Endpoints, Failure, Insufficient, Provider};
use crate::secret::Secret;

/// How long a login may take.
pub const LOGIN_TIME_MAX: Duration = Duration::from_secs(10 * 60);
/// How long a session lasts: nobody is let in by an authentication that is older when it begins.
pub const SESSION_TIME_MAX: Duration = Duration::from_secs(8 * 60 * 60);
/// Where the provider sends people back to, below the console's origin.
pub const CALLBACK: &str = "/login/callback";
/// What stands for itself in a form [HTML, application/x-www-form-urlencoded].
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*');

/// What a login is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// To decide: the person proves anew who they are, whatever the provider remembers.
    Decide,
    /// To see.
    See,
}

/// A login that was begun.
#[derive(Debug)]
pub struct Begun {
    /// Where the browser goes.
    pub location: String,
    /// What it brings back, beside the provider's answer: the value of a cookie, for [`LOGIN_TIME_MAX`].
    pub cookie: String,
}

/// What the provider answered by way of the browser.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Answered {
    /// What an ID token is got for.
    pub code: String,
    /// What the login was begun with.
    pub state: String,
    /// Which provider says so [RFC 9207].
    pub iss: String,
    /// What went wrong instead.
    pub error: String,
}

/// A login that came to its end.
#[derive(Debug)]
pub struct Entered {
    /// Who, and how they proved it.
    pub authentication: Authentication,
    /// The path that they came for.
    pub to: String,
}

/// Why nobody was logged in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// No login was begun in this browser, or too long ago, or another one since.
    #[error("this login was not begun in this browser, or too long ago")]
    Unbegun,
    /// Another provider answered.
    #[error("another provider answered than the one that was asked")]
    Issuer,
    /// The provider refused.
    #[error("the identity provider refused: {0}")]
    Refused(String),
    /// The provider could not be asked.
    #[error("the identity provider cannot be asked: {0}")]
    Provider(Failure),
    /// Its token is not believed.
    #[error("{0}")]
    Token(TokenError),
    /// It did not do what it was asked to.
    #[error("the identity provider did not authenticate you as it was asked to")]
    Insufficient(Insufficient),
}

impl LoginError {
    /// The stable word for records.
    pub fn reason(&self) -> &'static str {
        match self {
            LoginError::Unbegun => "login-unbegun",
            LoginError::Issuer => "login-issuer",
            LoginError::Refused(_) => "login-refused",
            LoginError::Provider(_) => "provider",
            LoginError::Token(error) => error.reason(),
            LoginError::Insufficient(_) => "login-insufficient",
        }
    }
}

/// What the cookie says.
#[derive(Deserialize, Serialize)]
struct Kept {
    seed: String,
    to: String,
    why: Why,
    until: u64,
}

/// What the provider answers to a code.
#[derive(Deserialize)]
struct Tokens {
    id_token: String,
}

impl Provider {
    /// Begins a login that leads to this path of the console.
    pub async fn begin(&self, to: &str, why: Why) -> Result<Begun, Failure> {
        let known = self.known().await?;
        let mut seed = [0; 32];
        let random = rand::fill(&mut seed);
        random.map_err(|_| Failure::Provider("no random numbers".to_owned()))?;
        let until = seconds(SystemTime::now() + LOGIN_TIME_MAX);
        let kept = Kept { seed: URL_SAFE_NO_PAD.encode(seed), to: to.to_owned(), why, until };
        let config = self.config();
        let (max_age, prompt) = match why {
            Why::Decide => (config.fresh, Some("login")),
            Why::See => (SESSION_TIME_MAX, None),
        };
        let challenge = digest::digest(&digest::SHA256, self.derived("verifier", &kept).as_bytes());
        let (max_age, acr) = (max_age.as_secs().to_string(), config.acr.join(" "));
        let mut fields = vec![
            ("response_type", "code".to_owned()),
            ("client_id", config.client_id.clone()),
            ("redirect_uri", self.redirect()),
            ("scope", config.scopes.join(" ")),
            ("state", self.derived("state", &kept)),
            ("nonce", self.derived("nonce", &kept)),
            ("code_challenge", URL_SAFE_NO_PAD.encode(challenge)),
            ("code_challenge_method", "S256".to_owned()),
            // With it the provider must say when it authenticated the person.
            ("max_age", max_age),
        ];
        fields.extend((!acr.is_empty()).then_some(("acr_values", acr)));
        fields.extend(prompt.map(|prompt| ("prompt", prompt.to_owned())));
        let endpoint = &known.endpoints.authorization_endpoint;
        let joint = if endpoint.contains('?') { '&' } else { '?' };
        Ok(Begun { location: format!("{endpoint}{joint}{}", form(&fields)), cookie: self.sealed(&kept) })
    }

    /// Ends the login that this cookie tells of, by what the provider answered.
    pub async fn finish(&self, cookie: &str, answered: &Answered) -> Result<Entered, LoginError> {
        let kept = self.opened(cookie).ok_or(LoginError::Unbegun)?;
        let state = URL_SAFE_NO_PAD.decode(&answered.state).unwrap_or_default();
        if !self.is_derived("state", &kept, &state) {
            return Err(LoginError::Unbegun);
        }
        let known = self.known().await.map_err(LoginError::Provider)?;
        let said = !answered.iss.is_empty() || known.endpoints.authorization_response_iss_parameter_supported;
        if said && answered.iss != self.config().issuer {
            return Err(LoginError::Issuer);
        }
        if !answered.error.is_empty() || answered.code.is_empty() {
            return Err(LoginError::Refused(answered.error.chars().take(100).collect()));
        }
        let verifier = self.derived("verifier", &kept);
        let tokens = self.exchange(&known.endpoints, &answered.code, &verifier).await?;
        let nonce = self.derived("nonce", &kept);
        let authentication = self.identified(&tokens.id_token, &nonce).await.map_err(LoginError::Token)?;
        self.is_as_asked(kept.why, &authentication).map_err(LoginError::Insufficient)?;
        Ok(Entered { authentication, to: kept.to })
    }

    /// A provider that passes over `max_age` or `prompt` is found here.
    fn is_as_asked(&self, why: Why, authentication: &Authentication) -> Result<(), Insufficient> {
        let now = SystemTime::now();
        match why {
            Why::Decide => authentication.suffices(self.config(), now),
            Why::See => {
                let age = authentication.at.map(|at| now.duration_since(at).unwrap_or_default());
                let recent = age.is_some_and(|age| age <= SESSION_TIME_MAX + super::CLOCK_SKEW_MAX);
                if recent { Ok(()) } else { Err(Insufficient::Old) }
            }
        }
    }

    /// Changes a code for tokens, of which only the ID token is kept.
    async fn exchange(
        &self,
        endpoints: &Endpoints,
        code: &str,
        verifier: &str,
    ) -> Result<Tokens, LoginError> {
        let _place = self.exchanges.try_acquire().map_err(|_| LoginError::Provider(Failure::Busy))?;
        let mut fields = vec![
            ("grant_type", "authorization_code".to_owned()),
            ("code", code.to_owned()),
            ("redirect_uri", self.redirect()),
            ("code_verifier", verifier.to_owned()),
        ];
        let failed = |why: String| LoginError::Provider(Failure::Provider(why));
        let secret = self.secret().map_err(failed)?;
        let methods = endpoints.token_endpoint_auth_methods_supported.as_deref();
        let by_header = methods.is_none_or(|methods| methods.iter().any(|one| one == "client_secret_basic"));
        let client = &self.config().client_id;
        let authorization = match &secret {
            Some(secret) if by_header => Some(
                basic(client, secret)
                    .ok_or_else(|| failed("the client's secret is no text of a header".to_owned()))?,
            ),
            Some(secret) => {
                fields.push(("client_id", client.clone()));
                fields.push(("client_secret", secret.expose().to_owned()));
                None
            }
            None => {
                fields.push(("client_id", client.clone()));
                None
            }
        };
        let form = Form { body: form(&fields), authorization };
        let told = self.fetch.post(&endpoints.token_endpoint, form).await.map_err(failed)?;
        serde_json::from_slice(&told).map_err(|error| failed(format!("its answer to the code: {error}")))
    }

    /// The client's secret, read anew for each login, so that it can be exchanged while the gateway runs.
    fn secret(&self) -> Result<Option<Secret>, String> {
        let Some(file) = &self.config().client_secret else { return Ok(None) };
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(Some(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned())))
    }

    fn redirect(&self) -> String {
        format!("{}{CALLBACK}", self.config().console)
    }

    /// A value that only this process can derive from what is kept.
    fn derived(&self, what: &str, kept: &Kept) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.logins, format!("{what} {}", kept.seed).as_bytes()))
    }

    fn is_derived(&self, what: &str, kept: &Kept, value: &[u8]) -> bool {
        hmac::verify(&self.logins, format!("{what} {}", kept.seed).as_bytes(), value).is_ok()
    }

    fn sealed(&self, kept: &Kept) -> String {
        let text = serde_json::to_vec(kept).unwrap_or_default();
        let tag = hmac::sign(&self.logins, &[b"cookie ", text.as_slice()].concat());
        format!("{}.{}", URL_SAFE_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(tag))
    }

    fn opened(&self, cookie: &str) -> Option<Kept> {
        let (text, tag) = cookie.split_once('.')?;
        let (text, tag) = (URL_SAFE_NO_PAD.decode(text).ok()?, URL_SAFE_NO_PAD.decode(tag).ok()?);
        hmac::verify(&self.logins, &[b"cookie ", text.as_slice()].concat(), &tag).ok()?;
        let kept: Kept = serde_json::from_slice(&text).ok()?;
        (seconds(SystemTime::now()) < kept.until).then_some(kept)
    }
}

/// The client's name and secret as a header [RFC 6749 §2.3.1].
fn basic(client: &str, secret: &Secret) -> Option<HeaderValue> {
    let pair = format!("{}:{}", encoded(client), encoded(secret.expose()));
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn form(fields: &[(&str, String)]) -> String {
    let fields: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    fields.join("&")
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, FORM).to_string()
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
