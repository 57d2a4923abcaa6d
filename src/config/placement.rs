//! Where a sidecar stands, as its command line says it beside the configuration.
//!
//! A pod, a unit of systemd or a composed service decides on addresses and folders; the file says what is
//! signed for whom and need not know them. What is said here takes the place of what the file says, at
//! the start and at every reload. Refuses addresses that exclude each other, whoever named them. Called by
//! the loader.

use std::path::PathBuf;
use std::time::Duration;

use super::Config;
use super::document::Problems;
use crate::admin;
use crate::net::listener::Place;
use crate::upstream::nameservers::Nameservers;

/// How often the redirect rules are checked where the file does not say it.
const SELF_CHECK: Duration = Duration::from_mins(1);

/// Where a sidecar stands; what is empty or absent is left as the file has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Where egress listens, if there is egress.
    pub egress: Vec<Place>,
    /// Where ingress listens, if there is ingress.
    pub ingress: Vec<Place>,
    /// Where operators are answered, with or without a section in the file.
    pub admin: Option<Place>,
    /// Where what apps need to trust the local CA is written.
    pub trust_directory: Option<PathBuf>,
    /// Where the local CA is kept.
    pub ca_directory: Option<PathBuf>,
    /// Who is asked for names.
    pub nameservers: Option<Nameservers>,
    /// Whether it is checked that the kernel's redirect rules are in force.
    pub redirect_self_check: bool,
}

impl Placement {
    /// Puts a configuration there, and looks whether all of it can listen.
    pub(super) fn apply(&self, config: &mut Config, problems: &mut Problems) {
        // Taken apart without `..`, so that nobody adds a field and forgets to apply it.
        let Self {
            egress,
            ingress,
            admin,
            trust_directory,
            ca_directory,
            nameservers,
            redirect_self_check,
        } = self;
        if let Some(section) = config.egress.as_mut().filter(|_| *redirect_self_check) {
            let usual = section.transparent.self_check.or(Some(SELF_CHECK));
            section.transparent.self_check = usual;
        }
        if let Some(section) = config.egress.as_mut().filter(|_| !egress.is_empty()) {
            section.listen.clone_from(egress);
        }
        if let Some(section) = config.ingress.as_mut().filter(|_| !ingress.is_empty()) {
            section.listen.clone_from(ingress);
        }
        if let Some(listen) = *admin {
            config.admin = Some(admin::Config { listen });
        }
        if trust_directory.is_some() {
            config.ca.trust_directory.clone_from(trust_directory);
        }
        if ca_directory.is_some() {
            config.ca.directory.clone_from(ca_directory);
        }
        if let Some(nameservers) = nameservers {
            config.upstream.resolve.nameservers = nameservers.clone();
        }
        refuse_shared_addresses(config, problems);
    }
}

fn refuse_shared_addresses(config: &Config, problems: &mut Problems) {
    let mut taken: Vec<(Place, &str)> = Vec::new();
    let egress = config.egress.iter().flat_map(|section| &section.listen);
    let ingress = config.ingress.iter().flat_map(|section| &section.listen);
    let admin = config.admin.iter().map(|section| &section.listen);
    let all = egress
        .map(|address| (*address, "egress"))
        .chain(ingress.map(|address| (*address, "ingress")))
        .chain(admin.map(|address| (*address, "admin")));
    for (address, section) in all.filter(|(address, _)| address.port() != 0) {
        let other = taken.iter().find(|(one, _)| one.excludes(address));
        let text = match other {
            Some((one, other)) if *one == address => {
                format!("{other} and {section} both listen on {address}")
            }
            Some((one, other)) => {
                format!("{other} listens on {one}, and so {section} cannot on {address}")
            }
            None => {
                taken.push((address, section));
                continue;
            }
        };
        problems.add(format!("{}: {text}", config.source));
    }
}
