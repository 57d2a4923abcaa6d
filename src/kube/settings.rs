//! What one pod wants of its sidecar: annotations and defaults, as values that fit together.
//!
//! What the pod says counts before what the defaults say. A pod that names a `ConfigMap` takes none of the defaults for
//! pods without one, and the other way round; but what it says itself must not contradict itself. Called by
//! `inject` alone.

use ipnet::IpNet;

use super::annotations::{Layers, Name, PREFIX};
use super::values::{self, ClientId, KeyVersion, Kind, Past, Quantity, WayIn};
use crate::upstream::Host;

/// A pod's wishes, checked.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) keys: String,
    pub(super) source: Source,
    pub(super) way_in: Way,
    pub(super) egress_port: u16,
    pub(super) ingress_port: u16,
    pub(super) admin_port: u16,
    /// The containers that get variables, if not all of the app's.
    pub(super) containers: Option<Vec<String>>,
    pub(super) trust: bool,
    pub(super) kind: Kind,
    pub(super) image: String,
    pub(super) redirect_image: String,
    pub(super) pull_policy: &'static str,
    pub(super) cpu: Share,
    pub(super) memory: Share,
    pub(super) user: u32,
    pub(super) log_level: String,
}

/// Where the sidecar's configuration comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// A `ConfigMap` of this name.
    ConfigMap(String),
    Flags(Flags),
}

/// A configuration without a file.
#[derive(Debug)]
pub(super) struct Flags {
    pub(super) client_id: ClientId,
    pub(super) private_key: String,
    pub(super) alipay_public_key: String,
    pub(super) key_version: KeyVersion,
    pub(super) default_host: Option<Host>,
    pub(super) upstream: Option<String>,
    pub(super) upstream_ca: Option<String>,
    pub(super) app: Option<String>,
}

/// How the app's calls come to the sidecar, with what that needs.
#[derive(Debug)]
pub(super) enum Way {
    None,
    Env(Vec<Past>),
    HostAliases(Vec<Host>),
    Redirect { ports: Vec<u16>, exempt: Vec<IpNet> },
}

/// What is asked for of a resource, and what is allowed at the most.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) request: Option<Quantity>,
    pub(super) limit: Option<Quantity>,
}

/// What goes without a `ConfigMap` only.
pub(super) const WITHOUT_FILE: [Name; 8] = [
    Name::ClientId,
    Name::PrivateKey,
    Name::AlipayPublicKey,
    Name::KeyVersion,
    Name::DefaultHost,
    Name::Upstream,
    Name::UpstreamCa,
    Name::App,
];

/// What goes with one way in only.
const OF_A_WAY: [(Name, WayIn, &str); 5] = [
    (Name::Hosts, WayIn::HostAliases, "hostAliases"),
    (Name::NoProxy, WayIn::Env, "env"),
    (Name::RedirectPorts, WayIn::Redirect, "redirect"),
    (Name::RedirectExemptNetworks, WayIn::Redirect, "redirect"),
    (Name::RedirectImage, WayIn::Redirect, "redirect"),
];

impl Settings {
    /// Reads and checks them all.
    ///
    /// # Errors
    /// Everything that is missing or does not fit, one line each.
    pub(super) fn new(layers: &Layers<'_>) -> Result<Self, Vec<String>> {
        let mut reader = Reader {
            layers,
            problems: Vec::new(),
        };
        let settings = reader.settings();
        match settings {
            Some(settings) if reader.problems.is_empty() => Ok(settings),
            _ => Err(reader.problems),
        }
    }
}

/// Reads on after a problem, so that one run tells them all.
struct Reader<'a> {
    layers: &'a Layers<'a>,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn settings(&mut self) -> Option<Settings> {
        let keys = self.need(Name::Keys, values::object, "the Secret with the key files");
        let source = self.source();
        let way_in = self.way_in();
        let ports = self.ports();
        let cpu = self.share(Name::CpuRequest, Name::CpuLimit);
        let memory = self.share(Name::MemoryRequest, Name::MemoryLimit);
        let containers = self.read(Name::Containers, values::containers);
        let trust = self.read(Name::Trust, values::switch);
        let kind = self.read(Name::Sidecar, values::kind);
        let image = self.read(Name::Image, values::image);
        let redirect_image = self.read(Name::RedirectImage, values::image);
        let pull_policy = self.read(Name::ImagePullPolicy, values::pull_policy);
        let user = self.read(Name::RunAsUser, values::uid);
        let log_level = self.read(Name::LogLevel, values::log_level);
        let (egress_port, ingress_port, admin_port) = ports?;
        Some(Settings {
            keys: keys?,
            source: source?,
            way_in: way_in?,
            egress_port,
            ingress_port,
            admin_port,
            containers,
            trust: trust?,
            kind: kind?,
            image: image?,
            redirect_image: redirect_image?,
            pull_policy: pull_policy?,
            cpu,
            memory,
            user: user?,
            log_level: log_level?,
        })
    }

    fn source(&mut self) -> Option<Source> {
        let (pod, defaults) = (self.layers.pod, self.layers.defaults);
        let has_file = pod.contains_key(&Name::Config)
            || !pod.contains_key(&Name::ClientId) && defaults.contains_key(&Name::Config);
        if !has_file {
            return self.flags().map(Source::Flags);
        }
        for name in WITHOUT_FILE
            .into_iter()
            .filter(|name| pod.contains_key(name))
        {
            let whose = if pod.contains_key(&Name::Config) {
                "is here, too"
            } else {
                "is among the defaults"
            };
            self.problem(
                name,
                format!("goes without {PREFIX}config only, which {whose}; config.yaml says this"),
            );
        }
        self.read(Name::Config, values::object)
            .map(Source::ConfigMap)
    }

    fn flags(&mut self) -> Option<Flags> {
        let client_id = self.need(
            Name::ClientId,
            values::parsed,
            "the partner's client id, or config with the name of a ConfigMap",
        );
        let private_key = self.read(Name::PrivateKey, values::file);
        let alipay_public_key = self.read(Name::AlipayPublicKey, values::file);
        let key_version = self.read(Name::KeyVersion, values::parsed);
        let default_host = self.read(Name::DefaultHost, values::host);
        let upstream = self.read(Name::Upstream, values::origin);
        let upstream_ca = self.read(Name::UpstreamCa, values::file);
        let app = self.read(Name::App, values::app);
        Some(Flags {
            client_id: client_id?,
            private_key: private_key?,
            alipay_public_key: alipay_public_key?,
            key_version: key_version?,
            default_host,
            upstream,
            upstream_ca,
            app,
        })
    }

    fn way_in(&mut self) -> Option<Way> {
        let way = self.read(Name::WayIn, values::way_in)?;
        for (name, needed, word) in OF_A_WAY {
            if way != needed && self.layers.pod.contains_key(&name) {
                self.problem(name, format!("goes with {PREFIX}way-in: {word} only"));
            }
        }
        Some(match way {
            WayIn::None => Way::None,
            WayIn::Env => {
                let past = self.read(Name::NoProxy, values::no_proxy);
                let past = past.unwrap_or_default();
                self.past_the_gateway(&past);
                Way::Env(past)
            }
            WayIn::HostAliases => Way::HostAliases(self.read(Name::Hosts, values::hosts)?),
            WayIn::Redirect => Way::Redirect {
                ports: self.read(Name::RedirectPorts, values::ports)?,
                exempt: self
                    .read(Name::RedirectExemptNetworks, values::networks)
                    .unwrap_or_default(),
            },
        })
    }

    /// What is left out of the proxy must not be what is signed.
    fn past_the_gateway(&mut self, past: &[Past]) {
        let mut hosts = self.read(Name::Hosts, values::hosts).unwrap_or_default();
        hosts.extend(self.read(Name::DefaultHost, values::host));
        for one in past {
            let Past::Name(text) = one else { continue };
            let name = text.trim_start_matches('.');
            let is_below = |host: &str| {
                let rest = host.strip_suffix(name);
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            };
            if let Some(host) = hosts.iter().find(|host| is_below(host.as_str())) {
                let problem =
                    format!("{text} would lead calls to {host} past the sidecar, unsigned");
                self.problem(Name::NoProxy, problem);
            }
        }
    }

    /// Of egress, ingress and admin; all different.
    fn ports(&mut self) -> Option<(u16, u16, u16)> {
        let egress = self.read(Name::EgressPort, values::own_port)?;
        let ingress = self.read(Name::IngressPort, values::own_port)?;
        let admin = self.read(Name::AdminPort, values::own_port)?;
        for (name, port, others) in [
            (Name::IngressPort, ingress, &[egress] as &[u16]),
            (Name::AdminPort, admin, &[egress, ingress]),
        ] {
            if others.contains(&port) {
                self.problem(
                    name,
                    format!("{port} is another port of the sidecar already"),
                );
            }
        }
        Some((egress, ingress, admin))
    }

    fn share(&mut self, request_name: Name, limit_name: Name) -> Share {
        let request = self.read(request_name, values::quantity).flatten();
        let limit = self.read(limit_name, values::quantity).flatten();
        if let (Some(request), Some(limit)) = (&request, &limit)
            && request.amount > limit.amount
        {
            let (request, limit) = (&request.text, &limit.text);
            self.problem(
                request_name,
                format!("{request} is more than {}, {limit}", limit_name.as_str()),
            );
        }
        Share { request, limit }
    }

    fn need<T>(
        &mut self,
        name: Name,
        parse: impl Fn(&str) -> Result<T, String>,
        what: &str,
    ) -> Option<T> {
        if self.layers.value(name).is_none() {
            self.problem(name, format!("is missing; it names {what}"));
        }
        self.read(name, parse)
    }

    fn read<T>(&mut self, name: Name, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let parsed = parse(self.layers.value(name)?);
        parsed.map_err(|error| self.problem(name, error)).ok()
    }

    fn problem(&mut self, name: Name, what: impl std::fmt::Display) {
        let name = name.as_str();
        self.problems
            .push(format!("annotation {PREFIX}{name}: {what}"));
    }
}
