//! Host names and origins in canonical form.
//!
//! Hosts are compared without case, brackets and one trailing dot. Refuses user info, paths, and
//! anything that is neither a DNS name nor an IP address. Used by routes, the connector and the
//! configuration.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ::http::header::HOST;
use ::http::uri::{Authority, PathAndQuery, Scheme};
use ::http::{HeaderMap, Uri};

use crate::exchange::{Code, Fault};

/// A DNS name in lower case without a trailing dot, or an IP address without brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Box<str>);

impl Host {
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, when it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        Self(address.to_string().into())
    }
}

impl FromStr for Host {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        if let Some(inner) = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            let address: std::net::Ipv6Addr = inner
                .parse()
                .map_err(|_invalid| OriginError::Host(text.into()))?;
            return Ok(Self(address.to_string().into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let valid = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.len() > 253 || !name.split('.').all(valid) {
            return Err(OriginError::Host(text.into()));
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') {
            write!(f, "[{}]", self.0)
        } else {
            f.write_str(&self.0)
        }
    }
}

/// Scheme, host and port of a server (RFC 9110 section 4.3.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether it is spoken to over TLS.
    pub secure: bool,
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl Origin {
    /// `https` on the default port.
    pub fn https(host: Host) -> Self {
        Self {
            secure: true,
            host,
            port: 443,
        }
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        if self.secure {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        }
    }

    /// A target in absolute form, which tells the client where to connect; `Host` follows from it.
    ///
    /// # Errors
    /// [`Code::RequestMalformed`] when path and query are none.
    pub fn target(&self, path_and_query: &str) -> Result<Uri, Fault> {
        let malformed = |error: ::http::Error| {
            Fault::not_sent(Code::RequestMalformed, "no usable target").because(error)
        };
        let target: PathAndQuery = path_and_query
            .parse()
            .map_err(|error| malformed(::http::Error::from(error)))?;
        let authority = self.authority().map_err(|error| malformed(error.into()))?;
        Uri::builder()
            .scheme(self.scheme())
            .authority(authority)
            .path_and_query(target)
            .build()
            .map_err(malformed)
    }

    /// Host and port, the default port left out.
    ///
    /// # Errors
    /// Never for a host that was parsed; the type cannot say so.
    pub fn authority(&self) -> Result<Authority, ::http::uri::InvalidUri> {
        let default = if self.secure { 443 } else { 80 };
        if self.port == default {
            self.host.to_string().parse()
        } else {
            format!("{}:{}", self.host, self.port).parse()
        }
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let uri: Uri = text
            .parse()
            .map_err(|_invalid| OriginError::Url(text.into()))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(OriginError::Scheme(text.into())),
        };
        let authority = uri
            .authority()
            .ok_or_else(|| OriginError::Url(text.into()))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        if authority.as_str().contains('@') {
            return Err(OriginError::UserInfo);
        }
        if path != "/" || text.contains('#') {
            return Err(OriginError::MoreThanOrigin(text.into()));
        }
        let (host, port) = split(authority)?;
        Ok(Self {
            secure,
            host,
            port: port.unwrap_or(if secure { 443 } else { 80 }),
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme(), self.host, self.port)
    }
}

/// Host and port of an authority.
///
/// # Errors
/// With user info, an empty host, or a port that is no number of 1 to 65535.
pub fn split(authority: &Authority) -> Result<(Host, Option<u16>), OriginError> {
    let text = authority.as_str();
    if text.contains('@') {
        return Err(OriginError::UserInfo);
    }
    let host = authority.host();
    let port = match text.strip_prefix(host) {
        Some("") => None,
        Some(rest) => {
            let digits = rest
                .strip_prefix(':')
                .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
            let port = digits
                .and_then(|port| port.parse().ok())
                .filter(|port| *port > 0);
            Some(port.ok_or_else(|| OriginError::Port(text.into()))?)
        }
        None => return Err(OriginError::Url(text.into())),
    };
    Ok((host.parse()?, port))
}

/// The host, and the port if there is one, that a request is for. The authority of an absolute-form
/// target wins over `Host` (RFC 9112 section 3.2.2).
///
/// # Errors
/// [`Code::RequestMalformed`] when it does not say so clearly.
pub fn asked(uri: &Uri, fields: &HeaderMap) -> Result<(Host, Option<u16>), Fault> {
    let authority = match uri.authority() {
        Some(authority) => authority.clone(),
        None => host_field(fields)?,
    };
    split(&authority).map_err(|error| malformed(error.to_string()))
}

fn host_field(fields: &HeaderMap) -> Result<Authority, Fault> {
    let mut values = fields.get_all(HOST).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Authority::try_from(value.as_bytes())
            .map_err(|error| malformed("the Host field is no host name").because(error)),
        (None, _) => Err(malformed("the request has no Host field")),
        (Some(_), Some(_)) => Err(malformed("the request has two Host fields")),
    }
}

fn malformed(text: impl Into<Cow<'static, str>>) -> Fault {
    Fault::not_sent(Code::RequestMalformed, text)
}

/// Why a text is no host or origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginError {
    /// Not a URL.
    Url(Box<str>),
    /// Neither `http` nor `https`.
    Scheme(Box<str>),
    /// A path, a query, a fragment or user info.
    MoreThanOrigin(Box<str>),
    /// User info, which is never quoted: it may hold a password.
    UserInfo,
    /// Not a host name.
    Host(Box<str>),
    /// Not a port.
    Port(Box<str>),
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(text) => write!(f, "\"{text}\" is no URL; write it like https://host"),
            Self::Scheme(text) => {
                write!(f, "\"{text}\" must begin with https:// or http://")
            }
            Self::MoreThanOrigin(text) => {
                write!(
                    f,
                    "\"{text}\" must be scheme, host and port only, like https://host:443"
                )
            }
            Self::UserInfo => f.write_str("no user name or password may stand before the host"),
            Self::Host(text) => write!(f, "\"{text}\" is no host name or IP address"),
            Self::Port(text) => write!(f, "\"{text}\" has no valid port (1 to 65535)"),
        }
    }
}

impl Error for OriginError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_compare_without_case_brackets_and_trailing_dot() {
        let host = |text: &str| text.parse::<Host>().unwrap();
        assert_eq!(
            host("Open-SEA-Global.alipayplus.com."),
            host("open-sea-global.alipayplus.com")
        );
        assert_eq!(host("[0:0::1]").as_str(), "::1");
        assert_eq!(host("[::1]").to_string(), "[::1]");
        for bad in [
            "",
            ".",
            "a..b",
            "a b",
            "a/b",
            "[::1",
            "::1",
            "a.b..",
            "[127.0.0.1]",
            "ä.de",
        ] {
            assert!(bad.parse::<Host>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port_only() {
        let origin: Origin = "https://Example.com".parse().unwrap();
        assert_eq!(
            (origin.secure, origin.host.as_str(), origin.port),
            (true, "example.com", 443)
        );
        assert_eq!(origin.authority().unwrap().as_str(), "example.com");
        let origin: Origin = "http://[::1]:8080/".parse().unwrap();
        assert_eq!(origin.authority().unwrap().as_str(), "[::1]:8080");
        for bad in [
            "example.com",
            "ftp://a",
            "https://u@a",
            "https://a/b",
            "https://a?b",
            "https://a#b",
            "https://a:0",
            "https://a:",
            "https://a:99999",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }
}
