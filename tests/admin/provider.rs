//! A small identity provider that does as it is told, well or badly, and a browser without a certificate.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use holdpoint::config::ListenerKind;
use holdpoint::demo::agent::Answer;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::harness::{SOON, World};

/// Where people go: what the gateway is told it is, wherever it listens.
pub const CONSOLE: &str = "https://console.example.org";
pub const CLIENT: &str = "holdpoint client";
pub const SECRET: &str = "s3cret:+ä";
pub const AUDIENCE: &str = "https://console.example.org/api";

/// How a token is made wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    Well,
    /// With no signature and no algorithm.
    Not,
    /// By an HMAC whose secret is the public key.
    ByPublicKey,
    /// By a key that is not the provider's, under the name of one that is.
    ByAnother,
    /// By a key of the provider's that has another name now.
    ByUnknownName,
}

/// Somebody at the provider, and what it says of them.
#[derive(Clone, Debug)]
pub struct Login {
    pub subject: String,
    /// How long ago they were authenticated.
    pub ago: Duration,
    pub claims: Value,
    pub kind: Option<&'static str>,
    pub signed: Signed,
}

impl Login {
    pub fn of(subject: &str) -> Login {
        let (subject, claims) = (subject.to_owned(), json!({"acr": "gold", "amr": ["hwk", "pin"]}));
        Login { subject, ago: Duration::ZERO, claims, kind: Some("JWT"), signed: Signed::Well }
    }

    pub fn ago(self, seconds: u64) -> Login {
        Login { ago: Duration::from_secs(seconds), ..self }
    }

    /// With other claims; `null` leaves one out.
    pub fn with(mut self, claims: Value) -> Login {
        for (name, value) in claims.as_object().unwrap() {
            self.claims[name] = value.clone();
        }
        self
    }

    pub fn kind(self, kind: Option<&'static str>) -> Login {
        Login { kind, ..self }
    }

    pub fn signed(self, signed: Signed) -> Login {
        Login { signed, ..self }
    }
}

struct Given {
    login: Login,
    nonce: String,
    challenge: String,
    redirect: String,
}

struct Desk {
    issuer: String,
    key: Vec<u8>,
    name: String,
    codes: HashMap<String, Given>,
    /// How often the keys were asked for.
    asked: usize,
}

/// The provider.
pub struct Provider {
    pub issuer: String,
    pub address: SocketAddr,
    desk: Arc<Mutex<Desk>>,
    serving: JoinHandle<()>,
}

fn new_key() -> Vec<u8> {
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    key.unwrap().as_ref().to_vec()
}

fn public(key: &[u8]) -> Vec<u8> {
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key).unwrap();
    pair.public_key().as_ref().to_vec()
}

/// Waits for the record that somebody was refused for this: nobody waits for it when they are answered.
pub async fn refused_for(world: &World, reason: &str) -> Value {
    let end = tokio::time::Instant::now() + SOON;
    loop {
        if let Some(order) = world.orders().into_iter().find(|order| order["reason"] == reason) {
            return order;
        }
        assert!(tokio::time::Instant::now() < end, "nobody was refused for {reason}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

impl Provider {
    pub async fn start() -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let issuer = format!("http://{address}/realm");
        let (key, name, codes) = (new_key(), "first".to_owned(), HashMap::new());
        let desk = Arc::new(Mutex::new(Desk { issuer: issuer.clone(), key, name, codes, asked: 0 }));
        let serving = serve(listener, Arc::clone(&desk));
        Provider { issuer, address, desk, serving }
    }

    /// Does not answer any more.
    pub async fn down(&mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }

    /// Answers again, at the same address.
    pub async fn up(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serving = serve(listener, Arc::clone(&self.desk));
    }

    /// Has another key from now on, of another name.
    pub fn rotates(&self) {
        let mut desk = self.desk.lock().unwrap();
        (desk.key, desk.name) = (new_key(), "second".to_owned());
    }

    pub fn asked(&self) -> usize {
        self.desk.lock().unwrap().asked
    }

    /// What the section `oidc` says of it.
    pub fn section(&self, more: &str) -> String {
        let issuer = &self.issuer;
        format!(
            "oidc: {{issuer: \"{issuer}\", client_id: \"{CLIENT}\", client_secret_file: secret, \
             redirect: \"{CONSOLE}\", audience: \"{AUDIENCE}\"{more}}}\n"
        )
    }

    /// Where somebody logs in who was sent here: what the browser then brings back.
    pub fn authorizes(&self, location: &str, login: Login) -> BTreeMap<String, String> {
        let (endpoint, query) = location.split_once('?').unwrap();
        assert_eq!(endpoint, format!("{}/authorize", self.issuer));
        let asked = fields(query);
        assert_eq!(asked["response_type"], "code");
        assert_eq!(asked["code_challenge_method"], "S256");
        assert_eq!(asked["client_id"], CLIENT);
        let mut desk = self.desk.lock().unwrap();
        let code = format!("code-{}", desk.codes.len());
        let given = Given {
            login,
            nonce: asked["nonce"].clone(),
            challenge: asked["code_challenge"].clone(),
            redirect: asked["redirect_uri"].clone(),
        };
        desk.codes.insert(code.clone(), given);
        let back = [("code", code), ("state", asked["state"].clone()), ("iss", self.issuer.clone())];
        back.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// An access token for the gateway's API.
    pub fn token(&self, login: Login) -> String {
        let audience = json!({"aud": AUDIENCE, "client_id": "cli"});
        let claims = std::mem::take(&mut login.claims.clone());
        let login = Login { claims: audience, ..login }.with(claims);
        self.desk.lock().unwrap().token(&login)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Desk {
    fn token(&self, login: &Login) -> String {
        let mut claims = json!({
            "iss": self.issuer, "sub": login.subject, "iat": now(), "exp": now() + 300, "jti": "x",
            "auth_time": now() - login.ago.as_secs(),
        });
        for (name, value) in login.claims.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let mut header = Header::new(Algorithm::ES256);
        header.typ = login.kind.map(str::to_owned);
        header.kid = Some(self.name.clone());
        let sign = |header: &Header, key: &EncodingKey| jsonwebtoken::encode(header, &claims, key).unwrap();
        match login.signed {
            Signed::Well => sign(&header, &EncodingKey::from_ec_der(&self.key)),
            Signed::ByAnother => sign(&header, &EncodingKey::from_ec_der(&new_key())),
            Signed::ByUnknownName => {
                header.kid = Some(format!("unheard-of-{}", claims["jti"]));
                sign(&header, &EncodingKey::from_ec_der(&self.key))
            }
            Signed::ByPublicKey => {
                header.alg = Algorithm::HS256;
                sign(&header, &EncodingKey::from_secret(&public(&self.key)))
            }
            Signed::Not => {
                let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
                let header = json!({"alg": "none", "typ": login.kind, "kid": self.name});
                format!("{}.{}.", part(header), part(claims))
            }
        }
    }
}

type Shared = State<Arc<Mutex<Desk>>>;

fn serve(listener: TcpListener, desk: Arc<Mutex<Desk>>) -> JoinHandle<()> {
    let routes = Router::new()
        .route("/realm/.well-known/openid-configuration", get(discovery))
        .route("/realm/keys", get(keys))
        .route("/realm/token", post(token))
        .with_state(desk);
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() })
}

async fn discovery(State(desk): Shared) -> Json<Value> {
    let issuer = desk.lock().unwrap().issuer.clone();
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "authorization_response_iss_parameter_supported": true,
    }))
}

async fn keys(State(desk): Shared) -> Json<Value> {
    let mut desk = desk.lock().unwrap();
    desk.asked += 1;
    let public = public(&desk.key);
    let part = |at: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&public[at]);
    let key = json!({"kty": "EC", "crv": "P-256", "kid": desk.name, "use": "sig", "x": part(1..33), "y": part(33..65)});
    Json(json!({"keys": [key]}))
}

async fn token(
    State(desk): Shared,
    headers: HeaderMap,
    Form(form): Form<BTreeMap<String, String>>,
) -> Result<Json<Value>, StatusCode> {
    // Name and secret are encoded as in a form before they are joined.
    let basic = STANDARD.encode("holdpoint%20client:s3cret%3A%2B%C3%A4");
    if headers["authorization"] != format!("Basic {basic}") || form["grant_type"] != "authorization_code" {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let mut desk = desk.lock().unwrap();
    // Each code is good once.
    let given = desk.codes.remove(&form["code"]).ok_or(StatusCode::BAD_REQUEST)?;
    let challenge = digest::digest(&digest::SHA256, form["code_verifier"].as_bytes());
    if URL_SAFE_NO_PAD.encode(challenge) != given.challenge || form["redirect_uri"] != given.redirect {
        return Err(StatusCode::BAD_REQUEST);
    }
    let usual = json!({"aud": CLIENT, "nonce": given.nonce});
    let login = Login { claims: usual, ..given.login.clone() }.with(given.login.claims);
    let token = desk.token(&login);
    Ok(Json(json!({"id_token": token, "access_token": "opaque", "token_type": "Bearer"})))
}

pub fn fields(query: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            match byte {
                b'%' => {
                    let hex = [rest.next().unwrap(), rest.next().unwrap()];
                    bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
                }
                other => bytes.push(other),
            }
        }
        String::from_utf8(bytes).unwrap()
    };
    let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (decode(name), decode(value)));
    query.split('&').filter_map(pair).collect()
}

/// A connection on which nothing was shown.
pub struct Open {
    pub stream: tokio_rustls::client::TlsStream<TcpStream>,
}

/// A browser without a certificate, in front of the console.
pub struct Browser<'a> {
    world: &'a World,
    pub cookies: BTreeMap<String, String>,
}

impl<'a> Browser<'a> {
    pub fn new(world: &'a World) -> Browser<'a> {
        Browser { world, cookies: BTreeMap::new() }
    }

    /// A connection without a certificate.
    pub async fn connects(&self) -> std::io::Result<Open> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.world.pem("example.org")).unwrap()).unwrap();
        let tls = rustls::ClientConfig::builder_with_provider(holdpoint::accept::tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.world.address(ListenerKind::Admin)).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
        let stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await?;
        Ok(Open { stream })
    }

    /// Any request, with the cookies so far and those of the answer kept.
    pub async fn asks(&mut self, request: http::request::Builder, body: String) -> Answer {
        let stream = self.connects().await.unwrap().stream;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = request.header("host", "console.example.org");
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        for set in head.headers.get_all("set-cookie") {
            let set = set.to_str().unwrap();
            let (name, value) = set.split(';').next().unwrap().split_once('=').unwrap();
            assert!(name.starts_with("__Host-") && set.contains("; Secure; HttpOnly; SameSite="), "{set}");
            match set.contains("Max-Age=0") {
                true => self.cookies.remove(name),
                false => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
        Answer { status: head.status, headers: head.headers, body }
    }

    /// A page.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.asks(Request::get(path).header("accept", "text/html"), String::new()).await
    }

    /// What a program would get.
    pub async fn api(&mut self, path: &str) -> Answer {
        self.asks(Request::get(path), String::new()).await
    }

    /// An order over the API, with these headers.
    pub async fn orders(&mut self, path: &str, body: Value, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::post(path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.asks(request, body.to_string()).await
    }

    /// A form of a page, as a browser sends it.
    pub async fn submits(&mut self, path: &str, token: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::post(path)
            .header("accept", "text/html")
            .header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let reason = if path == "/logout" { "" } else { "&reason=it+loops" };
        self.asks(request, format!("token={token}{reason}")).await
    }

    /// Begins a login: where the provider is asked.
    pub async fn begins(&mut self, path: &str) -> String {
        let sent = self.get(path).await;
        assert_eq!(sent.status, 303, "{sent:?}");
        sent.headers["location"].to_str().unwrap().to_owned()
    }

    /// Comes back from the provider with this.
    pub async fn returns(&mut self, back: &BTreeMap<String, String>) -> Answer {
        let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let query: Vec<String> =
            back.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let request = Request::get(format!("/login/callback?{}", query.join("&")));
        let request = request.header("accept", "text/html").header("sec-fetch-site", "cross-site");
        self.asks(request, String::new()).await
    }

    /// The whole way, as whoever this is at the provider.
    pub async fn logs_in(&mut self, provider: &Provider, login: Login) -> Answer {
        let location = self.begins("/login?to=/").await;
        let back = provider.authorizes(&location, login);
        self.returns(&back).await
    }

    /// Whether anybody is logged in.
    pub async fn is_somebody(&mut self) -> bool {
        self.api("/v1/health").await.status == 200
    }
}
