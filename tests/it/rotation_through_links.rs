//! Keys, certificates and the configuration are reloaded however many links lead to them, also under Landlock.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use crate::support::Files;
use crate::support::pki::Pki;
use crate::support::process::{PATIENCE, Sidecar, command, text};
use crate::support::raw::send;
use crate::support::rotation::key;

/// How a file is reached, and what is exchanged to rotate it. `{}` is the root of all paths, `K` the file's name.
struct Layout {
    name: &'static str,
    /// The path in the configuration.
    named: &'static str,
    links: &'static [(&'static str, &'static str)],
    /// Where the first and the second version are.
    versions: [&'static str; 2],
    /// The link that is swapped, and its new target.
    swap: (&'static str, &'static str),
}

const LAYOUTS: &[Layout] = &[
    Layout {
        name: "a Secret as Kubernetes mounts it",
        named: "keys/K",
        links: &[("keys/K", "..data/K"), ("keys/..data", "..v1")],
        versions: ["keys/..v1/K", "keys/..v2/K"],
        swap: ("keys/..data", "..v2"),
    },
    Layout {
        name: "a link into a mounted Secret",
        named: "keys/K",
        links: &[
            ("keys/K", "{}/mnt/secret/K"),
            ("mnt/secret/K", "..data/K"),
            ("mnt/secret/..data", "..v1"),
        ],
        versions: ["mnt/secret/..v1/K", "mnt/secret/..v2/K"],
        swap: ("mnt/secret/..data", "..v2"),
    },
    Layout {
        name: "the same, relative and through its parent",
        named: "keys/K",
        links: &[
            ("keys/K", "../mnt/secret/../secret/K"),
            ("mnt/secret/K", "..data/K"),
            ("mnt/secret/..data", "..v1"),
        ],
        versions: ["mnt/secret/..v1/K", "mnt/secret/..v2/K"],
        swap: ("mnt/secret/..data", "..v2"),
    },
    Layout {
        name: "a folder that is a link",
        named: "keys/current/K",
        links: &[
            ("keys/current", "{}/releases/live"),
            ("releases/live", "v1"),
        ],
        versions: ["releases/v1/K", "releases/v2/K"],
        swap: ("releases/live", "v2"),
    },
    Layout {
        name: "the first of four links",
        named: "a/K",
        links: &[
            ("a/K", "{}/b/K"),
            ("b/K", "../c/K"),
            ("c/K", "{}/d/e/K"),
            ("d/e", "f"),
        ],
        versions: ["d/f/K", "a/K2"],
        swap: ("a/K", "K2"),
    },
    Layout {
        name: "the last of four links",
        named: "a/K",
        links: &[
            ("a/K", "{}/b/K"),
            ("b/K", "../c/K"),
            ("c/K", "{}/d/e/K"),
            ("d/e", "f"),
        ],
        versions: ["d/f/K", "d/g/K"],
        swap: ("d/e", "g"),
    },
];

impl Layout {
    /// Lays out two versions of a file, and returns its path.
    fn lay_out(&self, root: &Path, name: &str, versions: [&[u8]; 2]) -> String {
        let at = |path: &str| root.join(path.replace('K', name));
        for (path, content) in self.versions.iter().zip(versions) {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), content).unwrap();
        }
        for (link, target) in self.links {
            fs::create_dir_all(at(link).parent().unwrap()).unwrap();
            let target = target.replace('K', name).replace("{}", text(root));
            // A folder's link is there already for the second file.
            let _exists = symlink(target, at(link));
        }
        text(&at(self.named)).to_owned()
    }

    /// Exchanges the link at once, as everybody does who rotates.
    fn rotate(&self, root: &Path, name: &str) {
        let (link, target) = self.swap;
        let (link, target) = (
            root.join(link.replace('K', name)),
            target.replace('K', name),
        );
        symlink(target, root.join("swap")).unwrap();
        fs::rename(root.join("swap"), link).unwrap();
    }
}

async fn metrics(sidecar: &Sidecar) -> String {
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    send(sidecar.admin, request).await.text()
}

/// The keys in use.
fn key_lines(metrics: &str) -> BTreeSet<String> {
    let lines = metrics.lines();
    let keys = lines.filter(|line| line.starts_with("countersign_key_info{"));
    keys.map(ToOwned::to_owned).collect()
}

async fn until_reloaded(sidecar: &Sidecar, what: &str, layout: &str) {
    let start = Instant::now();
    let ok = format!("countersign_reloads_total{{result=\"ok\",what=\"{what}\"}} 1");
    loop {
        let metrics = metrics(sidecar).await;
        if metrics.lines().any(|line| line == ok) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{layout}: no reload of {what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_layout_of_links_is_reloaded_for_every_kind_of_file() {
    let (pki, next_key) = (Pki::new(), key());
    pki.authority("ca");
    pki.authority("next-ca");
    pki.leaf("localhost", "ca");
    pki.leaf("next", "ca");
    let certificates = |name: &str| {
        [
            pki.read(&format!("{name}.pem")),
            pki.read(&format!("{name}.key")),
        ]
    };
    let ([pem, own], [next_pem, next_own]) = (certificates("localhost"), certificates("next"));
    let ca = [pki.read("ca.pem"), pki.read("next-ca.pem")];
    let next_key_pem = next_key.to_pkcs8_pem();
    let next_public = key().public_key().to_spki_pem();
    for layout in LAYOUTS {
        let files = Files::new();
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let lay = |name: &str, versions: [&[u8]; 2]| layout.lay_out(root, name, versions);
        let read = |name: &str| fs::read(files.path(name)).unwrap();
        let signing = lay(
            "partner.pem",
            [&read("partner.pem"), next_key_pem.as_bytes()],
        );
        let verifying = lay(
            "theirs.pem",
            [&read("alipayplus.pem"), next_public.as_bytes()],
        );
        let certificate = lay("tls.crt", [pem.as_bytes(), next_pem.as_bytes()]);
        let key_file = lay("tls.key", [own.as_bytes(), next_own.as_bytes()]);
        let clients = lay("clients.pem", [ca[0].as_bytes(), ca[1].as_bytes()]);
        let config = format!(
            "reload_interval: 50ms\nidentities:\n  - client_id: C\n    signing_key: {{ file: {signing} }}\n    \
             verification_keys: [{{ file: {verifying} }}]\n\
             ingress:\n  listen: 127.0.0.1:0\n  tls: {{ certificate_file: {certificate}, key_file: {key_file}, \
             client_ca_file: {clients}, reload_interval: 50ms }}\n  \
             routes: [{{ app: \"http://127.0.0.1:1\" }}]\nadmin: {{ listen: \"127.0.0.1:0\" }}\n"
        );
        let other = config.replace("routes: [{ app", "routes: [{ name: other, app");
        let config = lay("config.yaml", [config.as_bytes(), other.as_bytes()]);
        let mut sidecar = Sidecar::start(command(&["run", "--config", &config]));
        let before = key_lines(&metrics(&sidecar).await);
        assert_eq!(before.len(), 2, "{before:?}");
        let swaps_a_folder = !layout.swap.0.contains('K');
        let rotate = |name: &str| layout.rotate(root, name);
        if swaps_a_folder {
            rotate("");
        } else {
            let names = [
                "tls.crt",
                "tls.key",
                "clients.pem",
                "partner.pem",
                "theirs.pem",
            ];
            names.into_iter().for_each(rotate);
            until_reloaded(&sidecar, "ingress_certificate", layout.name).await;
            rotate("config.yaml");
        }
        until_reloaded(&sidecar, "config", layout.name).await;
        until_reloaded(&sidecar, "ingress_certificate", layout.name).await;
        let after = key_lines(&metrics(&sidecar).await);
        assert!(before.is_disjoint(&after), "{}: {after:?}", layout.name);
        sidecar.signal("TERM");
        sidecar.wait_for(|line| line["message"] == "draining");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_outside_of_what_was_readable_at_the_start_is_explained_as_that() {
    let (files, elsewhere) = (Files::new(), tempfile::tempdir().unwrap());
    let file = files.config("http://127.0.0.1:1", "", "reload_interval: 50ms");
    let mut sidecar = Sidecar::run(&["run", "--config", text(&file)]);
    let mut lines = sidecar.log.iter();
    let hardened = lines.find(|line| line["message"] == "hardened").unwrap();
    let has_landlock = hardened["landlock"].as_str().unwrap().starts_with("on");
    let moved = elsewhere.path().join("partner.pem");
    fs::write(&moved, key().to_pkcs8_pem().as_bytes()).unwrap();
    symlink(&moved, files.path("swap")).unwrap();
    fs::rename(files.path("swap"), files.path("partner.pem")).unwrap();
    let line = sidecar.wait_for(|line| line["message"].as_str().unwrap().contains("reload"));
    let line = line.to_string();
    assert_eq!(
        line.contains("outside of the folders"),
        has_landlock,
        "{line}"
    );
    assert_eq!(line.contains("restart the sidecar"), has_landlock, "{line}");
    assert!(!line.contains("chmod"), "{line}");
}
