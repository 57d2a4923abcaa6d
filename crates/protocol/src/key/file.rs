//! From the bytes of a file to the one DER structure in it.
//!
//! Takes off what editors, consoles and systems wrap around a key: PEM armour and comments, base64 in
//! one line or several, a byte order mark, DOS line ends, blanks. It does not look inside the DER.

use base64::{
    DecodeError, DecodeSliceError, Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

use super::error::{Found, KeyError};

const BEGIN: &[u8] = b"-----BEGIN ";
const DASHES: &[u8] = b"-----";

/// Padding may be missing: the DER inside says where the key ends.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a file holds.
pub(super) enum Content {
    /// One structure, still to be recognised.
    Der(Zeroizing<Vec<u8>>),
    /// A whole PEM block encrypted in the traditional way (`Proc-Type: 4,ENCRYPTED`).
    EncryptedPem(String),
    /// Another program's form. Which half of a key it is, is not looked at.
    Foreign(Found),
}

pub(super) fn open(bytes: &[u8]) -> Result<Content, KeyError> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(KeyError::Utf16);
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.trim_ascii().is_empty() {
        return Err(KeyError::Empty);
    }
    if find(bytes, BEGIN).is_some() {
        return open_pem(bytes);
    }
    if bytes
        .iter()
        .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
    {
        return open_text(bytes.trim_ascii());
    }
    match bytes.first() {
        Some(0x30) => Ok(Content::Der(Zeroizing::new(bytes.to_vec()))),
        _ => Err(KeyError::NotAKey),
    }
}

fn open_pem(bytes: &[u8]) -> Result<Content, KeyError> {
    let block = only_block(bytes)?;
    if block.label.starts_with(b"OPENSSH") || block.label.starts_with(b"SSH2") {
        return Ok(Content::Foreign(Found::OpenSsh));
    }
    if find(block.body, b"Proc-Type:").is_some() && find(block.body, b"ENCRYPTED").is_some() {
        return block.lines().map(Content::EncryptedPem);
    }
    decode(block.body)
        .map(Content::Der)
        .map_err(|error| match error {
            KeyError::NotAKey => KeyError::BrokenPem,
            other => other,
        })
}

fn open_text(text: &[u8]) -> Result<Content, KeyError> {
    if text.starts_with(b"ssh-") || text.starts_with(b"ecdsa-") {
        return Ok(Content::Foreign(Found::OpenSsh));
    }
    if text.starts_with(b"{") && find(text, b"\"kty\"").is_some() {
        return Ok(Content::Foreign(Found::Jwk));
    }
    decode(text).map(Content::Der)
}

/// One `BEGIN … END` block.
struct Block<'a> {
    label: &'a [u8],
    body: &'a [u8],
}

/// `openssl ecparam -genkey` puts the curve into a block of its own, which is no key.
fn only_block(bytes: &[u8]) -> Result<Block<'_>, KeyError> {
    let mut blocks = blocks(bytes)?;
    blocks.retain(|block| !block.label.ends_with(b"PARAMETERS"));
    if blocks.len() > 1 {
        let certificates = blocks
            .iter()
            .all(|block| block.label.ends_with(b"CERTIFICATE"));
        let error = if certificates {
            KeyError::CertificateChain
        } else {
            KeyError::SeveralKeys
        };
        return Err(error);
    }
    blocks.pop().ok_or(KeyError::NotAKey)
}

fn blocks(mut bytes: &[u8]) -> Result<Vec<Block<'_>>, KeyError> {
    let mut blocks = Vec::new();
    while let Some((_, after)) = split(bytes, BEGIN) {
        let (label, after) = split(after, DASHES).ok_or(KeyError::BrokenPem)?;
        let end = [b"-----END ", label, DASHES].concat();
        let (body, after) = split(after, &end).ok_or(KeyError::BrokenPem)?;
        blocks.push(Block { label, body });
        bytes = after;
    }
    Ok(blocks)
}

impl Block<'_> {
    /// The block again with one trimmed line a line, as OpenSSL wants the header lines inside.
    fn lines(&self) -> Result<String, KeyError> {
        let label = std::str::from_utf8(self.label).map_err(broken)?;
        let body = std::str::from_utf8(self.body).map_err(broken)?;
        let lines: Vec<_> = body.trim().lines().map(str::trim).collect();
        let body = lines.join("\n");
        Ok(format!(
            "-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"
        ))
    }
}

/// Base64 with any blanks in it. Works in buffers that are overwritten and never grow.
fn decode(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let mut dense = Zeroizing::new(Vec::with_capacity(text.len()));
    dense.extend(text.iter().filter(|byte| !byte.is_ascii_whitespace()));
    let mut der = Zeroizing::new(vec![0; base64::decoded_len_estimate(dense.len())]);
    let length = BASE64
        .decode_slice(&*dense, &mut der)
        .map_err(|error| not_decoded(&dense, &error))?;
    der.truncate(length);
    Ok(der)
}

/// Words are base64 digits too: only what begins like the base64 of a key can be one cut short.
fn not_decoded(dense: &[u8], error: &DecodeSliceError) -> KeyError {
    let foreign = matches!(
        error,
        DecodeSliceError::DecodeError(DecodeError::InvalidByte(..))
            | DecodeSliceError::OutputSliceTooSmall
    );
    if foreign || !dense.starts_with(b"MI") {
        KeyError::NotAKey
    } else {
        KeyError::CutShort
    }
}

fn broken(_: std::str::Utf8Error) -> KeyError {
    KeyError::BrokenPem
}

fn split<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (before, from) = bytes.split_at_checked(find(bytes, mark)?)?;
    Some((before, from.strip_prefix(mark)?))
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}
