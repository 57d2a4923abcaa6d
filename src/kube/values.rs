//! How single annotations are written, and what Kubernetes itself lets stand where they end up.
//!
//! An error quotes the value and says what would be right; the caller puts in front where it stands.

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;

use ::http::Uri;
pub(super) use countersign_protocol::{ClientId, KeyVersion};
use ipnet::IpNet;

use crate::net::network;
use crate::upstream::{Host, Origin};

/// Whether a value is good.
pub(super) type Check = fn(&str) -> Result<(), String>;

/// How the app's calls come to the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WayIn {
    None,
    Env,
    HostAliases,
    Redirect,
}

/// Which kind of container the sidecar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Native,
    Classic,
}

/// One of several words.
fn choice<T: Copy>(text: &str, among: &[(&str, T)]) -> Result<T, String> {
    let found = among.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = among.iter().map(|(word, _)| *word).collect();
        format!("\"{text}\" is none of {}", words.join(", "))
    })
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    choice(text, &[("enabled", true), ("disabled", false)])
}

pub(super) fn way_in(text: &str) -> Result<WayIn, String> {
    choice(
        text,
        &[
            ("none", WayIn::None),
            ("env", WayIn::Env),
            ("hostAliases", WayIn::HostAliases),
            ("redirect", WayIn::Redirect),
        ],
    )
}

pub(super) fn kind(text: &str) -> Result<Kind, String> {
    choice(
        text,
        &[("native", Kind::Native), ("classic", Kind::Classic)],
    )
}

pub(super) fn pull_policy(text: &str) -> Result<&'static str, String> {
    let words = ["Always", "IfNotPresent", "Never"];
    choice(text, &words.map(|word| (word, word)))
}

/// What another part of the program parses.
pub(super) fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("\"{text}\": {error}"))
}

/// The name of a Secret or `ConfigMap`: a DNS subdomain.
pub(super) fn object(text: &str) -> Result<String, String> {
    let good = text.len() <= 253 && text.split('.').all(is_label);
    good.then(|| text.to_owned()).ok_or_else(|| {
        format!("\"{text}\" is no name of an object; it has lower case letters, digits, - and .")
    })
}

/// Of a container: a DNS label.
fn container(text: &str) -> Result<String, String> {
    let good = text.len() <= 63 && is_label(text);
    good.then(|| text.to_owned()).ok_or_else(|| {
        format!("\"{text}\" is no name of a container; it has lower case letters, digits and -")
    })
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A key of a Secret, which is a file name there.
pub(super) fn file(text: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let good = text.bytes().all(inner) && text.len() <= 253 && !text.starts_with("..");
    (good && !text.is_empty() && text != ".")
        .then(|| text.to_owned())
        .ok_or_else(|| {
            format!("\"{text}\" is no file of a Secret; its key is needed, such as partner.pem")
        })
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port > 0);
    port.ok_or_else(|| format!("\"{text}\" is no port from 1 to 65535"))
}

/// A port of the sidecar's own, which it may listen on without a privilege.
pub(super) fn own_port(text: &str) -> Result<u16, String> {
    let port = port(text)?;
    (port >= 1024)
        .then_some(port)
        .ok_or_else(|| format!("\"{text}\" needs a privilege; take a port from 1024 to 65535"))
}

/// A user that is not root, with room for what the kernel keeps for itself.
pub(super) fn uid(text: &str) -> Result<u32, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let uid = text.parse().ok();
    let uid = uid.filter(|uid| digits && (1..=0x7fff_ffff).contains(uid));
    uid.ok_or_else(|| format!("\"{text}\" is no number of a user but root, from 1 to 2147483647"))
}

pub(super) fn host(text: &str) -> Result<Host, String> {
    let host: Result<Host, _> = text.parse();
    let host = host.ok().filter(|host| host.as_str() == text);
    let is_address = text.parse::<IpAddr>().is_ok();
    host.filter(|_| !is_address && !text.contains('_'))
        .ok_or_else(|| {
            format!("\"{text}\" is no host name in lower case, such as open-na.alipayplus.com")
        })
}

/// A URL of a host, without a path.
pub(super) fn origin(text: &str) -> Result<String, String> {
    plain(text)?;
    let origin: Result<Origin, _> = text.parse();
    origin
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

/// The app by its URL, or by its port in the pod.
pub(super) fn app(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(format!("http://127.0.0.1:{}", port(text)?));
    }
    let wrong = || {
        format!(
            "\"{text}\" is neither a port nor a URL; write it like 8080 or http://127.0.0.1:8080"
        )
    };
    text.parse::<Uri>()
        .ok()
        .filter(|uri| uri.scheme().is_some())
        .ok_or_else(wrong)?;
    origin(text)
}

/// What is between commas, each parsed; not empty, and nothing twice.
fn list<T: PartialEq>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let mut items = Vec::new();
    for item in text.split(',') {
        let item = item.trim();
        if item.is_empty() {
            return Err(format!(
                "\"{text}\" has nothing between two commas or at an end"
            ));
        }
        let value = parse(item)?;
        if items.contains(&value) {
            return Err(format!("\"{item}\" is named twice"));
        }
        items.push(value);
    }
    Ok(items)
}

pub(super) fn hosts(text: &str) -> Result<Vec<Host>, String> {
    list(text, host)
}

pub(super) fn ports(text: &str) -> Result<Vec<u16>, String> {
    list(text, port)
}

pub(super) fn containers(text: &str) -> Result<Vec<String>, String> {
    list(text, container)
}

pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    list(text, network::parse_exempt)
}

/// An entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// A name, and those below it.
    Name(String),
    Network(IpNet),
}

pub(super) fn no_proxy(text: &str) -> Result<Vec<Past>, String> {
    list(text, |item| {
        if let Ok(network) = network::parse(item) {
            return Ok(Past::Network(network));
        }
        let name = item.strip_prefix('.').unwrap_or(item);
        let known = host(name).is_ok();
        known.then(|| Past::Name(item.to_owned())).ok_or_else(|| {
            format!("\"{item}\" is neither a host name in lower case nor a network; write it like .corp.example or 10.0.0.0/8")
        })
    })
}

pub(super) fn image(text: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@+".contains(&byte);
    let good = !text.is_empty() && text.bytes().all(inner);
    good.then(|| text.to_owned())
        .ok_or_else(|| format!("\"{text}\" is no image; write it like countersign:0.1.0"))
}

pub(super) fn log_level(text: &str) -> Result<String, String> {
    plain(text).map(str::to_owned)
}

/// A quantity of Kubernetes, or none.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Quantity {
    pub(super) text: String,
    pub(super) amount: f64,
}

pub(super) fn quantity(text: &str) -> Result<Option<Quantity>, String> {
    if text == "none" {
        return Ok(None);
    }
    let wrong = || format!("\"{text}\" is no quantity; write it like 250m, 1 or 64Mi, or none");
    let end = text.find(|one: char| !one.is_ascii_digit() && one != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let factor = match unit {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let digits = number.bytes().any(|byte| byte.is_ascii_digit());
    let number: f64 = number.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
    let amount = number * factor;
    if amount > 0.0 {
        let text = text.to_owned();
        Ok(Some(Quantity { text, amount }))
    } else {
        Err(wrong())
    }
}

/// Visible ASCII without what Kubernetes would expand.
fn plain(text: &str) -> Result<&str, String> {
    if text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'$')
    {
        Ok(text)
    } else {
        Err(format!(
            "\"{text}\" has a space, a $ or something that is no ASCII in it"
        ))
    }
}
