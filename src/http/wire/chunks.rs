//! The framing of a chunked body (RFC 9112 section 7.1), its extensions and trailers.

use super::Malformed;
use super::byte::is_token;
use super::field::Field;
use super::line::Lines;

/// The most bytes of one chunk's size and extensions, and of the extensions of a whole body. hyper gives
/// up at 16 KiB.
const EXTENSIONS: usize = 8 * 1024;
/// The most bytes and fields of trailers. hyper gives up at 16 KiB and 100.
const TRAILERS: usize = 8 * 1024;
const TRAILER_FIELDS: usize = 64;
/// The most digits of a size that fits below 2^63.
const DIGITS: usize = 16;

/// What no trailer may be: framing, routing and authentication (RFC 9110 section 6.5.1), and what is
/// signed or says who signed.
const FORBIDDEN: [&str; 12] = [
    "content-length",
    "transfer-encoding",
    "host",
    "content-encoding",
    "content-type",
    "trailer",
    "connection",
    "authorization",
    "client-id",
    "request-time",
    "response-time",
    "signature",
];

/// Follows a chunked body.
#[derive(Debug)]
pub(super) struct Chunks {
    place: Place,
    lines: Lines,
    /// Bytes of extensions so far.
    extensions: usize,
    /// Bytes and fields of trailers so far.
    trailers: (usize, usize),
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Over,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Self {
            place: Place::Size,
            lines: Lines::default(),
            extensions: 0,
            trailers: (0, 0),
        }
    }

    /// Reads on, at most to the body's end. Returns how many bytes were taken, and whether it is over.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(usize, bool), Malformed> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            taken += self.step(rest)?;
            if matches!(self.place, Place::Over) {
                return Ok((taken, true));
            }
        }
        Ok((taken, false))
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let lines = &mut self.lines;
        let (taken, next) = match self.place {
            Place::Size => {
                let spent = &mut self.extensions;
                let limit = (EXTENSIONS, Malformed::ChunkExtensionsTooLong);
                lines.cut(bytes, limit, |line| size(line, spent).map(after_size))?
            }
            Place::Data(left) => {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let left = left.saturating_sub(here as u64);
                let next = if left == 0 {
                    Place::DataEnd
                } else {
                    Place::Data(left)
                };
                (here, Some(next))
            }
            Place::DataEnd => lines.cut(bytes, (0, Malformed::ChunkEnd), |_end| Ok(Place::Size))?,
            Place::Trailers => {
                let spent = &mut self.trailers;
                let limit = (TRAILERS, Malformed::TrailersTooLarge);
                lines.cut(bytes, limit, |line| trailer(line, spent))?
            }
            Place::Over => (0, None),
        };
        self.place = next.unwrap_or(self.place);
        Ok(taken)
    }
}

fn after_size(size: u64) -> Place {
    match size {
        0 => Place::Trailers,
        size => Place::Data(size),
    }
}

/// The size of a chunk; its extensions are added to `spent`.
fn size(line: &[u8], spent: &mut usize) -> Result<u64, Malformed> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let (digits, extensions) = line.split_at_checked(digits).unwrap_or_default();
    if digits.is_empty() || digits.len() > DIGITS {
        return Err(Malformed::ChunkSize);
    }
    let digits = std::str::from_utf8(digits).ok();
    let size = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let size = size
        .filter(|size| *size <= i64::MAX.cast_unsigned())
        .ok_or(Malformed::ChunkSize)?;
    if !extensions.is_empty() {
        *spent += extensions.len();
        if *spent > EXTENSIONS {
            return Err(Malformed::ChunkExtensionsTooLong);
        }
        read_extensions(extensions)?;
    }
    Ok(size)
}

/// `*( BWS ";" BWS name [ BWS "=" BWS value ] )`, where a value is a token or in quotes.
fn read_extensions(text: &[u8]) -> Result<(), Malformed> {
    let mut rest = text;
    while !rest.is_empty() {
        let [b';', name @ ..] = rest.trim_ascii_start() else {
            // What begins as no extension would be a part of the size to some.
            return Err(Malformed::ChunkSize);
        };
        rest = token(name.trim_ascii_start())?;
        if let [b'=', value @ ..] = rest.trim_ascii_start() {
            rest = match value.trim_ascii_start() {
                [b'"', quoted @ ..] => behind_quotes(quoted)?,
                plain => token(plain)?,
            };
        }
    }
    Ok(())
}

/// What is behind a token.
fn token(text: &[u8]) -> Result<&[u8], Malformed> {
    let end = text.iter().take_while(|byte| is_token(**byte)).count();
    match text.split_at_checked(end) {
        Some((token, rest)) if !token.is_empty() => Ok(rest),
        _ => Err(Malformed::ChunkExtension),
    }
}

/// What is behind the closing quote.
fn behind_quotes(text: &[u8]) -> Result<&[u8], Malformed> {
    let mut rest = text;
    loop {
        rest = match rest {
            [b'"', rest @ ..] => return Ok(rest),
            [b'\\', _, rest @ ..] | [_, rest @ ..] => rest,
            [] => return Err(Malformed::ChunkExtension),
        };
    }
}

/// A trailer, or the empty line at the end.
fn trailer(line: &[u8], (bytes, fields): &mut (usize, usize)) -> Result<Place, Malformed> {
    if line.is_empty() {
        return Ok(Place::Over);
    }
    *bytes += line.len() + 2;
    *fields += 1;
    if *bytes > TRAILERS || *fields > TRAILER_FIELDS {
        return Err(Malformed::TrailersTooLarge);
    }
    let field = Field::read(line)?;
    if FORBIDDEN.iter().any(|name| field.is(name)) {
        return Err(Malformed::TrailerForbidden);
    }
    Ok(Place::Trailers)
}
