//! Reads what an unsigned body claims: `result.resultStatus`.
//!
//! Only used where no signature protects the body, so it trusts nothing: a repeated key, anything
//! that is not exactly one JSON object, or a mention of `resultStatus` it cannot place counts as a
//! claim that might be `S` to a more lenient parser. Never changes a body.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::json;

/// What an unsigned body says of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Exactly one `resultStatus`, and it is `F`.
    Failed,
    /// Exactly one `resultStatus`, and it is `U`.
    Unknown,
    /// It says `S`, or something a lenient reader might take for it.
    MaybeSuccessful,
    /// It speaks of no result at all.
    None,
}

/// Reads the claim of a body.
pub fn claim(body: &[u8]) -> Claim {
    // What is not kept is not looked at closely by the parser: that it is text is checked here.
    let document = str::from_utf8(body)
        .ok()
        .and_then(|text| serde_json::from_str::<Tree>(text).ok());
    let results: Vec<_> = document
        .map(|document| document.all("result").collect())
        .unwrap_or_default();
    let is_repeated = results.len() > 1;
    let statuses: Vec<_> = results
        .into_iter()
        .flat_map(|one| one.all("resultstatus"))
        .collect();
    match statuses.as_slice() {
        [Tree::Text(status)] if !is_repeated && status == "F" => Claim::Failed,
        [Tree::Text(status)] if !is_repeated && status == "U" => Claim::Unknown,
        [] if !mentions_status(body) => Claim::None,
        _ => Claim::MaybeSuccessful,
    }
}

/// A JSON value with the keys that matter, repeated ones too; the rest is not kept, so that reading
/// takes no more memory than the body.
enum Tree {
    Object(Vec<(&'static str, Tree)>),
    Text(String),
    Other,
}

impl Tree {
    /// All values under that key.
    fn all(self, key: &'static str) -> impl Iterator<Item = Tree> {
        let entries = if let Self::Object(entries) = self {
            entries
        } else {
            Vec::new()
        };
        entries
            .into_iter()
            .filter(move |(name, _)| *name == key)
            .map(|(_, value)| value)
    }
}

/// The key that matters and that a lenient parser might take this one for.
fn meaning(key: &str) -> Option<&'static str> {
    ["result", "resultstatus"]
        .into_iter()
        .find(|name| json::means(key, name))
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if let Some(name) = meaning(&key) {
                entries.push((name, map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Tree::Object(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Tree::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Other)
    }
}

/// Whether the word stands anywhere: in any case, with `_` or `-` inside, with a NUL between letters
/// (UTF-16), or possibly hidden behind a JSON escape.
fn mentions_status(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    let text: String = json::folded(&text).filter(|one| *one != '\0').collect();
    text.contains("resultstatus") || text.contains("\\u00") || text.contains("\\u017f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_claims_no_failure() {
        // Readers that leave out what is no UTF-8 find a second result here.
        let body = b"{\"result\":{\"resultStatus\":\"F\"},\"a\":{\"re\x8csultStatus\":\"S\"}}";
        assert_eq!(claim(body), Claim::MaybeSuccessful);
    }

    #[test]
    fn only_one_clear_f_or_u_is_not_successful() {
        let table: &[(&str, Claim)] = &[
            (
                r#"{"result":{"resultStatus":"F","resultCode":"X"}}"#,
                Claim::Failed,
            ),
            (
                r#"{"a":[{"b":1.5}],"result":{"resultStatus":"U"}}"#,
                Claim::Unknown,
            ),
            (r#"{"result":{"resultStatus":"S"}}"#, Claim::MaybeSuccessful),
            (r#"{"result":{"resultStatus":"s"}}"#, Claim::MaybeSuccessful),
            (
                r#"{"result":{"resultStatus":"F","resultStatus":"S"}}"#,
                Claim::MaybeSuccessful,
            ),
            (
                r#"{"result":{"resultStatus":"F","ResultStatus":"S"}}"#,
                Claim::MaybeSuccessful,
            ),
            (
                r#"{"result":{"resultStatus":"F","reſultStatus":"S"}}"#,
                Claim::MaybeSuccessful,
            ),
            (
                r#"{"result":{"resultStatus":"F","result_status":"S"}}"#,
                Claim::MaybeSuccessful,
            ),
            (
                r#"{"result":{"resultStatus":"F"},"re\u017fult":{"resultStatus":"S"}}"#,
                Claim::MaybeSuccessful,
            ),
            ("{'result':{'result_status':'S'}}", Claim::MaybeSuccessful),
            (
                r#"{"result":{"resultStatus":"F"},"result":{"resultStatus":"S"}}"#,
                Claim::MaybeSuccessful,
            ),
            // The last one counts for most readers, and then nothing is said of success or failure.
            (
                r#"{"result":{"resultStatus":"F"},"result":{"restluStatus":"S"}}"#,
                Claim::MaybeSuccessful,
            ),
            (
                r#"{"result":{"resultStatus":"F"}} {}"#,
                Claim::MaybeSuccessful,
            ),
            (
                r#"{"result":{"resultStatus":null}}"#,
                Claim::MaybeSuccessful,
            ),
            (r#"{"data":{"resultStatus":"S"}}"#, Claim::MaybeSuccessful),
            (
                r#"{"result":{"result\u0053tatus":"S"}"#,
                Claim::MaybeSuccessful,
            ),
            (
                "\u{feff}{\"result\":{\"resultStatus\":\"S\"}}",
                Claim::MaybeSuccessful,
            ),
            ("<resultStatus>S</resultStatus>", Claim::MaybeSuccessful),
            (
                "r\0e\0s\0u\0l\0t\0S\0t\0a\0t\0u\0s\0",
                Claim::MaybeSuccessful,
            ),
            ("<html>502 Bad Gateway</html>", Claim::None),
            (r#"{"result":{}}"#, Claim::None),
            ("", Claim::None),
        ];
        for (body, expected) in table {
            assert_eq!(claim(body.as_bytes()), *expected, "{body}");
        }
    }
}
