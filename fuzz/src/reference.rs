//! A strict reading of one HTTP/1 message that is there whole (RFC 9112), written for clarity alone.
//!
//! It knows one way only, and panics at everything else: what was let through must have that way.

/// A message.
#[derive(Debug, PartialEq)]
pub(crate) struct Message {
    /// The three parts of the first line.
    pub(crate) start: [String; 3],
    /// Names in lower case, in their order.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

/// What a head says of where its body ends.
#[derive(Debug, PartialEq)]
pub(crate) enum Framing {
    None,
    Length(usize),
    Chunked,
}

impl Message {
    /// Reads a head; returns what is behind it.
    pub(crate) fn head(bytes: &[u8]) -> (Self, &[u8]) {
        let mut rest = bytes;
        while let Some(behind) = rest.strip_prefix(b"\r\n") {
            rest = behind;
        }
        let (start, mut rest) = line(rest);
        // A reason may hold any letters; nobody reads it.
        let start = String::from_utf8_lossy(start);
        let mut parts = start.splitn(3, ' ').map(str::to_owned);
        let mut part = || parts.next().unwrap_or_default();
        let start = [part(), part(), part()];
        let mut fields = Vec::new();
        loop {
            let (field, behind) = line(rest);
            rest = behind;
            if field.is_empty() {
                break;
            }
            let colon = field
                .iter()
                .position(|byte| *byte == b':')
                .expect("a colon");
            let (name, value) = field.split_at(colon);
            assert!(!name.is_empty() && name.iter().all(is_token), "{name:?}");
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            fields.push((name, trimmed(&value[1..]).to_vec()));
        }
        let body = Vec::new();
        (
            Self {
                start,
                fields,
                body,
            },
            rest,
        )
    }

    /// Reads the head of an answer, interim ones before it left out.
    pub(crate) fn answer(mut bytes: &[u8]) -> (Self, &[u8]) {
        loop {
            let (message, rest) = Self::head(bytes);
            if message.start[1].starts_with('1') {
                bytes = rest;
                continue;
            }
            return (message, rest);
        }
    }

    /// An answer whose body ends with its connection; none when its framing says something else.
    pub(crate) fn until_close(bytes: &[u8]) -> Option<Self> {
        let (mut message, rest) = Self::answer(bytes);
        if message.framing() != Framing::None {
            return None;
        }
        message.body = rest.to_vec();
        Some(message)
    }

    pub(crate) fn values(&self, name: &str) -> Vec<&[u8]> {
        let found = self.fields.iter().filter(|(one, _)| one == name);
        found.map(|(_, value)| value.as_slice()).collect()
    }

    /// The only framing that is not open to doubt.
    pub(crate) fn framing(&self) -> Framing {
        let codings = self.values("transfer-encoding");
        let lengths = self.values("content-length");
        match (codings.as_slice(), lengths.as_slice()) {
            ([], []) => Framing::None,
            ([], [length]) => {
                assert!(!length.is_empty() && length.iter().all(u8::is_ascii_digit));
                let text = std::str::from_utf8(length).expect("digits");
                Framing::Length(text.parse().unwrap_or(usize::MAX))
            }
            ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
            doubtful => panic!("{doubtful:?}"),
        }
    }

    /// Reads a body that must end where the bytes do.
    pub(crate) fn take(&mut self, framing: &Framing, bytes: &[u8]) {
        match framing {
            Framing::None => assert!(bytes.is_empty()),
            Framing::Length(length) => {
                assert_eq!(bytes.len(), *length);
                self.body = bytes.to_vec();
            }
            Framing::Chunked => self.body = unchunked(bytes),
        }
    }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let (size, rest) = line(bytes);
        let digits = size
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let (digits, extension) = size.split_at(digits);
        assert!(
            extension.is_empty() || matches!(extension[0], b';' | b' ' | b'\t'),
            "{size:?}"
        );
        let digits = std::str::from_utf8(digits).expect("digits");
        let size = usize::from_str_radix(digits, 16).expect("a size");
        if size == 0 {
            bytes = rest;
            break;
        }
        let (chunk, rest) = rest.split_at(size);
        body.extend_from_slice(chunk);
        bytes = rest
            .strip_prefix(b"\r\n")
            .expect("a line end behind a chunk");
    }
    // Trailers, to the empty line, which is the end.
    loop {
        let (trailer, rest) = line(bytes);
        bytes = rest;
        if trailer.is_empty() {
            assert!(bytes.is_empty());
            return body;
        }
        assert!(trailer.contains(&b':'));
    }
}

/// The line up to the first CR LF, in which there is no other CR, LF or NUL.
fn line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes
        .windows(2)
        .position(|two| two == b"\r\n")
        .expect("a line end");
    let line = &bytes[..end];
    assert!(
        !line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)),
        "{line:?}"
    );
    (line, &bytes[end + 2..])
}

fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}
