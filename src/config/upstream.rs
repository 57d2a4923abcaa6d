//! The `resolve` and `upstream_proxy` sections: how destinations are reached.
//!
//! Refuses proxies that are not plain HTTP, and entries that would silently never match. Does not read
//! the credentials; `upstream` does.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::document::{Map, Node, Problems};
use super::path;
use crate::upstream::nameservers::{DNS, Nameservers};
use crate::upstream::{Config, Host, Origin, proxy, resolve};

/// What stands for the nameservers of `/etc/resolv.conf`.
const SYSTEM: &str = "system";

/// Reads both sections.
pub fn read(map: &mut Map, folder: &Path, problems: &mut Problems) -> Config {
    let resolve = map
        .take("resolve")
        .and_then(|node| node.map(problems))
        .map(|section| resolve_section(section, problems));
    let proxy = map
        .take("upstream_proxy")
        .and_then(|node| node.map(problems))
        .and_then(|section| proxy_section(section, folder, problems));
    Config {
        resolve: resolve.unwrap_or_default(),
        proxy,
    }
}

fn resolve_section(mut section: Map, problems: &mut Problems) -> resolve::Config {
    let mut config = resolve::Config::default();
    if let Some(node) = section.take("nameservers") {
        config.nameservers = listed_or_system(node, problems);
    }
    if let Some(hosts) = section.take("hosts").and_then(|node| node.map(problems)) {
        config.hosts = fixed(hosts, problems);
    }
    section.finish(problems);
    config
}

fn listed_or_system(node: Node, problems: &mut Problems) -> Nameservers {
    if !node.is_list() {
        node.parse_with(problems, |text| match text {
            SYSTEM => Ok(()),
            _ => Err(format!(
                "\"{text}\" is neither a list of addresses nor {SYSTEM}"
            )),
        });
        return Nameservers::System;
    }
    let what = "at least one nameserver is needed; without the key the system's resolver is asked";
    Nameservers::Listed(some(node, what, problems, nameserver))
}

/// `system`, or nameservers with commas between them.
pub fn nameservers(text: &str) -> Result<Nameservers, String> {
    if text == SYSTEM {
        return Ok(Nameservers::System);
    }
    let listed: Result<_, String> = text.split(',').map(nameserver).collect();
    listed
        .map(Nameservers::Listed)
        .map_err(|error| format!("{error}; or {SYSTEM}"))
}

fn fixed(hosts: Map, problems: &mut Problems) -> BTreeMap<Host, Vec<IpAddr>> {
    let mut fixed = BTreeMap::new();
    for (name, node) in hosts.into_entries() {
        let host = match name.parse::<Host>() {
            Ok(host) if host.ip().is_none() => host,
            Ok(_) => {
                node.problem(
                    format!("\"{name}\" is an address already; a host name is needed"),
                    problems,
                );
                continue;
            }
            Err(error) => {
                node.problem(error, problems);
                continue;
            }
        };
        if fixed.contains_key(&host) {
            node.problem(format!("{host} is given twice"), problems);
        }
        let what = "at least one IP address is needed";
        fixed.insert(host, some(node, what, problems, address));
    }
    fixed
}

/// The items of a list that must not be empty.
fn some<T>(
    node: Node,
    otherwise: &str,
    problems: &mut Problems,
    parse: fn(&str) -> Result<T, String>,
) -> Vec<T> {
    if node.is_empty_list() {
        node.problem(otherwise, problems);
    }
    let items = node.list(problems);
    items
        .iter()
        .filter_map(|item| item.parse_with(problems, parse))
        .collect()
}

fn nameserver(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse::<SocketAddr>();
    let address = with_port.or_else(|_bare| text.parse().map(|ip| SocketAddr::new(ip, DNS)));
    address.ok().filter(|address| address.port() != 0).ok_or_else(|| {
        format!("\"{text}\" is no nameserver's IP address; write it like 10.0.0.10, 10.0.0.10:53 or [2001:db8::1]:53")
    })
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_syntax| {
        format!("\"{text}\" is no IP address; write it like 203.0.113.7 or 2001:db8::7")
    })
}

fn proxy_section(
    mut section: Map,
    folder: &Path,
    problems: &mut Problems,
) -> Option<proxy::Config> {
    let origin = section
        .need("url", problems)
        .and_then(|node| node.parse_with(problems, proxy_url));
    let credentials = section.take("credentials_file").and_then(|node| {
        let file = path(&node, folder, problems)?;
        Some((file, node.place))
    });
    let bypass = section.take("no_proxy").map(|node| node.list(problems));
    let bypass = bypass.unwrap_or_default();
    let bypass = bypass
        .iter()
        .filter_map(|entry| entry.parse_with(problems, bypassed))
        .collect();
    section.finish(problems);
    let Origin { host, port, .. } = origin?;
    Some(proxy::Config {
        host,
        port,
        credentials,
        bypass,
    })
}

fn proxy_url(text: &str) -> Result<Origin, String> {
    // Not quoted, as it may hold a password.
    if text.contains('@') {
        return Err(
            "no user name or password belongs into the URL; write them into credentials_file"
                .to_owned(),
        );
    }
    match text.parse::<Origin>() {
        Ok(origin) if !origin.secure => Ok(origin),
        Err(error) if text.starts_with("http://") => Err(error.to_string()),
        _ => Err(format!(
            "\"{text}\" is no proxy reached over plain HTTP, the only kind supported; write it like \
             http://proxy.example:3128"
        )),
    }
}

/// One entry of `no_proxy` in the form the matcher knows.
fn bypassed(text: &str) -> Result<String, String> {
    let network = || {
        let (ip, bits) = text.split_once('/')?;
        let most = if ip.parse::<IpAddr>().ok()?.is_ipv4() {
            32
        } else {
            128
        };
        (bits.parse::<u8>().ok()? <= most).then(|| text.to_owned())
    };
    let domain = || {
        let (dot, name) = match text.strip_prefix('.') {
            Some(name) => (".", name),
            None => ("", text),
        };
        Some(format!("{dot}{}", name.parse::<Host>().ok()?.as_str()))
    };
    let ip = || text.parse().ok().map(|ip: IpAddr| ip.to_string());
    if text == "*" {
        return Ok(text.to_owned());
    }
    network().or_else(ip).or_else(domain).ok_or_else(|| {
        format!("\"{text}\" is none of a host, .domain, IP address, network like 10.0.0.0/8, *")
    })
}
