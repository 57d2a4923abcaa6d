//! JSON of strangers: read whole, within bounds, and with an eye on names that are said twice.
//!
//! A value takes some ten times its text in memory, so their number has a limit beside that of the text;
//! `serde_json` limits the nesting to 128. Refuses nothing for a name said twice, as the last one counts for most
//! readers, but says where the first was. Used by `review`.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A pod has some hundred values; one of the size that a cluster stores, some ten thousand.
const VALUES: usize = 50_000;

/// A value, and where in it a name was said twice.
#[derive(Debug, PartialEq)]
pub(super) struct Document {
    pub(super) value: Value,
    /// The names on the way to the first of them, itself the last.
    pub(super) twice: Option<Vec<String>>,
}

/// Reads a document.
///
/// # Errors
/// What is wrong with it, in words that quote nothing of it.
pub(super) fn read(text: &[u8]) -> Result<Document, String> {
    let mut reading = Reading::default();
    let mut source = serde_json::Deserializer::from_slice(text);
    let value = (&mut reading).deserialize(&mut source);
    let value = value.and_then(|value| source.end().map(|()| value));
    match value {
        Ok(value) => Ok(Document {
            value,
            twice: reading.twice,
        }),
        Err(_) if reading.left == 0 => Err(format!("it has more than {VALUES} values")),
        Err(error) => {
            let what = match error.classify() {
                serde_json::error::Category::Eof => "ends too early",
                _ => "is wrong or nested too deep",
            };
            let (line, column) = (error.line(), error.column());
            Err(format!("its JSON {what} at line {line}, column {column}"))
        }
    }
}

struct Reading {
    left: usize,
    path: Vec<String>,
    twice: Option<Vec<String>>,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            left: VALUES,
            path: Vec::new(),
            twice: None,
        }
    }
}

impl Reading {
    fn count<E: Error>(&mut self) -> Result<(), E> {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            return Err(E::custom("too many values"));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for &mut Reading {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        self.count()?;
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Reading {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut found = Vec::new();
        while let Some(item) = items.next_element_seed(&mut *self)? {
            found.push(item);
        }
        Ok(Value::Array(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut found = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            self.path.push(name.clone());
            let value = members.next_value_seed(&mut *self)?;
            if found.insert(name, value).is_some() && self.twice.is_none() {
                self.twice = Some(self.path.clone());
            }
            self.path.pop();
        }
        Ok(Value::Object(found))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_read_as_they_are() {
        let value = json!({"a": [1, -2, 2.5, null, true, "x"], "b": {"c": {}}, "d": u64::MAX});
        let document = read(value.to_string().as_bytes()).unwrap();
        assert_eq!((document.value, document.twice), (value, None));
    }

    #[test]
    fn a_name_said_twice_is_told_with_the_way_to_it() {
        for (text, expected) in [
            (r#"{"a":1,"a":2}"#, Some("a")),
            (r#"{"a":{"b":[{"c":1,"d":{},"c":2}]},"a":2}"#, Some("a.b.c")),
            (r#"{"a":{"a":1},"b":{"a":1}}"#, None),
        ] {
            let twice = read(text.as_bytes()).unwrap().twice;
            assert_eq!(
                twice.map(|path| path.join(".")).as_deref(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn what_would_take_too_much_is_refused() {
        let deep = "[".repeat(1 << 20);
        let many = format!("[{}0]", "0,".repeat(VALUES));
        for (text, why) in [
            (deep.as_str(), "nested too deep at line 1, column 128"),
            (&many, "more than 50000 values"),
            ("{\"a\":", "ends too early"),
            ("{} {}", "is wrong"),
            ("", "ends too early"),
            ("\u{feff}{}", "is wrong"),
            ("{\"secret\": hunter2}", "is wrong"),
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
        }
    }
}
