//! The last filter on what goes to stderr and into the log: replaces private keys by `(redacted)`.
//!
//! Finds PEM armour, and 64 or more characters of base64 or base64url, also where they are split by
//! blanks, line ends or `\n`, or percent-encoded. It recognises secrets by their form only; a passphrase
//! has none. Digests in hexadecimal, paths and prose are left as they are. Called by `cli::output` and by
//! the log's writer.

use std::borrow::Cow;

/// What stands in place of a secret.
const REDACTED: &str = "(redacted)";
/// How PEM begins and ends.
const BEGIN: &[u8] = b"-----BEGIN";
const END: &[u8] = b"-----END";
const DASHES: &[u8] = b"-----";
/// The fewest characters of base64 that are a secret.
const LEAST: usize = 64;
/// The fewest characters of a line of a secret that was split.
const LEAST_OF_LINE: usize = 16;
/// The fewest characters of a secret in a row without punctuation; paths have shorter segments.
const LEAST_SOLID: usize = 20;

/// The text with everything that has the form of a private key replaced.
pub fn redact(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let (mut clean, mut kept, mut at) = (String::new(), 0, 0);
    while at < bytes.len() {
        let (end, is_secret) = match found(bytes, at) {
            Some(found) => found,
            None => (at + 1, false),
        };
        if is_secret {
            // Both ends stand before or behind an ASCII character.
            clean.push_str(text.get(kept..at).unwrap_or_default());
            clean.push_str(REDACTED);
            kept = end;
        }
        at = end;
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    clean.push_str(text.get(kept..).unwrap_or_default());
    Cow::Owned(clean)
}

/// Whether something in the text has the form of a private key.
pub fn has_secret(text: &str) -> bool {
    matches!(redact(text), Cow::Owned(_))
}

/// Where what begins here ends, and whether it is a secret; nothing for what cannot be one.
fn found(bytes: &[u8], at: usize) -> Option<(usize, bool)> {
    let rest = bytes.get(at..)?;
    if rest.starts_with(BEGIN) {
        return Some((at + armoured(rest), true));
    }
    let first = Piece::read(rest)?;
    let mut all = first;
    let mut lines_fit = first.is_line();
    while lines_fit {
        let behind = rest.get(all.bytes..)?;
        let gap = blanks(behind);
        let Some(next) = behind.get(gap..).and_then(Piece::read) else {
            break;
        };
        if gap == 0 || !(next.is_line() || next.is_last(&all)) {
            break;
        }
        lines_fit = next.is_line();
        all = all.and(&next, gap);
    }
    let is_secret = all.is_secret();
    let length = if is_secret { all.bytes } else { first.bytes };
    Some((at + length, is_secret))
}

/// How long PEM is: to its end, or as far as its characters go.
fn armoured(bytes: &[u8]) -> usize {
    let quoted = bytes.iter().position(|byte| *byte == b'"');
    let within = bytes.get(..quoted.unwrap_or(bytes.len())).unwrap_or(bytes);
    if let Some(end) = position(within, END) {
        let behind = within.get(end + END.len()..).unwrap_or_default();
        let dashes = position(behind, DASHES).map_or(0, |at| at + DASHES.len());
        return end + END.len() + dashes;
    }
    let is_body = |byte: &u8| {
        byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() || b"+/=-_%\\:,".contains(byte)
    };
    within.iter().take_while(|byte| is_body(byte)).count()
}

fn position(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// Characters of base64 in a row, and what they are.
#[derive(Clone, Copy, Debug, Default)]
struct Piece {
    bytes: usize,
    characters: usize,
    upper: usize,
    lower: usize,
    digits: usize,
    solid: usize,
    is_padded: bool,
}

impl Piece {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (mut piece, mut solid) = (Self::default(), 0);
        while let Some((character, width)) = character(bytes.get(piece.bytes..)?) {
            piece.bytes += width;
            piece.characters += 1;
            piece.upper += usize::from(character.is_ascii_uppercase());
            piece.lower += usize::from(character.is_ascii_lowercase());
            piece.digits += usize::from(character.is_ascii_digit());
            piece.is_padded = character == b'=';
            solid = if character.is_ascii_alphanumeric() {
                solid + 1
            } else {
                0
            };
            piece.solid = piece.solid.max(solid);
        }
        (piece.bytes > 0).then_some(piece)
    }

    fn and(&self, next: &Self, gap: usize) -> Self {
        Self {
            bytes: self.bytes + gap + next.bytes,
            characters: self.characters + next.characters,
            upper: self.upper + next.upper,
            lower: self.lower + next.lower,
            digits: self.digits + next.digits,
            solid: self.solid.max(next.solid),
            is_padded: next.is_padded,
        }
    }

    /// Whether it may be a line of a secret that was split: no word of prose.
    fn is_line(&self) -> bool {
        self.characters >= LEAST_OF_LINE && self.upper > 1 && self.lower > 1
    }

    /// Whether it may be the end of the secret before it.
    fn is_last(&self, before: &Self) -> bool {
        let is_mixed = self.upper > 0 && self.lower + self.digits > 0;
        before.is_secret() && (self.is_padded || is_mixed)
    }

    /// Whether it is as mixed as random bytes in base64 are.
    fn is_secret(&self) -> bool {
        let all = self.characters;
        let is_mixed = self.upper * 8 >= all && self.lower * 8 >= all && self.digits * 40 >= all;
        all >= LEAST && is_mixed && self.solid >= LEAST_SOLID
    }
}

/// The character of base64 that begins here, also percent-encoded, and how many bytes it takes.
fn character(bytes: &[u8]) -> Option<(u8, usize)> {
    match bytes {
        [b'%', b'2', b'B' | b'b', ..] => Some((b'+', 3)),
        [b'%', b'2', b'F' | b'f', ..] => Some((b'/', 3)),
        [b'%', b'3', b'D' | b'd', ..] => Some((b'=', 3)),
        [one, ..] if one.is_ascii_alphanumeric() || b"+/=-_".contains(one) => Some((*one, 1)),
        _ => None,
    }
}

/// How many bytes of blanks and line ends begin here, also escaped or percent-encoded.
fn blanks(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let slashes = rest.iter().take_while(|byte| **byte == b'\\').count();
        at += match (rest, rest.get(slashes)) {
            (_, Some(b'n' | b'r' | b't')) if slashes > 0 => slashes + 1,
            ([b' ' | b'\t' | b'\n' | b'\r', ..], _) => 1,
            ([b'%', b'2', b'0', ..] | [b'%', b'0', b'A' | b'a' | b'D' | b'd', ..], _) => 3,
            _ => return at,
        };
    }
}

#[cfg(test)]
mod tests {
    use countersign_protocol::PrivateKey;

    use super::*;

    /// Whether 16 characters in a row of the key are in the text.
    fn leaks(key: &str, text: &str) -> bool {
        let windows = key.as_bytes().windows(16);
        windows
            .map(|window| std::str::from_utf8(window).unwrap())
            .any(|window| text.contains(window))
    }

    #[test]
    fn no_form_of_a_key_passes_and_what_stands_around_it_does() {
        let key = PrivateKey::generate(2048).unwrap();
        let (pem, line) = (key.to_pkcs8_pem(), key.to_pkcs8_base64());
        let half = pem.get(..600).unwrap();
        let lines: Vec<_> = line
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        let url = line.replace('+', "-").replace('/', "_");
        for form in [
            pem.to_string(),
            pem.replace('\n', "\\n"),
            pem.replace('\n', "\\\\n"),
            pem.replace('\n', " "),
            pem.replace('\n', "%0A").replace('+', "%2B"),
            half.to_owned(),
            half.replace('\n', " "),
            pem.get(40..).unwrap().to_owned(),
            pem.replace("PRIVATE", "RSA PRIVATE"),
            line.to_string(),
            url,
            lines.join(" "),
            lines.join("\n"),
            lines.join("\\r\\n"),
            line.replace('/', "%2F").replace('+', "%2b"),
        ] {
            for text in [
                form.clone(),
                format!("error: \"{form}\" is no path"),
                format!("{{\"reason\":\"{form}\",\"next\":1}}"),
            ] {
                let clean = redact(&text);
                assert!(!leaks(&line, &clean), "{text}\n{clean}");
                assert!(clean.contains(REDACTED), "{clean}");
            }
            let json = format!("{{\"reason\":\"{form}\",\"next\":1}}");
            assert!(redact(&json).ends_with("\",\"next\":1}"), "{form}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        for text in [
            "the configuration of the sidecar is not there: /etc/countersign/config.yaml: no such file",
            digest,
            "/var/lib/kubelet/pods/8a1b2c3d-0000-4000-8000-0123456789ab/volumes/Kubernetes-Secret/Keys/Partner",
            "SANDBOX_5X00000000000000 SANDBOX_5X00000000000001 SANDBOX_5X00000000000002 SANDBOX_5X00000000000003",
            "upstream_unreachable response_signature_missing response_signature_malformed request_timeout",
            "ü€ -----",
            "",
        ] {
            assert_eq!(redact(text), text);
        }
    }
}
