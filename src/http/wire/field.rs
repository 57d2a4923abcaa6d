//! Header lines, and what they say of where a message ends (RFC 9112 sections 5 and 6).

use super::Malformed;
use super::byte::{all, is_blank, is_token};

/// A header line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    name: &'a [u8],
    /// As it stands behind the colon.
    raw: &'a [u8],
}

impl<'a> Field<'a> {
    /// Reads a line that is not empty.
    pub(super) fn read(line: &'a [u8]) -> Result<Self, Malformed> {
        if line.first().copied().is_some_and(is_blank) {
            return Err(Malformed::FoldedLine);
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let halves = colon.and_then(|colon| line.split_at_checked(colon));
        let Some((name, [_colon, raw @ ..])) = halves else {
            return Err(Malformed::FieldWithoutColon);
        };
        if all(name, is_token) {
            return Ok(Self { name, raw });
        }
        let ends_blank = name.last().copied().is_some_and(is_blank);
        Err(if ends_blank {
            Malformed::BlankBeforeColon
        } else {
            Malformed::FieldName
        })
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value without the white space around it.
    pub(super) fn value(&self) -> &'a [u8] {
        self.raw.trim_ascii()
    }

    /// The value if nothing but blanks before it surrounds it: there are readers that take tabs and
    /// what is behind for a part of it.
    fn plain(&self) -> &'a [u8] {
        let blanks = self.raw.iter().take_while(|byte| **byte == b' ').count();
        self.raw.get(blanks..).unwrap_or_default()
    }
}

/// What a head says of the end of its message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Framing {
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
}

impl Framing {
    /// Takes note of a field, if it is about that.
    pub(super) fn note(&mut self, field: &Field<'_>) -> Result<(), Malformed> {
        if field.is("content-length") {
            if self.length.is_some() {
                return Err(Malformed::LengthRepeated);
            }
            self.length = Some(length(field.plain())?);
        } else if field.is("transfer-encoding") {
            if self.chunked {
                return Err(Malformed::CodingRepeated);
            }
            chunked(field.plain())?;
            self.chunked = true;
        }
        if self.chunked && self.length.is_some() {
            return Err(Malformed::LengthAndCoding);
        }
        Ok(())
    }
}

/// A plain decimal number, without zeros before it, which some read as octal.
fn length(value: &[u8]) -> Result<u64, Malformed> {
    let plain = all(value, |byte| byte.is_ascii_digit())
        && (value.len() == 1 || value.first() != Some(&b'0'));
    let number = plain.then(|| std::str::from_utf8(value).ok()?.parse().ok());
    number
        .flatten()
        .filter(|number| *number <= i64::MAX.cast_unsigned())
        .ok_or(Malformed::LengthInvalid)
}

/// Nothing but `chunked`.
fn chunked(value: &[u8]) -> Result<(), Malformed> {
    let is_chunked = |name: &[u8]| name.eq_ignore_ascii_case(b"chunked");
    if is_chunked(value) {
        return Ok(());
    }
    let comma = value.iter().rposition(|byte| *byte == b',');
    let (before, last) = comma
        .and_then(|comma| value.split_at_checked(comma))
        .unwrap_or_default();
    let ends_chunked = last
        .strip_prefix(b",")
        .is_some_and(|last| is_chunked(last.trim_ascii()));
    let mut others = before.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    if ends_chunked && others.all(|name| all(name, is_token) && !is_chunked(name)) {
        Err(Malformed::CodingUnknown)
    } else {
        Err(Malformed::CodingInvalid)
    }
}
