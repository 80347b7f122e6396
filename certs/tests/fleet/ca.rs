//! A CA of our own, over plain HTTP: real certificates, nonces that count, and every misbehaviour that is asked for. It does not
//! verify signatures; what it validates it validates by asking, as a CA does.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm,
};
use serde_json::{Value, json};
use tokio::sync::Notify;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use crate::lab::Hand;

/// Asks a name for the answer to a token, as a CA does for HTTP-01.
type Asker = Arc<dyn Fn(&str, &str) -> Said + Send + Sync>;

/// What a name says to it.
type Said = std::pin::Pin<Box<dyn Future<Output = Option<String>> + Send>>;

/// What a CA does wrong, or right.
#[derive(Default)]
pub(crate) struct Mood {
    /// Answers to the next requests, by what their path begins with, instead of the right ones.
    pub(crate) refuse: Vec<(&'static str, u16, &'static str, Option<u64>)>,
    /// How many of the next requests have their nonce refused.
    pub(crate) bad_nonces: u32,
    /// Of each so many requests one has its nonce refused.
    pub(crate) bad_nonce_each: Option<u64>,
    /// Bytes of nonsense that the directory answers with.
    pub(crate) huge: bool,
    /// Issues for this name, whatever was asked for.
    pub(crate) wrong_name: Option<&'static str>,
    /// Certifies a key of its own.
    pub(crate) wrong_key: bool,
    /// What renewal information says, in seconds from now.
    pub(crate) window: Option<(i64, i64)>,
    /// How long certificates last.
    pub(crate) life: Option<Duration>,
    /// Never comes to an end with what it issues.
    pub(crate) stuck: bool,
    /// Waits before it issues.
    pub(crate) hold: Option<Arc<Gate>>,
}

/// Lets nobody through until it is opened.
#[derive(Default)]
pub(crate) struct Gate {
    reached: Notify,
    open: Notify,
}

impl Gate {
    pub(crate) async fn reached(&self) {
        self.reached.notified().await;
    }

    pub(crate) fn open(&self) {
        self.open.notify_one();
    }
}

pub(crate) struct Ca {
    address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    base: String,
    state: Mutex<State>,
    issuer: Issuer<'static, KeyPair>,
    root: String,
    hand: Hand,
}

#[derive(Default)]
struct State {
    mood: Mood,
    asker: Option<Asker>,
    nonces: HashSet<String>,
    requests: Vec<String>,
    counted: u64,
    accounts: HashMap<String, usize>,
    account_payloads: Vec<Value>,
    orders: Vec<Order>,
}

#[derive(Clone, Default)]
struct Order {
    payload: Value,
    names: Vec<String>,
    thumbprint: String,
    proved: Vec<bool>,
    failed: bool,
    certificate: Option<String>,
}

impl Ca {
    pub(crate) async fn start(hand: &Hand) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Stub Root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap().pem();
        let inner = Arc::new(Inner {
            base: format!("http://{address}"),
            state: Mutex::default(),
            issuer: Issuer::new(params, key),
            root,
            hand: hand.clone(),
        });
        let served = Arc::clone(&inner);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let inner = Arc::clone(&served);
                let service = service_fn(move |request| Arc::clone(&inner).serve(request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, inner }
    }

    pub(crate) fn directory(&self) -> String {
        format!("http://{}/directory", self.address)
    }

    pub(crate) fn mood(&self, change: impl FnOnce(&mut Mood)) {
        change(&mut self.inner.state.lock().unwrap().mood);
    }

    /// How names are asked for their proof.
    pub(crate) fn ask_by<F>(&self, asker: impl Fn(&str, &str) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Option<String>> + Send + 'static,
    {
        let asker = move |name: &str, token: &str| -> Said { Box::pin(asker(name, token)) };
        self.inner.state.lock().unwrap().asker = Some(Arc::new(asker));
    }

    pub(crate) fn orders(&self) -> usize {
        self.inner.state.lock().unwrap().orders.len()
    }

    pub(crate) fn order(&self, at: usize) -> Value {
        self.inner.state.lock().unwrap().orders[at].payload.clone()
    }

    pub(crate) fn accounts(&self) -> usize {
        self.inner.state.lock().unwrap().accounts.len()
    }

    pub(crate) fn account_payloads(&self) -> Vec<Value> {
        self.inner.state.lock().unwrap().account_payloads.clone()
    }

    pub(crate) fn asked(&self, path: &str) -> usize {
        let state = self.inner.state.lock().unwrap();
        state
            .requests
            .iter()
            .filter(|asked| asked.starts_with(path))
            .count()
    }
}

impl Inner {
    async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        let path = parts.uri.path().to_owned();
        let gate = path
            .starts_with("/finalize/")
            .then(|| self.state.lock().unwrap().mood.hold.clone())
            .flatten();
        if let Some(gate) = gate {
            gate.reached.notify_one();
            gate.open.notified().await;
        }
        let said = match self.question(&path) {
            Some(question) => question.await,
            None => None,
        };
        let mut response = self.answer(&path, &body, said.as_deref());
        let nonce = format!("{:032x}", fastrand::u128(..));
        self.state.lock().unwrap().nonces.insert(nonce.clone());
        response
            .headers_mut()
            .insert("replay-nonce", nonce.parse().unwrap());
        Ok(response)
    }

    /// What a validation asks the name.
    fn question(&self, path: &str) -> Option<Said> {
        let (at, which) = path.strip_prefix("/chall/")?.split_once('/')?;
        let (at, which): (usize, usize) = (at.parse().ok()?, which.parse().ok()?);
        let state = self.state.lock().unwrap();
        let name = state.orders.get(at)?.names.get(which)?;
        Some(state.asker.as_ref()?(name, &token(at, which)))
    }

    fn answer(&self, path: &str, body: &[u8], said: Option<&str>) -> Response<Full<Bytes>> {
        let mut state = self.state.lock().unwrap();
        state.requests.push(path.to_owned());
        if let Some(at) = state
            .mood
            .refuse
            .iter()
            .position(|(begin, ..)| path.starts_with(begin))
        {
            let (_, status, kind, wait) = state.mood.refuse.remove(at);
            return problem(status, kind, wait);
        }
        if path == "/directory" {
            return self.describe(&state.mood);
        }
        if path == "/nonce" {
            return json_of(200, &json!({}), None);
        }
        if let Some(identifier) = path.strip_prefix("/ari/") {
            return self.renewal(&state.mood, identifier);
        }
        let Some((head, payload)) = jws(body) else {
            return problem(400, "malformed", None);
        };
        state.counted += 1;
        let known = state.nonces.remove(head["nonce"].as_str().unwrap_or_default());
        let counted = state.counted;
        let unlucky = state
            .mood
            .bad_nonce_each
            .is_some_and(|each| counted.is_multiple_of(each));
        if !known || unlucky || state.mood.bad_nonces > 0 {
            state.mood.bad_nonces = state.mood.bad_nonces.saturating_sub(1);
            return problem(400, "badNonce", None);
        }
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let at = parts.get(1).and_then(|text| text.parse::<usize>().ok());
        match (parts[0], at) {
            ("account", None) => self.register(&mut state, &head, payload),
            ("account", Some(_)) => json_of(200, &json!({"status": "valid"}), None),
            ("order", None) => self.place(&mut state, &head, payload),
            ("order", Some(at)) => json_of(200, &self.order(&state, at), None),
            ("authz", Some(at)) => {
                let which: usize = parts[2].parse().unwrap();
                json_of(200, &self.authorization(&state, at, which), None)
            }
            ("chall", Some(at)) => self.validate(&mut state, at, parts[2].parse().unwrap(), said),
            ("finalize", Some(at)) => self.finalize(&mut state, at, &payload),
            ("cert", Some(at)) => chain(state.orders[at].certificate.clone().unwrap()),
            _ => problem(404, "malformed", None),
        }
    }

    fn describe(&self, mood: &Mood) -> Response<Full<Bytes>> {
        if mood.huge {
            return Response::new(Full::from(vec![b' '; 3 * 1024 * 1024]));
        }
        let base = &self.base;
        let mut directory = json!({
            "newNonce": format!("{base}/nonce"), "newAccount": format!("{base}/account"),
            "newOrder": format!("{base}/order"), "meta": {"profiles": {"shortlived": "six days"}},
        });
        if mood.window.is_some() {
            directory["renewalInfo"] = json!(format!("{base}/ari"));
        }
        json_of(200, &directory, None)
    }

    fn renewal(&self, mood: &Mood, identifier: &str) -> Response<Full<Bytes>> {
        // RFC 9773 section 4.1: two parts in base64url.
        let good = identifier
            .split_once('.')
            .is_some_and(|(key, serial)| !key.is_empty() && URL_SAFE_NO_PAD.decode(serial).is_ok());
        let Some((start, end)) = mood.window.filter(|_| good) else {
            return problem(404, "malformed", None);
        };
        let at = |seconds: i64| {
            let unix = self.hand.now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + seconds;
            httpdate_to_rfc3339(UNIX_EPOCH + Duration::from_secs(unix as u64))
        };
        let mut answer = json_of(
            200,
            &json!({"suggestedWindow": {"start": at(start), "end": at(end)}}),
            None,
        );
        answer
            .headers_mut()
            .insert("retry-after", "21600".parse().unwrap());
        answer
    }

    fn register(&self, state: &mut State, head: &Value, payload: Value) -> Response<Full<Bytes>> {
        let key = head["jwk"].to_string();
        let next = state.accounts.len();
        let number = *state.accounts.entry(key).or_insert(next);
        state.account_payloads.push(payload);
        let url = format!("{}/account/{number}", self.base);
        json_of(
            if number == next { 201 } else { 200 },
            &json!({"status": "valid"}),
            Some(url),
        )
    }

    fn place(&self, state: &mut State, head: &Value, payload: Value) -> Response<Full<Bytes>> {
        let number = head["kid"].as_str().unwrap().rsplit('/').next().unwrap();
        let number: usize = number.parse().unwrap();
        let (key, _) = state.accounts.iter().find(|(_, at)| **at == number).unwrap();
        let key: Value = serde_json::from_str(key).unwrap();
        let names: Vec<String> = payload["identifiers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|identifier| identifier["value"].as_str().unwrap().to_owned())
            .collect();
        state.orders.push(Order {
            proved: vec![false; names.len()],
            names,
            thumbprint: thumbprint(&key),
            payload,
            ..Order::default()
        });
        let at = state.orders.len() - 1;
        json_of(
            201,
            &self.order(state, at),
            Some(format!("{}/order/{at}", self.base)),
        )
    }

    fn order(&self, state: &State, at: usize) -> Value {
        let (base, order) = (&self.base, &state.orders[at]);
        let status = match order {
            Order { failed: true, .. } => "invalid",
            Order {
                certificate: Some(_), ..
            } if state.mood.stuck => "processing",
            Order {
                certificate: Some(_), ..
            } => "valid",
            order if order.proved.iter().all(|proved| *proved) => "ready",
            _ => "pending",
        };
        let mut value = json!({
            "status": status,
            "identifiers": order.payload["identifiers"],
            "authorizations": (0..order.names.len()).map(|which| format!("{base}/authz/{at}/{which}")).collect::<Vec<_>>(),
            "finalize": format!("{base}/finalize/{at}"),
        });
        if status == "valid" {
            value["certificate"] = json!(format!("{base}/cert/{at}"));
        }
        for echoed in ["replaces", "profile"] {
            if let Some(said) = order.payload.get(echoed) {
                value[echoed] = said.clone();
            }
        }
        value
    }

    fn authorization(&self, state: &State, at: usize, which: usize) -> Value {
        let order = &state.orders[at];
        let status = match (order.failed, order.proved[which]) {
            (true, _) => "invalid",
            (_, true) => "valid",
            _ => "pending",
        };
        let challenge = |kind: &str| {
            json!({"type": kind, "url": format!("{}/chall/{at}/{which}", self.base), "status": status,
                   "token": token(at, which)})
        };
        json!({"status": status, "identifier": {"type": "dns", "value": order.names[which].trim_start_matches("*.")},
               "wildcard": order.names[which].starts_with("*."), "challenges": [challenge("http-01"), challenge("dns-01")]})
    }

    fn validate(
        &self,
        state: &mut State,
        at: usize,
        which: usize,
        said: Option<&str>,
    ) -> Response<Full<Bytes>> {
        let token = token(at, which);
        // RFC 8555 section 8.1: the thumbprint of the account that ordered.
        let good = said.is_some_and(|said| said == format!("{token}.{}", state.orders[at].thumbprint));
        if good {
            state.orders[at].proved[which] = true;
        } else {
            state.orders[at].failed = true;
        }
        let authorization = self.authorization(state, at, which);
        json_of(200, &authorization["challenges"][0], None)
    }

    fn finalize(&self, state: &mut State, at: usize, payload: &Value) -> Response<Full<Bytes>> {
        let request = URL_SAFE_NO_PAD.decode(payload["csr"].as_str().unwrap()).unwrap();
        let (_, request) = X509CertificationRequest::from_der(&request).unwrap();
        let key = request.certification_request_info.subject_pki;
        let rsa = key.algorithm.algorithm.to_id_string() == "1.2.840.113549.1.1.1";
        let mut key = Key(key.subject_public_key.data.to_vec(), rsa);
        if state.mood.wrong_key {
            key = Key(KeyPair::generate().unwrap().public_key_raw().to_vec(), false);
        }
        let names = match state.mood.wrong_name {
            Some(name) => vec![name.to_owned()],
            None => state.orders[at].names.clone(),
        };
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.use_authority_key_identifier_extension = true;
        let now = self.hand.now().duration_since(UNIX_EPOCH).unwrap();
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + now;
        params.not_after = params.not_before + state.mood.life.unwrap_or(Duration::from_secs(90 * 86_400));
        let leaf = params.signed_by(&key, &self.issuer).unwrap().pem();
        state.orders[at].certificate = Some(format!("{leaf}{}", self.root));
        json_of(200, &self.order(state, at), None)
    }
}

/// The key of a request.
struct Key(Vec<u8>, bool);

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        if self.1 {
            &PKCS_RSA_SHA256
        } else {
            &PKCS_ECDSA_P256_SHA256
        }
    }
}

fn token(at: usize, which: usize) -> String {
    format!("token-{at}-{which}-0123456789abcdef")
}

/// RFC 7638, of a key of P-256.
fn thumbprint(key: &Value) -> String {
    let member = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
    let text = format!(
        r#"{{"crv":"{}","kty":"{}","x":"{}","y":"{}"}}"#,
        member("crv"),
        member("kty"),
        member("x"),
        member("y")
    );
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

fn jws(body: &[u8]) -> Option<(Value, Value)> {
    let jws: Value = serde_json::from_slice(body).ok()?;
    let part = |name: &str| URL_SAFE_NO_PAD.decode(jws[name].as_str()?).ok();
    let head = serde_json::from_slice(&part("protected")?).ok()?;
    let payload = serde_json::from_slice(&part("payload")?).unwrap_or(Value::Null);
    Some((head, payload))
}

fn json_of(status: u16, value: &Value, location: Option<String>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(value.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if let Some(location) = location {
        response
            .headers_mut()
            .insert("location", location.parse().unwrap());
    }
    response
}

fn chain(pem: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(pem));
    let kind = "application/pem-certificate-chain".parse().unwrap();
    response.headers_mut().insert("content-type", kind);
    response
}

fn problem(status: u16, kind: &str, wait: Option<u64>) -> Response<Full<Bytes>> {
    let value = json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "as it was told to", "status": status});
    let mut response = json_of(status, &value, None);
    if let Some(wait) = wait {
        response.headers_mut().insert("retry-after", wait.into());
    }
    response
}

/// A time as RFC 3339 writes it.
fn httpdate_to_rfc3339(time: SystemTime) -> String {
    let date = httpdate::fmt_http_date(time);
    let parts: Vec<&str> = date.split(' ').collect();
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = months.iter().position(|month| *month == parts[2]).unwrap() + 1;
    format!("{}-{month:02}-{}T{}Z", parts[3], parts[1], parts[4])
}
