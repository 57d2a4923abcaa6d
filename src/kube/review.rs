//! What an `AdmissionReview` is answered.
//!
//! Whatever is a review at all is answered with `allowed: true`: a pod without the sidecar is better than none, and
//! who wants it the other way round has `failurePolicy`. What cannot be done safely is told by warnings, which
//! `kubectl` shows. Refuses to put anything of a pod into a log but its names. Used by `webhook`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Outcome;
use super::bounded::{self, Document};
use super::request::{self, Concern, NoReview, Subject, VERSION, bad};

/// The API server cuts longer warnings off, and drops all of them over 4096 characters.
const LONGEST_WARNING: usize = 256;
/// So many of the longest are less than that.
const WARNINGS: usize = 15;
/// The longest patch, in bytes: a cluster stores no object over some 1.5 MiB.
const LONGEST_PATCH: usize = 1 << 20;

/// What is answered to a review, and what is said of it in the log.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    uid: String,
    /// As text.
    patch: Option<String>,
    warnings: Vec<String>,
    pub(super) result: Verdict,
    /// In words.
    pub(super) why: String,
    pub(super) subject: Subject,
}

/// The label `result` of `countersign_injections_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The pod gets the sidecar.
    Injected,
    /// Nobody asked for it.
    Unasked,
    /// It was asked for and cannot be done safely.
    Refused,
    /// Nobody could decide: too much came at a time, or the injector has a defect.
    Failed,
    /// What came is none.
    NoReview,
}

impl Verdict {
    pub(super) const ALL: [Self; 5] = [
        Self::Injected,
        Self::Unasked,
        Self::Refused,
        Self::Failed,
        Self::NoReview,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Unasked => "unasked",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::NoReview => "no_review",
        }
    }
}

/// Answers a review; `inject` is asked about pods that are being made.
///
/// # Errors
/// [`NoReview`] when nobody can say what is asked, or whom to tell.
pub(super) fn answer(
    text: &[u8],
    inject: impl FnOnce(&Value) -> Outcome,
) -> Result<Answer, NoReview> {
    let Document { value, twice } = bounded::read(text).map_err(bad)?;
    let request = request::of(&value)?;
    let uid = request::uid(request)?;
    let within = twice.as_deref().map(|path| (path, of_object(path)));
    if let Some((path, None)) = within {
        return Err(bad(format!("it says {} twice", path.join("."))));
    }
    let concern = match (within, request::concern(request)) {
        (Some((_, Some(path))), Concern::Pod(_)) => {
            Concern::Odd(format!("the pod says {} twice", path.join(".")))
        }
        (_, concern) => concern,
    };
    let (result, why, warnings, patch) = match concern {
        Concern::Pod(pod) => told(guarded(|| inject(pod))),
        Concern::None(why) => (Verdict::Unasked, why, Vec::new(), None),
        Concern::Odd(why) => (
            Verdict::Refused,
            why.clone(),
            vec![not_injected(&why)],
            None,
        ),
    };
    Ok(Answer {
        uid: uid.to_owned(),
        patch,
        warnings: bounded_warnings(&warnings),
        result,
        why,
        subject: request::subject(request),
    })
}

impl Answer {
    /// The review for the API server.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut response = json!({ "uid": self.uid, "allowed": true });
        if let Some(fields) = response.as_object_mut() {
            if let Some(patch) = &self.patch {
                let patch = STANDARD.encode(patch);
                fields.insert("patchType".to_owned(), json!("JSONPatch"));
                fields.insert("patch".to_owned(), Value::String(patch));
            }
            if !self.warnings.is_empty() {
                fields.insert("warnings".to_owned(), json!(self.warnings));
            }
        }
        let review =
            json!({ "apiVersion": VERSION, "kind": "AdmissionReview", "response": response });
        review.to_string().into_bytes()
    }
}

/// What comes of an outcome: result, why, warnings and patch.
fn told(outcome: Option<Outcome>) -> (Verdict, String, Vec<String>, Option<String>) {
    match outcome {
        Some(Outcome::Injected {
            pod,
            patch,
            warnings,
        }) => {
            drop(pod);
            let patch = patch.to_string();
            if patch.len() > LONGEST_PATCH {
                let why =
                    "with the sidecar the pod would be larger than a cluster stores".to_owned();
                return (
                    Verdict::Refused,
                    why.clone(),
                    vec![not_injected(&why)],
                    None,
                );
            }
            let why = warnings.join("; ");
            let warnings = warnings.iter().map(|line| format!("countersign: {line}"));
            (Verdict::Injected, why, warnings.collect(), Some(patch))
        }
        Some(Outcome::Unasked(why)) => (Verdict::Unasked, why, Vec::new(), None),
        Some(Outcome::Refused(lines)) => {
            let warnings = lines.iter().map(|line| not_injected(line)).collect();
            (Verdict::Refused, lines.join("; "), warnings, None)
        }
        None => {
            let why = "the injector has a defect; its log has more".to_owned();
            let warnings = vec![not_injected(&why)];
            (Verdict::Failed, why, warnings, None)
        }
    }
}

/// Nothing when it panics: a defect must not keep pods from being made.
fn guarded(inject: impl FnOnce() -> Outcome) -> Option<Outcome> {
    catch_unwind(AssertUnwindSafe(inject)).ok()
}

/// The rest of a path that leads into the object.
fn of_object(path: &[String]) -> Option<&[String]> {
    match path {
        [request, object, rest @ ..] if request == "request" && object == "object" => {
            (!rest.is_empty()).then_some(rest)
        }
        _ => None,
    }
}

/// At most as many as the API server passes on, each as long as it may be, in characters a header may hold.
fn bounded_warnings(lines: &[String]) -> Vec<String> {
    let more = lines.len().saturating_sub(WARNINGS);
    let kept = if more == 0 { WARNINGS } else { WARNINGS - 1 };
    let mut warnings: Vec<String> = lines.iter().take(kept).map(|line| fitting(line)).collect();
    if more > 0 {
        let more = lines.len() - kept;
        warnings.push(format!(
            "countersign: and {more} more, in the log of the injector"
        ));
    }
    warnings
}

fn fitting(line: &str) -> String {
    let clean = line.chars().map(|character| {
        if character.is_control() {
            ' '
        } else {
            character
        }
    });
    let clean: String = clean.collect();
    if clean.chars().count() <= LONGEST_WARNING {
        return clean;
    }
    let begin: String = clean.chars().take(LONGEST_WARNING - 1).collect();
    format!("{begin}…")
}

fn not_injected(why: &str) -> String {
    format!("countersign: not injected: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(request: &Value) -> Vec<u8> {
        let review =
            json!({ "apiVersion": VERSION, "kind": "AdmissionReview", "request": request });
        review.to_string().into_bytes()
    }

    fn of(outcome: Outcome) -> Answer {
        let object = json!({ "kind": "Pod", "metadata": { "generateName": "web-" } });
        let request = json!({ "uid": "u1", "operation": "CREATE", "object": object });
        answer(&review(&request), |_pod| outcome).unwrap()
    }

    fn shown(answer: &Answer) -> Value {
        let review: Value = serde_json::from_slice(&answer.to_json()).unwrap();
        review["response"].clone()
    }

    #[test]
    fn warnings_fit_what_the_api_server_passes_on() {
        let lines: Vec<String> = (0..40)
            .map(|n| format!("{n}\n{}", "ü".repeat(400)))
            .collect();
        let answer = of(Outcome::Refused(lines));
        let response = shown(&answer);
        let warnings = response["warnings"].as_array().unwrap();
        assert_eq!(
            (warnings.len(), &response["allowed"]),
            (WARNINGS, &json!(true))
        );
        let mut all = 0;
        for warning in warnings {
            let warning = warning.as_str().unwrap();
            let length = warning.chars().count();
            assert!(
                length <= LONGEST_WARNING && !warning.contains('\n'),
                "{warning}"
            );
            all += length;
        }
        assert!(all <= 4096);
        assert!(
            warnings[0]
                .as_str()
                .unwrap()
                .starts_with("countersign: not injected: 0 ü")
        );
        assert!(warnings[14].as_str().unwrap().contains("and 26 more"));
    }

    #[test]
    fn a_defect_keeps_no_pod_from_being_made() {
        let object = json!({ "kind": "Pod" });
        let request = json!({ "uid": "u1", "operation": "CREATE", "object": object });
        let answer = answer(&review(&request), |_pod| panic!("a defect")).unwrap();
        assert_eq!(answer.result, Verdict::Failed);
        let response = shown(&answer);
        assert_eq!(response["allowed"], json!(true));
        assert_eq!(
            (&response["patch"], &response["uid"]),
            (&Value::Null, &json!("u1"))
        );
        assert!(response["warnings"][0].as_str().unwrap().contains("defect"));
    }
}
