//! The `ingress` section: checked in full, but not served by this version.
//!
//! A file written for both directions stays valid; `run` and `check` say aloud that the way in is not
//! open, so nobody takes silence for service.

use super::document::{Map, Problems};
use super::{egress, values};
use crate::keys;
use crate::upstream::Origin;

/// Checks the section.
pub fn read(mut section: Map, keys: &keys::Config, problems: &mut Problems) {
    if let Some(node) = section.need("listen", problems) {
        node.parse_with(problems, values::address);
    }
    let routes = section
        .need("routes", problems)
        .map(|node| node.list(problems));
    for node in routes.unwrap_or_default() {
        if let Some(route) = node.map(problems) {
            check_route(route, keys, problems);
        }
    }
    section.finish(problems);
}

fn check_route(mut route: Map, keys: &keys::Config, problems: &mut Problems) {
    egress::identity(&mut route, keys, problems);
    if let Some(node) = route.take("path_prefix") {
        node.parse_with(problems, |text| {
            let absolute = text.starts_with('/');
            absolute
                .then_some(())
                .ok_or_else(|| format!("\"{text}\" must begin with /"))
        });
    }
    if let Some(node) = route.need("app", problems) {
        node.parse::<Origin>(problems);
    }
    if let Some(node) = route.take("verify") {
        node.parse_with(problems, values::policy);
    }
    if let Some(node) = route.take("max_skew") {
        node.parse_with(problems, values::duration_or_off);
    }
    route.finish(problems);
}
