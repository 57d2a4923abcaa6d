//! The body of a message, by the framing its head announced (RFC 9112 section 6.3).

use super::Malformed;
use super::chunks::Chunks;
use super::field::Framing;

/// What is left of a body.
#[derive(Debug)]
pub(super) enum Left {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunks(Chunks),
    /// Everything until the connection is closed.
    Rest,
}

impl Left {
    /// What a framing says; none when there is no body.
    pub(super) fn of(framing: Framing) -> Option<Self> {
        match framing.length {
            _ if framing.chunked => Some(Self::Chunks(Chunks::new())),
            Some(0) | None => None,
            Some(length) => Some(Self::Length(length)),
        }
    }

    /// Reads on. Returns how many bytes were taken, and whether the body is over.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(usize, bool), Malformed> {
        match self {
            Self::Length(left) => {
                let taken = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                *left = left.saturating_sub(taken as u64);
                Ok((taken, *left == 0))
            }
            Self::Chunks(chunks) => chunks.feed(bytes),
            Self::Rest => Ok((bytes.len(), false)),
        }
    }
}
