//! Decides where a request goes: to a signed host, onward untouched, or nowhere.
//!
//! Compares hosts canonically and never by prefix or suffix, so `open-x-global.alipayplus.com.evil`
//! is no signed host. Refuses requests it cannot place; it never guesses a destination.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use ::http::{HeaderMap, Uri};
use countersign_protocol::ClientId;

use super::arrival::Arrival;
use super::binding::Binding;
use super::identity::ClientIdField;
use crate::exchange::{Code, Fault, Policy};
use crate::http::retries::Policies;
use crate::upstream::origin::asked;
use crate::upstream::{Host, HostPattern, Origin};

/// The port of plain HTTP.
pub const HTTP: u16 = 80;
/// The port of HTTP behind TLS.
pub const HTTPS: u16 = 443;
/// The ports of a signed host on which its requests are looked for.
const SIGNED_PORTS: [u16; 2] = [HTTPS, HTTP];

/// What to do with requests for hosts that no route names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unmatched {
    /// Pass them on untouched.
    #[default]
    Forward,
    /// Refuse them.
    Refuse,
}

/// Hosts that are signed for, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The label in metrics and logs.
    pub name: String,
    /// The hosts.
    pub hosts: Vec<HostPattern>,
    /// The identity that signs requests without `Client-Id`; when absent they must name one.
    pub identity: Option<ClientId>,
    /// What happens to a request whose `Client-Id` names none of our identities.
    pub client_id_field: ClientIdField,
    /// Where the requests go instead of to the host asked for.
    pub upstream: Option<Origin>,
    /// Send what is for a plain host to its accelerated one.
    pub accelerate: bool,
    /// What happens to an answer that does not verify.
    pub verify: Policy,
    /// How far `Response-Time` may be from our clock; nothing is refused for it when absent.
    pub max_skew: Option<Duration>,
    /// What happens to requests that repeat an earlier one.
    pub retries: Policies,
    /// The ids that an answer must not contradict.
    pub bind: Binding,
    /// From sending the request to the last byte of the answer.
    pub timeout: Duration,
    /// The largest request body, in bytes.
    pub request_limit: usize,
    /// The largest answer body, in bytes.
    pub response_limit: usize,
}

/// Where a CONNECT leads.
#[derive(Debug, PartialEq, Eq)]
pub enum Way<'a> {
    /// To a host whose requests are signed: the requests inside are looked at.
    Inside(&'a Route),
    /// Onward unread.
    Through,
}

/// Where a request goes.
#[derive(Debug)]
pub enum Target<'a> {
    /// To a signed host.
    Signed(&'a Route, Origin),
    /// Onward untouched.
    Forward(Origin),
}

/// The routing table.
#[derive(Clone, Debug)]
pub struct Routes {
    /// The signed hosts.
    pub routes: Vec<Route>,
    /// The host of requests that are addressed to the sidecar itself.
    pub default_host: Option<Host>,
    /// What happens to all others.
    pub unmatched: Unmatched,
}

impl Routes {
    /// Places a request by what it says and how it arrived.
    ///
    /// # Errors
    /// [`Code::RequestMalformed`] when it does not say clearly where to,
    /// [`Code::MisdirectedRequest`] when its connection is for another host, and
    /// [`Code::HostNotAllowed`] when it may not go there.
    pub fn target(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        arrival: &Arrival,
    ) -> Result<Target<'_>, Fault> {
        let asked = Asked::read(uri, headers)?;
        if let Some(host) = &arrival.host
            && *host != asked.host
        {
            return Err(misdirected(host, &asked.host));
        }
        let route = self.signing(&asked.host);
        if route.is_none() && asked.is_for(arrival.local) {
            return self.default_target();
        }
        match route {
            Some(route) if asked.port_is_signed() => Ok(route.target(&asked.host)),
            Some(_) => Err(wrong_port(&asked.host)),
            None if self.unmatched == Unmatched::Forward => Ok(Target::Forward(asked.origin())),
            None => Err(self.unnamed(&asked.host)),
        }
    }

    /// Decides where a CONNECT to that host and port leads.
    ///
    /// # Errors
    /// [`Code::HostNotAllowed`] when it may not go there.
    pub fn way(&self, host: &Host, port: u16) -> Result<Way<'_>, Fault> {
        match self.signing(host) {
            Some(route) if SIGNED_PORTS.contains(&port) => Ok(Way::Inside(route)),
            Some(_) => Err(wrong_port(host)),
            None if self.unmatched == Unmatched::Forward => Ok(Way::Through),
            None => Err(self.unnamed(host)),
        }
    }

    /// The route that signs for a host.
    pub fn signing(&self, host: &Host) -> Option<&Route> {
        self.routes.iter().find(|route| route.covers(host))
    }

    fn unnamed(&self, host: &Host) -> Fault {
        let unmatched = self.unmatched;
        not_allowed(format!(
            "no route names {host} and egress.unmatched is {unmatched}"
        ))
    }

    fn default_target(&self) -> Result<Target<'_>, Fault> {
        let Some(host) = &self.default_host else {
            return Err(not_allowed(
                "the request is addressed to the sidecar itself and egress.default_host is not set"
                    .to_owned(),
            ));
        };
        match self.signing(host) {
            Some(route) => Ok(route.target(host)),
            None => Ok(Target::Forward(Origin::https(host.clone()))),
        }
    }
}

impl fmt::Display for Unmatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Refuse => "refuse",
        })
    }
}

impl Route {
    /// Whether it is for that host.
    pub fn covers(&self, host: &Host) -> bool {
        self.hosts.iter().any(|pattern| pattern.matches(host))
    }

    fn target(&self, host: &Host) -> Target<'_> {
        let asked = || {
            if self.accelerate {
                accelerated(host)
            } else {
                host.clone()
            }
        };
        let origin = self
            .upstream
            .clone()
            .unwrap_or_else(|| Origin::https(asked()));
        Target::Signed(self, origin)
    }
}

/// The accelerated name of a plain gateway host: `open-na` becomes `open-na-global`.
fn accelerated(host: &Host) -> Host {
    let plain = host.as_str().split_once('.').filter(|(label, domain)| {
        label.starts_with("open-")
            && !label.ends_with("-global")
            && matches!(*domain, "alipayplus.com" | "alipay.com")
    });
    let name = plain.and_then(|(label, domain)| format!("{label}-global.{domain}").parse().ok());
    name.unwrap_or_else(|| host.clone())
}

/// What the request says of its destination.
struct Asked {
    host: Host,
    port: Option<u16>,
    secure: bool,
    absolute: bool,
}

impl Asked {
    fn read(uri: &Uri, headers: &HeaderMap) -> Result<Self, Fault> {
        let (host, port) = asked(uri, headers)?;
        Ok(Self {
            host,
            port,
            secure: uri.scheme_str() == Some("https"),
            absolute: uri.authority().is_some(),
        })
    }

    /// Whether the request is addressed to the sidecar itself, as by an app whose base URL points
    /// here. In origin form our port is enough, if it is written out, whatever name the app knows us
    /// by; in absolute form another service may well have the same port, so the address must be this
    /// machine's too, and so where the port is the usual one: any name may point here then.
    fn is_for(&self, local: SocketAddr) -> bool {
        let here = self.host.as_str() == "localhost"
            || self
                .host
                .ip()
                .is_some_and(|ip| ip.is_loopback() || ip == local.ip());
        let our_port = self.port.unwrap_or(if self.secure { 443 } else { 80 }) == local.port();
        our_port && (here || (!self.absolute && self.port.is_some()))
    }

    fn port_is_signed(&self) -> bool {
        self.port.is_none_or(|port| SIGNED_PORTS.contains(&port))
    }

    fn origin(self) -> Origin {
        let port = self.port.unwrap_or(if self.secure { 443 } else { 80 });
        Origin {
            secure: self.secure,
            host: self.host,
            port,
        }
    }
}

fn misdirected(connection: &Host, asked: &Host) -> Fault {
    let text = format!("the connection is for {connection}, the request for {asked}");
    Fault::not_sent(Code::MisdirectedRequest, text)
}

fn wrong_port(host: &Host) -> Fault {
    not_allowed(format!("{host} is signed for on ports 443 and 80 only"))
}

fn not_allowed(text: String) -> Fault {
    Fault::not_sent(Code::HostNotAllowed, text)
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;
    use ::http::header::HOST;

    use super::*;

    const LOCAL: &str = "127.0.0.1:18441";

    fn routes() -> Routes {
        let route = Route {
            name: "gateway".to_owned(),
            hosts: vec![
                "open-*-global.alipayplus.com".parse().unwrap(),
                "open-na.alipayplus.com".parse().unwrap(),
            ],
            identity: ClientId::parse("C").ok(),
            client_id_field: ClientIdField::default(),
            retries: Policies::egress(),
            upstream: None,
            accelerate: true,
            verify: Policy::Enforce,
            max_skew: None,
            bind: Binding::default(),
            timeout: Duration::from_secs(15),
            request_limit: 1,
            response_limit: 1,
        };
        Routes {
            routes: vec![route],
            default_host: Some("open-sea-global.alipayplus.com".parse().unwrap()),
            unmatched: Unmatched::Forward,
        }
    }

    /// `signed HOST`, `forward ORIGIN`, or the fault's code.
    fn place(uri: &str, host: &'static str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static(host));
        let routes = routes();
        let arrival = Arrival::from(LOCAL.parse::<SocketAddr>().unwrap());
        let target = routes.target(&uri.parse().unwrap(), &headers, &arrival);
        match target {
            Ok(Target::Signed(_, origin)) => format!("signed {origin}"),
            Ok(Target::Forward(origin)) => format!("forward {origin}"),
            Err(fault) => fault.code().as_str().to_owned(),
        }
    }

    #[test]
    fn places_requests_by_authority_host_or_the_default_host() {
        let sea = "signed https://open-sea-global.alipayplus.com:443";
        for (uri, host, expected) in [
            ("/pay", "127.0.0.1:18441", sea),
            ("/pay", "localhost:18441", sea),
            ("/pay", "countersign:18441", sea),
            ("/pay", "open-na.alipayplus.com:18441", "host_not_allowed"),
            ("http://127.0.0.1:18441/pay", "x", sea),
            (
                "http://countersign:18441/pay",
                "x",
                "forward http://countersign:18441",
            ),
            ("http://Open-SEA-Global.AlipayPlus.com./pay", "x", sea),
            ("http://open-sea-global.alipayplus.com:80/pay", "x", sea),
            ("https://open-sea-global.alipayplus.com/pay", "x", sea),
            ("/pay", "open-sea-global.alipayplus.com", sea),
            (
                "http://open-na.alipayplus.com/",
                "x",
                "signed https://open-na-global.alipayplus.com:443",
            ),
            (
                "http://open-sea-global.alipayplus.com:8080/",
                "x",
                "host_not_allowed",
            ),
            (
                "http://open-sea-global.alipayplus.com.evil.example/",
                "x",
                "forward http://open-sea-global.alipayplus.com.evil.example:80",
            ),
            (
                "http://evil-open-sea-global.alipayplus.com/",
                "x",
                "forward http://evil-open-sea-global.alipayplus.com:80",
            ),
            (
                "http://open-a.b-global.alipayplus.com/",
                "x",
                "forward http://open-a.b-global.alipayplus.com:80",
            ),
            (
                "http://example.com:8080/",
                "open-sea-global.alipayplus.com",
                "forward http://example.com:8080",
            ),
            ("/", "exa mple", "request_malformed"),
            ("http://user@example.com/", "x", "request_malformed"),
        ] {
            assert_eq!(place(uri, host), expected, "{uri} Host: {host}");
        }
    }
}
