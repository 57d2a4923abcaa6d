//! HTTP/1 messages as bytes: where each begins and ends, read strictly (RFC 9112).
//!
//! Readers in a row (a load balancer, this sidecar, hyper, an app) must not see the end of a message in
//! different places: bytes of one would become another. [`Requests`] and [`Answers`] follow a stream
//! of bytes and name the first thing that two readers could understand in two ways, as
//! [`Malformed`]. No IO, no clock, and no memory but for one unfinished line. They do not
//! interpret: what is asked for and what is answered is hyper's to read, from the very same bytes.
//! Driven by `net::guard` before hyper's server and by `upstream::guard` before its client.

mod answers;
mod body;
mod byte;
mod chunks;
mod field;
mod line;
mod malformed;
mod requests;
mod target;

use std::error::Error;
use std::{fmt, io};

pub use answers::Answers;
pub use malformed::Malformed;
pub use requests::{Asked, Requests};
pub use target::origin_form;

use crate::exchange::{Code, Fault};

/// How much of a head is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The head with all its line ends, in bytes.
    pub head: usize,
    /// The request line, in bytes; at least 8000 should pass (RFC 9112 section 3).
    pub request_line: usize,
    /// Its fields.
    pub fields: usize,
}

impl Limits {
    /// A head of that many bytes; a request line of 16 KiB and 100 fields, which is what hyper takes.
    pub fn of_head(head: usize) -> Self {
        Self {
            head,
            request_line: 16 * 1024,
            fields: 100,
        }
    }
}

/// How far bytes were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// How many of them belong to the message that is being read, and were taken.
    pub taken: usize,
    /// Where in the message that is.
    pub at: At,
}

/// A place in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Its head is not whole yet. All bytes were taken.
    Head,
    /// Its body is not whole yet. All bytes were taken.
    Body,
    /// It is whole. What was not taken belongs to the next one, or to another protocol.
    End,
    /// An answer with which HTTP ends on its connection (101).
    Switched,
}

/// A request that cannot be read in one way only, as a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRequest(pub Malformed);

/// An answer that cannot be read in one way only, as a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAnswer(pub Malformed);

impl BadRequest {
    /// What its sender is told: nothing of it went anywhere.
    pub fn fault(self) -> Fault {
        Fault::not_sent(Code::RequestMalformed, self.to_string()).told_as(self.0.status())
    }
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the request {}", self.0.text())
    }
}

impl fmt::Display for BadAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the answer {}", self.0.text())
    }
}

impl Error for BadRequest {}

impl Error for BadAnswer {}

/// What an adapter told through an [`io::Error`], wherever that is in the chain of causes.
pub fn told<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| inner.downcast_ref::<E>()) {
            return Some(found);
        }
        next = error.source();
    }
    None
}
