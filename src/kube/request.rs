//! The request in an `AdmissionReview` of `admission.k8s.io/v1`: what is asked, and about which pod.
//!
//! Decides nothing about the pod itself. Refuses to quote anything of a review but names, and these no longer than
//! names may be. Used by `review`.

use ::http::StatusCode;
use serde_json::Value;

/// The one version that is spoken.
pub(super) const VERSION: &str = "admission.k8s.io/v1";
/// The longest name Kubernetes allows.
const LONGEST_NAME: usize = 253;

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

/// What a review is about.
#[derive(Debug)]
pub(super) enum Concern<'a> {
    /// A pod that is being made.
    Pod(&'a Value),
    /// Nothing for the injector, which is no mistake of anybody's pod.
    None(String),
    /// Something that should not come here.
    Odd(String),
}

/// The request of a review that is spoken here.
///
/// # Errors
/// [`NoReview`] when it is none.
pub(super) fn of(review: &Value) -> Result<&Value, NoReview> {
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

/// To what the answer must refer.
///
/// # Errors
/// [`NoReview`] when it does not say.
pub(super) fn uid(request: &Value) -> Result<&str, NoReview> {
    let uid = text_at(request, "/uid").filter(|uid| !uid.is_empty());
    uid.ok_or_else(|| bad("request.uid is missing: there is nothing to answer to"))
}

pub(super) fn concern(request: &Value) -> Concern<'_> {
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

pub(super) fn subject(request: &Value) -> Subject {
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

/// A name as long as names may be: reviews may come from anybody.
fn short(name: &str) -> String {
    name.chars().take(LONGEST_NAME).collect()
}

fn text_at<'a>(value: &'a Value, path: &str) -> Option<&'a str> {
    value.pointer(path).and_then(Value::as_str)
}

/// A review that nobody can answer.
pub(super) fn bad(why: impl Into<String>) -> NoReview {
    NoReview {
        status: StatusCode::BAD_REQUEST,
        why: why.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
        let expected = Subject {
            namespace: "pay".to_owned(),
            name: "web-7d4b9-*".to_owned(),
            owner: "ReplicaSet/web-7d4b9".to_owned(),
            dry_run: true,
        };
        assert_eq!(subject(&request), expected);
    }
}
