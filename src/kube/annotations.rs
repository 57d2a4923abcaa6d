//! The one table of annotations: names, values, defaults and what each is for.
//!
//! Pods carry them with a prefix; the file of defaults and `inject --set` take the same names without it. Everything
//! that tells of them reads this table: parsing, errors, the help of the command, and a test that holds the
//! documentation against it.

use std::collections::BTreeMap;

use super::values::{self, Check};

/// What the names of all annotations begin with.
pub const PREFIX: &str = "countersign.dev/";

/// One annotation.
#[derive(Clone, Copy, Debug)]
pub struct Annotation {
    /// Which.
    pub name: Name,
    /// Its name without the prefix.
    pub text: &'static str,
    /// What may stand there, for people.
    pub values: &'static str,
    /// What holds where neither pod nor defaults say more.
    pub default: Option<&'static str>,
    /// What it is for.
    pub what: &'static str,
    check: Check,
}

macro_rules! annotations {
    ($($name:ident $text:literal, $values:literal, $default:expr, $check:expr, $what:literal;)*) => {
        /// The name of an annotation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Name {
            $(#[doc = $what] $name,)*
        }

        /// Every annotation that people write.
        pub const TABLE: &[Annotation] = &[$(Annotation {
            name: Name::$name,
            text: $text,
            values: $values,
            default: $default,
            what: $what,
            check: $check,
        },)*];

        impl Name {
            /// The name without the prefix.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            fn default(self) -> Option<&'static str> {
                match self { $(Self::$name => $default,)* }
            }
        }
    };
}

annotations! {
    Inject "inject", "`enabled`, `disabled`", Some("disabled"), |text| values::switch(text).map(drop),
        "whether the pod gets the sidecar";
    Keys "keys", "name of a Secret", None, |text| values::object(text).map(drop),
        "the Secret with the key files, seen by the sidecar alone at /etc/countersign/keys";
    ClientId "client-id", "client id", None, |text| values::parsed::<values::ClientId>(text).map(drop),
        "the partner's client id; in place of `config`";
    PrivateKey "private-key", "file in the Secret", Some("partner.pem"), |text| values::file(text).map(drop),
        "the partner's private key";
    AlipayPublicKey "alipay-public-key", "file in the Secret", Some("alipayplus.pub.pem"), |text| values::file(text).map(drop),
        "Alipay+'s public key";
    KeyVersion "key-version", "number", Some("1"), |text| values::parsed::<values::KeyVersion>(text).map(drop),
        "the version of both keys";
    Config "config", "name of a ConfigMap", None, |text| values::object(text).map(drop),
        "the `ConfigMap` with `config.yaml`, at /etc/countersign/config; in place of `client-id` and its files";
    WayIn "way-in", "`none`, `env`, `hostAliases`, `redirect`", Some("env"), |text| values::way_in(text).map(drop),
        "how the app's calls come to the sidecar";
    Hosts "hosts", "host names",
        Some("open-na.alipayplus.com,open-na-global.alipayplus.com,open-sea.alipayplus.com,open-sea-global.alipayplus.com"),
        |text| values::hosts(text).map(drop), "the gateway's names, with `way-in: hostAliases`";
    NoProxy "no-proxy", "host names, networks", None, |text| values::no_proxy(text).map(drop),
        "what else goes past the sidecar, with `way-in: env`";
    RedirectPorts "redirect-ports", "ports", Some("443,80"), |text| values::ports(text).map(drop),
        "the destination ports that are led to the sidecar, with `way-in: redirect`";
    RedirectExemptNetworks "redirect-exempt-networks", "networks", None, |text| values::networks(text).map(drop),
        "destinations that are not, with `way-in: redirect`";
    DefaultHost "default-host", "host name", None, |text| values::host(text).map(drop),
        "the gateway for requests to the sidecar itself; without `config`";
    Upstream "upstream", "URL", None, |text| values::origin(text).map(drop),
        "where signed requests go instead, such as to a sandbox; without `config`";
    UpstreamCa "upstream-ca", "file in the Secret", None, |text| values::file(text).map(drop),
        "CA certificates trusted besides the usual ones; without `config`";
    App "app", "URL or port", None, |text| values::app(text).map(drop),
        "the app, for calls from Alipay+, which turns ingress on; without `config`";
    EgressPort "egress-port", "port from 1024", Some("18441"), |text| values::own_port(text).map(drop),
        "where the app finds the sidecar, on loopback";
    IngressPort "ingress-port", "port from 1024", Some("18442"), |text| values::own_port(text).map(drop),
        "where calls from Alipay+ arrive";
    AdminPort "admin-port", "port from 1024", Some("18449"), |text| values::own_port(text).map(drop),
        "where probes and Prometheus ask";
    Containers "containers", "names of containers", None, |text| values::containers(text).map(drop),
        "the containers that get the variables; without it all of the app's, but no init container";
    Trust "trust", "`enabled`, `disabled`", Some("enabled"), |text| values::switch(text).map(drop),
        "the folder with the local CA and the variables that name it";
    Sidecar "sidecar", "`native`, `classic`", Some("native"), |text| values::kind(text).map(drop),
        "an init container that stays, or one of the containers";
    Image "image", "image", Some(concat!("countersign:", env!("CARGO_PKG_VERSION"))), |text| values::image(text).map(drop),
        "the sidecar's image";
    RedirectImage "redirect-image", "image", Some(concat!("countersign:", env!("CARGO_PKG_VERSION"), "-redirect")), |text| values::image(text).map(drop),
        "the image that sets the rules of `way-in: redirect`";
    ImagePullPolicy "image-pull-policy", "`Always`, `IfNotPresent`, `Never`", Some("IfNotPresent"),
        |text| values::pull_policy(text).map(drop), "when the images are pulled";
    CpuRequest "cpu-request", "quantity, `none`", Some("50m"), |text| values::quantity(text).map(drop),
        "the sidecar's share of a CPU";
    CpuLimit "cpu-limit", "quantity, `none`", Some("none"), |text| values::quantity(text).map(drop),
        "its limit";
    MemoryRequest "memory-request", "quantity, `none`", Some("32Mi"), |text| values::quantity(text).map(drop),
        "the memory it is scheduled with";
    MemoryLimit "memory-limit", "quantity, `none`", Some("512Mi"), |text| values::quantity(text).map(drop),
        "its limit";
    RunAsUser "run-as-user", "number", Some("4343"), |text| values::uid(text).map(drop),
        "the sidecar's user and group";
    LogLevel "log-level", "as of `run --log-level`", Some("info"), |text| values::log_level(text).map(drop),
        "what it logs";
}

/// Written by us: its presence means that the pod was injected.
pub(super) const STATUS: &str = "status";

/// The longest value, in bytes: some hundred hosts. It is multiplied by the containers it goes to.
const LONGEST: usize = 4096;
/// Kubernetes takes no longer name behind a prefix.
const LONGEST_NAME: usize = 63;

/// Values by name, each good by itself.
pub(super) type Texts = BTreeMap<Name, String>;

/// Takes one value by the name people wrote, or says what is wrong with it.
pub(super) fn take(texts: &mut Texts, name: &str, value: &str) -> Result<(), String> {
    let Some(annotation) = TABLE.iter().find(|annotation| annotation.text == name) else {
        return Err(unknown(name));
    };
    if value.is_empty() {
        return Err("is empty; leave it out, or give it a value".to_owned());
    }
    if value.len() > LONGEST {
        let length = value.len();
        return Err(format!(
            "has {length} characters, and at most {LONGEST} may stand here"
        ));
    }
    (annotation.check)(value)?;
    texts.insert(annotation.name, value.to_owned());
    Ok(())
}

/// That there is no such name, and which one was meant.
fn unknown(name: &str) -> String {
    if name == STATUS {
        return "is written by the injector alone".to_owned();
    }
    if name.len() > LONGEST_NAME {
        return "there is none of this name, and none is as long".to_owned();
    }
    let near = TABLE.iter().map(|annotation| {
        let begins = annotation.text.starts_with(name) || name.starts_with(annotation.text);
        let likeness = strsim::jaro_winkler(annotation.text, name);
        (
            if begins { likeness.max(0.9) } else { likeness },
            annotation.text,
        )
    });
    match near.max_by(|(a, _), (b, _)| a.total_cmp(b)) {
        Some((likeness, nearest)) if likeness > 0.8 => {
            format!("there is none of this name; \"{nearest}\" may be meant")
        }
        _ => {
            let all: Vec<&str> = TABLE.iter().map(|annotation| annotation.text).collect();
            format!("there is none of this name; there are {}", all.join(", "))
        }
    }
}

/// What a pod says over what the defaults say over what the table says.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    pub(super) pod: &'a Texts,
    pub(super) defaults: &'a Texts,
}

impl Layers<'_> {
    /// The value that counts.
    pub(super) fn value(&self, name: Name) -> Option<&str> {
        let given = self.pod.get(&name).or_else(|| self.defaults.get(&name));
        given.map(String::as_str).or(name.default())
    }
}
