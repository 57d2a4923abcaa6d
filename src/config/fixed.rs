//! What a running process cannot take over from a changed configuration.
//!
//! Sockets that are open, the budgets they share, the CA that apps trust and what the process has denied
//! itself stay as they were at the start. A reload that would change one of them is refused whole, so that no process ever runs by half
//! of a file.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Config;
use crate::net::certificate;
use crate::{egress, ingress, upstream};

impl Config {
    /// The keys of the file whose change needs a restart and that differ in `next`.
    pub fn needs_restart(&self, next: &Self) -> Vec<&'static str> {
        let egress = |of: fn(&egress::Config) -> Vec<String>| {
            self.egress.as_ref().map(of) == next.egress.as_ref().map(of)
        };
        let ingress = |of: fn(&ingress::Config) -> Vec<String>| {
            self.ingress.as_ref().map(of) == next.ingress.as_ref().map(of)
        };
        let admin = |config: &Self| config.admin.as_ref().map(|admin| admin.listen);
        let same = [
            ("egress.listen", egress(|one| written(&one.listen))),
            ("ingress.listen", ingress(|one| written(&one.listen))),
            (
                "ingress.tls",
                ingress(|one| one.tls.iter().flat_map(certificate).collect()),
            ),
            ("admin", admin(self) == admin(next)),
            ("upstream_tls.ca_file", self.extra_roots == next.extra_roots),
            ("ca", self.ca == next.ca),
            (
                "the hosts of egress.routes",
                self.signed_hosts() == next.signed_hosts(),
            ),
            ("resolve", self.upstream.resolve == next.upstream.resolve),
            (
                "upstream_proxy",
                proxy(&self.upstream) == proxy(&next.upstream),
            ),
            ("limits", self.limits == next.limits),
            ("drain", self.drain == next.drain),
            ("hardening", self.hardening == next.hardening),
            (
                "pkcs11 (the first key in a token, with hardening.landlock)",
                !self.hardening.landlock || self.keys.has_token() || !next.keys.has_token(),
            ),
            (
                "reload_interval",
                self.reload_interval == next.reload_interval,
            ),
        ];
        let differing = same.into_iter().filter(|(_, same)| !same);
        differing.map(|(key, _)| key).collect()
    }

    /// The patterns of all hosts whose requests are signed: those the local CA vouches for.
    pub fn signed_hosts(&self) -> BTreeSet<String> {
        let sections = self.egress.iter();
        let routes = sections.flat_map(|egress| &egress.routes.routes);
        let hosts = routes.flat_map(|route| &route.hosts);
        hosts.map(ToString::to_string).collect()
    }
}

fn written<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// Without the places where the file names them, which move with every line above.
fn certificate(tls: &certificate::Config) -> Vec<String> {
    let clients = tls.clients.as_ref();
    let authority = clients.map(|clients| (clients.ca.file.clone(), clients.required));
    vec![format!(
        "{:?}",
        (
            &tls.certificate.file,
            &tls.key.file,
            authority,
            tls.reload_interval
        )
    )]
}

fn proxy(config: &upstream::Config) -> Option<(String, Option<&PathBuf>, &[String])> {
    let proxy = config.proxy.as_ref()?;
    let credentials = proxy.credentials.as_ref().map(|(file, _place)| file);
    Some((proxy.to_string(), credentials, &proxy.bypass))
}
