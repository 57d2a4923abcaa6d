//! The dynamic image: it loads a PKCS#11 module, which the static one cannot.
//!
//! Its root is assembled of this machine's files in place of Debian's image, and the module on it
//! is SoftHSM, as a user would add a vendor's.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use countersign_protocol::PrivateKey;

use crate::support::netns::succeed;
use crate::support::podman::{Podman, repository, root_folder};
use crate::support::process::{countersign, text};
use crate::support::softhsm::{SOFTHSM, TOKEN, alone};

#[test]
fn a_key_in_a_token_signs_in_a_container() {
    alone(|tokens| {
        let key = PrivateKey::generate(2048).unwrap();
        tokens.import(&key.to_pkcs8_pem(), "partner", "01");
        let podman = Podman::new();
        let image = built(&podman);
        let message = ["--client-id", "C", "--uri", "/pay", "--time"];
        let message = [&message[..], &["2026-01-02T03:04:05Z", "--body"]].concat();

        tokens.write("body", "{}");
        // As the container sees it, and its user alone may write.
        let config = "directories.tokendir = /tokens/tokens\nobjectstore.backend = file\n";
        tokens.write("softhsm2.conf", config);
        give_to_the_sidecar(&tokens.path(""));
        let folder = format!("{}:/tokens", tokens.path("").display());
        let run = ["run", "--rm", "--network", "none", "--read-only"];
        let rights = ["--cap-drop", "all", "--security-opt", "no-new-privileges"];
        let token = [
            "--env",
            "SOFTHSM2_CONF=/tokens/softhsm2.conf",
            "-v",
            &folder,
        ];
        let sign = ["sign", "--pkcs11-module", SOFTHSM, "--token-label", TOKEN];
        let with = ["--key-label", "partner", "--pin-file", "/tokens/pin"];
        let line = [&run[..], &rights, &token, &[&image], &sign, &with, &message];
        let signature = podman.run(&[&line.concat()[..], &["/tokens/body"]].concat());

        let public = tokens.path("public.pem");
        fs::write(&public, key.public_key().to_spki_pem()).unwrap();
        let body = tokens.path("body");
        let verify = ["verify", "--public-key", text(&public), "--signature"];
        let verify = [&verify[..], &[signature.trim()], &message, &[text(&body)]];
        let verified = countersign(&verify.concat());
        assert!(verified.status.success(), "{verified:?}");
    });
}

/// The image, with this test's binary in place of a release build.
fn built(podman: &Podman) -> String {
    let binary = env!("CARGO_BIN_EXE_countersign");
    let root = podman.path("base");
    root_folder(&root, &[SOFTHSM, binary]);
    // Its libraries are wanted, itself comes with the image.
    fs::remove_file(root.join(binary.trim_start_matches('/'))).unwrap();
    podman.import(&root, "base:1");
    let base = podman.path("base.tar");
    let line = ["save", "--quiet", "--format", "oci-archive", "--output"];
    podman.run(&[&line[..], &[text(&base), "base:1"]].concat());
    let mut script = Command::new(repository().join("scripts/image.sh"));
    script.args(["dynamic", "--binary", binary, "--base"]);
    succeed(script.arg(&base).arg("--out").arg(podman.path("image")));
    let archive = podman.path("image/dynamic.tar");
    podman.run(&["load", "--quiet", "--input", text(&archive)]);
    format!("countersign:{}-dynamic", env!("CARGO_PKG_VERSION"))
}

fn give_to_the_sidecar(path: &Path) {
    chown(path, Some(4343), Some(4343)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give_to_the_sidecar(&entry.unwrap().path());
        }
    }
}
