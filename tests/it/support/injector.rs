//! Injectors: in this process, where time is the test's, and as a process of its own, which `cluster` has the commands
//! for. They listen on any port.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use countersign::app::injector::{self, Certificate, Injector, Running};
use countersign::clock::Clock;
use countersign::kube::Defaults;
use countersign::net::drain;
use countersign::telemetry::Metrics;

use super::pki::Pki;
use super::process::Sidecar;
use super::world::shown;

/// An injector in this process; it ends with the test.
pub struct Started {
    pub running: Running,
    pub metrics: Metrics,
}

impl Started {
    pub async fn start(certificate: Certificate, clock: Clock, metrics: Metrics) -> Self {
        let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let parts = Injector {
            defaults: Defaults::default(),
            listen: anywhere.into(),
            admin_listen: anywhere.into(),
            certificate,
            drain: drain::Config::default(),
        };
        let running = injector::start(parts, clock, metrics.clone())
            .await
            .unwrap();
        Self { running, metrics }
    }

    pub fn metric(&self, line: &str) -> Option<f64> {
        shown(&self.metrics, line)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.running.drain.enter(drain::Phase::Closing);
    }
}

/// Starts an injector that is a process of its own, with these settings.
pub fn start(mut command: Command, config: &Path) -> Sidecar {
    command.arg("--config").arg(config);
    Sidecar::start(command)
}

/// Where its `injector` or its `admin` listens.
pub fn address(injector: &Sidecar, field: &str) -> SocketAddr {
    let line = injector
        .log
        .iter()
        .find(|line| line["message"] == "listening");
    line.unwrap()[field].as_str().unwrap().parse().unwrap()
}

/// Settings for all pods, in a file.
pub fn defaults(pki: &Pki) -> PathBuf {
    pki.write(
        "injector.yaml",
        "defaults:\n  keys: partner-keys\n  memory-limit: 96Mi\n",
    );
    pki.path("injector.yaml")
}
