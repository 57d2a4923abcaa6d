//! Looks at an answer as strictly as Alipay+ does, and goes on after the first thing that is wrong.
//!
//! An answer to a right call must be signed in full and say a result; a wrong call must be refused
//! unsigned, as signing refusals would let anyone spend the partner's processor. Accepts no other
//! spelling of either. Called by the caller with whatever came of a call.

use std::error::Error;
use std::time::Duration;

use ::http::header::CONTENT_ENCODING;
use ::http::{HeaderMap, HeaderName, Method, StatusCode};
use countersign_protocol::message::{CLIENT_ID, RESPONSE_TIME, SIGNATURE};
use countersign_protocol::{ClientId, Content, Question, Signature, Timestamp, explain, verify};
use serde_json::Value;

use super::report::{Outcome, Received, Report, Verdict, said};
use super::{Call, CallFault, Sent};
use crate::exchange::{Code, Delivery, Fault};
use crate::sandbox::{Config, MAX_SKEW};

/// The longest `resultCode` and `resultMessage`, in characters.
const CODE_LIMIT: usize = 64;
const MESSAGE_LIMIT: usize = 256;

/// Says all that is wrong with what came of a call.
pub(super) fn judge(
    config: &Config,
    call: &Call,
    sent: Sent,
    took: Duration,
    answer: Result<Received, Fault>,
) -> Report {
    let mut judge = Judge {
        config,
        call,
        problems: Vec::new(),
    };
    let (mut verdict, mut result) = (Verdict::Unanswered, None);
    match &answer {
        Ok(answer) => {
            verdict = judge.signature(answer);
            result = judge.result(&answer.body);
            judge.expectation(answer, verdict, result.as_ref());
            judge.subject(&sent.body, &answer.body);
        }
        Err(fault) => judge.problems.push(judge.unanswered(fault)),
    }
    let problems = judge.problems;
    Report {
        operation: call.operation,
        fault: call.fault,
        sent,
        answer: answer.ok(),
        took,
        verdict,
        result,
        problems,
    }
}

struct Judge<'a> {
    config: &'a Config,
    call: &'a Call,
    problems: Vec<String>,
}

impl Judge<'_> {
    /// Whether it is about the payment that was asked for, if it says.
    fn subject(&mut self, asked: &[u8], answered: &[u8]) {
        const ID: &str = "paymentRequestId";
        let id = |body: &[u8]| {
            let body: Value = serde_json::from_slice(body).ok()?;
            body.get(ID)?.as_str().map(str::to_owned)
        };
        if let (Some(asked), Some(answered)) = (id(asked), id(answered))
            && asked != answered
        {
            self.wrong(format!(
                "the answer is for another payment: {ID} is {answered}, and {asked} was asked for"
            ));
        }
    }

    /// Whether this is the answer the call should have.
    fn expectation(&mut self, answer: &Received, verdict: Verdict, result: Option<&Outcome>) {
        match self.call.fault {
            None => self.must_be_taken(answer, verdict, result),
            Some(CallFault::Replay) if verdict == Verdict::Verified => {
                // No document says how long a call may be repeated; ids keep it from counting twice.
                self.must_be_taken(answer, verdict, result);
            }
            Some(fault) => self.must_be_refused(answer, verdict, result, fault.refusals()),
        }
    }

    fn must_be_taken(&mut self, answer: &Received, verdict: Verdict, result: Option<&Outcome>) {
        if answer.status != StatusCode::OK {
            let status = answer.status;
            self.wrong(format!("the status is {status}; Alipay+ expects 200"));
        }
        if verdict == Verdict::Unsigned {
            self.wrong("the answer is not signed: it has neither signature nor response-time");
        }
        if let Some(coding) = answer.headers.get(CONTENT_ENCODING) {
            self.wrong(format!(
                "the body has the content coding {coding:?}, for which nobody asked"
            ));
        }
        let operation = self.call.operation;
        if let Some(result) = result
            && operation.is_notification()
            && result.status != "S"
        {
            self.wrong(format!(
                "the result is {result}, so Alipay+ would send {operation} again; only S acknowledges"
            ));
        }
    }

    fn must_be_refused(
        &mut self,
        answer: &Received,
        verdict: Verdict,
        result: Option<&Outcome>,
        codes: &[&str],
    ) {
        if result.is_some_and(|result| result.status == "S") {
            self.wrong("a call that is forged or damaged was taken for a good one");
        }
        if answer.status != StatusCode::UNAUTHORIZED {
            let status = answer.status;
            self.wrong(format!("the status is {status}; a refusal has 401"));
        }
        if verdict != Verdict::Unsigned {
            self.wrong("the refusal is signed, so anyone can make the partner sign");
        }
        let proper = |result: &Outcome| {
            let said = format!("{}/{}", result.status, result.code);
            codes.contains(&said.as_str())
        };
        if !result.is_none_or(proper) {
            let (said, codes) = (said(result), codes.join(" or "));
            self.wrong(format!("the result is {said}; a refusal says {codes}"));
        }
    }

    /// Checks the three headers, and the signature when all can be read.
    fn signature(&mut self, answer: &Received) -> Verdict {
        let headers = &answer.headers;
        if !headers.contains_key(SIGNATURE) && !headers.contains_key(RESPONSE_TIME) {
            return Verdict::Unsigned;
        }
        let client_id = self.read(headers, &CLIENT_ID, ClientId::parse);
        let time = self.read(headers, &RESPONSE_TIME, Timestamp::parse);
        let signature = self.read(headers, &SIGNATURE, Signature::parse);
        if let Some(client_id) = &client_id
            && *client_id != self.config.client_id
        {
            let expected = &self.config.client_id;
            self.wrong(format!(
                "client-id is {client_id}, and the call was for {expected}"
            ));
        }
        if let Some(time) = &time {
            self.time(time);
        }
        let known = signature.as_ref().is_none_or(|one| self.key_version(one));
        let (Some(client_id), Some(time), Some(signature)) = (client_id, time, signature) else {
            return Verdict::Failed;
        };
        let content = Content {
            method: Method::POST.as_str(),
            uri: &self.call.target.signed(),
            client_id: &client_id,
            time: &time,
            body: &answer.body,
        };
        let verified = self.verify(&content, &signature.value);
        let right_client = client_id == self.config.client_id;
        if verified && known && right_client && self.is_fresh(&time) {
            Verdict::Verified
        } else {
            Verdict::Failed
        }
    }

    fn verify(&mut self, content: &Content<'_>, value: &[u8]) -> bool {
        let key = &self.config.partner_key;
        let verified = verify(key, content, value).is_ok();
        if !verified {
            let question = Question {
                host: Some(self.call.target.authority()),
                ..Question::new(key, content, value)
            };
            let reason = explain(&question);
            self.wrong(format!("the signature does not verify: {reason}"));
        }
        verified
    }

    /// A header that must be there once.
    fn read<T, E: Error>(
        &mut self,
        headers: &HeaderMap,
        name: &HeaderName,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let mut values = headers.get_all(name).iter();
        let read = match (values.next(), values.next()) {
            (None, _) => Err(format!("the answer is half signed: {name} is missing")),
            (Some(_), Some(_)) => Err(format!("{name} is there more than once")),
            (Some(value), None) => value
                .to_str()
                .map_err(|_foreign| format!("{name} is not printable ASCII"))
                .and_then(|text| {
                    parse(text).map_err(|error| format!("{name} cannot be read: {error}"))
                }),
        };
        read.map_err(|problem| self.wrong(problem)).ok()
    }

    fn time(&mut self, time: &Timestamp) {
        if !self.is_fresh(time) {
            let skew = Duration::from_secs(time.skew(self.config.clock.now()).as_secs());
            self.wrong(format!(
                "response-time {time} is {} from now; at most {} is taken",
                humantime::format_duration(skew),
                humantime::format_duration(MAX_SKEW)
            ));
        }
    }

    fn is_fresh(&self, time: &Timestamp) -> bool {
        time.skew(self.config.clock.now()) <= MAX_SKEW
    }

    fn key_version(&mut self, signature: &Signature) -> bool {
        let (found, expected) = (signature.key_version, self.config.key_version);
        if found != expected {
            self.wrong(format!(
                "keyVersion {found} is unknown; the partner's key has {expected}"
            ));
        }
        found == expected
    }

    /// Reads `result`; whatever it lacks is wrong in every answer.
    fn result(&mut self, body: &[u8]) -> Option<Outcome> {
        let document: Value = match serde_json::from_slice(body) {
            Ok(document) => document,
            Err(error) => {
                self.wrong(format!("the body is no JSON: {error}"));
                return None;
            }
        };
        let Some(Value::Object(result)) = document.get("result") else {
            self.wrong("the body has no object \"result\"");
            return None;
        };
        let text = |name| {
            let found = result.get(name).and_then(Value::as_str);
            found.unwrap_or_default().to_owned()
        };
        let outcome = Outcome {
            status: text("resultStatus"),
            code: text("resultCode"),
        };
        if !["S", "F", "U"].contains(&outcome.status.as_str()) {
            self.wrong("result.resultStatus is none of S, F and U");
        }
        if outcome.code.is_empty() {
            self.wrong("result.resultCode is missing");
        }
        for (name, limit) in [("resultCode", CODE_LIMIT), ("resultMessage", MESSAGE_LIMIT)] {
            let length = text(name).chars().count();
            if length > limit {
                self.wrong(format!(
                    "result.{name} has {length} characters; at most {limit} are allowed"
                ));
            }
        }
        Some(outcome)
    }

    /// Why there is no answer.
    fn unanswered(&self, fault: &Fault) -> String {
        let Call {
            target, operation, ..
        } = self.call;
        if fault.code() == Code::UpstreamTimeout {
            let what = match fault.delivered() {
                Delivery::NotSent => "no connection",
                Delivery::Unknown => "no complete answer",
            };
            let patience = humantime::format_duration(operation.patience());
            return format!("{what} within {patience}; Alipay+ waits no longer for {operation}");
        }
        // The fault speaks of whom an app calls.
        let mut words = vec![fault.text().replace("the destination", target.authority())];
        let mut next = fault.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            let new = !words.last().is_some_and(|word| word.ends_with(&text));
            // hyper names only its own step there.
            if new && !text.starts_with("client error") {
                words.push(text);
            }
            next = cause.source();
        }
        words.join(": ")
    }

    fn wrong(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }
}
