//! JSON as it is read and written in place of YAML.
//!
//! YAML's own reader knows no `\ud83d\ude00`, and JSON's own takes the last of two equal keys without a word; so JSON is
//! read as JSON, and keys given twice are refused.

use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Number, Value};

use super::super::yaml::Problem;

/// Reads a text that is JSON; `None` if it is something else.
pub(super) fn read(text: &str) -> Option<Result<Value, Problem>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    match serde_json::from_str::<Strict>(text) {
        Ok(Strict(value)) => Some(Ok(value)),
        Err(error) if error.is_data() => Some(Err(Problem {
            line: error.line(),
            what: without_place(&error.to_string()),
        })),
        // A mapping of YAML may begin like this.
        Err(_) => None,
    }
}

/// The line is told in front, as everywhere.
fn without_place(error: &str) -> String {
    let parts = error.rsplit_once(" at line ");
    parts.map_or(error, |(what, _place)| what).to_owned()
}

/// A value as JSON, in lines as the old text has them.
pub(super) fn write(value: &Value, before: &str) -> String {
    let second = before.trim().lines().nth(1);
    let Some(second) = second else {
        return format!("{value}\n");
    };
    let indent = second.get(..second.len() - second.trim_start().len());
    let formatter = PrettyFormatter::with_indent(indent.unwrap_or_default().as_bytes());
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, formatter);
    // Writing a value into memory cannot fail, and JSON is UTF-8.
    let _infallible = value.serialize(&mut serializer);
    String::from_utf8(bytes).unwrap_or_default() + "\n"
}

/// A value without keys given twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((key, Strict(value))) = access.next_entry::<String, Strict>()? {
            if members.contains_key(&key) {
                return Err(A::Error::custom(format_args!(
                    "the key \"{key}\" is given twice"
                )));
            }
            members.insert(key, value);
        }
        Ok(Value::Object(members))
    }
}
