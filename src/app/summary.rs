//! What is configured, in words: for `check`, the log at start, and the admin page.
//!
//! Nothing secret is ever among it.

use countersign_protocol::ClientId;

use crate::config::Config;
use crate::egress::ClientIdField;
use crate::net::listener::Place;
use crate::telemetry::redact::redact;
use crate::{egress, ingress};

/// How a line begins that an operator should not overlook.
pub const WARNING: &str = "warning:";

/// The routes and what serves them, a line each.
pub(super) fn lines(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(section) = &config.egress {
        lines.extend(egress_lines(section));
        lines.push(match &config.ca.directory {
            Some(directory) => format!("ca: kept in {}", directory.display()),
            None => "ca: made in memory at the first need, anew after every restart".to_owned(),
        });
        if config.admin.is_some() {
            lines.push("ca: apps find it at /ca.pem of the admin port".to_owned());
        }
    }
    if let Some(directory) = &config.ca.trust_directory {
        let directory = directory.display();
        lines.push(format!("ca: what apps need to trust it is in {directory}"));
        if config.ca.directory.is_none() {
            lines.push(format!(
                "{WARNING} ca: a restart makes a new CA, which apps that run on do not trust; set \
                 ca.directory to keep it"
            ));
        }
    }
    lines.extend(config.upstream.lines());
    if let Some(section) = &config.ingress {
        lines.extend(ingress_lines(section));
    }
    if let Some(admin) = &config.admin {
        lines.push(format!("admin: listens on {}", admin.listen));
    }
    lines.iter().map(|line| redact(line).into_owned()).collect()
}

fn egress_lines(section: &egress::Config) -> Vec<String> {
    let mut lines = vec![format!("egress: listens on {}", joined(&section.listen))];
    for route in &section.routes.routes {
        let hosts: Vec<_> = route.hosts.iter().map(ToString::to_string).collect();
        let upstream = match &route.upstream {
            Some(origin) => origin.to_string(),
            None if route.accelerate => "the accelerated host over https".to_owned(),
            None => "the host asked for over https".to_owned(),
        };
        lines.push(format!(
            "egress route {}: {} signed as {}, sent to {upstream}, verify {}",
            route.name,
            hosts.join(" "),
            signer(route.identity.as_ref(), "the client the app names"),
            route.verify
        ));
        if route.client_id_field == ClientIdField::Ignore {
            lines.push(format!(
                "{WARNING} egress route {}: client_id_field is ignore, so a request that names a client \
                 which is not configured is signed all the same",
                route.name
            ));
        }
    }
    let default_host = section
        .routes
        .default_host
        .as_ref()
        .map(ToString::to_string);
    lines.push(format!(
        "egress: requests addressed to the sidecar itself go to {}; other hosts: {}",
        default_host
            .as_deref()
            .unwrap_or("nowhere (egress.default_host is not set)"),
        section.routes.unmatched
    ));
    lines
}

fn ingress_lines(section: &ingress::Config) -> Vec<String> {
    let mut lines = vec![format!("ingress: listens on {}", joined(&section.listen))];
    for route in &section.routes.routes {
        let hosts: Vec<_> = route.hosts.iter().map(ToString::to_string).collect();
        let hosts = if hosts.is_empty() {
            "any host".to_owned()
        } else {
            hosts.join(" ")
        };
        let identity = signer(route.identity.as_ref(), "the client the caller names");
        let path = match &route.prefix_rewrite {
            Some(rewrite) => format!("{} as {rewrite}", route.path_prefix),
            None => route.path_prefix.clone(),
        };
        lines.push(format!(
            "ingress route {}: {hosts} {path} to {}, answers signed as {identity}, verify {}, \
             replay {}",
            route.name, route.app, route.verify, route.replay
        ));
    }
    lines
}

fn signer(identity: Option<&ClientId>, otherwise: &str) -> String {
    identity.map_or_else(|| otherwise.to_owned(), ToString::to_string)
}

fn joined(addresses: &[Place]) -> String {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(" ")
}
