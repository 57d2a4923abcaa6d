//! An `AdmissionReview` of `admission.k8s.io/v1`: what is asked about which pod, and the answer.
//!
//! Whatever is a review at all is answered with `allowed: true`: a pod without the sidecar is better than none, and
//! who wants it the other way round has `failurePolicy`. What cannot be done safely is told by warnings, which
//! `kubectl` shows. Refuses to put anything of a pod into a log but its names. Used by `webhook`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Outcome;
use super::bounded::{self, Document};

/// The one version that is spoken.
const VERSION: &str = "admission.k8s.io/v1";
/// The API server cuts longer warnings off, and drops all of them over 4096 characters.
const LONGEST_WARNING: usize = 256;
/// So many of the longest are less than that.
const WARNINGS: usize = 15;
/// The longest patch, in bytes: a cluster stores no object over some 1.5 MiB.
const LONGEST_PATCH: usize = 1 << 20;
/// The longest name Kubernetes allows.
const LONGEST_NAME: usize = 253;

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

/// Which pod a review is about.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) namespace: String,
    /// Its name, or the beginning of the one it will get and `*`.
    pub(super) name: String,
    /// The kind and name of its controller.
    pub(super) owner: String,
    pub(super) dry_run: bool,
}

/// Why something is no review.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoReview {
    pub(super) status: StatusCode,
    pub(super) why: String,
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
    let request = request(&value)?;
    let uid = text_at(request, "/uid").filter(|uid| !uid.is_empty());
    let uid = uid.ok_or_else(|| bad("request.uid is missing: there is nothing to answer to"))?;
    let within = twice.as_deref().map(|path| (path, of_object(path)));
    if let Some((path, None)) = within {
        return Err(bad(format!("it says {} twice", path.join("."))));
    }
    let concern = match (within, concern(request)) {
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
        subject: subject(request),
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

/// The request of a review that is spoken here.
fn request(review: &Value) -> Result<&Value, NoReview> {
    if !review.is_object() {
        return Err(bad("it is no JSON object"));
    }
    if text_at(review, "/kind") != Some("AdmissionReview") {
        return Err(bad("its kind is not AdmissionReview"));
    }
    if text_at(review, "/apiVersion") != Some(VERSION) {
        return Err(bad(format!(
            "its apiVersion is not {VERSION}, the only one supported; the webhook needs \
             admissionReviewVersions: [v1]"
        )));
    }
    let request = review.get("request").filter(|request| request.is_object());
    request.ok_or_else(|| bad("request is missing or no object"))
}

/// What a review is about.
enum Concern<'a> {
    Pod(&'a Value),
    /// Nothing for the injector, which is no mistake of anybody's pod.
    None(String),
    /// Something that should not come here.
    Odd(String),
}

fn concern(request: &Value) -> Concern<'_> {
    let operation = text_at(request, "/operation").unwrap_or("nothing");
    if operation != "CREATE" {
        let operation = short(operation);
        return Concern::None(format!("the operation is {operation}, not CREATE"));
    }
    match text_at(request, "/subResource") {
        None | Some("") => {}
        Some(part) => return Concern::None(format!("it is about the pod's {}", short(part))),
    }
    let Some(object) = request.get("object").filter(|object| object.is_object()) else {
        return Concern::Odd("the review has no object".to_owned());
    };
    let group = text_at(request, "/kind/group").unwrap_or_default();
    let kinds = [text_at(request, "/kind/kind"), text_at(object, "/kind")];
    let other = kinds.into_iter().flatten().find(|kind| *kind != "Pod");
    match other {
        Some(kind) => Concern::Odd(format!(
            "the webhook is for pods, and this is a {}; correct its rules",
            short(kind)
        )),
        None if !group.is_empty() || kinds == [None, None] => {
            Concern::Odd("the review does not say that its object is a core/v1 Pod".to_owned())
        }
        None => Concern::Pod(object),
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

fn subject(request: &Value) -> Subject {
    let object = request.get("object").unwrap_or(&Value::Null);
    let generated = || {
        let begin = text_at(object, "/metadata/generateName")?;
        Some(format!("{}*", short(begin)))
    };
    let given = |of, path| text_at(of, path).filter(|text| !text.is_empty());
    let name = given(object, "/metadata/name").or_else(|| given(request, "/name"));
    let namespace = given(request, "/namespace").or_else(|| given(object, "/metadata/namespace"));
    let owners = object.pointer("/metadata/ownerReferences");
    let owners = owners.and_then(Value::as_array).into_iter().flatten();
    let is_controller = |owner: &&Value| owner.get("controller") == Some(&Value::Bool(true));
    let owner = owners.clone().find(is_controller).or(owners.clone().next());
    let owner = owner.and_then(|owner| {
        let (kind, name) = (text_at(owner, "/kind")?, text_at(owner, "/name")?);
        Some(format!("{}/{}", short(kind), short(name)))
    });
    Subject {
        namespace: short(namespace.unwrap_or_default()),
        name: name.map(short).or_else(generated).unwrap_or_default(),
        owner: owner.unwrap_or_default(),
        dry_run: request.get("dryRun") == Some(&Value::Bool(true)),
    }
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

/// A name as long as names may be: reviews may come from anybody.
fn short(name: &str) -> String {
    name.chars().take(LONGEST_NAME).collect()
}

fn text_at<'a>(value: &'a Value, path: &str) -> Option<&'a str> {
    value.pointer(path).and_then(Value::as_str)
}

fn bad(why: impl Into<String>) -> NoReview {
    NoReview {
        status: StatusCode::BAD_REQUEST,
        why: why.into(),
    }
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

    #[test]
    fn a_pod_without_a_name_is_known_by_its_beginning_and_its_controller() {
        let owners = json!([
            { "kind": "Team", "name": "payments" },
            { "kind": "ReplicaSet", "name": "web-7d4b9", "controller": true },
        ]);
        let metadata = json!({ "generateName": "web-7d4b9-", "ownerReferences": owners });
        let request = json!({
            "uid": "u1", "operation": "CREATE", "namespace": "pay", "dryRun": true,
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "object": { "kind": "Pod", "metadata": metadata },
        });
        let unasked = |_: &Value| Outcome::Unasked("nobody asked".to_owned());
        let subject = answer(&review(&request), unasked).unwrap().subject;
        let expected = Subject {
            namespace: "pay".to_owned(),
            name: "web-7d4b9-*".to_owned(),
            owner: "ReplicaSet/web-7d4b9".to_owned(),
            dry_run: true,
        };
        assert_eq!(subject, expected);
    }
}
