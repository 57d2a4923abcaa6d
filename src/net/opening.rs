//! What a connection begins with: a TLS greeting, an HTTP request, something else, or silence.
//!
//! Looks and never takes: the bytes stay in the [`Peeked`] connection. Refuses to wait longer than
//! told and to look at more than 80 KiB. Called by the room that decides what to speak.

use std::io;
use std::time::Duration;

use rustls::server::{Acceptor, ClientHello};
use rustls::{CipherSuite, NamedGroup, SignatureScheme};
use tokio::io::AsyncRead;
use tokio::time::timeout;

use super::peeked::Peeked;

/// The most that is looked at: a greeting of the longest handshake message, 64 KiB, in records of their own.
const MOST: usize = 80 * 1024;
/// The most header fields of a head that is looked at.
const MOST_FIELDS: usize = 256;
/// The first byte of a TLS handshake record (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// The first byte's testimony.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It begins like TLS.
    Tls,
    /// It begins with something else, such as HTTP.
    Plain,
    /// Nothing came in time.
    Silent,
    /// It ended or broke before the first byte.
    Gone,
}

/// What a TLS client says of itself first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The server it wants (SNI, RFC 6066 section 3).
    pub server_name: Option<String>,
    /// Whether it can take an ECDSA certificate.
    pub takes_ecdsa: bool,
}

/// What an HTTP/1 client says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The method.
    pub method: String,
    /// The target as it stands in the request line.
    pub target: String,
    /// The value of `Host`, if there is exactly one.
    pub host: Option<String>,
}

/// Waits for the first byte, at most `within`.
pub async fn kind<I: AsyncRead + Unpin>(connection: &mut Peeked<I>, within: Duration) -> Kind {
    if connection.seen().is_empty() {
        match timeout(within, connection.more()).await {
            Err(_elapsed) => return Kind::Silent,
            Ok(Ok(0) | Err(_)) => return Kind::Gone,
            Ok(Ok(_)) => {}
        }
    }
    if connection.seen().first() == Some(&HANDSHAKE_RECORD) {
        Kind::Tls
    } else {
        Kind::Plain
    }
}

/// Reads a TLS greeting, at most `within`. None when it is no greeting that can be read.
///
/// # Errors
/// When it does not come whole, or not in time.
pub async fn hello<I: AsyncRead + Unpin>(
    connection: &mut Peeked<I>,
    within: Duration,
) -> io::Result<Option<Hello>> {
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    let reading = whole(connection, |seen| {
        let mut new = seen.get(fed..).unwrap_or_default();
        fed = seen.len();
        while !new.is_empty() {
            // A long greeting is taken in pieces: what waits to be understood has its limit.
            if acceptor.read_tls(&mut new).is_err() {
                return Some(None);
            }
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => return Some(Some(Hello::of(&accepted.client_hello()))),
                Err(_no_greeting) => return Some(None),
            }
        }
        None
    });
    within_time(within, reading).await
}

/// Reads the head of an HTTP/1 request, at most `within`. None when it is none.
///
/// # Errors
/// When it does not come whole, or not in time.
pub async fn head<I: AsyncRead + Unpin>(
    connection: &mut Peeked<I>,
    within: Duration,
) -> io::Result<Option<Head>> {
    within_time(within, whole(connection, Head::read)).await
}

/// Reads what begins like a request to the end of its head, as far as one can be made out, at most
/// `within`: what it is about may stand in its last line.
pub async fn to_blank_line<I: AsyncRead + Unpin>(connection: &mut Peeked<I>, within: Duration) {
    let is_over = |seen: &[u8]| {
        let method = seen.iter().position(|byte| *byte == b' ').unwrap_or(0);
        let names_method = seen
            .get(..method)
            .is_some_and(|word| !word.is_empty() && word.iter().all(u8::is_ascii_uppercase));
        let blank = [b"\n\n".as_slice(), b"\n\r\n"]
            .iter()
            .any(|end| seen.windows(end.len()).any(|bytes| bytes == *end));
        (!names_method || blank).then_some(Some(()))
    };
    // Whatever came until then has to do.
    let _as_far_as_it_came = within_time(within, whole(connection, is_over)).await;
}

async fn within_time<T>(
    within: Duration,
    reading: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    timeout(within, reading)
        .await
        .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
}

/// Looks at what was seen until `read` makes something of it; none when it is over the limit.
async fn whole<I: AsyncRead + Unpin, T>(
    connection: &mut Peeked<I>,
    mut read: impl FnMut(&[u8]) -> Option<Option<T>>,
) -> io::Result<Option<T>> {
    loop {
        if let Some(found) = read(connection.seen()) {
            return Ok(found);
        }
        if connection.seen().len() >= MOST {
            return Ok(None);
        }
        if connection.more().await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

impl Hello {
    fn of(hello: &ClientHello<'_>) -> Self {
        Self {
            server_name: hello.server_name().map(str::to_owned),
            takes_ecdsa: takes_ecdsa(hello),
        }
    }
}

/// Whether a client takes a certificate with a P-256 key.
///
/// In TLS 1.2 its cipher suites and its curves decide as well (RFC 8422 section 2).
pub fn takes_ecdsa(hello: &ClientHello<'_>) -> bool {
    let signs = hello
        .signature_schemes()
        .contains(&SignatureScheme::ECDSA_NISTP256_SHA256);
    let suites = hello.cipher_suites().iter();
    let has_suite = suites.into_iter().any(|suite| ECDSA_SUITES.contains(suite));
    let groups = hello.named_groups().unwrap_or_default();
    signs && has_suite && (groups.is_empty() || groups.contains(&NamedGroup::secp256r1))
}

/// The suites this process speaks that go with an ECDSA certificate.
const ECDSA_SUITES: [CipherSuite; 6] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

impl Head {
    /// Some when it is decided: a head, or none at all.
    #[expect(
        clippy::option_option,
        reason = "undecided, decided to be none, and a head are three things"
    )]
    fn read(seen: &[u8]) -> Option<Option<Self>> {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(seen) {
            Ok(httparse::Status::Partial) => None,
            Ok(httparse::Status::Complete(_)) => Some(Self::of(&request)),
            Err(_no_http) => Some(None),
        }
    }

    fn of(request: &httparse::Request<'_, '_>) -> Option<Self> {
        let mut hosts = request
            .headers
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case("host"));
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => std::str::from_utf8(host.value).ok().map(str::to_owned),
            _ => None,
        };
        Some(Self {
            method: request.method?.to_owned(),
            target: request.path?.to_owned(),
            host,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::net::tls;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// What a real TLS client with that configuration says first.
    fn greeting(name: &'static str) -> Vec<u8> {
        let config = tls::client(rustls::RootCertStore::empty()).unwrap();
        let name = rustls::pki_types::ServerName::try_from(name).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    async fn connection(bytes: &[u8]) -> (DuplexStream, Peeked<DuplexStream>) {
        let (mut far, near) = tokio::io::duplex(bytes.len() + 16);
        far.write_all(bytes).await.unwrap();
        (far, Peeked::new(near))
    }

    #[tokio::test]
    async fn a_greeting_is_read_byte_by_byte_and_left_where_it_was() {
        let bytes = greeting("open-sea-global.alipayplus.com");
        let (mut far, near) = tokio::io::duplex(1);
        let mut peeked = Peeked::new(near);
        let whole = bytes.clone();
        let writing = async move { far.write_all(&whole).await.map(|()| far) };
        let (written, hello) = tokio::join!(writing, hello(&mut peeked, PATIENCE));
        let hello = hello.unwrap().unwrap();
        assert_eq!(
            hello.server_name.as_deref(),
            Some("open-sea-global.alipayplus.com")
        );
        assert!(hello.takes_ecdsa);
        drop(written);
        let mut again = Vec::new();
        peeked.read_to_end(&mut again).await.unwrap();
        assert_eq!(again, bytes);
    }

    #[tokio::test]
    async fn what_only_begins_like_tls_is_no_greeting() {
        let (_far, mut peeked) = connection(b"\x16garbage that never was TLS").await;
        assert_eq!(kind(&mut peeked, PATIENCE).await, Kind::Tls);
        assert_eq!(hello(&mut peeked, PATIENCE).await.unwrap(), None);
        assert_eq!(peeked.seen(), b"\x16garbage that never was TLS");
    }

    #[tokio::test]
    async fn heads_are_told_from_other_protocols() {
        let head_of = |text: &'static str| async move {
            let (_far, mut peeked) = connection(text.as_bytes()).await;
            head(&mut peeked, PATIENCE).await.unwrap()
        };
        let found = head_of("POST /pay HTTP/1.1\r\nHOST: a.b:80\r\n\r\n{").await;
        let expected = Head {
            method: "POST".to_owned(),
            target: "/pay".to_owned(),
            host: Some("a.b:80".to_owned()),
        };
        assert_eq!(found, Some(expected));
        let twice = head_of("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
        assert_eq!(twice.unwrap().host, None);
        for other in [
            "EHLO mail.example\r\n",
            "*1\r\n$4\r\nPING\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            assert_eq!(head_of(other).await, None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_broken_head_is_read_to_its_blank_line_and_other_protocols_are_not() {
        let (mut far, mut peeked) = connection(b"POST /p a HTTP/1.1\r\n").await;
        peeked.more().await.unwrap();
        let (written, ()) = tokio::join!(
            async {
                far.write_all(b"Host: a.example").await?;
                far.write_all(b"\r\n\r\n").await
            },
            to_blank_line(&mut peeked, PATIENCE)
        );
        written.unwrap();
        assert!(peeked.seen().ends_with(b"Host: a.example\r\n\r\n"));
        let (_far, mut other) = connection(b"\x00\x01binary").await;
        other.more().await.unwrap();
        to_blank_line(&mut other, PATIENCE).await;
        assert_eq!(other.seen(), b"\x00\x01binary");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_stalls_end_in_time() {
        let (_far, mut silent) = connection(b"").await;
        assert_eq!(kind(&mut silent, PATIENCE).await, Kind::Silent);
        let (_far, mut stalled) = connection(b"GET / HT").await;
        let error = head(&mut stalled, PATIENCE).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (far, mut gone) = connection(b"").await;
        drop(far);
        assert_eq!(kind(&mut gone, PATIENCE).await, Kind::Gone);
    }
}
