//! Decides which app a request is for, by host and public path.
//!
//! The longest prefix wins, so the order of routes never matters. Refuses paths that an app could
//! read as another path than we do wherever a route does not enforce verification: otherwise
//! `/open/../pay` would be a way round it.

use std::fmt;
use std::time::Duration;

use ::http::{HeaderMap, Uri};
use countersign_protocol::ClientId;
use percent_encoding::percent_decode_str;

use crate::exchange::{Code, Fault, Policy};
use crate::http::retries::Policies;
use crate::upstream::origin::asked;
use crate::upstream::{Host, HostPattern, Origin};

/// What is kept back of the time Alipay+ waits, so that a signed answer still reaches it.
const MARGIN: Duration = Duration::from_millis(500);

/// What happens to a request that was here before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replay {
    /// Nothing is remembered.
    Off,
    /// It is passed on, counted and logged.
    #[default]
    Report,
    /// It is refused.
    Enforce,
}

/// A part of the public paths, and the app behind it.
#[derive(Clone, Debug)]
pub struct Route {
    /// The label in metrics and logs.
    pub name: String,
    /// The public hosts; any when empty.
    pub hosts: Vec<HostPattern>,
    /// What the public path begins with, up to a `/` or its end.
    pub path_prefix: String,
    /// Whose key signs; when absent, that of the client the caller names.
    pub identity: Option<ClientId>,
    /// The app.
    pub app: Origin,
    /// What stands in the app's path in place of the prefix.
    pub prefix_rewrite: Option<String>,
    /// What happens to a request that does not verify.
    pub verify: Policy,
    /// How far `Request-Time` may be from our clock; nothing is refused for it when absent.
    pub max_skew: Option<Duration>,
    /// What happens to a request that was here before.
    pub replay: Replay,
    /// What happens to requests that a proxy repeats.
    pub retries: Policies,
    /// Whether the app sees fields that give a request another path or method.
    pub keeps_overrides: bool,
    /// How long Alipay+ waits for the answer.
    pub timeout: Duration,
    /// The same for paths that end like this, the most exact one first.
    pub timeouts: Vec<(String, Duration)>,
    /// The largest request body, in bytes.
    pub request_limit: usize,
    /// The largest answer body, in bytes.
    pub response_limit: usize,
}

/// The routing table.
#[derive(Clone, Debug)]
pub struct Routes {
    /// The routes.
    pub routes: Vec<Route>,
}

impl Routes {
    /// How long signatures must be remembered: as long as a request can be acceptable, from a clock
    /// ahead of ours to one behind. Where any age is acceptable, as long as by default.
    pub fn window(&self) -> Duration {
        let default = Duration::from_mins(5);
        let skews = self.routes.iter();
        let skews = skews.map(|route| route.max_skew.unwrap_or(default));
        skews.max().unwrap_or(default) * 2
    }

    /// Places a request.
    ///
    /// # Errors
    /// [`Code::NoRoute`], or [`Code::RequestMalformed`] when it does not say clearly where to.
    pub fn find(&self, uri: &Uri, fields: &HeaderMap) -> Result<&Route, Fault> {
        let (host, _port) = asked(uri, fields)?;
        let covering = self.routes.iter().filter(|route| route.covers(&host, uri));
        let Some(route) = covering.max_by_key(|route| route.rank()) else {
            let text = "no route is for that path and host";
            return Err(Fault::not_sent(Code::NoRoute, text));
        };
        if route.verify != Policy::Enforce && self.leads_round(route, uri.path()) {
            let text = "the path could be read as another one, and its route does not verify";
            return Err(Fault::not_sent(Code::RequestMalformed, text));
        }
        Ok(route)
    }

    /// Whether the app could take the path for one that a route enforces, whatever `Host` the caller
    /// chose.
    fn leads_round(&self, route: &Route, path: &str) -> bool {
        let Some(plain) = plain(path) else {
            return true;
        };
        let same_app = self.routes.iter().filter(|other| other.app == route.app);
        let covering = same_app.filter(|other| other.rest_of_folded(&plain).is_some());
        let enforces = |route: &Route| route.verify == Policy::Enforce;
        let best = covering.max_by_key(|route| (route.path_prefix.len(), enforces(route)));
        best.is_some_and(enforces)
    }
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Report => "report",
            Self::Enforce => "enforce",
        })
    }
}

impl Route {
    fn covers(&self, host: &Host, uri: &Uri) -> bool {
        let is_host = self.hosts.is_empty() || self.hosts.iter().any(|one| one.matches(host));
        is_host && self.rest(uri.path()).is_some()
    }

    /// Named hosts before any, then the longer prefix.
    fn rank(&self) -> (bool, usize) {
        (!self.hosts.is_empty(), self.path_prefix.len())
    }

    /// What is behind the prefix; none when the path is not below it.
    fn rest<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(self.path_prefix.as_str())?;
        let whole_segment =
            self.path_prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/');
        whole_segment.then_some(rest)
    }

    /// The same for a path and a prefix without the difference of letters' case.
    fn rest_of_folded<'a>(&self, path: &'a str) -> Option<&'a str> {
        let prefix = self.path_prefix.to_lowercase();
        let rest = path.strip_prefix(prefix.as_str())?;
        let whole_segment = prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/');
        whole_segment.then_some(rest)
    }

    /// Path and query for the app.
    pub fn rewrite(&self, path_and_query: &str) -> String {
        let path = path_and_query.split('?').next().unwrap_or_default();
        match (&self.prefix_rewrite, self.rest(path)) {
            (Some(prefix), Some(_)) => {
                let rest = path_and_query
                    .strip_prefix(self.path_prefix.as_str())
                    .unwrap_or_default();
                let joint = match (prefix.ends_with('/'), rest.starts_with('/')) {
                    (true, true) => prefix.trim_end_matches('/'),
                    _ => prefix,
                };
                let slash =
                    if joint.ends_with('/') || rest.is_empty() || rest.starts_with(['/', '?']) {
                        ""
                    } else {
                        "/"
                    };
                format!("{joint}{slash}{rest}")
            }
            _ => path_and_query.to_owned(),
        }
    }

    /// How long Alipay+ waits for an answer to that path.
    pub fn timeout(&self, path: &str) -> Duration {
        let exact = self.timeouts.iter().find(|(end, _)| {
            path.strip_suffix(end.as_str()).is_some_and(|before| {
                before.is_empty() || before.ends_with('/') || end.starts_with('/')
            })
        });
        exact.map_or(self.timeout, |(_, timeout)| *timeout)
    }

    /// What is left of that time when `spent` of it is over, some kept back for the answer's way.
    pub fn patience(&self, uri: &Uri, spent: Duration) -> Duration {
        let timeout = self.timeout(uri.path());
        let margin = MARGIN.min(timeout / 10);
        timeout.saturating_sub(margin).saturating_sub(spent)
    }
}

/// How an app may read a path in the end: decoded and in lower case. None where two readers could take
/// it for different ones: dot segments, empty segments, parameters, backslashes, control characters,
/// what is no UTF-8, and what is encoded several times over.
fn plain(path: &str) -> Option<String> {
    const ROUNDS: usize = 4;
    let mut text = path.to_owned();
    for _ in 0..ROUNDS {
        let decoded = percent_decode_str(&text).decode_utf8().ok()?.into_owned();
        if decoded == text {
            break;
        }
        text = decoded;
    }
    let slashes = |text: &str| text.matches('/').count();
    let clear = !text.contains(['\\', ';', '%'])
        && !text.contains("//")
        && !text.chars().any(char::is_control)
        && slashes(&text) == slashes(path)
        && !text.split('/').any(|segment| matches!(segment, "." | ".."));
    clear.then(|| text.to_lowercase())
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;
    use ::http::header::HOST;

    use super::*;

    fn route(name: &str, prefix: &str, hosts: &[&str]) -> Route {
        Route {
            name: name.to_owned(),
            hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            path_prefix: prefix.to_owned(),
            identity: None,
            app: "http://127.0.0.1:8080".parse().unwrap(),
            prefix_rewrite: None,
            verify: Policy::Enforce,
            max_skew: None,
            replay: Replay::Report,
            retries: Policies::ingress(),
            keeps_overrides: false,
            timeout: Duration::from_secs(5),
            timeouts: vec![
                ("payments/pay".to_owned(), Duration::from_secs(9)),
                ("pay".to_owned(), Duration::from_secs(8)),
            ],
            request_limit: 1,
            response_limit: 1,
        }
    }

    fn find(routes: &Routes, path: &str, host: &'static str) -> String {
        let mut fields = HeaderMap::new();
        fields.insert(HOST, HeaderValue::from_static(host));
        match routes.find(&path.parse().unwrap(), &fields) {
            Ok(route) => route.name.clone(),
            Err(fault) => fault.code().as_str().to_owned(),
        }
    }

    #[test]
    fn the_longest_prefix_of_whole_segments_wins_whatever_the_order() {
        let mut routes = Routes {
            routes: vec![
                route("all", "/", &[]),
                route("alipay", "/alipay", &[]),
                route("notify", "/alipay/notify/", &[]),
                route("shop", "/", &["pay.shop.example"]),
            ],
        };
        for _ in 0..2 {
            for (path, host, expected) in [
                ("/x", "a", "all"),
                ("/alipay", "a", "alipay"),
                ("/alipay/x?y", "a", "alipay"),
                ("/alipayx", "a", "all"),
                ("/alipay/notify", "a", "alipay"),
                ("/alipay/notify/x", "a", "notify"),
                ("/alipay/notify/x", "PAY.shop.example.", "shop"),
                ("/x", "a b", "request_malformed"),
            ] {
                assert_eq!(find(&routes, path, host), expected, "{host}{path}");
            }
            routes.routes.reverse();
        }
        routes.routes.retain(|route| route.name == "alipay");
        assert_eq!(find(&routes, "/other", "a"), "no_route");
    }

    #[test]
    fn no_spelling_of_a_path_leads_round_a_route_that_verifies() {
        let open = Route {
            verify: Policy::Off,
            ..route("open", "/open", &[])
        };
        let www = Route {
            verify: Policy::Off,
            ..route("www", "/", &["www.example"])
        };
        let routes = Routes {
            routes: vec![route("all", "/pay", &[]), open, www],
        };
        assert_eq!(find(&routes, "/open/x%20y", "a"), "open");
        assert_eq!(find(&routes, "/shop", "www.example"), "www");
        // The caller chooses Host; it must not choose the check.
        assert_eq!(find(&routes, "/pay/x", "www.example"), "request_malformed");
        for path in [
            "/%70ay",
            "/%2570ay",
            "/PAY/x",
            "/open/%c0%ae%c0%ae/pay",
            "/open/%25252e%25252e/pay",
            "/open/%0apay",
            "/open/x%00",
            "/open/../pay",
            "/open/%2e%2e/pay",
            "/open/%252e%252e/pay",
            "/open/..%2fpay",
            "/open//pay",
            "/open/.;/pay",
            "/open/x\\..\\pay",
            "/open/%5c..%5cpay",
            "/open%2f..%2fpay/x",
        ] {
            for host in ["a", "www.example"] {
                let found = find(&routes, path, host);
                let closed = ["request_malformed", "no_route"].contains(&found.as_str());
                assert!(closed, "{host}{path}: {found}");
            }
        }
        assert_eq!(find(&routes, "/pay/../x", "a"), "all", "verified as it is");
    }

    #[test]
    fn the_prefix_is_replaced_and_the_rest_stays_byte_for_byte() {
        for (prefix, rewrite, path, expected) in [
            ("/alipay", Some("/"), "/alipay/notify?a=/b", "/notify?a=/b"),
            ("/alipay", Some("/"), "/alipay", "/"),
            ("/alipay", Some("/"), "/alipay?x", "/?x"),
            ("/alipay/", Some("/app/"), "/alipay/a%2fb", "/app/a%2fb"),
            ("/alipay/", Some("/app"), "/alipay/a", "/app/a"),
            ("/", Some("/app"), "/a//b", "/app/a//b"),
            ("/a", None, "/a/b", "/a/b"),
        ] {
            let mut route = route("r", prefix, &[]);
            route.prefix_rewrite = rewrite.map(str::to_owned);
            assert_eq!(route.rewrite(path), expected, "{prefix} {rewrite:?} {path}");
        }
    }

    #[test]
    fn times_are_by_the_end_of_the_path() {
        let route = route("r", "/", &[]);
        for (path, seconds) in [
            ("/aps/api/v1/payments/pay", 9),
            ("/pay", 8),
            ("/prepay", 5),
            ("/notify", 5),
        ] {
            assert_eq!(route.timeout(path), Duration::from_secs(seconds), "{path}");
        }
        let notify = "/notify".parse().unwrap();
        for (spent, left) in [(0, 4500), (3000, 1500), (4600, 0)] {
            let left = Duration::from_millis(left);
            assert_eq!(route.patience(&notify, Duration::from_millis(spent)), left);
        }
    }
}
