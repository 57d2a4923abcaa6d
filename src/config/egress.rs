//! The `egress` section.
//!
//! Refuses two routes that could mean the same host: which one is taken must never depend on their
//! order.

use std::time::Duration;

use countersign_protocol::ClientId;

use super::document::{Map, Node, Problems};
use super::{EGRESS, listens, values};
use crate::egress::binding::MOST_NAMES;
use crate::egress::{
    Binding, ClientIdField, Config, Route, Routes, Transparent, Tunnels, Unmatched,
};
use crate::exchange::Policy;
use crate::http::retries::Policies;
use crate::keys;
use crate::upstream::{Host, HostPattern};

/// Hosts of Alipay+ that are signed for when no route is configured.
pub const ALIPAYPLUS: [&str; 3] = [
    "open-*-global.alipayplus.com",
    "open-na.alipayplus.com",
    "open-sea.alipayplus.com",
];
/// Where requests to the sidecar itself go when nothing else is configured.
const DEFAULT_HOST: &str = "open-sea-global.alipayplus.com";

/// Reads the section.
pub fn read(mut section: Map, keys: &keys::Config, problems: &mut Problems) -> Option<Config> {
    let listen = section.take("listen").map_or_else(
        || EGRESS.parse().into_iter().collect(),
        |node| listens(node, problems),
    );
    let default_host = section.take("default_host");
    let unmatched = match section.take("unmatched") {
        Some(node) => node.parse_with(problems, unmatched),
        None => Some(Unmatched::default()),
    };
    let request_timeout = match section.take("request_timeout") {
        Some(node) => node.parse_with(problems, values::duration),
        None => Some(REQUEST_TIMEOUT),
    };
    let routes: Vec<(Route, String)> = match section.take("routes") {
        Some(node) => {
            let items = node.list(problems).into_iter();
            items
                .filter_map(|item| route(item, keys, problems))
                .collect()
        }
        None => alipayplus(only_identity(keys))
            .map(|route| (route, section.place().to_owned()))
            .into_iter()
            .collect(),
    };
    let tunnel = section
        .take("tunnel")
        .and_then(|node| node.map(problems))
        .map_or_else(Tunnels::default, |section| tunnels(section, problems));
    let transparent = section
        .take("transparent")
        .and_then(|node| node.map(problems))
        .map_or_else(Transparent::default, |section| {
            transparent(section, problems)
        });
    section.finish(problems);
    refuse_overlaps(&routes, problems);
    let routes: Vec<Route> = routes.into_iter().map(|(route, _)| route).collect();
    let default_host = match default_host {
        Some(node) => {
            let host = node.parse(problems);
            if let Some(host) = &host
                && !routes.iter().any(|route| route.covers(host))
            {
                let text = "is in no route, so what is addressed to the sidecar itself could not be signed";
                node.problem(format!("{host} {text}"), problems);
            }
            host
        }
        None => DEFAULT_HOST
            .parse()
            .ok()
            .filter(|host| routes.iter().any(|r| r.covers(host))),
    };
    let routes = Routes {
        routes,
        default_host,
        unmatched: unmatched?,
    };
    Some(Config {
        listen,
        routes,
        request_timeout: request_timeout?,
        tunnel,
        transparent,
    })
}

fn tunnels(mut section: Map, problems: &mut Problems) -> Tunnels {
    let mut tunnels = Tunnels::default();
    if let Some(node) = section.take("ports") {
        tunnels.ports = Some(ports(node, problems));
    }
    section.set(
        "idle_timeout",
        &mut tunnels.idle_timeout,
        values::duration_or_off,
        problems,
    );
    section.finish(problems);
    tunnels
}

fn transparent(mut section: Map, problems: &mut Problems) -> Transparent {
    let mut transparent = Transparent::default();
    section.set(
        "enabled",
        &mut transparent.enabled,
        values::switch,
        problems,
    );
    section.set(
        "peek_timeout",
        &mut transparent.peek_timeout,
        values::duration,
        problems,
    );
    let self_check = &mut transparent.self_check;
    section.set("self_check", self_check, values::duration_or_off, problems);
    if let Some(node) = section.take("opaque_ports") {
        transparent.opaque_ports = ports(node, problems);
    }
    section.finish(problems);
    transparent
}

fn ports(node: Node, problems: &mut Problems) -> Vec<u16> {
    let nodes = node.list(problems);
    nodes
        .iter()
        .filter_map(|node| node.parse_with(problems, values::port))
        .collect()
}

/// How long a request's body may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The section for somebody who configured nothing; none when no route covers `default_host`.
pub fn without_file(default_host: Option<Host>, client_id: &ClientId) -> Option<Config> {
    let route = alipayplus(Some(client_id.clone()))?;
    let default_host = default_host.or_else(|| DEFAULT_HOST.parse().ok())?;
    if !route.covers(&default_host) {
        return None;
    }
    let routes = Routes {
        routes: vec![route],
        default_host: Some(default_host),
        unmatched: Unmatched::default(),
    };
    Some(Config {
        listen: EGRESS.parse().into_iter().collect(),
        routes,
        request_timeout: REQUEST_TIMEOUT,
        tunnel: Tunnels::default(),
        transparent: Transparent::default(),
    })
}

fn alipayplus(identity: Option<ClientId>) -> Option<Route> {
    let hosts: Result<Vec<HostPattern>, _> = ALIPAYPLUS.iter().map(|host| host.parse()).collect();
    Some(Route {
        name: "alipayplus".to_owned(),
        hosts: hosts.ok()?,
        identity,
        client_id_field: ClientIdField::default(),
        retries: Policies::egress(),
        upstream: None,
        accelerate: false,
        verify: Policy::Enforce,
        max_skew: Some(Duration::from_mins(5)),
        bind: Binding::default(),
        timeout: Duration::from_secs(15),
        request_limit: 4 << 20,
        response_limit: 4 << 20,
    })
}

fn route(node: Node, keys: &keys::Config, problems: &mut Problems) -> Option<(Route, String)> {
    let place = node.place.clone();
    let mut section = node.map(problems)?;
    let hosts: Vec<HostPattern> = section
        .need("hosts", problems)
        .map(|node| hosts(node, problems))
        .unwrap_or_default();
    let identity = identity(&mut section, keys, problems);
    let name = section
        .take("name")
        .and_then(|node| node.parse_with(problems, values::name));
    let mut route = alipayplus(identity)?;
    route.name = name
        .or_else(|| hosts.first().map(ToString::to_string))
        .unwrap_or_default();
    route.hosts = hosts;
    section.set(
        "client_id_field",
        &mut route.client_id_field,
        client_id_field,
        problems,
    );
    let retries = &mut route.retries;
    for (key, policy) in [
        ("proxy_retries", &mut retries.numbered),
        ("repeated_requests", &mut retries.same_content),
    ] {
        section.set(key, policy, values::retry_policy, problems);
    }
    route.upstream = section
        .take("upstream")
        .and_then(|node| node.parse(problems));
    if let Some(node) = section.take("bind") {
        route.bind = binding(node, problems);
    }
    section.set(
        "accelerate",
        &mut route.accelerate,
        values::switch,
        problems,
    );
    section.set("verify", &mut route.verify, values::policy, problems);
    section.set(
        "max_skew",
        &mut route.max_skew,
        values::duration_or_off,
        problems,
    );
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
    section.finish(problems);
    Some((route, place))
}

/// A list of names, or `off`.
fn binding(node: Node, problems: &mut Problems) -> Binding {
    if !node.is_list() {
        node.parse_with(problems, |text| match text {
            "off" => Ok(()),
            _ => Err(format!("\"{text}\" is neither a list of names nor off")),
        });
        return Binding::to(Vec::new());
    }
    let place = node.place.clone();
    let nodes = node.list(problems);
    if nodes.len() > MOST_NAMES {
        problems.add(format!("{place}: at most {MOST_NAMES} names are compared"));
    }
    let names = nodes
        .iter()
        .filter_map(|node| node.parse_with(problems, values::member));
    Binding::to(names.collect())
}

fn hosts(node: Node, problems: &mut Problems) -> Vec<HostPattern> {
    let place = node.place.clone();
    let items = node.list(problems);
    if items.is_empty() {
        problems.add(format!("{place}: a route needs at least one host"));
    }
    items
        .iter()
        .filter_map(|item| item.parse(problems))
        .collect()
}

/// The identity a section names, or the only one. Without one the app names it, request by request.
fn identity(section: &mut Map, keys: &keys::Config, problems: &mut Problems) -> Option<ClientId> {
    match section.take("identity") {
        Some(node) => named_identity(&node, keys, problems),
        None => only_identity(keys),
    }
}

/// The identity that is named here.
pub(super) fn named_identity(
    node: &Node,
    keys: &keys::Config,
    problems: &mut Problems,
) -> Option<ClientId> {
    let client_id: ClientId = node.parse(problems)?;
    if !keys.identities.iter().any(|one| one.client_id == client_id) {
        node.problem(
            format!("no identity has the client_id {client_id}"),
            problems,
        );
    }
    Some(client_id)
}

fn only_identity(keys: &keys::Config) -> Option<ClientId> {
    match keys.identities.as_slice() {
        [one] => Some(one.client_id.clone()),
        _ => None,
    }
}

fn refuse_overlaps(routes: &[(Route, String)], problems: &mut Problems) {
    for (index, (route, place)) in routes.iter().enumerate() {
        for (earlier, earlier_place) in routes.iter().take(index) {
            if route.name == earlier.name && route.hosts != earlier.hosts {
                problems.add(format!("{place}: the name {} is taken already", route.name));
            }
            let shared = route.hosts.iter().find_map(|host| {
                earlier
                    .hosts
                    .iter()
                    .find(|other| other.overlaps(host))
                    .map(|other| (host, other))
            });
            if let Some((host, other)) = shared {
                problems.add(format!(
                    "{place}: {host} is in two routes: it overlaps {other} ({earlier_place})"
                ));
            }
        }
    }
}

fn unmatched(text: &str) -> Result<Unmatched, String> {
    match text {
        "forward" => Ok(Unmatched::Forward),
        "refuse" => Ok(Unmatched::Refuse),
        _ => Err(format!("\"{text}\" is neither forward nor refuse")),
    }
}

fn client_id_field(text: &str) -> Result<ClientIdField, String> {
    match text {
        "enforce" => Ok(ClientIdField::Enforce),
        "ignore" => Ok(ClientIdField::Ignore),
        _ => Err(format!("\"{text}\" is neither enforce nor ignore")),
    }
}
