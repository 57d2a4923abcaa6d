//! Lines that end in CRLF, cut out of a stream in which nothing else ends a line.

use super::Malformed;
use super::byte::is_control;

/// Cuts lines; keeps the one that is not whole yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
    /// Whether the CR of its end was seen already.
    after_cr: bool,
}

impl Lines {
    /// Whether no byte of a line was seen yet.
    pub(super) fn is_empty(&self) -> bool {
        self.partial.is_empty() && !self.after_cr
    }

    /// Hands the first whole line, without its end, to `read`. Returns how many bytes were taken, and
    /// what `read` made of the line; nothing when it is not whole yet.
    ///
    /// Lines hold neither control characters nor CR or LF. Those over `limit` bytes are refused with
    /// its reason, before they are whole.
    pub(super) fn cut<T>(
        &mut self,
        bytes: &[u8],
        (limit, over): (usize, Malformed),
        read: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Result<(usize, Option<T>), Malformed> {
        if self.after_cr {
            return match bytes.first() {
                None => Ok((0, None)),
                Some(b'\n') => {
                    let line = std::mem::take(self).partial;
                    read(&line).map(|made| (1, Some(made)))
                }
                Some(_) => Err(Malformed::BareCr),
            };
        }
        let end = bytes.iter().position(|byte| is_control(*byte));
        let (text, rest) = bytes
            .split_at_checked(end.unwrap_or(bytes.len()))
            .unwrap_or_default();
        if self.partial.len().saturating_add(text.len()) > limit {
            return Err(over);
        }
        match rest {
            [b'\r', b'\n', ..] => {
                let taken = text.len() + 2;
                if self.partial.is_empty() {
                    return read(text).map(|made| (taken, Some(made)));
                }
                self.partial.extend_from_slice(text);
                // The memory goes with the line: many connections are idle for long.
                let line = std::mem::take(self).partial;
                read(&line).map(|made| (taken, Some(made)))
            }
            [] | [b'\r'] => {
                self.partial.extend_from_slice(text);
                self.after_cr = !rest.is_empty();
                Ok((bytes.len(), None))
            }
            [b'\r', ..] => Err(Malformed::BareCr),
            [b'\n', ..] => Err(Malformed::BareLf),
            _ => Err(Malformed::ControlCharacter),
        }
    }
}
