//! The mistakes that are tried, each with the content it would have produced.

use std::{borrow::Cow, fmt};

use percent_encoding::percent_decode_str;

use super::json;
use crate::{content::Parts, time::Timestamp};

/// One way in which a signer built another content than the one on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mistake {
    /// Another method was signed.
    Method(&'static str),
    /// The method in another case.
    MethodCase,
    /// The query string was left out.
    NoQuery,
    /// A trailing slash or question mark more or less.
    UriEnd,
    /// The path was percent-decoded.
    UriDecoded,
    /// Scheme and host were signed too.
    UriAbsolute,
    /// `/ams/api` against `/ams/sandbox/api`.
    SandboxPath,
    /// Doubled slashes were made single ones.
    SlashesMerged,
    /// The client id in another case.
    ClientIdCase,
    /// The time in another shape.
    TimeShape,
    /// No time at all.
    NoTime,
    /// No body.
    NoBody,
    /// No body, and the dot before it left out as well.
    NoLastDot,
    /// The blanks around the body, such as a trailing newline, were left out.
    BodyTrimmed,
    /// A newline was added at the end.
    NewlineAdded,
    /// LF line ends instead of CRLF.
    LineEndsUnix,
    /// CRLF line ends instead of LF.
    LineEndsDos,
    /// The byte order mark was left out.
    NoByteOrderMark,
    /// The JSON was written anew without blanks.
    JsonCompacted,
    /// The JSON was written anew with blanks after `:` and `,`, as Python does.
    JsonSpaced,
    /// The JSON was written anew with `\/` for `/`, as PHP does.
    JsonSlashes,
    /// The JSON was written anew with `\u` escapes for everything beyond ASCII.
    JsonAscii,
    /// CR LF instead of LF after the first line.
    FirstLineDos,
}

const METHODS: [&str; 7] = ["POST", "GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"];

/// The first mistake whose content passes the test.
pub(super) fn find(
    parts: &Parts<'_>,
    host: Option<&str>,
    is_signed: impl Fn(&[&[u8]]) -> bool,
) -> Option<Mistake> {
    let with = |changed: Parts<'_>| is_signed(&changed.pieces());
    method(parts, &with)
        .or_else(|| uri(parts, host, &with))
        .or_else(|| client_id(parts, &with))
        .or_else(|| time(parts, &with))
        .or_else(|| body(parts, &with))
        .or_else(|| layout(parts, &is_signed))
}

fn method(parts: &Parts<'_>, is_signed: &dyn Fn(Parts<'_>) -> bool) -> Option<Mistake> {
    let other = METHODS
        .iter()
        .find(|method| is_signed(Parts { method, ..*parts }));
    if let Some(method) = other {
        let case = method.eq_ignore_ascii_case(parts.method);
        return Some(if case {
            Mistake::MethodCase
        } else {
            Mistake::Method(method)
        });
    }
    let cases = [
        parts.method.to_ascii_lowercase(),
        parts.method.to_ascii_uppercase(),
    ];
    let case = cases
        .iter()
        .any(|method| is_signed(Parts { method, ..*parts }));
    case.then_some(Mistake::MethodCase)
}

fn uri(
    parts: &Parts<'_>,
    host: Option<&str>,
    is_signed: &dyn Fn(Parts<'_>) -> bool,
) -> Option<Mistake> {
    let tried = uris(parts.uri, host);
    first(tried, |uri| is_signed(Parts { uri, ..*parts }))
}

fn uris(uri: &str, host: Option<&str>) -> Vec<(Mistake, String)> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let again = |path: &str| {
        if uri.contains('?') {
            format!("{path}?{query}")
        } else {
            path.to_owned()
        }
    };
    let mut tried = vec![
        (Mistake::NoQuery, path.to_owned()),
        (Mistake::UriEnd, again(path.trim_end_matches('/'))),
        (Mistake::UriEnd, again(&format!("{path}/"))),
        (Mistake::UriEnd, format!("{uri}?")),
        (
            Mistake::UriDecoded,
            percent_decode_str(uri).decode_utf8_lossy().into_owned(),
        ),
        (
            Mistake::SandboxPath,
            uri.replacen("/ams/sandbox/api", "/ams/api", 1),
        ),
        (
            Mistake::SandboxPath,
            uri.replacen("/ams/api", "/ams/sandbox/api", 1),
        ),
        (Mistake::SlashesMerged, again(&single_slashes(path))),
    ];
    if let Some(host) = host {
        let schemes = ["https://", "http://", ""];
        tried.extend(schemes.map(|scheme| (Mistake::UriAbsolute, format!("{scheme}{host}{uri}"))));
    }
    tried
}

fn single_slashes(path: &str) -> String {
    let mut single = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !single.ends_with('/') {
            single.push(character);
        }
    }
    single
}

fn client_id(parts: &Parts<'_>, is_signed: &dyn Fn(Parts<'_>) -> bool) -> Option<Mistake> {
    let cases = [
        parts.client_id.to_ascii_uppercase(),
        parts.client_id.to_ascii_lowercase(),
    ];
    let case = cases.iter().any(|client_id| {
        is_signed(Parts {
            client_id,
            ..*parts
        })
    });
    case.then_some(Mistake::ClientIdCase)
}

fn time(parts: &Parts<'_>, is_signed: &dyn Fn(Parts<'_>) -> bool) -> Option<Mistake> {
    first(times(parts.time), |time| {
        is_signed(Parts { time, ..*parts })
    })
}

/// The same instant in the shapes that libraries print.
fn times(time: &str) -> Vec<(Mistake, String)> {
    let mut shapes = vec![time.replacen('T', " ", 1)];
    if let Ok(timestamp) = Timestamp::parse(time) {
        let offsets = [
            "Z", "+00:00", "+08:00", "-08:00", "-07:00", "-05:00", "-04:00", "+09:00",
        ];
        for offset in offsets.iter().filter_map(|offset| offset.parse().ok()) {
            let second = Timestamp::at(timestamp.instant(), offset);
            shapes.extend(relatives(second.as_str()));
        }
        let since = timestamp
            .instant()
            .duration_since(std::time::SystemTime::UNIX_EPOCH);
        if let Ok(since) = since {
            shapes.extend([since.as_millis().to_string(), since.as_secs().to_string()]);
        }
    }
    let mut tried: Vec<_> = shapes
        .into_iter()
        .map(|time| (Mistake::TimeShape, time))
        .collect();
    tried.push((Mistake::NoTime, String::new()));
    tried
}

/// An ISO 8601 time of whole seconds with milliseconds, without colon in the offset, without offset.
fn relatives(time: &str) -> Vec<String> {
    let Some((second, offset)) = time.split_at_checked("2026-11-22T18:44:53".len()) else {
        return Vec::new();
    };
    let joined = offset.replace(':', "");
    vec![
        time.to_owned(),
        format!("{second}{joined}"),
        format!("{second}.000{offset}"),
        format!("{second}.000{joined}"),
        second.to_owned(),
        time.replacen('T', " ", 1),
    ]
}

fn body(parts: &Parts<'_>, is_signed: &dyn Fn(Parts<'_>) -> bool) -> Option<Mistake> {
    bodies(parts.body).into_iter().find_map(|(mistake, body)| {
        let differs = *body != *parts.body;
        (differs
            && is_signed(Parts {
                body: &body,
                ..*parts
            }))
        .then_some(mistake)
    })
}

fn bodies(body: &[u8]) -> Vec<(Mistake, Cow<'_, [u8]>)> {
    let unix = without_cr(body);
    let dos = with_cr(&unix);
    let mut tried = vec![
        (Mistake::NoBody, Cow::Borrowed(b"".as_slice())),
        (
            Mistake::BodyTrimmed,
            body.strip_suffix(b"\n").unwrap_or(body).into(),
        ),
        (
            Mistake::BodyTrimmed,
            body.strip_suffix(b"\r\n").unwrap_or(body).into(),
        ),
        (Mistake::BodyTrimmed, body.trim_ascii_end().into()),
        (Mistake::BodyTrimmed, body.trim_ascii().into()),
        (Mistake::NewlineAdded, [body, b"\n"].concat().into()),
        (Mistake::NewlineAdded, [body, b"\r\n"].concat().into()),
        (Mistake::LineEndsDos, dos.into()),
        (Mistake::LineEndsUnix, unix.into()),
        (
            Mistake::NoByteOrderMark,
            body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).into(),
        ),
    ];
    if let Ok(text) = std::str::from_utf8(body) {
        tried.extend(
            json::rewritings(text).map(|(mistake, text)| (mistake, text.into_bytes().into())),
        );
    }
    tried
}

fn without_cr(body: &[u8]) -> Vec<u8> {
    let next = body.iter().skip(1).copied().chain([0]);
    let pairs = body.iter().copied().zip(next);
    pairs
        .filter(|pair| *pair != (b'\r', b'\n'))
        .map(|(byte, _)| byte)
        .collect()
}

fn with_cr(unix: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = unix.split(|byte| *byte == b'\n').collect();
    lines.join(b"\r\n".as_slice())
}

/// Mistakes in the frame around the parts.
fn layout(parts: &Parts<'_>, is_signed: &dyn Fn(&[&[u8]]) -> bool) -> Option<Mistake> {
    let [method, blank, uri, _, client_id, dot, time, last_dot, body] = parts.pieces();
    if is_signed(&[
        method, blank, uri, b"\r\n", client_id, dot, time, last_dot, body,
    ]) {
        return Some(Mistake::FirstLineDos);
    }
    let without_dot = [method, blank, uri, b"\n", client_id, dot, time];
    (body.is_empty() && is_signed(&without_dot)).then_some(Mistake::NoLastDot)
}

fn first(tried: Vec<(Mistake, String)>, is_signed: impl Fn(&str) -> bool) -> Option<Mistake> {
    tried
        .into_iter()
        .find_map(|(mistake, text)| is_signed(&text).then_some(mistake))
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method(method) => return write!(f, "the method {method}"),
            Self::MethodCase => "the method in another case",
            Self::NoQuery => "the URI without its query string",
            Self::UriEnd => "the URI with a slash or question mark more or less at its end",
            Self::UriDecoded => "the percent-decoded URI",
            Self::UriAbsolute => "the URI with its host",
            Self::SandboxPath => "the other of the paths /ams/api and /ams/sandbox/api",
            Self::SlashesMerged => "the URI with its double slashes merged",
            Self::ClientIdCase => "the client id in another case",
            Self::TimeShape => "the time written in another shape",
            Self::NoTime => "an empty time",
            Self::NoBody => "an empty body",
            Self::NoLastDot => "a content without its last dot",
            Self::BodyTrimmed => {
                "the body without its leading or trailing blanks (a newline, mostly)"
            }
            Self::NewlineAdded => "the body with a newline added",
            Self::LineEndsUnix => "the body with LF instead of CRLF line ends",
            Self::LineEndsDos => "the body with CRLF instead of LF line ends",
            Self::NoByteOrderMark => "the body without its byte order mark",
            Self::JsonCompacted => "the JSON body written anew without blanks",
            Self::JsonSpaced => "the JSON body written anew with blanks after ':' and ','",
            Self::JsonSlashes => "the JSON body written anew with '\\/' for '/'",
            Self::JsonAscii => "the JSON body written anew with \\u escapes",
            Self::FirstLineDos => "a content with CR LF after its first line",
        })
    }
}
