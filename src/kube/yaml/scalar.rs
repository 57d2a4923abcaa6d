//! What a plain scalar means to kubectl: YAML 1.1 with its own rules for numbers and dates.
//!
//! The rules are those of `sigs.k8s.io/yaml`, which kubectl and the API server read with; a test holds them against the
//! real kubectl. Refuses what has no JSON.

use serde_json::{Number, Value};

/// The value of a scalar without quotes.
///
/// # Errors
/// What it is, when JSON has no such thing.
pub(super) fn resolve(text: &str) -> Result<Value, String> {
    if let Some(value) = word(text) {
        return Ok(value);
    }
    if is_endless(text) {
        return Err(format!(
            "{text} is a number without a value in JSON; put it between quotes if it is text"
        ));
    }
    let is_number = text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
    let value = is_number.then(|| number(text)).flatten();
    Ok(value.unwrap_or_else(|| Value::String(text.to_owned())))
}

fn word(text: &str) -> Option<Value> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Value::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        _ => return None,
    })
}

fn is_endless(text: &str) -> bool {
    let unsigned = text.trim_start_matches(['+', '-']);
    matches!(
        unsigned,
        ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN"
    )
}

/// Whether a scalar that means a number is written as an integer; kubectl spells others in a way of its own.
pub(super) fn is_integer(text: &str) -> bool {
    integer(&without_underscores(text)).is_some()
}

fn number(text: &str) -> Option<Value> {
    let plain = without_underscores(text);
    integer(&plain).or_else(|| float(&plain)).map(Value::Number)
}

/// Only behind a digit or a sign may underscores stand between digits.
fn without_underscores(text: &str) -> String {
    if text.starts_with('.') {
        text.to_owned()
    } else {
        text.replace('_', "")
    }
}

/// Decimal, or with `0x`, `0o`, `0b`, or octal by a zero alone.
fn integer(text: &str) -> Option<Number> {
    let (sign, digits) = match text.as_bytes() {
        [b'-', ..] => ("-", text.get(1..)?),
        [b'+', ..] => ("", text.get(1..)?),
        _ => ("", text),
    };
    let prefix = digits.get(..2).map(str::to_ascii_lowercase);
    let (base, digits) = match prefix.as_deref() {
        Some("0x") => (16, digits.get(2..)?),
        Some("0o") => (8, digits.get(2..)?),
        Some("0b") => (2, digits.get(2..)?),
        Some(_) if digits.starts_with('0') => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    if !digits.chars().all(|digit| digit.is_digit(base)) {
        return None;
    }
    let signed = i64::from_str_radix(&format!("{sign}{digits}"), base).map(Number::from);
    let unsigned = || {
        u64::from_str_radix(digits, base)
            .ok()
            .filter(|_| sign.is_empty())
    };
    signed.ok().or_else(|| unsigned().map(Number::from))
}

/// Digits with a point or an exponent, or too many of them for an integer.
fn float(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = unsigned
        .split_once(['e', 'E'])
        .map_or((unsigned, None), |(m, e)| (m, Some(e)));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some((whole, part)) => {
            is_digits(whole) && is_digits(part) && !(whole.is_empty() && part.is_empty())
        }
        None => !mantissa.is_empty() && is_digits(mantissa),
    };
    let exponent_ok = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !digits.is_empty() && is_digits(digits)
    });
    if !(mantissa_ok && exponent_ok) {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    // JSON of Go writes 1e3 as 1000, which is then good where an integer is needed.
    let text = format!("{value:.0}");
    let whole = text
        .parse::<i64>()
        .ok()
        .filter(|_| value.fract() == 0.0 && value.abs() < 1e15);
    whole.map_or_else(
        || Number::from_f64(value),
        |whole| Some(Number::from(whole)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_mean_what_they_mean_to_kubectl() {
        for (text, json) in [
            ("0400", "256"),
            ("0o17", "15"),
            ("08", "8"),
            ("0x1F", "31"),
            ("-0x1f", "-31"),
            ("0b11", "3"),
            ("1_000", "1000"),
            ("1e3", "1000"),
            ("1e", "\"1e\""),
            (".5", "0.5"),
            ("+.5", "0.5"),
            ("1.", "1"),
            ("-0", "0"),
            ("_1", "\"_1\""),
            ("+1", "1"),
            ("-", "\"-\""),
            (".", "\".\""),
            ("18446744073709551615", "18446744073709551615"),
            ("123456789012345678901234567890", "1.2345678901234568e+29"),
            ("1e400", "\"1e400\""),
            ("2026-01-01", "\"2026-01-01\""),
            ("190:20:30", "\"190:20:30\""),
            ("tRue", "\"tRue\""),
            ("off", "false"),
            ("y", "true"),
            ("=", "\"=\""),
            ("Null", "null"),
            ("1.2.3", "\"1.2.3\""),
        ] {
            assert_eq!(resolve(text).unwrap().to_string(), json, "{text}");
        }
        assert!(resolve("-.inf").is_err());
    }
}
