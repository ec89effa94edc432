//! The provider's tokens: ID tokens for a login [OpenID Connect Core 1.0 §3.1.3.7], and access tokens for programs
//! [RFC 9068]. One is never taken for the other.

use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;

use super::{Authentication, CLOCK_SKEW_MAX, Failure, Provider};

/// The longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// The longest text in a claim that is kept, in bytes.
const CLAIM_BYTES_MAX: usize = 512;
/// Means of authentication that are kept of one token.
const AMR_MAX: usize = 16;

/// Why a token is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not one of the asymmetric algorithms, `none` among them.
    #[error("the token is not signed in a way that is believed")]
    Algorithm,
    /// For somebody else.
    #[error("the token is made for another audience")]
    Audience,
    /// Over.
    #[error("the token has expired")]
    Expired,
    /// Of another provider.
    #[error("the token is of another issuer")]
    Issuer,
    /// Not signed by a key of the provider.
    #[error("the token is signed by a key that the provider does not have")]
    Key,
    /// No token at all, or one without what it must say.
    #[error("the token cannot be read: {0}")]
    Malformed(String),
    /// Of another login.
    #[error("the token belongs to another login")]
    Nonce,
    /// Not valid yet, or made in the future.
    #[error("the token is not valid yet")]
    NotYet,
    /// Bound to a key that nobody proves here.
    #[error("the token is bound to a key, and is nothing without it")]
    Bound,
    /// The provider's keys are not to be had.
    #[error("the identity provider cannot be asked: {0}")]
    Provider(Failure),
    /// Another signature.
    #[error("the signature of the token is not that of its key")]
    Signature,
    /// Another kind of token.
    #[error("the token is of another kind")]
    Type,
}

impl TokenError {
    /// The stable word for records.
    pub fn reason(&self) -> &'static str {
        match self {
            TokenError::Algorithm => "token-algorithm",
            TokenError::Audience => "token-audience",
            TokenError::Bound => "token-bound",
            TokenError::Expired => "token-expired",
            TokenError::Issuer => "token-issuer",
            TokenError::Key => "token-key",
            TokenError::Malformed(_) => "token-malformed",
            TokenError::Nonce => "token-nonce",
            TokenError::NotYet => "token-not-yet",
            TokenError::Provider(_) => "provider",
            TokenError::Signature => "token-signature",
            TokenError::Type => "token-type",
        }
    }
}

/// What is read of a token. A member that is there twice, or of another type, is a mistake.
#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: u64,
    iat: u64,
    nbf: Option<u64>,
    auth_time: Option<u64>,
    nonce: Option<String>,
    azp: Option<String>,
    acr: Option<String>,
    #[serde(default)]
    amr: Vec<String>,
    cnf: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn names(&self, name: &str) -> bool {
        match self {
            Audience::One(one) => one == name,
            Audience::Many(many) => many.iter().any(|one| one == name),
        }
    }

    fn is_only(&self, name: &str) -> bool {
        match self {
            Audience::One(one) => one == name,
            Audience::Many(many) => matches!(many.as_slice(), [one] if one == name),
        }
    }
}

impl Provider {
    /// Who a person is by the ID token of the login with this nonce. It is for this client alone: a token that others are
    /// meant to read too could come from them.
    pub(super) async fn identified(&self, token: &str, nonce: &str) -> Result<Authentication, TokenError> {
        let claims = self.verified(token, &[None, Some("JWT")]).await?;
        let client = &self.config().client_id;
        if !claims.aud.is_only(client) || claims.azp.as_ref().is_some_and(|party| party != client) {
            return Err(TokenError::Audience);
        }
        if claims.nonce.as_deref() != Some(nonce) {
            return Err(TokenError::Nonce);
        }
        authentication(claims)
    }

    /// Who a person is by an access token that a program shows. It must say that it is one and be made for the audience
    /// that the configuration names: an ID token, which every client of the provider has seen, is never taken.
    pub async fn shown(&self, token: &str) -> Result<Authentication, TokenError> {
        let audience = self.config().audience.as_deref().ok_or(TokenError::Audience)?;
        let claims = self.verified(token, &[Some("at+jwt"), Some("application/at+jwt")]).await?;
        if !claims.aud.names(audience) {
            return Err(TokenError::Audience);
        }
        authentication(claims)
    }

    /// What a token says, once its type, its signature, its issuer and its times are as they must be.
    async fn verified(&self, token: &str, types: &[Option<&str>]) -> Result<Claims, TokenError> {
        let malformed = |error: &dyn std::fmt::Display| TokenError::Malformed(error.to_string());
        if token.len() > TOKEN_BYTES_MAX {
            return Err(malformed(&format!("longer than {TOKEN_BYTES_MAX} bytes")));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Algorithm)?;
        if !is_asymmetric(header.alg) {
            return Err(TokenError::Algorithm);
        }
        let is_type = |kind: &Option<&str>| match (kind, header.typ.as_deref()) {
            (Some(kind), Some(typ)) => typ.eq_ignore_ascii_case(kind),
            (kind, typ) => kind.is_none() && typ.is_none(),
        };
        if !types.iter().any(is_type) || header.crit.is_some() {
            return Err(TokenError::Type);
        }
        let key = self.key(header.kid.as_deref(), header.alg).await.map_err(TokenError::Provider)?;
        let key = key.ok_or(TokenError::Key)?;
        let mut validation = Validation::new(header.alg);
        // What the token says is checked below, every claim in one place.
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_aud) = (false, false);
        let decoded = jsonwebtoken::decode::<Claims>(token, &key, &validation);
        let claims = decoded.map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => TokenError::Signature,
            _ => malformed(&error),
        })?;
        self.stands(claims.claims)
    }

    fn stands(&self, claims: Claims) -> Result<Claims, TokenError> {
        if claims.iss != self.config().issuer {
            return Err(TokenError::Issuer);
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let (now, skew) = (since.unwrap_or_default().as_secs(), CLOCK_SKEW_MAX.as_secs());
        if claims.exp.saturating_add(skew) <= now {
            return Err(TokenError::Expired);
        }
        if claims.nbf.unwrap_or_default().max(claims.iat) > now.saturating_add(skew) {
            return Err(TokenError::NotYet);
        }
        if claims.cnf.is_some() {
            return Err(TokenError::Bound);
        }
        Ok(claims)
    }
}

/// The algorithms by which a public key tells that its owner signed.
fn is_asymmetric(algorithm: Algorithm) -> bool {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512 | ES256 | ES384 | EdDSA)
}

fn authentication(claims: Claims) -> Result<Authentication, TokenError> {
    let acr = claims.acr.unwrap_or_default();
    let long = |text: &String| text.len() > CLAIM_BYTES_MAX;
    if claims.sub.is_empty() || [&claims.sub, &acr].into_iter().chain(&claims.amr).any(long) {
        return Err(TokenError::Malformed(format!(
            "a claim of more than {CLAIM_BYTES_MAX} bytes, or no `sub`"
        )));
    }
    if claims.amr.len() > AMR_MAX {
        return Err(TokenError::Malformed(format!("more than {AMR_MAX} values in `amr`")));
    }
    let moment = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    let at = claims.auth_time.and_then(moment);
    let until = moment(claims.exp).ok_or_else(|| TokenError::Malformed("`exp` is no time".to_owned()))?;
    Ok(Authentication {
        issuer: claims.iss.into(),
        subject: claims.sub.into(),
        at,
        acr: acr.into(),
        amr: claims.amr.into_iter().map(Into::into).collect(),
        until,
    })
}
