//! Follows the answers of a connection (RFC 9112 sections 4 and 6).

use super::body::Left;
use super::field::{Field, Framing};
use super::line::Lines;
use super::target::is_http_1_0;
use super::{Asked, At, Limits, Malformed, Step};

/// How many interim answers (1xx) may precede one.
const INTERIM: usize = 16;

/// Follows answers, each to one request.
#[derive(Debug)]
pub struct Answers {
    limits: Limits,
    lines: Lines,
    state: State,
    asked: Asked,
    interim: usize,
}

#[derive(Debug)]
enum State {
    /// Nothing was asked that is not answered.
    Idle,
    Awaiting,
    Head(Head),
    Body(Left),
    Failed(Malformed),
}

/// What is known of a head so far.
#[derive(Debug)]
struct Head {
    status: u16,
    is_http_1_0: bool,
    bytes: usize,
    fields: usize,
    framing: Framing,
}

/// What follows a line of a head.
enum Next {
    Line,
    Interim,
    Switched,
    Body(Option<Left>),
}

impl Answers {
    /// Nothing was asked yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            lines: Lines::default(),
            state: State::Idle,
            asked: Asked::default(),
            interim: 0,
        }
    }

    /// A request was handed over; its answer may come from now on.
    pub fn expect(&mut self, asked: Asked) {
        if matches!(self.state, State::Idle) {
            self.asked = asked;
            self.interim = 0;
            self.state = State::Awaiting;
        }
    }

    /// Whether everything that was asked is answered.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Reads on, at most to the end of the answer that is being read. Each byte is to be given once.
    ///
    /// # Errors
    /// The first thing that two readers could understand differently, and bytes that answer nothing;
    /// and for ever after.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Step, Malformed> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            let (more, at) = self.step(rest).inspect_err(|reason| {
                self.state = State::Failed(*reason);
                self.lines = Lines::default();
            })?;
            taken += more;
            if let Some(at) = at {
                return Ok(Step { taken, at });
            }
        }
        let at = match self.state {
            State::Body(_) => At::Body,
            _ => At::Head,
        };
        Ok(Step { taken, at })
    }

    /// Takes some bytes; where the answer ended, if it did.
    fn step(&mut self, bytes: &[u8]) -> Result<(usize, Option<At>), Malformed> {
        let limits = self.limits;
        // Two line ends are still to come: this line's, and the head's.
        let limit = |used: usize| {
            let room = limits.head.saturating_sub(used + 4);
            (room, Malformed::HeadTooLarge)
        };
        match &mut self.state {
            State::Idle => Err(Malformed::Unasked),
            State::Awaiting => {
                let (taken, head) = self.lines.cut(bytes, limit(0), Head::begin)?;
                if let Some(head) = head {
                    self.state = State::Head(head);
                }
                Ok((taken, None))
            }
            State::Head(head) => {
                let (limit, asked) = (limit(head.bytes), self.asked);
                let read = |line: &[u8]| head.read(line, limits.fields, asked);
                let (taken, next) = self.lines.cut(bytes, limit, read)?;
                Ok((taken, self.go_on(next.unwrap_or(Next::Line))?))
            }
            State::Body(left) => {
                let (taken, over) = left.feed(bytes)?;
                Ok((taken, over.then(|| self.end(At::End))))
            }
            State::Failed(reason) => Err(*reason),
        }
    }

    fn go_on(&mut self, next: Next) -> Result<Option<At>, Malformed> {
        match next {
            Next::Line => {}
            Next::Interim => {
                self.interim += 1;
                if self.interim > INTERIM {
                    return Err(Malformed::TooManyInterim);
                }
                self.state = State::Awaiting;
            }
            Next::Switched => return Ok(Some(self.end(At::Switched))),
            Next::Body(Some(left)) => self.state = State::Body(left),
            Next::Body(None) => return Ok(Some(self.end(At::End))),
        }
        Ok(None)
    }

    fn end(&mut self, at: At) -> At {
        self.state = State::Idle;
        at
    }
}

impl Head {
    /// Reads a status line; the reason, and the blank before it, may be left out.
    fn begin(line: &[u8]) -> Result<Self, Malformed> {
        let (version, rest) = line.split_at_checked(8).ok_or(Malformed::StatusLine)?;
        let is_http_1_0 = is_http_1_0(version)?;
        let [b' ', digits @ ..] = rest else {
            return Err(Malformed::StatusLine);
        };
        let (digits, reason) = digits.split_at_checked(3).ok_or(Malformed::StatusLine)?;
        if !digits.iter().all(u8::is_ascii_digit)
            || reason.first().is_some_and(|byte| *byte != b' ')
        {
            return Err(Malformed::StatusLine);
        }
        let number = |number, digit: &u8| number * 10 + u16::from(digit - b'0');
        let status = digits.iter().fold(0, number);
        if status < 100 {
            return Err(Malformed::StatusLine);
        }
        Ok(Self {
            status,
            is_http_1_0,
            bytes: line.len() + 2,
            fields: 0,
            framing: Framing::default(),
        })
    }

    fn read(&mut self, line: &[u8], most: usize, asked: Asked) -> Result<Next, Malformed> {
        if line.is_empty() {
            return self.over(asked);
        }
        self.bytes += line.len() + 2;
        self.fields += 1;
        if self.fields > most {
            return Err(Malformed::TooManyFields);
        }
        self.framing.note(&Field::read(line)?)?;
        Ok(Next::Line)
    }

    /// What follows the head (RFC 9112 section 6.3).
    fn over(&self, asked: Asked) -> Result<Next, Malformed> {
        let Framing { length, chunked } = self.framing;
        if self.is_http_1_0 && chunked {
            return Err(Malformed::CodingInHttp10);
        }
        let has_body = chunked || length.is_some_and(|length| length > 0);
        match self.status {
            100..200 | 204 if has_body => Err(Malformed::BodyForbidden),
            101 if asked.takeover => Ok(Next::Switched),
            101 => Err(Malformed::SwitchedUnasked),
            100..200 => Ok(Next::Interim),
            204 | 304 => Ok(Next::Body(None)),
            _ if asked.head_only => Ok(Next::Body(None)),
            _ if length.is_none() && !chunked => Ok(Next::Body(Some(Left::Rest))),
            _ => Ok(Next::Body(Left::of(self.framing))),
        }
    }
}
