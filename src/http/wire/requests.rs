//! Follows the requests of a connection (RFC 9112 sections 2, 3 and 6).

use super::body::Left;
use super::byte::is_token;
use super::field::{Field, Framing};
use super::line::Lines;
use super::target::{RequestLine, authority};
use super::{At, Limits, Malformed, Step};

/// How many empty lines may precede a request line (RFC 9112 section 2.2 asks for one).
const EMPTY_LINES: usize = 2;

/// Follows requests, one behind the other.
#[derive(Debug)]
pub struct Requests {
    limits: Limits,
    lines: Lines,
    state: State,
    asked: Asked,
}

/// What a request asks for that changes how its answer is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Its answer has no body (HEAD).
    pub head_only: bool,
    /// It may end HTTP on its connection: CONNECT, or an `Upgrade` field in HTTP/1.1.
    pub takeover: bool,
}

#[derive(Debug)]
enum State {
    /// Before a request line, behind so many empty ones.
    Before(usize),
    Head(Head),
    Body(Left),
    Failed(Malformed),
}

/// What is known of a head so far.
#[derive(Debug)]
struct Head {
    line: RequestLine,
    bytes: usize,
    fields: usize,
    has_host: bool,
    has_upgrade: bool,
    framing: Framing,
}

impl Requests {
    /// Nothing was read yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            lines: Lines::default(),
            state: State::Before(0),
            asked: Asked::default(),
        }
    }

    /// Reads on, at most to the end of the request that is being read: what is behind it is another
    /// one, or what follows when the request took the connection over. Each byte is to be given once.
    ///
    /// # Errors
    /// The first thing that two readers could understand differently; and for ever after.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Step, Malformed> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            let (more, over) = self.step(rest).inspect_err(|reason| {
                self.state = State::Failed(*reason);
                self.lines = Lines::default();
            })?;
            taken += more;
            if over {
                self.state = State::Before(0);
                return Ok(Step { taken, at: At::End });
            }
        }
        let at = match self.state {
            State::Body(_) => At::Body,
            _ => At::Head,
        };
        Ok(Step { taken, at })
    }

    /// What the last request whose head was whole asks for.
    pub fn asked(&self) -> Asked {
        self.asked
    }

    /// Whether no byte of a further request was read, but for empty lines.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Before(_)) && self.lines.is_empty()
    }

    /// Takes some bytes; whether the request is over with them.
    fn step(&mut self, bytes: &[u8]) -> Result<(usize, bool), Malformed> {
        let limits = self.limits;
        match &mut self.state {
            State::Before(empty) => {
                let is_first = self.lines.is_empty();
                if is_first && bytes.first().is_some_and(|byte| !begins(*byte)) {
                    return Err(Malformed::RequestLine);
                }
                let limit = (limits.request_line, Malformed::RequestLineTooLong);
                let read = |line: &[u8]| before(line, *empty);
                let (taken, next) = self.lines.cut(bytes, limit, read)?;
                self.state = next.unwrap_or(State::Before(*empty));
                Ok((taken, false))
            }
            State::Head(head) => {
                // Two line ends are still to come: this line's, and the head's.
                let room = limits.head.saturating_sub(head.bytes + 4);
                let limit = (room, Malformed::HeadTooLarge);
                let read = |line: &[u8]| head.read(line, limits.fields);
                let (taken, whole) = self.lines.cut(bytes, limit, read)?;
                if whole != Some(true) {
                    return Ok((taken, false));
                }
                self.asked = head.asked();
                let Some(body) = Left::of(head.framing) else {
                    return Ok((taken, true));
                };
                self.state = State::Body(body);
                Ok((taken, false))
            }
            State::Body(left) => left.feed(bytes),
            State::Failed(reason) => Err(*reason),
        }
    }
}

/// What a request or the line before it begins with.
fn begins(byte: u8) -> bool {
    is_token(byte) || byte == b'\r' || byte == b'\n'
}

/// A request line, or one of the empty ones before.
fn before(line: &[u8], empty: usize) -> Result<State, Malformed> {
    if line.is_empty() {
        let next = empty + 1;
        let few = next <= EMPTY_LINES;
        return few
            .then_some(State::Before(next))
            .ok_or(Malformed::EmptyLines);
    }
    let head = Head {
        line: RequestLine::read(line)?,
        bytes: line.len() + 2,
        fields: 0,
        has_host: false,
        has_upgrade: false,
        framing: Framing::default(),
    };
    Ok(State::Head(head))
}

impl Head {
    /// Reads a line of the head; whether it was the last one.
    fn read(&mut self, line: &[u8], most: usize) -> Result<bool, Malformed> {
        if line.is_empty() {
            return self.check().map(|()| true);
        }
        self.bytes += line.len() + 2;
        self.fields += 1;
        if self.fields > most {
            return Err(Malformed::TooManyFields);
        }
        let field = Field::read(line)?;
        self.framing.note(&field)?;
        if field.is("host") {
            if self.has_host {
                return Err(Malformed::HostRepeated);
            }
            self.has_host = true;
            authority(field.value(), Malformed::HostInvalid)
                .map_err(|_user_info_as_well| Malformed::HostInvalid)?;
        } else if field.is("expect") {
            if !field.value().eq_ignore_ascii_case(b"100-continue") {
                return Err(Malformed::Expectation);
            }
        } else if field.is("upgrade") {
            self.has_upgrade = true;
        }
        Ok(false)
    }

    /// What can only be said of the whole head.
    fn check(&self) -> Result<(), Malformed> {
        if self.line.is_http_1_0 && self.framing.chunked {
            return Err(Malformed::CodingInHttp10);
        }
        if !self.line.is_http_1_0 && !self.has_host {
            return Err(Malformed::HostMissing);
        }
        Ok(())
    }

    fn asked(&self) -> Asked {
        Asked {
            head_only: self.line.is_head,
            takeover: self.line.is_connect || (self.has_upgrade && !self.line.is_http_1_0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the messages of a stream end, and why it ends itself, when it comes in such pieces.
    fn ends(stream: &[u8], piece: usize) -> (Vec<usize>, Option<Malformed>) {
        let mut requests = Requests::new(Limits::of_head(64 * 1024));
        let (mut ends, mut read) = (Vec::new(), 0);
        for mut bytes in stream.chunks(piece) {
            while !bytes.is_empty() {
                match requests.feed(bytes) {
                    Ok(step) => {
                        read += step.taken;
                        if step.at == At::End {
                            ends.push(read);
                        }
                        bytes = &bytes[step.taken..];
                    }
                    Err(reason) => {
                        assert_eq!(requests.feed(b"GET"), Err(reason), "for ever after");
                        return (ends, Some(reason));
                    }
                }
            }
        }
        (ends, None)
    }

    #[test]
    fn it_makes_no_difference_in_which_pieces_a_stream_comes() {
        let post = "POST /p HTTP/1.1\r\nHost: a\r\n";
        let get = "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let length = format!("{post}Content-Length: 5\r\n\r\nGET /");
        let chunked = format!(
            "{post}Transfer-Encoding: chunked\r\n\r\n5;a=\"\\\"\"\r\n\r\n\n0\r\r\na\r\n0123456789\r\n0\r\nA: b\r\n\r\n"
        );
        let expected = [get.len(), length.len(), chunked.len(), get.len()];
        let expected: Vec<_> = expected
            .iter()
            .scan(0, |sum, length| {
                *sum += length;
                Some(*sum)
            })
            .collect();
        let clear = format!("{get}{length}{chunked}{get}");
        for (behind, reason) in [
            ("", None),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", Some(Malformed::BareLf)),
            ("GET / HTTP/1.1\r\nHost: a\r\r\n", Some(Malformed::BareCr)),
            ("GET / HTTP/1.1\r\n\r\n", Some(Malformed::HostMissing)),
            ("\r\n\r\n\r\n", Some(Malformed::EmptyLines)),
            ("\r\n GET", Some(Malformed::RequestLine)),
        ] {
            let stream = format!("{clear}{behind}");
            for piece in 1..stream.len() {
                let found = ends(stream.as_bytes(), piece);
                assert_eq!(found, (expected.clone(), reason), "{piece} {behind:?}");
            }
        }
    }
}
