//! A pod under change, and the JSON patch (RFC 6902) that makes the same change elsewhere.
//!
//! Every change is made and written down in one act, so pod and patch cannot disagree. Only the operation `add` is
//! needed: nothing of a pod is taken away. Refuses nothing: places were looked at before.

use serde_json::{Map, Value, json};

/// A pod and what was done to it.
#[derive(Debug)]
pub(super) struct Patch {
    pod: Value,
    operations: Vec<Value>,
}

impl Patch {
    pub(super) fn new(pod: &Value) -> Self {
        Self {
            pod: pod.clone(),
            operations: Vec::new(),
        }
    }

    /// The changed pod, and the patch.
    pub(super) fn finish(self) -> (Value, Value) {
        (self.pod, Value::Array(self.operations))
    }

    /// Sets a member; the mappings on the way to it are made.
    pub(super) fn set(&mut self, path: &[&str], value: Value) {
        self.reach(path, path.len().saturating_sub(1), |_| json!({}));
        self.add(path, value);
    }

    /// Puts an item at the end of a list, which is made.
    pub(super) fn append(&mut self, path: &[&str], item: Value) {
        self.reach_list(path);
        let length = self.length(path);
        self.insert(path, length, item);
    }

    /// Puts an item before all others of a list, which is made.
    pub(super) fn prepend(&mut self, path: &[&str], item: Value) {
        self.reach_list(path);
        self.insert(path, 0, item);
    }

    fn reach_list(&mut self, path: &[&str]) {
        self.reach(path, path.len(), |depth| {
            if depth == path.len() {
                json!([])
            } else {
                json!({})
            }
        });
    }

    /// Makes what is missing on the first steps of a path; `null` is as good as nothing.
    fn reach(&mut self, path: &[&str], steps: usize, made: impl Fn(usize) -> Value) {
        for depth in 1..=steps {
            let (here, _) = path.split_at(depth);
            if at(&self.pod, here).is_none_or(Value::is_null) {
                self.add(here, made(depth));
            }
        }
    }

    fn length(&self, path: &[&str]) -> usize {
        at(&self.pod, path)
            .and_then(Value::as_array)
            .map_or(0, Vec::len)
    }

    fn insert(&mut self, path: &[&str], index: usize, item: Value) {
        let index = index.to_string();
        let path: Vec<&str> = path.iter().copied().chain([index.as_str()]).collect();
        self.add(&path, item);
    }

    /// The one operation: on a member it sets it, before an item it inserts.
    fn add(&mut self, path: &[&str], value: Value) {
        let Some((last, before)) = path.split_last() else {
            return;
        };
        self.operations
            .push(json!({ "op": "add", "path": pointer(path), "value": value }));
        match at_mut(&mut self.pod, before) {
            Some(Value::Object(members)) => {
                members.insert((*last).to_owned(), value);
            }
            Some(Value::Array(items)) => {
                let index = last.parse().unwrap_or(items.len());
                items.insert(index.min(items.len()), value);
            }
            _ => {}
        }
    }
}

/// A path as a JSON pointer (RFC 6901).
fn pointer(path: &[&str]) -> String {
    path.iter().fold(String::new(), |pointer, step| {
        pointer + "/" + &step.replace('~', "~0").replace('/', "~1")
    })
}

/// What stands at a path.
fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, step| match value {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        other => other.get(step),
    })
}

pub(super) fn at_mut<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, step| match value {
        Value::Array(items) => items.get_mut(step.parse::<usize>().ok()?),
        other => other.get_mut(step),
    })
}

/// What stands at a path of members, `null` being nothing.
pub(super) fn member<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    at(value, path).filter(|value| !value.is_null())
}

/// The items of a list that may be missing.
pub(super) fn items<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    member(value, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A text at a path.
pub(super) fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    member(value, path).and_then(Value::as_str)
}

/// The members of a mapping that may be missing.
pub(super) fn members<'a>(
    value: &'a Value,
    path: &[&str],
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    member(value, path)
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::iter)
}
