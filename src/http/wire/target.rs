//! Request lines: method, target and version (RFC 9112 section 3).

use std::net::Ipv6Addr;

use super::Malformed;
use super::byte::{all, is_host, is_target, is_token};

/// What is read of a request line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestLine {
    pub(super) is_head: bool,
    pub(super) is_connect: bool,
    pub(super) is_http_1_0: bool,
}

impl RequestLine {
    pub(super) fn read(line: &[u8]) -> Result<Self, Malformed> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Malformed::RequestLine);
        };
        if method.is_empty() || target.is_empty() || line.contains(&b'\t') {
            return Err(Malformed::RequestLine);
        }
        let is_http_1_0 = is_http_1_0(version)?;
        if !all(method, is_token) {
            return Err(Malformed::Method);
        }
        let is_connect = method == b"CONNECT";
        match target {
            _ if target.contains(&b'#') => return Err(Malformed::TargetFragment),
            _ if is_connect => authority(target, Malformed::TargetForm)?,
            b"*" if method == b"OPTIONS" => {}
            [b'/', ..] => path_and_query(target)?,
            _ => absolute(target)?,
        }
        Ok(Self {
            is_head: method == b"HEAD",
            is_connect,
            is_http_1_0,
        })
    }
}

/// Whether it is HTTP/1.0 rather than HTTP/1.1.
pub(super) fn is_http_1_0(version: &[u8]) -> Result<bool, Malformed> {
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Malformed::VersionUnsupported)
        }
        _ => Err(Malformed::Version),
    }
}

fn absolute(target: &[u8]) -> Result<(), Malformed> {
    let (scheme, rest) = halves(target, b':');
    let rest = rest.strip_prefix(b"://").ok_or(Malformed::TargetForm)?;
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(Malformed::TargetForm);
    }
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
    let halves = rest.split_at_checked(end.unwrap_or(rest.len()));
    let (host, path) = halves.unwrap_or_default();
    authority(host, Malformed::HostInvalid)?;
    path_and_query(path)
}

/// Path and query of a request that was not read by [`Requests`](super::Requests), as over HTTP/2.
///
/// # Errors
/// When a byte may not be in it, or when it is neither `*` nor begins with `/`.
pub fn origin_form(target: &[u8]) -> Result<(), Malformed> {
    match target {
        b"*" => Ok(()),
        [b'/', ..] => path_and_query(target),
        _ => Err(Malformed::TargetForm),
    }
}

fn path_and_query(target: &[u8]) -> Result<(), Malformed> {
    let mut in_query = false;
    let fits = target.iter().all(|byte| {
        let fits = is_target(*byte, in_query);
        in_query |= *byte == b'?';
        fits
    });
    fits.then_some(()).ok_or(Malformed::TargetCharacter)
}

/// A host and an optional port, and nothing else; `invalid` otherwise.
pub(super) fn authority(text: &[u8], invalid: Malformed) -> Result<(), Malformed> {
    if text.contains(&b'@') {
        return Err(Malformed::TargetUserInfo);
    }
    let (is_host, port) = if let Some(rest) = text.strip_prefix(b"[") {
        let (address, port) = halves(rest, b']');
        let address = std::str::from_utf8(address).ok();
        let is_address = address.is_some_and(|it| it.parse::<Ipv6Addr>().is_ok());
        (is_address, port.strip_prefix(b"]").ok_or(invalid)?)
    } else {
        let (name, port) = halves(text, b':');
        (all(name, is_host), port)
    };
    let is_port = match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => all(digits, |byte| byte.is_ascii_digit()) && digits.len() <= 5,
        _ => false,
    };
    (is_host && is_port).then_some(()).ok_or(invalid)
}

/// What is before the first such byte, and the rest with it.
fn halves(text: &[u8], byte: u8) -> (&[u8], &[u8]) {
    let end = text.iter().position(|one| *one == byte);
    text.split_at_checked(end.unwrap_or(text.len()))
        .unwrap_or_default()
}
