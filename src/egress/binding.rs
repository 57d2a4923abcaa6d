//! Whether an answer is about what was asked: ids of the request that it repeats must be the same.
//!
//! The signature of an answer does not cover the request, so two answers to one path can be exchanged
//! and both verify. Compares top-level members of two JSON objects as JSON strings, never what is
//! nested, and looks at nothing else: bodies that are no JSON object, or over [`LARGEST`], bind
//! nothing. A member that is there twice is no way round it: every value of the answer counts. Called
//! by `answer` for what the app would otherwise see.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::exchange::{Code, Fault};
use crate::http::json;

/// The largest body that is looked at, in bytes; messages with ids have a few thousand.
pub const LARGEST: usize = 1 << 20;
/// The most names of a route, so that the cost of a message stays bounded.
pub const MOST_NAMES: usize = 32;

/// Ids that whoever asks has chosen, and that Alipay+ and Antom are documented to repeat unchanged.
/// Ids the gateway has made, such as `paymentId`, are not among them: nothing says that what it tells
/// later of a payment names the same.
const USUAL: [&str; 7] = [
    "paymentRequestId",
    "refundRequestId",
    "captureRequestId",
    "transferRequestId",
    "exchangeRequestId",
    "subscriptionRequestId",
    "vaultingRequestId",
];

/// The members that answers of a route must not contradict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    names: Vec<String>,
}

impl Default for Binding {
    fn default() -> Self {
        Self::to(USUAL.map(str::to_owned).to_vec())
    }
}

impl Binding {
    /// Compares these members; none at all when the list is empty.
    pub fn to(names: Vec<String>) -> Self {
        Self { names }
    }

    /// Refuses an answer that names another id than its request does.
    ///
    /// # Errors
    /// [`Code::ResponseMismatch`], which names the member and neither value.
    pub fn check(&self, request: &[u8], answer: &[u8]) -> Result<(), Fault> {
        let Some(asked) = self.read(request) else {
            return Ok(());
        };
        if asked
            .iter()
            .all(|values| !values.iter().any(Value::is_text))
        {
            return Ok(());
        }
        let Some(told) = self.read(answer) else {
            return Ok(());
        };
        let members = self.names.iter().zip(asked.iter().zip(&told));
        for (name, (asked, told)) in members {
            if contradicts(asked, told) {
                let text = format!("the answer's {name} is not that of the request");
                return Err(Fault::unknown(Code::ResponseMismatch, text));
            }
        }
        Ok(())
    }

    /// The values of each name, in the order of the names.
    fn read(&self, body: &[u8]) -> Option<Vec<Vec<Value>>> {
        if self.names.is_empty() || body.len() > LARGEST {
            return None;
        }
        // Some senders write one, some readers take it.
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let mut reader = serde_json::Deserializer::from_slice(body);
        let members = Members(&self.names).deserialize(&mut reader).ok()?;
        reader.end().ok().map(|()| members)
    }
}

/// Whether an answer tells anything else than was asked. Ids are texts; what the request has of
/// another kind binds nothing, and `null` in the answer tells nothing.
fn contradicts(asked: &[Value], told: &[Value]) -> bool {
    let mut told = told.iter().filter(|value| **value != Value::Null);
    let Some(first) = told.next() else {
        return false;
    };
    // Of a request that says two things, the gateway takes one; of an answer every reader must get it.
    let bound = asked.iter().any(Value::is_text);
    bound && (!first.is_text() || !asked.contains(first) || told.any(|other| other != first))
}

/// What a member holds, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    Null,
    Other,
}

impl Value {
    fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }
}

/// Reads the named members of an object and passes over the rest.
struct Members<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = Vec<Vec<Value>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Vec<Vec<Value>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Self::Value = self.0.iter().map(|_| Vec::new()).collect();
        while let Some(index) = map.next_key_seed(Key(self.0))? {
            match index.and_then(|index| members.get_mut(index)) {
                Some(values) => values.push(map.next_value_seed(Held)?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(members)
    }
}

/// Which name a key means, without keeping it.
struct Key<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|name| json::means(key, name)))
    }
}

/// A value, kept only when it is a text.
struct Held;

impl<'de> DeserializeSeed<'de> for Held {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Held {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: &str = r#"{"paymentRequestId":"R1","amount":{"value":"1"}}"#;

    /// Whether the usual binding lets that answer pass for that request.
    fn passes(request: &str, answer: &str) -> bool {
        let checked = Binding::default().check(request.as_bytes(), answer.as_bytes());
        let right = |fault: Fault| {
            let text =
                "response_mismatch: the answer's paymentRequestId is not that of the request";
            fault.to_string() == text
        };
        checked
            .map_err(right)
            .map_or_else(|right| !right, |()| true)
    }

    #[test]
    fn an_answer_must_repeat_the_ids_of_its_request_or_none() {
        for (answer, expected) in [
            (r#"{"paymentRequestId":"R1","paymentId":"P"}"#, true),
            (r#"{"paymentRequestId":"\u0052\u0031"}"#, true),
            (r#"{"result":{"resultStatus":"S"}}"#, true),
            (r#"{"paymentRequestId":null}"#, true),
            ("\u{feff}{\"paymentRequestId\":\"R1\"}", true),
            (r#"{"paymentRequestId":"R2"}"#, false),
            (r#"{"paymentRequestId":"r1"}"#, false),
            (r#"{"paymentRequestId":"R1 "}"#, false),
            (r#"{"paymentRequestId":""}"#, false),
            (r#"{"paymentRequestId":1}"#, false),
            (r#"{"paymentRequestId":1.5}"#, false),
            (r#"{"paymentRequestId":-1}"#, false),
            (r#"{"paymentRequestId":true}"#, false),
            (r#"{"paymentRequestId":["R1"]}"#, false),
            (r#"{"paymentRequestId":{"R1":"R1"}}"#, false),
            ("\u{feff}{\"paymentRequestId\":\"R2\"}", false),
        ] {
            assert_eq!(passes(ASKED, answer), expected, "{answer}");
        }
    }

    #[test]
    fn a_name_given_twice_or_in_another_spelling_is_no_way_round() {
        let twice = r#"{"paymentRequestId":"R1","paymentRequestId":"R2"}"#;
        for (request, answer, expected) in [
            (
                ASKED,
                r#"{"paymentRequestId":"R1","paymentRequestId":"R1"}"#,
                true,
            ),
            (ASKED, twice, false),
            (
                ASKED,
                r#"{"paymentRequestId":"R2","paymentRequestId":"R1"}"#,
                false,
            ),
            (
                ASKED,
                r#"{"paymentRequestId":"R1","PaymentRequestID":"R2"}"#,
                false,
            ),
            (ASKED, r#"{"payment_request_id":"R2"}"#, false),
            (ASKED, r#"{"paymentReque\u017ftId":"R2"}"#, false),
            (
                ASKED,
                r#"{"paymentRequestId":"R1","paymentRequestId":null}"#,
                true,
            ),
            // The gateway took one of the two.
            (twice, ASKED, true),
            (twice, r#"{"paymentRequestId":"R2"}"#, true),
            (twice, r#"{"paymentRequestId":"R3"}"#, false),
            (twice, twice, false),
            (
                r#"{"payment_request_id":"R1"}"#,
                r#"{"paymentRequestId":"R2"}"#,
                false,
            ),
        ] {
            assert_eq!(passes(request, answer), expected, "{request} {answer}");
        }
    }

    #[test]
    fn what_is_nested_no_text_or_no_json_object_binds_nothing() {
        let other = r#"{"paymentRequestId":"R2"}"#;
        for (request, answer) in [
            (ASKED, r#"{"data":{"paymentRequestId":"R2"}}"#),
            (r#"{"data":{"paymentRequestId":"R1"}}"#, other),
            (r#"{"paymentRequestId":1}"#, other),
            (r#"{"paymentRequestId":null}"#, other),
            (r#"{"refundRequestId":"R1"}"#, other),
            (r#"["paymentRequestId"]"#, other),
            ("paymentRequestId=R1", other),
            ("", other),
            (ASKED, "<paymentRequestId>R2</paymentRequestId>"),
            (ASKED, r#"[{"paymentRequestId":"R2"}]"#),
            (ASKED, r#"{"paymentRequestId":"R2"} {}"#),
            (ASKED, ""),
        ] {
            assert!(passes(request, answer), "{request} {answer}");
        }
    }

    #[test]
    fn nothing_is_compared_without_names_and_beyond_the_largest_body() {
        let other = br#"{"paymentRequestId":"R2"}"#;
        let none = Binding::to(Vec::new());
        assert!(none.check(ASKED.as_bytes(), other).is_ok());
        let padded = |length: usize| {
            let mut body = other.to_vec();
            body.resize(length, b' ');
            body
        };
        let usual = Binding::default();
        let check = |length| usual.check(ASKED.as_bytes(), &padded(length)).is_ok();
        assert!(!check(LARGEST) && check(LARGEST + 1));
    }
}
