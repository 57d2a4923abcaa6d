//! CAs and certificates made by the `openssl` command, in a folder of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use countersign::net::certificate::{Clients, Config, Source};
use tempfile::TempDir;

use super::process::text;

/// How often a test's listener looks at its files.
const INTERVAL: std::time::Duration = std::time::Duration::from_millis(50);

const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n\
                         subjectKeyIdentifier=hash\n";
const LEAF: &str = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
                    subjectAltName=DNS:localhost,IP:127.0.0.1\n\
                    extendedKeyUsage=serverAuth,clientAuth\n";

/// A key for a certificate, as `openssl genpkey` takes it.
pub const P256: &[&str] = &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// Files `NAME.pem` and `NAME.key`.
pub struct Pki {
    pub folder: TempDir,
}

impl Pki {
    /// The CA `ca` and the server certificate `one` of it, which ends in 30 days.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Self { folder };
        pki.authority("ca");
        pki.leaf("one", "ca");
        pki
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Writes a file that is at no moment half there.
    pub fn replace(&self, name: &str, content: impl AsRef<[u8]>) {
        self.write("new", content);
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    /// Runs `openssl` in the folder, and fails loudly.
    pub fn openssl(&self, line: &[&str]) {
        let mut command = Command::new("openssl");
        let output = command.args(line).current_dir(&self.folder).output();
        let output = output.unwrap_or_else(|error| panic!("openssl: {error}"));
        assert!(output.status.success(), "{line:?}: {output:?}");
    }

    /// A CA that signs itself.
    pub fn authority(&self, name: &str) {
        self.key(name, P256);
        self.issue(name, AUTHORITY, &["-signkey", &format!("{name}.key")]);
    }

    /// A CA below another.
    pub fn intermediate(&self, name: &str, ca: &str) {
        self.key(name, P256);
        self.issue(
            name,
            AUTHORITY,
            &signed_by(ca).each_ref().map(|part| &**part),
        );
    }

    /// A certificate for servers and clients.
    pub fn leaf(&self, name: &str, ca: &str) {
        self.leaf_with(name, ca, P256);
    }

    /// The same that ends in some days.
    #[cfg(feature = "pkcs11")]
    pub fn leaf_ending(&self, name: &str, ca: &str, days: u32) {
        self.key(name, P256);
        let signer = signed_by(ca);
        let signer = signer.each_ref().map(|part| &**part);
        self.issue_for(days, name, LEAF, &signer);
    }

    /// The same with another kind of key.
    pub fn leaf_with(&self, name: &str, ca: &str, algorithm: &[&str]) {
        self.key(name, algorithm);
        self.issue(name, LEAF, &signed_by(ca).each_ref().map(|part| &**part));
    }

    fn key(&self, name: &str, algorithm: &[&str]) {
        let file = format!("{name}.key");
        let line = ["genpkey", "-out", &file, "-algorithm"];
        self.openssl(&[&line, algorithm].concat());
    }

    fn issue(&self, name: &str, extensions: &str, signer: &[&str]) {
        self.issue_for(30, name, extensions, signer);
    }

    fn issue_for(&self, days: u32, name: &str, extensions: &str, signer: &[&str]) {
        let (key, request) = (format!("{name}.key"), format!("{name}.csr"));
        let (subject, out) = (format!("/CN={name}"), format!("{name}.pem"));
        self.write("extensions", extensions);
        self.write("request.cnf", "[req]\ndistinguished_name=dn\n[dn]\n");
        let line = ["req", "-new", "-config", "request.cnf", "-key", &key];
        self.openssl(&[&line[..], &["-subj", &subject, "-out", &request]].concat());
        let days = days.to_string();
        let line = ["x509", "-req", "-in", &request, "-days", &days];
        let files = ["-extfile", "extensions", "-out", &out];
        self.openssl(&[&line[..], &files, signer].concat());
    }

    /// How a listener is told to show `NAME.pem` with `NAME.key`.
    pub fn config(&self, name: &str) -> Config {
        Config {
            certificate: self.source(&format!("{name}.pem"), "certificate_file"),
            key: self.source(&format!("{name}.key"), "key_file"),
            clients: None,
            reload_interval: INTERVAL,
        }
    }

    /// The same for a listener that looks at client certificates of the CAs in a file.
    pub fn config_for_clients(&self, name: &str, ca: &str, required: bool) -> Config {
        let ca = self.source(ca, "client_ca_file");
        Config {
            clients: Some(Clients { ca, required }),
            ..self.config(name)
        }
    }

    pub fn source(&self, file: &str, place: &str) -> Source {
        Source {
            file: self.path(file),
            place: place.to_owned(),
        }
    }

    /// Replaces a certificate and its key by renaming others over them.
    pub fn rename_over(&self, new: &str, old: &str) {
        for kind in ["key", "pem"] {
            let copy = self.path("copy");
            fs::copy(self.path(&format!("{new}.{kind}")), &copy).unwrap();
            fs::rename(copy, self.path(&format!("{old}.{kind}"))).unwrap();
        }
    }
}

fn signed_by(ca: &str) -> [String; 5] {
    let (certificate, key) = (format!("{ca}.pem"), format!("{ca}.key"));
    ["-CA", &certificate, "-CAkey", &key, "-CAcreateserial"].map(str::to_owned)
}

/// A path as an argument.
pub fn argument(path: &Path) -> String {
    text(path).to_owned()
}
