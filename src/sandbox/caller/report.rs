//! What a call brought: what was sent, what came back, and each thing that is wrong with it.
//!
//! Every problem is one line for a person. The report holds no key; what comes from the partner is
//! shown with its control characters escaped. Made by the judge, shown by `sandbox` and `demo`.

use std::fmt;
use std::time::Duration;

use ::http::{HeaderMap, Response, StatusCode, Version};
use bytes::Bytes;

use super::{CallFault, Operation, Sent};
use crate::http::body::Held;

/// How much of a body is shown, in characters.
const SHOWN: usize = 2_000;

/// What is known of an answer's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It verifies.
    Verified,
    /// There is none.
    Unsigned,
    /// There is something, and it does not verify.
    Failed,
    /// There is no answer.
    Unanswered,
}

/// The `result` of an answer, as far as it can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// `resultStatus`.
    pub status: String,
    /// `resultCode`.
    pub code: String,
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// The status.
    pub status: StatusCode,
    /// The version of HTTP.
    pub version: Version,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// All about one call.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was called for.
    pub operation: Operation,
    /// What was wrong with the call.
    pub fault: Option<CallFault>,
    /// The call as it left.
    pub sent: Sent,
    /// The answer.
    pub answer: Option<Received>,
    /// From handing the call over to the answer's last byte.
    pub took: Duration,
    /// What the signature is worth.
    pub verdict: Verdict,
    /// What the answer says, if it says it readably.
    pub result: Option<Outcome>,
    /// Each thing that is wrong, one line each; none when all is as it should be.
    pub problems: Vec<String>,
}

impl Report {
    /// Whether nothing was wrong, or a wrong call was refused as it should be.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    /// The report of the second of two calls, with what was wrong with the first and with the
    /// difference between them.
    pub(super) fn after(mut self, first: Self) -> Self {
        let answered = |report: &Self| report.verdict == Verdict::Verified;
        if answered(&self) && first.is_good() && self.result != first.result {
            self.problems.push(format!(
                "the same call has result {} the second time and {} the first",
                said(self.result.as_ref()),
                said(first.result.as_ref())
            ));
        }
        let first = first.problems.into_iter();
        let first = first.map(|problem| format!("the first time: {problem}"));
        self.problems = first.chain(self.problems).collect();
        self
    }

    /// Everything in one line, for a log.
    pub fn line(&self) -> String {
        let status = self.answer.as_ref().map(|answer| answer.status.as_u16());
        let status = status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        let mut line = format!(
            "{} to {}{}: {status}, {}, result {}, {}",
            self.operation,
            self.sent.target.origin(),
            self.sent.target.signed(),
            self.verdict,
            said(self.result.as_ref()),
            milliseconds(self.took)
        );
        if !self.is_good() {
            line.push_str("; WRONG: ");
            line.push_str(&self.problems.join("; "));
        }
        line
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sent = &self.sent;
        writeln!(f, "to {}", sent.target.origin())?;
        writeln!(f, "POST {}", sent.target.signed())?;
        message(f, &sent.headers, &sent.body)?;
        if let Some(answer) = &self.answer {
            writeln!(f, "answered after {}", milliseconds(self.took))?;
            writeln!(f, "{:?} {}", answer.version, answer.status)?;
            message(f, &answer.headers, &answer.body)?;
        } else {
            writeln!(f, "no answer after {}\n", milliseconds(self.took))?;
        }
        let result = said(self.result.as_ref());
        writeln!(f, "signature: {}\nresult: {result}", self.verdict)?;
        for problem in &self.problems {
            writeln!(f, "WRONG: {problem}")?;
        }
        match (self.is_good(), self.fault) {
            (false, _) => Ok(()),
            (true, None) => writeln!(f, "all as it should be"),
            (true, Some(_)) if self.verdict == Verdict::Verified => {
                writeln!(
                    f,
                    "answered twice alike; the app takes it as one by its ids"
                )
            }
            (true, Some(_)) => writeln!(f, "refused, as it should be"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Verified => "verified",
            Self::Unsigned => "unsigned",
            Self::Failed => "does not verify",
            Self::Unanswered => "none",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", printable(&self.status), printable(&self.code))
    }
}

impl From<Response<Held>> for Received {
    fn from(answer: Response<Held>) -> Self {
        let (head, held) = answer.into_parts();
        Self {
            status: head.status,
            version: head.version,
            headers: head.headers,
            body: Bytes::from_owner(held),
        }
    }
}

/// A result in words.
pub(super) fn said(result: Option<&Outcome>) -> String {
    result.map_or_else(|| "none".to_owned(), ToString::to_string)
}

fn message(f: &mut fmt::Formatter<'_>, headers: &HeaderMap, body: &[u8]) -> fmt::Result {
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        writeln!(f, "{name}: {}", printable(&value))?;
    }
    let text = String::from_utf8_lossy(body);
    let shown: String = text.chars().take(SHOWN).collect();
    let cut = if shown.len() < text.len() { "…" } else { "" };
    writeln!(f, "\n{}{cut}\n", printable(&shown))
}

/// The partner's text must not move a terminal's cursor.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' && character != '\t' {
            printable.extend(character.escape_unicode());
        } else {
            printable.push(character);
        }
    }
    printable
}

fn milliseconds(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
