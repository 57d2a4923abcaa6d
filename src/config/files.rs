//! Every file and directory a configuration names.
//!
//! Called by whoever confines the process to them. Opens none.

use std::path::PathBuf;

use super::Config;

impl Config {
    /// All files that are read, at the start or again while the process runs; the configuration's own
    /// is not among them.
    pub fn files(&self) -> Vec<PathBuf> {
        // Taken apart without `..`, so that nobody adds a section and forgets its files.
        let Self {
            source: _,
            keys,
            egress: _,
            ingress,
            admin: _,
            extra_roots,
            ca: _,
            upstream,
            limits: _,
            drain: _,
            hardening: _,
            reload_interval: _,
        } = self;
        let mut files = keys.files();
        if let Some(tls) = ingress.as_ref().and_then(|section| section.tls.as_ref()) {
            let clients = tls.clients.iter().map(|clients| &clients.ca);
            let sources = [&tls.certificate, &tls.key].into_iter().chain(clients);
            files.extend(sources.map(|source| source.file.clone()));
        }
        files.extend(extra_roots.clone());
        let credentials = upstream
            .proxy
            .as_ref()
            .and_then(|proxy| proxy.credentials.as_ref());
        files.extend(credentials.map(|(file, _place)| file.clone()));
        files
    }
}
