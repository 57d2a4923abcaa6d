//! The exact bytes that are signed, and the only place they are built.
//!
//! `<METHOD> SP <URI> LF <Client-Id> "." <time> "." <body>`, without a newline at the end. Nothing is
//! normalised, trimmed or encoded again: what is on the wire is what is signed.
//!
//! The format alone is ambiguous: client `A.B` at time `T` gives the bytes of client `A` at time
//! `B.T`. It becomes unambiguous when the method and the URI hold no blank, the client id no dot and
//! the time is one of the documented shapes. [`ClientId`] and [`Timestamp`] cannot hold anything else;
//! [`Content::check`] looks at the method and the URI, and signing and verifying both begin with it.

use std::{error::Error, fmt, str::FromStr};

use crate::time::Timestamp;

/// How many pieces [`Content::pieces`] returns.
pub const PIECES: usize = 9;

/// The partner's `Client-Id`: 1 to 128 visible ASCII characters, without `.` and `,`.
///
/// The dot would make the signed bytes ambiguous; the comma separates joined header values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Box<str>);

/// What a signature covers. All of it is borrowed: a body is never copied to be signed.
#[derive(Clone, Copy)]
pub struct Content<'a> {
    /// The method of the request, also when the signed message is its response. Case counts.
    pub method: &'a str,
    /// Path and query of the request, byte for byte as on the request line.
    pub uri: &'a str,
    /// The client id that goes, or came, with the message.
    pub client_id: &'a ClientId,
    /// `Request-Time` of a request, `Response-Time` of a response.
    pub time: &'a Timestamp,
    /// The body exactly as on the wire. May be empty and need not be text.
    pub body: &'a [u8],
}

/// The parts of a content as plain text, so that [`mod@crate::explain`] can also try wrong ones.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) method: &'a str,
    pub(crate) uri: &'a str,
    pub(crate) client_id: &'a str,
    pub(crate) time: &'a str,
    pub(crate) body: &'a [u8],
}

/// Why a text is not a [`ClientId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientIdError {
    /// There is no character at all.
    Empty,
    /// There are more than 128 characters.
    TooLong,
    /// A blank, control or non-ASCII character, a dot or a comma.
    ForbiddenCharacter,
}

/// Why a [`Content`] cannot be told apart from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContentError {
    /// The method is not a token (RFC 9110, section 5.6.2).
    Method,
    /// The URI is empty or holds a blank or a control character.
    Uri,
}

impl ClientId {
    /// The longest accepted client id, in characters. Alipay+ hands out ids of 16 to 24.
    pub const MAX_LENGTH: usize = 128;

    /// Reads a client id as it stands, without trimming.
    pub fn parse(text: &str) -> Result<Self, ClientIdError> {
        if text.is_empty() {
            return Err(ClientIdError::Empty);
        }
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'.' | b','))
        {
            return Err(ClientIdError::ForbiddenCharacter);
        }
        if text.len() > Self::MAX_LENGTH {
            return Err(ClientIdError::TooLong);
        }
        Ok(Self(text.into()))
    }

    /// The id as written in the header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientId {
    type Err = ClientIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl AsRef<str> for ClientId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Content<'_> {
    /// The signed bytes in one piece. Copies the body.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.pieces().concat()
    }

    /// The signed bytes in order, for digests: nothing is copied.
    pub fn pieces(&self) -> [&[u8]; PIECES] {
        self.parts().pieces()
    }

    /// Says whether these bytes can be the bytes of no other content.
    ///
    /// Signing and verifying do this themselves.
    pub fn check(&self) -> Result<(), ContentError> {
        if self.method.is_empty() || !self.method.bytes().all(is_token) {
            return Err(ContentError::Method);
        }
        if self.uri.is_empty() || self.uri.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(ContentError::Uri);
        }
        Ok(())
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        Parts {
            method: self.method,
            uri: self.uri,
            client_id: self.client_id.as_str(),
            time: self.time.as_str(),
            body: self.body,
        }
    }
}

/// Bodies and query strings are nobody's business: only their lengths are shown.
impl fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("method", &self.method)
            .field("uri_length", &self.uri.len())
            .field("client_id", &self.client_id.as_str())
            .field("time", &self.time.as_str())
            .field("body_length", &self.body.len())
            .finish()
    }
}

impl<'a> Parts<'a> {
    pub(crate) fn pieces(&self) -> [&'a [u8]; PIECES] {
        [
            self.method.as_bytes(),
            b" ",
            self.uri.as_bytes(),
            b"\n",
            self.client_id.as_bytes(),
            b".",
            self.time.as_bytes(),
            b".",
            self.body,
        ]
    }
}

impl fmt::Display for ClientIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the client id is empty",
            Self::TooLong => "the client id is longer than 128 characters",
            Self::ForbiddenCharacter => {
                "the client id holds a character other than visible ASCII without '.' and ','"
            }
        })
    }
}

impl Error for ClientIdError {}

impl fmt::Display for ContentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "the method is not an HTTP token",
            Self::Uri => "the URI is empty or holds a blank or control character",
        })
    }
}

impl Error for ContentError {}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
