//! Header hygiene: what an intermediary must not pass on (RFC 9110 section 7.6.1), and our own names.
//!
//! Always runs **before** our signature headers are set, so that no `Connection` nomination can
//! remove them. Refuses nothing; it only removes, and adds `Via`.

use ::http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use ::http::{StatusCode, Version};

/// What every header of ours starts with.
const OURS: &str = "countersign-";
/// What a peer cannot call a matter of one hop: removing it would change the message.
const END_TO_END: [&str; 8] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "client-id",
    "request-time",
    "response-time",
    "signature",
];
/// The verdict on a message we hand over.
pub const VERDICT: HeaderName = HeaderName::from_static("countersign-verdict");
/// The code of an answer we gave ourselves.
pub const ERROR: HeaderName = HeaderName::from_static("countersign-error");
/// Whether a failed request may have been delivered.
pub const OUTCOME: HeaderName = HeaderName::from_static("countersign-outcome");
/// The name of the exchange in our log.
pub const ID: HeaderName = HeaderName::from_static("countersign-id");

const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Fields by which frameworks take another path or method than those of the request line. A signature does not cover them, so
/// whoever can add one to an authentic call would choose what it does.
const OVERRIDES: [HeaderName; 12] = [
    HeaderName::from_static("x-forwarded-method"),
    HeaderName::from_static("x-forwarded-path"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-uri"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-original-method"),
    HeaderName::from_static("x-original-uri"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
    HeaderName::from_static("x-script-name"),
];

/// Removes the fields that would give a request another path or method, however they are written.
pub fn remove_overrides(headers: &mut HeaderMap) {
    for name in &OVERRIDES {
        headers.remove(name);
    }
    remove_twins(headers, &OVERRIDES);
}

/// Removes the hop-by-hop fields, what `Connection` nominates, and everything named `countersign-*`.
pub fn clean(headers: &mut HeaderMap) {
    for name in nominated(headers) {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    let ours: Vec<_> = headers
        .keys()
        .filter(|name| folded(name).starts_with(OURS))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

/// Whether a field is there under a name that only differs from one of `names` by signs, such as
/// `_` or `.` for `-`: an app behind CGI, WSGI or PHP could not tell it from that.
pub fn has_twin(headers: &HeaderMap, names: &[HeaderName]) -> bool {
    headers.keys().any(|name| is_twin(name, names))
}

/// The values of a field, also under names that differ from its name only by signs.
pub fn with_twins<'a>(
    headers: &'a HeaderMap,
    name: &'a HeaderName,
) -> impl Iterator<Item = &'a HeaderValue> {
    headers
        .iter()
        .filter(move |(other, _)| *other == name || *name == folded(other).as_str())
        .map(|(_, value)| value)
}

/// Removes such fields.
pub fn remove_twins(headers: &mut HeaderMap, names: &[HeaderName]) {
    let twins: Vec<_> = headers
        .keys()
        .filter(|name| is_twin(name, names))
        .cloned()
        .collect();
    for twin in twins {
        headers.remove(twin);
    }
}

fn is_twin(name: &HeaderName, names: &[HeaderName]) -> bool {
    let folded = folded(name);
    folded != name.as_str() && names.iter().any(|twin| *twin == folded.as_str())
}

/// The name with every sign as `-`.
fn folded(name: &HeaderName) -> String {
    let fold = |sign: char| {
        if sign.is_ascii_alphanumeric() {
            sign
        } else {
            '-'
        }
    };
    name.as_str().chars().map(fold).collect()
}

/// Adds us to `Via` (RFC 9110 section 7.6.3).
pub fn add_via(headers: &mut HeaderMap, version: Version, pseudonym: &str) {
    let protocol = if version == Version::HTTP_2 {
        "2"
    } else {
        "1.1"
    };
    if let Ok(value) = HeaderValue::try_from(format!("{protocol} {pseudonym}")) {
        headers.append(VIA, value);
    }
}

/// Whether the message already went through the proxy of that pseudonym.
pub fn has_passed(headers: &HeaderMap, pseudonym: &str) -> bool {
    let values = headers
        .get_all(VIA)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|hop| hop.trim().ends_with(pseudonym))
}

/// Whether an answer to `method` with that status has no body, so that its `Content-Length` only
/// describes one (RFC 9110 section 8.6).
pub fn is_bodiless(method: &::http::Method, status: StatusCode) -> bool {
    method == ::http::Method::HEAD || status == StatusCode::NOT_MODIFIED
}

/// The fields that `Connection` says are for the next hop only.
pub fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .filter(|name| !END_TO_END.contains(&name.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn removes_hop_by_hop_nominated_and_spoofed_fields_and_keeps_the_rest_in_order() {
        let mut cleaned = headers(&[
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("proxy-authorization", "Basic Zm9v"),
            ("te", "trailers"),
            ("countersign-verdict", "verified"),
            ("countersign-anything", "x"),
            ("content-type", "application/json"),
            ("content-type", "application/json; charset=UTF-8"),
        ]);
        clean(&mut cleaned);
        let left: Vec<_> = cleaned
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .collect();
        assert_eq!(
            left,
            [
                (
                    "content-type",
                    &HeaderValue::from_static("application/json")
                ),
                (
                    "content-type",
                    &HeaderValue::from_static("application/json; charset=UTF-8")
                ),
            ]
        );
    }

    #[test]
    fn recognises_itself_in_any_via_line_and_nobody_else() {
        let ours = "countersign-0a1b2c";
        assert!(has_passed(
            &headers(&[("via", "1.1 squid, 1.1 countersign-0a1b2c")]),
            ours
        ));
        assert!(!has_passed(
            &headers(&[("via", "1.1 countersign-ffffff")]),
            ours
        ));
    }
}
