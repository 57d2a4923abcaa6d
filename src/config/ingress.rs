//! The `ingress` section.
//!
//! Refuses two routes that could mean the same request: which one is taken must never depend on their
//! order.

use std::path::Path;
use std::time::Duration;

use super::document::{Map, Node, Problems};
use super::{INGRESS, Placement, egress, listens, tls, values};
use crate::exchange::Policy;
use crate::http::retries::Policies;
use crate::ingress::{Config, Replay, Route, Routes};
use crate::keys;
use crate::upstream::{HostPattern, Origin};

/// How long Alipay+ waits for the operations that move money (PROTOCOL of Alipay+: pay, refund,
/// cancelPayment).
const MONEY: Duration = Duration::from_secs(8);
/// How long it waits for all others.
const OTHERS: Duration = Duration::from_secs(5);

/// Reads the section.
pub fn read(
    mut section: Map,
    keys: &keys::Config,
    (folder, placement): (&Path, &Placement),
    problems: &mut Problems,
) -> Option<Config> {
    let listen = match section.take("listen") {
        // Filled by the placement.
        None if !placement.ingress.is_empty() => Some(Vec::new()),
        None => {
            section.lacks("listen", problems);
            None
        }
        Some(node) => Some(listens(node, problems)),
    };
    let routes = section
        .need("routes", problems)
        .map(|node| routes(node, keys, problems));
    let tls = section.take("tls").and_then(|node| node.map(problems));
    let tls = tls.map(|section| tls::read(section, folder, problems));
    section.finish(problems);
    Some(Config {
        listen: listen?,
        // One that is there and wrong must not become plain HTTP.
        tls: match tls {
            Some(read) => Some(read?),
            None => None,
        },
        routes: Routes { routes: routes? },
    })
}

fn routes(node: Node, keys: &keys::Config, problems: &mut Problems) -> Vec<Route> {
    let place = node.place.clone();
    let nodes = node.list(problems);
    if nodes.is_empty() {
        problems.add(format!("{place}: at least one route is needed"));
    }
    let read: Vec<(Route, String)> = nodes
        .into_iter()
        .filter_map(|node| route(node, keys, problems))
        .collect();
    refuse_overlaps(&read, problems);
    read.into_iter().map(|(route, _)| route).collect()
}

/// The section for somebody who configured nothing: all that comes is for that app.
pub fn without_file(app: Origin) -> Config {
    Config {
        listen: INGRESS.parse().into_iter().collect(),
        tls: None,
        routes: Routes {
            routes: vec![usual(app)],
        },
    }
}

/// The route of a section that says nothing but its app.
fn usual(app: Origin) -> Route {
    Route {
        name: "/".to_owned(),
        hosts: Vec::new(),
        path_prefix: "/".to_owned(),
        identity: None,
        app,
        prefix_rewrite: None,
        verify: Policy::Enforce,
        max_skew: Some(Duration::from_mins(5)),
        replay: Replay::Report,
        retries: Policies::ingress(),
        keeps_overrides: false,
        timeout: OTHERS,
        timeouts: by_path(None, &mut Problems::default()),
        // A notification has a few KB; a stranger may send as much before he is found out.
        request_limit: 256 << 10,
        response_limit: 4 << 20,
    }
}

fn route(node: Node, keys: &keys::Config, problems: &mut Problems) -> Option<(Route, String)> {
    let place = node.place.clone();
    let mut section = node.map(problems)?;
    let app = section
        .need("app", problems)
        .and_then(|node| node.parse::<Origin>(problems));
    let hosts = section.take("hosts").map(|node| hosts(node, problems));
    let prefix = section
        .take("path_prefix")
        .and_then(|node| node.parse_with(problems, path));
    let name = section
        .take("name")
        .and_then(|node| node.parse_with(problems, values::name));
    let path_prefix = prefix.unwrap_or_else(|| "/".to_owned());
    let mut route = Route {
        name: name.unwrap_or_else(|| path_prefix.clone()),
        hosts: hosts.unwrap_or_default(),
        path_prefix,
        identity: identity(&mut section, keys, problems),
        prefix_rewrite: section
            .take("prefix_rewrite")
            .and_then(|node| node.parse_with(problems, path)),
        // Without its app the rest is still looked at; the file is refused anyway.
        ..usual(app.or_else(|| "http://127.0.0.1".parse().ok())?)
    };
    section.set("verify", &mut route.verify, values::policy, problems);
    section.set(
        "max_skew",
        &mut route.max_skew,
        values::duration_or_off,
        problems,
    );
    section.set("replay", &mut route.replay, values::replay, problems);
    let keeps = &mut route.keeps_overrides;
    section.set("override_fields", keeps, values::keeps_overrides, problems);
    let numbered = &mut route.retries.numbered;
    section.set("proxy_retries", numbered, values::retry_policy, problems);
    section.set("timeout", &mut route.timeout, values::duration, problems);
    section.set(
        "request_limit",
        &mut route.request_limit,
        values::size,
        problems,
    );
    section.set(
        "response_limit",
        &mut route.response_limit,
        values::size,
        problems,
    );
    let timeouts = section.take("timeouts").and_then(|node| node.map(problems));
    route.timeouts = by_path(timeouts, problems);
    section.finish(problems);
    Some((route, place))
}

/// The identity a section names. Without one it is that of the client the caller names.
fn identity(
    section: &mut Map,
    keys: &keys::Config,
    problems: &mut Problems,
) -> Option<countersign_protocol::ClientId> {
    let node = section.take("identity")?;
    egress::named_identity(&node, keys, problems)
}

/// The times of paths that end in certain ways: those given, and those of the protocol.
fn by_path(section: Option<Map>, problems: &mut Problems) -> Vec<(String, Duration)> {
    let mut times: Vec<(String, Duration)> = ["pay", "refund", "cancelPayment"]
        .map(|operation| (operation.to_owned(), MONEY))
        .to_vec();
    let given = section.map(Map::into_entries).into_iter().flatten();
    for (end, node) in given {
        let Some(time) = node.parse_with(problems, values::duration) else {
            continue;
        };
        times.retain(|(known, _)| *known != end);
        times.push((end, time));
    }
    // The most exact one decides.
    times.sort_by_key(|(end, _)| std::cmp::Reverse(end.len()));
    times
}

fn hosts(node: Node, problems: &mut Problems) -> Vec<HostPattern> {
    let place = node.place.clone();
    let items = node.list(problems);
    if items.is_empty() {
        problems.add(format!(
            "{place}: at least one host is needed; without the key all are meant"
        ));
    }
    items
        .iter()
        .filter_map(|item| item.parse(problems))
        .collect()
}

/// The beginning of a path.
fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') && !text.contains(['?', '#', ' ']) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "\"{text}\" is no path; it must begin with / and have no query"
        ))
    }
}

fn refuse_overlaps(routes: &[(Route, String)], problems: &mut Problems) {
    for (index, (route, place)) in routes.iter().enumerate() {
        for (earlier, earlier_place) in routes.iter().take(index) {
            if route.name == earlier.name {
                problems.add(format!("{place}: the name {} is taken already", route.name));
            }
            let same_prefix = route.path_prefix.trim_end_matches('/')
                == earlier.path_prefix.trim_end_matches('/');
            let one_enforces =
                (route.verify == Policy::Enforce) != (earlier.verify == Policy::Enforce);
            if same_prefix && one_enforces && route.app == earlier.app {
                problems.add(format!(
                    "{place}: only one of this and {earlier_place} has verify: enforce, and they \
                     lead to the same app by hosts alone, which the caller chooses"
                ));
            }
            if same_prefix && share_a_host(route, earlier) {
                problems.add(format!(
                    "{place}: {} is in two routes ({earlier_place})",
                    route.path_prefix
                ));
            }
        }
    }
}

/// Named hosts go before a route for all hosts, so these two never compete.
fn share_a_host(route: &Route, other: &Route) -> bool {
    let both_for_all = route.hosts.is_empty() && other.hosts.is_empty();
    both_for_all
        || route
            .hosts
            .iter()
            .any(|host| other.hosts.iter().any(|one| one.overlaps(host)))
}
