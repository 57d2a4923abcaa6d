//! `ca`: makes the local CA, shows it, and writes what apps need to trust it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};

use super::Failure;
use super::output::{say, say_files};
use crate::ca::certificate::{not_after, not_before};
use crate::ca::local::Local;
use crate::ca::{Permitted, directory, trust};
use crate::clock::{Clock, written};
use crate::config;
use crate::upstream::HostPattern;

/// Make, show or hand out the local CA, which lets the sidecar look into an app's TLS.
///
/// It can vouch for nothing but the hosts that are signed for: its name constraints make clients
/// refuse everything else.
#[derive(Args, Debug)]
pub struct Ca {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Create(Create),
    Show(Show),
    Bundle(Bundle),
}

/// Make a CA: ca.pem for apps, issuing.pem and issuing.key (mode 0600) for the sidecar.
#[derive(Args, Debug)]
struct Create {
    /// The folder for the three files; made if it is missing.
    #[arg(long, value_name = "FOLDER")]
    directory: PathBuf,
    /// A host or pattern it may vouch for, with all names below its labels without '*'; may be given
    /// several times [default: the Alipay+ gateways]
    #[arg(long, value_name = "PATTERN")]
    host: Vec<HostPattern>,
    /// Take the hosts of this configuration's routes.
    #[arg(long, value_name = "FILE", conflicts_with = "host")]
    config: Option<PathBuf>,
    /// How long it is valid.
    #[arg(long, value_parser = config::ca::life, default_value = "3650d")]
    life: Duration,
    /// Replace a CA that is there; apps must then be given the new one.
    #[arg(long)]
    force: bool,
}

/// Show a CA: whose it is, how long it is valid, what it permits.
#[derive(Args, Debug)]
struct Show {
    /// The folder it is in.
    #[arg(long, value_name = "FOLDER")]
    directory: PathBuf,
}

/// Write what apps need to trust a CA, and print the settings for each runtime.
#[derive(Args, Debug)]
struct Bundle {
    /// The folder the CA is in.
    #[arg(long, value_name = "FOLDER")]
    directory: PathBuf,
    /// The folder for the apps' files; made if it is missing.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

impl Ca {
    /// Does what was asked for.
    pub(super) fn execute(self) -> Result<(), Failure> {
        let now = Clock::system().now();
        match self.action {
            Action::Create(create) => create.execute(now),
            Action::Show(show) => show.execute(now),
            Action::Bundle(bundle) => bundle.execute(now),
        }
    }
}

impl Create {
    fn execute(self, now: SystemTime) -> Result<(), Failure> {
        let patterns = self.patterns()?;
        Permitted::of(&patterns).map_err(Failure::usage)?;
        let Self {
            directory,
            life,
            force,
            ..
        } = self;
        let local =
            directory::create(&directory, &patterns, life, now, force).map_err(Failure::other)?;
        describe(&local, &directory, now)?;
        say_files(format_args!(
            "next: countersign ca bundle --directory {} --out FOLDER",
            directory.display()
        ));
        Ok(())
    }

    fn patterns(&self) -> Result<Vec<String>, Failure> {
        if let Some(file) = &self.config {
            let loaded = config::load(file);
            if !loaded.problems.is_empty() {
                return Err(Failure::Usage(loaded.problems));
            }
            let egress = loaded.config.and_then(|config| config.egress);
            let routes = egress
                .map(|egress| egress.routes.routes)
                .unwrap_or_default();
            let hosts = routes.iter().flat_map(|route| &route.hosts);
            return Ok(hosts.map(ToString::to_string).collect());
        }
        if self.host.is_empty() {
            return Ok(config::egress::ALIPAYPLUS.map(str::to_owned).to_vec());
        }
        Ok(self.host.iter().map(ToString::to_string).collect())
    }
}

impl Show {
    fn execute(self, now: SystemTime) -> Result<(), Failure> {
        let local = directory::load(&self.directory).map_err(Failure::other)?;
        describe(&local, &self.directory, now)
    }
}

impl Bundle {
    fn execute(self, now: SystemTime) -> Result<(), Failure> {
        let local = directory::load(&self.directory).map_err(Failure::other)?;
        // Nobody is helped by trusting what is over.
        directory::check(&local, &self.directory, &[], now).map_err(Failure::other)?;
        let pem = local.root.to_pem().map_err(Failure::other)?;
        let pem = String::from_utf8_lossy(&pem);
        let count = trust::write(&self.out, &pem, now).map_err(Failure::other)?;
        let out = self.out.display();
        say_files(format_args!("{out}/{}: the local CA alone", trust::CA));
        for name in [trust::BUNDLE, trust::PKCS12, trust::JKS] {
            say_files(format_args!(
                "{out}/{name}: the local CA and {} public roots",
                count.saturating_sub(1)
            ));
        }
        say("\nset what the app's runtime looks at:\n");
        let out = std::path::absolute(&self.out).map_err(Failure::other)?;
        for hint in trust::hints(&out) {
            say_files(format_args!("  # {}\n  {}", hint.runtime, hint.setting));
        }
        Ok(())
    }
}

fn describe(local: &Local, directory: &Path, now: SystemTime) -> Result<(), Failure> {
    let root = &local.root;
    let (from, to) = (
        not_before(root).map_err(Failure::other)?,
        not_after(root).map_err(Failure::other)?,
    );
    let permitted = match local.permitted().map_err(Failure::other)? {
        Some(permitted) => format!("{} and names below", permitted.names().join(", ")),
        None => "EVERY name: nothing in this CA constrains it".to_owned(),
    };
    let over = if local.end().map_err(Failure::other)? < now {
        "  EXPIRED"
    } else {
        ""
    };
    say_files(format_args!("subject:  {}", local.subject()));
    say_files(format_args!(
        "SHA-256:  {}",
        local.fingerprint().map_err(Failure::other)?
    ));
    say_files(format_args!(
        "valid:    {} to {}{over}",
        written(from),
        written(to)
    ));
    say_files(format_args!("permits:  {permitted}"));
    for (name, what) in [
        (directory::ROOT, "for apps"),
        (directory::ISSUING, "for the sidecar"),
        (directory::KEY, "for the sidecar; keep it secret"),
    ] {
        say_files(format_args!(
            "file:     {} ({what})",
            directory.join(name).display()
        ));
    }
    Ok(())
}
