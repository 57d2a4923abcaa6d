//! How a signed message looks in the types of the `http` crate: three headers and a URI.
//!
//! Reads and writes `Client-Id`, `Signature` and the time header of requests or responses. It knows
//! no connection and no body, and it does not decide what an absent signature means: callers ask
//! [`CredentialsError::is_missing`] and apply their own rule.

use std::{borrow::Cow, error::Error, fmt};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::{
    content::{ClientId, ClientIdError},
    header::{Signature, SignatureHeaderError},
    time::{TimeError, Timestamp},
};

/// `Client-Id`, in requests and responses.
pub const CLIENT_ID: HeaderName = HeaderName::from_static("client-id");
/// `Request-Time`, the signed time of a request.
pub const REQUEST_TIME: HeaderName = HeaderName::from_static("request-time");
/// `Response-Time`, the signed time of a response.
pub const RESPONSE_TIME: HeaderName = HeaderName::from_static("response-time");
/// `Signature`, in requests and responses.
pub const SIGNATURE: HeaderName = HeaderName::from_static("signature");

/// Request or response: they differ in the name of the time header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The time is in `Request-Time`.
    Request,
    /// The time is in `Response-Time`.
    Response,
}

/// The three signature headers of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// `Client-Id`.
    pub client_id: ClientId,
    /// `Request-Time` or `Response-Time`.
    pub time: Timestamp,
    /// `Signature`.
    pub signature: Signature,
}

/// Why a message has no usable [`Credentials`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialsError {
    /// Neither a signature nor a time: the message does not claim to be signed. A `Client-Id` alone
    /// does not count, the gateway sends one with unsigned errors too.
    Absent,
    /// One of the three headers is not there while the message claims to be signed.
    Missing(HeaderName),
    /// A header is there more than once, whatever its values.
    Repeated(HeaderName),
    /// A header value is not printable ASCII.
    NotText(HeaderName),
    /// `Client-Id` cannot be read.
    ClientId(ClientIdError),
    /// The time header cannot be read.
    Time(TimeError),
    /// `Signature` cannot be read.
    Signature(SignatureHeaderError),
}

/// The URI as it is signed: path and query byte for byte, without scheme and authority.
///
/// An empty path is `/`, as a request line must have it (RFC 9112, section 3.2.1). A fragment is
/// already gone: [`Uri`] does not keep one.
pub fn signed_uri(uri: &Uri) -> Cow<'_, str> {
    let written = uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    if written.starts_with('?') {
        return Cow::Owned(format!("/{written}"));
    }
    Cow::Borrowed(written)
}

impl Kind {
    /// The header that holds the signed time.
    pub fn time_header(self) -> HeaderName {
        match self {
            Self::Request => REQUEST_TIME,
            Self::Response => RESPONSE_TIME,
        }
    }
}

impl Credentials {
    /// Reads the three headers, each of which must be there exactly once.
    pub fn read(kind: Kind, headers: &HeaderMap) -> Result<Self, CredentialsError> {
        let time_header = kind.time_header();
        if !headers.contains_key(SIGNATURE) && !headers.contains_key(&time_header) {
            return Err(CredentialsError::Absent);
        }
        let client_id = only(headers, CLIENT_ID)?;
        let time = only(headers, time_header)?;
        let signature = only(headers, SIGNATURE)?;
        Ok(Self {
            client_id: ClientId::parse(client_id).map_err(CredentialsError::ClientId)?,
            time: Timestamp::parse(time).map_err(CredentialsError::Time)?,
            signature: Signature::parse(signature).map_err(CredentialsError::Signature)?,
        })
    }

    /// Writes the three headers in place of whatever was there.
    pub fn write(&self, kind: Kind, headers: &mut HeaderMap) {
        headers.insert(CLIENT_ID, value(self.client_id.as_str()));
        headers.insert(kind.time_header(), value(self.time.as_str()));
        headers.insert(SIGNATURE, value(&self.signature.to_string()));
    }

    /// Removes the three headers, however often they are there.
    pub fn remove(kind: Kind, headers: &mut HeaderMap) {
        for name in [CLIENT_ID, kind.time_header(), SIGNATURE] {
            headers.remove(name);
        }
    }
}

impl CredentialsError {
    /// Whether the message lacks a header, rather than having one that cannot be used.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Absent | Self::Missing(_))
    }
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("the message is not signed"),
            Self::Missing(name) => write!(f, "the header {name} is missing"),
            Self::Repeated(name) => write!(f, "the header {name} is there more than once"),
            Self::NotText(name) => write!(f, "the header {name} is not printable ASCII"),
            Self::ClientId(_) => f.write_str("the header client-id cannot be read"),
            Self::Time(_) => f.write_str("the time header cannot be read"),
            Self::Signature(_) => f.write_str("the header signature cannot be read"),
        }
    }
}

impl Error for CredentialsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::ClientId(source) => Some(source),
            Self::Time(source) => Some(source),
            Self::Signature(source) => Some(source),
            Self::Absent | Self::Missing(_) | Self::Repeated(_) | Self::NotText(_) => None,
        }
    }
}

fn only(headers: &HeaderMap, name: HeaderName) -> Result<&str, CredentialsError> {
    let mut values = headers.get_all(&name).iter();
    let Some(value) = values.next() else {
        return Err(CredentialsError::Missing(name));
    };
    if values.next().is_some() {
        return Err(CredentialsError::Repeated(name));
    }
    value.to_str().or(Err(CredentialsError::NotText(name)))
}

#[expect(
    clippy::expect_used,
    reason = "client ids, times and written signatures are visible ASCII by construction"
)]
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("visible ASCII is a header value")
}
