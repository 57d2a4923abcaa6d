//! The corporate proxy on the way out: asks it by CONNECT to pass bytes to the destination.
//!
//! The proxy resolves the destination's name and sees its host and port; what is inside stays between
//! the two ends. hyper speaks HTTP with it, so heads are bounded, the status is known, and bytes of a
//! server that speaks first are not lost. Refuses proxies that are not plain HTTP. The credentials are
//! in no message, log or `Debug`.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::http::header::{HOST, PROXY_AUTHORIZATION, VIA};
use ::http::{HeaderValue, Request, StatusCode, Uri};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use zeroize::Zeroizing;

use super::connect::ConnectError;
use super::origin::Host;
use super::stream::Dialled;

/// The largest head of an answer to CONNECT.
const HEAD: usize = 16 << 10;
/// No credentials come near this size.
const LARGEST_FILE: usize = 4096;

/// Which proxy, and for whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// The proxy's host.
    pub host: Host,
    /// The proxy's port.
    pub port: u16,
    /// A file with a line `user:password`, and where the configuration names it.
    pub credentials: Option<(PathBuf, String)>,
    /// Destinations that are reached directly; each a host, `.domain`, IP address, network or `*`.
    pub bypass: Vec<String>,
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "through the proxy {}:{}", self.host, self.port)?;
        if self.credentials.is_some() {
            f.write_str(" with credentials")?;
        }
        if !self.bypass.is_empty() {
            write!(f, ", not for {}", self.bypass.join(" "))?;
        }
        Ok(())
    }
}

/// Why credentials cannot be used. Never holds a part of them.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file that is not there.
    #[error("{file}: no such file", file = .0.display())]
    Missing(PathBuf),
    /// A file that cannot be read.
    #[error("{file}: cannot be read: {1}", file = .0.display())]
    Unreadable(PathBuf, io::Error),
    /// Something else than credentials.
    #[error("{file}: {1}; one line user:password is needed", file = .0.display())]
    Shape(PathBuf, &'static str),
}

/// The proxy, ready to be used.
#[derive(Clone)]
pub struct Proxy {
    pub(super) host: Host,
    pub(super) port: u16,
    authorization: Option<HeaderValue>,
    destinations: Arc<Matcher>,
    pseudonym: Arc<str>,
}

impl Proxy {
    /// Reads the credentials.
    ///
    /// # Errors
    /// When they are needed and no good.
    pub fn load(config: &Config) -> Result<Self, CredentialsError> {
        let authorization = match &config.credentials {
            Some((file, _)) => Some(authorization(file)?),
            None => None,
        };
        let mut bypass = config.bypass.join(",");
        if config.bypass.iter().any(|entry| entry == "*") {
            // To the matcher `*` means names only.
            bypass.push_str(",0.0.0.0/0,::/0");
        }
        let proxy = format!("http://{}:{}", config.host, config.port);
        Ok(Self {
            host: config.host.clone(),
            port: config.port,
            authorization,
            destinations: Arc::new(Matcher::builder().all(proxy).no(bypass).build()),
            pseudonym: "countersign".into(),
        })
    }

    /// Lets it be seen whose connections these are (`Via`), so that a circle of proxies ends.
    #[must_use]
    pub fn calling_itself(mut self, pseudonym: &str) -> Self {
        self.pseudonym = pseudonym.into();
        self
    }

    /// Whether connections to `host` go through the proxy.
    pub(super) fn carries(&self, host: &Host) -> bool {
        let target = format!("http://{host}/").parse::<Uri>();
        let left_out = |target: &Uri| self.destinations.intercept(target).is_none();
        !target.is_ok_and(|target| left_out(&target))
    }

    /// Makes a connection to the proxy one to the destination. The caller bounds the time.
    pub(super) async fn connect(
        &self,
        stream: Dialled,
        host: &Host,
        port: u16,
    ) -> Result<Dialled, ConnectError> {
        let destination = format!("{host}:{port}");
        let fail = |source: hyper::Error| ConnectError::Proxy {
            proxy: self.to_string(),
            source: source.into(),
        };
        let mut request = Request::connect(&destination)
            .header(HOST, &destination)
            .header(VIA, format!("1.1 {}", self.pseudonym))
            .body(Empty::<Bytes>::new())
            .map_err(|error| ConnectError::Target(error.to_string()))?;
        if let Some(authorization) = &self.authorization {
            let fields = request.headers_mut();
            fields.insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(fail)?;
        let consent = async move {
            let answer = sender.send_request(request).await.map_err(fail)?;
            self.consents(answer.status(), destination)
        };
        let tunnel = async { connection.without_shutdown().await.map_err(fail) };
        // A refusal ends both: its body is of no use to anybody.
        let ((), parts) = tokio::try_join!(consent, tunnel)?;
        Ok(parts.io.into_inner().after(parts.read_buf))
    }

    fn consents(&self, status: StatusCode, destination: String) -> Result<(), ConnectError> {
        let proxy = self.to_string();
        match status {
            // RFC 9110 section 9.3.6.
            status if status.is_success() => Ok(()),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED => {
                Err(ConnectError::ProxyCredentials {
                    proxy,
                    given: self.authorization.is_some(),
                    status,
                })
            }
            _ => Err(ConnectError::ProxyRefused {
                proxy,
                destination,
                status,
            }),
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// The `Proxy-Authorization` field of RFC 7617 from a file.
fn authorization(file: &Path) -> Result<HeaderValue, CredentialsError> {
    let bytes = read(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CredentialsError::Missing(file.to_owned()),
        _ => CredentialsError::Unreadable(file.to_owned(), error),
    })?;
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let wrong = |what| CredentialsError::Shape(file.to_owned(), what);
    match bytes {
        [] => return Err(wrong("is empty")),
        _ if bytes.len() > LARGEST_FILE => return Err(wrong("is over 4096 bytes")),
        _ if bytes.contains(&b'\n') => return Err(wrong("has several lines")),
        _ if bytes.iter().any(u8::is_ascii_control) => {
            return Err(wrong("has a control character"));
        }
        _ if !bytes.contains(&b':') => return Err(wrong("has no colon")),
        _ => {}
    }
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(bytes)));
    let mut value = HeaderValue::from_str(&text).map_err(|_impossible| wrong("cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A file with a secret; its bytes are overwritten when dropped.
fn read(file: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * LARGEST_FILE));
    let opened = File::open(file)?;
    opened
        .take(LARGEST_FILE as u64 + 2)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_left_out_as_curl_leaves_them_out() {
        let carries = |bypass: &[&str], host: &str| {
            let config = Config {
                host: "proxy.example".parse().unwrap(),
                port: 3128,
                credentials: None,
                bypass: bypass.iter().map(ToString::to_string).collect(),
            };
            Proxy::load(&config)
                .unwrap()
                .carries(&host.parse().unwrap())
        };
        for (bypass, direct, proxied) in [
            (
                "corp.example",
                "corp.example a.corp.example",
                "notcorp.example example",
            ),
            (
                ".corp.example",
                "corp.example a.corp.example",
                "notcorp.example",
            ),
            ("10.0.0.0/8", "10.1.2.3", "11.0.0.1 a.example"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.2 [::1]"),
            ("2001:db8::/32", "[2001:db8::7]", "[2001:db9::7] 10.0.0.1"),
            ("::1", "[::1]", "[::2]"),
            ("*", "a.example 10.0.0.1 [::1]", ""),
        ] {
            for host in direct.split_whitespace() {
                assert!(
                    !carries(&["unrelated.example", bypass], host),
                    "{bypass}: {host}"
                );
            }
            for host in proxied.split_whitespace() {
                assert!(
                    carries(&["unrelated.example", bypass], host),
                    "{bypass}: {host}"
                );
            }
        }
        assert!(carries(&[], "localhost"));
    }
}
