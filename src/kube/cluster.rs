//! The API server, as far as the injector needs it: one Secret and one webhook configuration are read,
//! made and replaced.
//!
//! One connection a request, with the CA and the token of the service account read anew each time, as both
//! are exchanged while the process runs. Objects are replaced whole with the `resourceVersion` they were read
//! with, so that of two replicas one wins and the other reads again. Refuses answers over 4 MiB and waits at
//! most ten seconds. Why by itself: `docs/adr/0019-four-requests-need-no-framework.md`. Used by `serving`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use ::http::{HeaderValue, Method, Request, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

use crate::http::Budget;
use crate::http::body::{full, hold};
use crate::net::tls;
use crate::task;
use crate::telemetry::Metrics;

/// How long one request may take, the connection included.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest answer, in bytes; a Secret has at most 1 MiB before base64.
const LARGEST: usize = 4 << 20;
/// A token has some thousand bytes, a CA file a few certificates.
const LARGEST_FILE: u64 = 1 << 20;
/// How much of the API server's own words is repeated, in characters.
const WORDS: usize = 300;

/// Where a pod finds its service account.
pub const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// An API server and who asks it.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The folder with `ca.crt` and `token`.
    pub account: PathBuf,
    /// Who counts the requests.
    pub metrics: Metrics,
}

/// An object of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A Secret, by namespace and name.
    Secret(String, String),
    /// A `MutatingWebhookConfiguration`, by name.
    Webhook(String),
}

/// Why the API server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The service account's files are of no use.
    #[error("{file}: {1}", file = .0.display())]
    Account(PathBuf, String),
    /// It is away, or is not who the CA says.
    #[error("the API server at {0} does not answer: {1}")]
    Away(String, String),
    /// Somebody else changed the object, made it, or deleted it meanwhile.
    #[error("{0} was changed by somebody else meanwhile")]
    Conflict(Object),
    /// The service account may not.
    #[error("the service account may not {0} {1}; allow it in its role (the API server says: {2})")]
    Forbidden(&'static str, Object, String),
    /// Anything else it said.
    #[error("the API server refuses to {0} {1} with status {2}: {3}")]
    Refused(&'static str, Object, StatusCode, String),
}

impl Cluster {
    /// Reads an object, if it is there.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn read(&self, object: &Object) -> Result<Option<Value>, ClusterError> {
        match self.ask(Verb::Get, object, None).await {
            Err(ClusterError::Refused(_, _, StatusCode::NOT_FOUND, _)) => Ok(None),
            Err(error) => Err(error),
            Ok(value) => Ok(Some(value)),
        }
    }

    /// Makes an object that is not there.
    ///
    /// # Errors
    /// [`ClusterError::Conflict`] when it is there by now.
    pub async fn create(&self, object: &Object, value: &Value) -> Result<Value, ClusterError> {
        self.ask(Verb::Create, object, Some(value)).await
    }

    /// Replaces an object as it was read, its `resourceVersion` included.
    ///
    /// # Errors
    /// [`ClusterError::Conflict`] when it was changed since.
    pub async fn replace(&self, object: &Object, value: &Value) -> Result<Value, ClusterError> {
        self.ask(Verb::Update, object, Some(value)).await
    }

    async fn ask(
        &self,
        verb: Verb,
        object: &Object,
        value: Option<&Value>,
    ) -> Result<Value, ClusterError> {
        let asking = timeout(PATIENCE, self.exchange(verb, object, value));
        let answer = match asking.await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(self.away(format_args!("not within {PATIENCE:?}"))),
        };
        let answer = answer.and_then(|(status, bytes)| judge(verb, object, status, &bytes));
        let result = answer.as_ref().map_or_else(ClusterError::label, |_| "ok");
        let labels = [verb.name(), object.kind(), result];
        self.metrics
            .cluster_requests
            .with_label_values(&labels)
            .inc();
        answer
    }

    async fn exchange(
        &self,
        verb: Verb,
        object: &Object,
        value: Option<&Value>,
    ) -> Result<(StatusCode, Zeroizing<Vec<u8>>), ClusterError> {
        let request = self.request(verb, object, value).await?;
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.away(error))?;
        // Ends with the sender.
        drop(task::spawn(connection));
        let answer = sender.send_request(request).await;
        let (head, body) = answer.map_err(|error| self.away(error))?.into_parts();
        let shown = prometheus::IntGauge::new("answers", "Bytes of answers.");
        let budget = Budget::new(LARGEST, shown.map_err(|error| self.away(error))?);
        let held = hold(body, LARGEST, &budget).await;
        let held = held.map_err(|error| self.away(error))?;
        Ok((head.status, Zeroizing::new(held.bytes.to_vec())))
    }

    async fn request(
        &self,
        verb: Verb,
        object: &Object,
        value: Option<&Value>,
    ) -> Result<Request<crate::http::Body>, ClusterError> {
        let path = match verb {
            Verb::Create => object.collection(),
            Verb::Get | Verb::Update => format!("{}/{}", object.collection(), object.name()),
        };
        let token = self.file("token").await?;
        let token = Zeroizing::new(format!("Bearer {}", String::from_utf8_lossy(&token).trim()));
        let mut token = HeaderValue::from_str(&token)
            .map_err(|_no_header| self.account("token", "holds no token"))?;
        token.set_sensitive(true);
        let body = value.map(Value::to_string).unwrap_or_default();
        Request::builder()
            .method(verb.method())
            .uri(path)
            .header(HOST, self.authority())
            .header(AUTHORIZATION, token)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .header(
                USER_AGENT,
                concat!("countersign/", env!("CARGO_PKG_VERSION")),
            )
            .body(full(body))
            .map_err(|error| self.away(error))
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, ClusterError> {
        let pem = self.file("ca.crt").await?;
        let roots = roots(&pem).ok_or_else(|| self.account("ca.crt", "holds no CA certificate"))?;
        let config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| self.away(error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(self.host.clone());
        let name = name.map_err(|error| self.away(error))?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|error| self.away(error))?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await;
        stream.map_err(|error| self.away(error))
    }

    /// A file of the service account, as it is now.
    async fn file(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, ClusterError> {
        let path = self.account.join(name);
        let read = task::aside(move || read(&path)).await;
        let read = read.map_err(|error| self.account(name, &error.to_string()))?;
        read.map_err(|error| self.account(name, &error.to_string()))
    }

    fn account(&self, file: &str, text: &str) -> ClusterError {
        ClusterError::Account(self.account.join(file), text.to_owned())
    }

    fn away(&self, why: impl std::fmt::Display) -> ClusterError {
        ClusterError::Away(self.authority(), why.to_string())
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    use io::Read as _;
    let mut bytes = Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path)?;
    file.take(LARGEST_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn roots(pem: &[u8]) -> Option<RootCertStore> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.ok()?);
    (added > 0).then_some(roots)
}

/// What the answer says.
fn judge(
    verb: Verb,
    object: &Object,
    status: StatusCode,
    body: &[u8],
) -> Result<Value, ClusterError> {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    if status.is_success() {
        let unread = || "the answer is no JSON".to_owned();
        return value
            .ok_or_else(|| ClusterError::Refused(verb.name(), object.clone(), status, unread()));
    }
    let message = value
        .as_ref()
        .and_then(|value| value.get("message")?.as_str());
    let words: String = message.unwrap_or("no reason").chars().take(WORDS).collect();
    Err(match (status, verb) {
        (StatusCode::CONFLICT, _) | (StatusCode::NOT_FOUND, Verb::Update) => {
            ClusterError::Conflict(object.clone())
        }
        (StatusCode::FORBIDDEN, _) => ClusterError::Forbidden(verb.name(), object.clone(), words),
        _ => ClusterError::Refused(verb.name(), object.clone(), status, words),
    })
}

#[derive(Clone, Copy)]
enum Verb {
    Get,
    Create,
    Update,
}

impl Verb {
    /// As roles call it.
    fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Create => "create",
            Self::Update => "update",
        }
    }

    fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Create => Method::POST,
            Self::Update => Method::PUT,
        }
    }
}

impl Object {
    fn collection(&self) -> String {
        match self {
            Self::Secret(namespace, _) => format!("/api/v1/namespaces/{namespace}/secrets"),
            Self::Webhook(_) => {
                "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations".to_owned()
            }
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Secret(_, name) | Self::Webhook(name) => name,
        }
    }

    /// The label `object` of the metric.
    fn kind(&self) -> &'static str {
        match self {
            Self::Secret(..) => "secret",
            Self::Webhook(_) => "webhook",
        }
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Secret(namespace, name) => write!(f, "Secret {namespace}/{name}"),
            Self::Webhook(name) => write!(f, "MutatingWebhookConfiguration {name}"),
        }
    }
}

impl ClusterError {
    /// The label `result` of the metric.
    fn label(&self) -> &'static str {
        match self {
            Self::Account(..) => "account",
            Self::Away(..) => "away",
            Self::Conflict(_) => "conflict",
            Self::Forbidden(..) => "forbidden",
            Self::Refused(_, _, StatusCode::NOT_FOUND, _) => "missing",
            Self::Refused(..) => "refused",
        }
    }
}
