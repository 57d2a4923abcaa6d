//! `keygen`: a partner key pair in the forms the Alipay+ console takes.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use countersign_protocol::PrivateKey;

use super::Failure;
use super::output::{say, say_files};

/// Make a partner key pair: partner.pem (private, mode 0600) and partner.pub.txt (one line of base64
/// for the Alipay+ console).
#[derive(Args, Debug)]
pub struct Keygen {
    /// The folder for the two files; made if it is missing.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    out: PathBuf,
    /// The name of the files.
    #[arg(long, default_value = "partner")]
    name: String,
    /// The length of the key.
    #[arg(long, default_value_t = 2048)]
    bits: u32,
}

impl Keygen {
    /// Makes the pair; never overwrites a file.
    pub(super) fn execute(self) -> Result<(), Failure> {
        let key = PrivateKey::generate(self.bits)
            .map_err(|error| Failure::usage(format!("--bits: {error}")))?;
        let (private, public) = (self.file("pem"), self.file("pub.txt"));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.out)
            .map_err(Failure::other)?;
        let pem = key.to_pkcs8_pem();
        write(&private, pem.as_bytes(), 0o600)?;
        let line = key.public_key().to_spki_base64();
        write(&public, format!("{line}\n").as_bytes(), 0o644)?;
        say_files(format_args!(
            "private key: {} (keep it; nobody else needs it)",
            private.display()
        ));
        say_files(format_args!(
            "public key:  {} (paste into the Alipay+ console)",
            public.display()
        ));
        say(format_args!(
            "SHA-256 of the public key: {}",
            key.public_key().fingerprint()
        ));
        Ok(())
    }

    fn file(&self, extension: &str) -> PathBuf {
        self.out.join(format!("{}.{extension}", self.name))
    }
}

fn write(file: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let fail = |error: std::io::Error| Failure::other(format!("{}: {error}", file.display()));
    let mut open = OpenOptions::new();
    let mut opened = open
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(file)
        .map_err(fail)?;
    opened.write_all(bytes).map_err(fail)
}
