//! How single values are written: durations, sizes, addresses, switches.

use std::time::Duration;

use bytesize::ByteSize;

use crate::exchange::Policy;
use crate::http::retries::RetryPolicy;
use crate::ingress::Replay;
use crate::net::listener::Place;
use crate::telemetry::redact::has_secret;
use crate::upstream::Origin;

/// `5s`, `1m 30s`, `250ms`; not zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err(format!("\"{text}\" is no time at all")),
        Ok(duration) => Ok(duration),
        Err(_) => Err(format!(
            "\"{text}\" is no duration; write it like 5s, 500ms or 2m"
        )),
    }
}

/// A duration or `0s`.
pub fn duration_or_zero(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s") {
        Ok(Duration::ZERO)
    } else {
        duration(text)
    }
}

/// A duration, or `off`.
pub fn duration_or_off(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    duration(text)
        .map(Some)
        .map_err(|error| format!("{error}, or off"))
}

/// How often something is looked at: 50 milliseconds to an hour.
pub fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if (Duration::from_millis(50)..=Duration::from_hours(1)).contains(&interval) {
        Ok(interval)
    } else {
        Err(format!(
            "\"{text}\" is out of range; 50ms to 1h are allowed"
        ))
    }
}

/// The same, or `off`.
pub fn interval_or_off(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    interval(text)
        .map(Some)
        .map_err(|error| format!("{error}, or off"))
}

/// `4MiB`, `512KiB`, `1000000`; from 1 byte to 1 GiB.
pub fn size(text: &str) -> Result<usize, String> {
    let bytes = text.parse::<ByteSize>().map(|size| size.as_u64());
    match bytes.map(usize::try_from) {
        Ok(Ok(bytes)) if (1..=1 << 30).contains(&bytes) => Ok(bytes),
        Ok(_) => Err(format!(
            "\"{text}\" is out of range; 1 byte to 1GiB are allowed"
        )),
        Err(_) => Err(format!(
            "\"{text}\" is no size; write it like 4MiB or 512KiB"
        )),
    }
}

/// A number of at least 1.
pub fn count(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| (1..=1_000_000).contains(count))
        .ok_or_else(|| format!("\"{text}\" is no number from 1 to 1000000"))
}

/// A port of a destination.
pub fn port(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("\"{text}\" is no port from 1 to 65535"))
}

/// `127.0.0.1:18441`, `[::1]:18441`, `:18441` for every address, `localhost:18441` for both of loopback; port 0 lets the
/// system choose.
pub fn place(text: &str) -> Result<Place, String> {
    text.parse().map_err(|error| format!("\"{text}\" {error}"))
}

/// `http://127.0.0.1:8080`, or only the port of an app on this machine: `8080`.
pub fn app(text: &str) -> Result<Origin, String> {
    let url = match text.parse::<u16>() {
        Ok(_) => format!("http://127.0.0.1:{}", port(text)?),
        Err(_) => text.to_owned(),
    };
    url.parse::<Origin>()
        .map_err(|error| format!("{error}, or only a port like 8080"))
}

/// `enforce`, `report` or `off`.
pub fn policy(text: &str) -> Result<Policy, String> {
    match text {
        "enforce" => Ok(Policy::Enforce),
        "report" => Ok(Policy::Report),
        "off" => Ok(Policy::Off),
        _ => Err(format!("\"{text}\" is none of enforce, report, off")),
    }
}

/// `off`, `report` or `enforce`, for requests that were here before.
pub fn replay(text: &str) -> Result<Replay, String> {
    match text {
        "off" => Ok(Replay::Off),
        "report" => Ok(Replay::Report),
        "enforce" => Ok(Replay::Enforce),
        _ => Err(format!("\"{text}\" is none of off, report, enforce")),
    }
}

/// `remove` or `keep`, for fields that give a request another path or method.
pub fn keeps_overrides(text: &str) -> Result<bool, String> {
    match text {
        "remove" => Ok(false),
        "keep" => Ok(true),
        _ => Err(format!("\"{text}\" is neither remove nor keep")),
    }
}

/// `refuse`, `report` or `allow`, for requests that repeat an earlier one.
pub fn retry_policy(text: &str) -> Result<RetryPolicy, String> {
    match text {
        "refuse" => Ok(RetryPolicy::Refuse),
        "report" => Ok(RetryPolicy::Report),
        "allow" => Ok(RetryPolicy::Allow),
        _ => Err(format!("\"{text}\" is none of refuse, report, allow")),
    }
}

/// `auto` or `off`, for what not every system has.
pub fn auto_or_off(text: &str) -> Result<bool, String> {
    match text {
        "auto" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("\"{text}\" is neither auto nor off")),
    }
}

/// The name of a member at the top of a JSON object.
pub fn member(text: &str) -> Result<String, String> {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if plain && (1..=64).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "\"{text}\" is no name of a top-level member: 1 to 64 letters, digits, _ and -; what \
             is nested is not compared"
        ))
    }
}

/// The name of a route, which metrics, logs and pages show.
pub fn name(text: &str) -> Result<String, String> {
    if has_secret(text) {
        Err("this is a key; a name is shown in metrics and logs".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// `true` or `false`.
pub fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("\"{text}\" is neither true nor false")),
    }
}
