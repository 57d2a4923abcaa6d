//! What holds for every input: nothing panics, writing and reading are inverse, every bit counts.

use std::{sync::LazyLock, time::Duration, time::SystemTime};

use countersign_protocol::{
    ClientId, Content, Credentials, KeyVersion, Kind, Offset, PrivateKey, PublicKey, Question,
    Signature, Timestamp, explain, sign, verify,
};
use http::{HeaderMap, HeaderValue};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::vectors::SIGNING;

static KEY: LazyLock<PrivateKey> = LazyLock::new(|| SIGNING.private("merchant"));
static PUBLIC: LazyLock<PublicKey> = LazyLock::new(|| SIGNING.public("merchant"));

/// The files whose broken copies are read: one of each encoding.
static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let pair = &SIGNING.keys["merchant"];
    vec![
        pair.pkcs8_pem.clone().into_bytes(),
        pair.pkcs8_der_base64.clone().into_bytes(),
        crate::vectors::decoded(&pair.pkcs8_der_base64),
        crate::vectors::decoded(&pair.spki_der_base64),
        pair.spki_pem.clone().into_bytes(),
    ]
});

const HEADER: &str = "algorithm=RSA256,keyVersion=1,signature=AAAA%2B%2f%3D%3D";
const TIME: &str = "2026-11-22T18:44:53.123+08:00";

fn offset() -> impl Strategy<Value = Offset> {
    let written = (any::<bool>(), 0..24, 0..60).prop_map(|(east, hours, minutes)| {
        format!("{}{hours:02}:{minutes:02}", if east { '+' } else { '-' })
    });
    prop_oneof![Just("Z".to_owned()), written]
        .prop_filter_map("-00:00 is none", |text| text.parse().ok())
}

/// Instants in years of four digits, whatever the offset.
fn instant() -> impl Strategy<Value = SystemTime> {
    (any::<bool>(), 0..62_000_000_000_u64, 0..1_000_000_000_u32).prop_map(
        |(after, seconds, nanos)| {
            let distance = Duration::new(seconds, nanos);
            if after {
                SystemTime::UNIX_EPOCH + distance
            } else {
                SystemTime::UNIX_EPOCH - distance
            }
        },
    )
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,80}",
        mutated(HEADER),
        mutated(TIME)
    ]
}

/// A valid text with one character replaced, left out or added.
fn mutated(valid: &'static str) -> impl Strategy<Value = String> {
    (any::<Index>(), any::<char>(), 0..3).prop_map(move |(index, character, how)| {
        let mut characters: Vec<char> = valid.chars().collect();
        let at = index.index(characters.len());
        match how {
            0 => characters[at] = character,
            1 => drop(characters.remove(at)),
            _ => characters.insert(at, character),
        }
        characters.into_iter().collect()
    })
}

fn mutated_file() -> impl Strategy<Value = Vec<u8>> {
    let edits = vec((any::<Index>(), any::<u8>()), 0..4);
    (any::<Index>(), edits, prop::option::of(any::<Index>())).prop_map(|(file, edits, end)| {
        let mut bytes = FILES[file.index(FILES.len())].clone();
        for (index, byte) in edits {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(end.map_or(bytes.len(), |end| end.index(bytes.len())));
        bytes
    })
}

/// A message as text: what a content is made of before it has types.
#[derive(Clone, Debug)]
struct Message {
    parts: [Vec<u8>; 5],
}

impl Message {
    /// Signs or verifies, unless a type refuses a part.
    fn with<T>(&self, act: impl FnOnce(&Content<'_>) -> T) -> Option<T> {
        let [method, uri, client_id, time, body] = &self.parts;
        let client_id = ClientId::parse(std::str::from_utf8(client_id).ok()?).ok()?;
        let time = Timestamp::parse(std::str::from_utf8(time).ok()?).ok()?;
        Some(act(&Content {
            method: std::str::from_utf8(method).ok()?,
            uri: std::str::from_utf8(uri).ok()?,
            client_id: &client_id,
            time: &time,
            body,
        }))
    }

    fn bytes(&self) -> Option<Vec<u8>> {
        self.with(|content| content.pieces().concat())
    }

    fn flip(&mut self, index: Index) {
        let bits = self.parts.iter().map(|part| part.len() * 8).sum();
        let mut bit = index.index(bits);
        for part in &mut self.parts {
            if bit < part.len() * 8 {
                part[bit / 8] ^= 1 << (bit % 8);
                return;
            }
            bit -= part.len() * 8;
        }
    }
}

fn message() -> impl Strategy<Value = Message> {
    let uri = "/[a-z/%?=.]{0,30}";
    (
        prop::sample::select(vec!["POST", "GET", "post"]),
        uri,
        "[A-Z0-9_]{1,30}",
        instant(),
        vec(any::<u8>(), 0..60),
    )
        .prop_map(|(method, uri, client_id, instant, body)| {
            let time = Timestamp::at(instant, Offset::default()).to_string();
            Message {
                parts: [
                    method.into(),
                    uri.into(),
                    client_id.into(),
                    time.into(),
                    body,
                ],
            }
        })
}

proptest! {
    #[test]
    fn a_written_signature_header_reads_as_itself(number: u32, value in vec(any::<u8>(), 1..600)) {
        let signature = Signature { key_version: KeyVersion::new(number), value };
        prop_assert_eq!(Signature::parse(&signature.to_string()), Ok(signature));
    }

    #[test]
    fn a_written_time_reads_as_itself(instant in instant(), offset in offset()) {
        let time = Timestamp::at(instant, offset);
        prop_assert_eq!(Timestamp::parse(time.as_str()), Ok(time.clone()));
        prop_assert!(time.skew(instant) < Duration::from_secs(1));
    }

    #[test]
    fn a_written_offset_reads_as_itself(offset in offset()) {
        prop_assert_eq!(offset.to_string().parse(), Ok(offset));
    }

    #[test]
    fn a_content_is_what_the_formula_says(message in message()) {
        let [method, uri, client_id, time, body] = &message.parts;
        let head = [&method[..], b" ", uri, b"\n", client_id, b".", time, b"."].concat();
        let expected = [head, body.clone()].concat();
        prop_assert_eq!(message.bytes(), Some(expected));
    }

    #[test]
    fn different_messages_have_different_contents(one in message(), other in message()) {
        let same = one.parts == other.parts;
        prop_assert_eq!(one.bytes() == other.bytes(), same);
    }

    #[test]
    fn a_flipped_bit_of_the_content_is_refused(message in message(), index: Index) {
        let signature = message.with(|content| sign(&KEY, content)).unwrap().unwrap();
        let mut changed = message.clone();
        changed.flip(index);
        let verdict = changed.with(|content| verify(&PUBLIC, content, &signature));
        prop_assert!(verdict.is_none_or(|verdict| verdict.is_err()));
        let verdict = message.with(|content| verify(&PUBLIC, content, &signature));
        prop_assert_eq!(verdict, Some(Ok(())));
    }

    #[test]
    fn a_flipped_bit_of_the_signature_is_refused(message in message(), bit in 0..2048_usize) {
        let mut signature = message.with(|content| sign(&KEY, content)).unwrap().unwrap();
        signature[bit / 8] ^= 1 << (bit % 8);
        let verdict = message.with(|content| verify(&PUBLIC, content, &signature));
        prop_assert!(verdict.unwrap().is_err());
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in text()) {
        let _ = Signature::parse(&text);
        let _ = Timestamp::parse(&text);
        let _ = ClientId::parse(&text);
        let _ = text.parse::<Offset>();
        let _ = text.parse::<KeyVersion>();
        let _ = PublicKey::parse(text.as_bytes());
        let _ = PrivateKey::parse(text.as_bytes(), Some(b"passphrase"));
    }

    #[test]
    fn no_header_makes_reading_panic(values in vec((0..4_usize, vec(32..=255_u8, 0..40)), 0..6)) {
        let names = ["client-id", "request-time", "signature", "response-time"];
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(names[name], value);
            }
        }
        let _ = Credentials::read(Kind::Request, &headers);
        let _ = Credentials::read(Kind::Response, &headers);
    }

    #[test]
    fn no_file_makes_reading_a_key_panic(bytes in prop_oneof![vec(any::<u8>(), 0..300), mutated_file()]) {
        let _ = PrivateKey::parse(&bytes, None);
        let _ = PublicKey::parse(&bytes);
    }

    #[test]
    fn no_signature_makes_explaining_panic(message in message(), signature in vec(any::<u8>(), 250..258)) {
        message.with(|content| explain(&Question::new(&PUBLIC, content, &signature)).to_string());
    }
}
