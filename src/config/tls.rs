//! The `tls` key of a listener: its certificate, and whose client certificates it takes.
//!
//! Refuses a word about client certificates without their CA, and intervals that would never notice a
//! change or do nothing else. Does not read the files; `net::certificate` does.

use std::path::Path;

use super::document::{Map, Node, Problems};
use super::{RELOAD_INTERVAL, path, values};
use crate::net::certificate::{Clients, Config, Source};

/// Reads the section.
pub fn read(mut section: Map, folder: &Path, problems: &mut Problems) -> Option<Config> {
    let certificate = section
        .need("certificate_file", problems)
        .and_then(|node| source(node, folder, problems));
    let key = section
        .need("key_file", problems)
        .and_then(|node| source(node, folder, problems));
    let ca = section.take("client_ca_file");
    let demand = section.take("client_certificates");
    if let (None, Some(node)) = (&ca, &demand) {
        node.problem("needs client_ca_file, the CAs they may come from", problems);
    }
    let ca = ca.and_then(|node| source(node, folder, problems));
    let required = demand.and_then(|node| node.parse_with(problems, demanded));
    let reload_interval = section
        .take("reload_interval")
        .and_then(|node| node.parse_with(problems, values::interval));
    section.finish(problems);
    Some(Config {
        certificate: certificate?,
        key: key?,
        clients: ca.map(|ca| Clients {
            ca,
            required: required.unwrap_or(true),
        }),
        reload_interval: reload_interval.unwrap_or(RELOAD_INTERVAL),
    })
}

fn source(node: Node, folder: &Path, problems: &mut Problems) -> Option<Source> {
    Some(Source {
        file: path(&node, folder, problems)?,
        place: node.place,
    })
}

fn demanded(text: &str) -> Result<bool, String> {
    match text {
        "required" => Ok(true),
        "optional" => Ok(false),
        _ => Err(format!("\"{text}\" is neither required nor optional")),
    }
}
