//! `sandbox`: the simulated gateway alone, or one call from it to a partner.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use countersign_protocol::{ClientId, KeyVersion, PrivateKey, PublicKey};

use super::call::Calling;
use super::{Failure, output, runtime};
use crate::clock::Clock;
use crate::sandbox::{Config, Fault, start};
use crate::telemetry::log;

/// Run the simulated Alipay+ gateway.
///
/// It checks signatures as strictly as the real one, signs its answers, and knows pay,
/// inquiryPayment, cancelPayment, refund, applyToken and prepare under /aps/api/v1/… and /ams/api/v1/….
/// Payments are idempotent by request id and forgotten when it stops.
///
/// It misbehaves on request: for one request by the header `sandbox-fault: NAME` (the sidecar passes
/// it on), for all of them by --fault NAME. The names stand under --fault.
///
/// It also calls a partner: once with --call, or after every payment with --notify.
#[derive(Args, Debug)]
pub struct Sandbox {
    /// Where it listens, with TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9443")]
    listen: SocketAddr,
    /// A folder for keys and the CA certificate; what is missing in it is made.
    #[arg(long, value_name = "FOLDER", default_value = "countersign-sandbox")]
    folder: PathBuf,
    /// The one partner it knows.
    #[arg(long, default_value = CLIENT_ID)]
    client_id: ClientId,
    /// The partner's public key, when it is not the pair in the folder.
    #[arg(long, value_name = "FILE")]
    partner_public_key: Option<PathBuf>,
    /// The version of its key and of the partner's.
    #[arg(long, default_value = "1")]
    key_version: KeyVersion,
    /// Speak HTTP/1.1 only.
    #[arg(long)]
    http1_only: bool,
    /// What it does wrong to every request.
    #[arg(long, value_enum)]
    fault: Option<Fault>,
    #[command(flatten)]
    calling: Calling,
}

/// The client id of sandbox and demo.
pub(super) const CLIENT_ID: &str = "SANDBOX_5X00000000000000";

impl Sandbox {
    /// Serves until interrupted, or calls once.
    pub(super) fn execute(self) -> Result<(), Failure> {
        let config = self.config()?;
        runtime()?.block_on(async {
            match self.calling.target() {
                Some(target) => self.calling.once(target, &config).await,
                None => self.serve(config).await,
            }
        })
    }

    async fn serve(&self, config: Config) -> Result<(), Failure> {
        output::begin_serving();
        let started = start(config.clone(), self.listen)
            .await
            .map_err(Failure::other)?;
        write(&self.folder.join("ca.pem"), &started.ca_pem, 0o644)?;
        self.calling.attach(&started.gateway, &config)?;
        self.explain(started.address);
        let _interrupted = tokio::signal::ctrl_c().await;
        Ok(())
    }

    fn config(&self) -> Result<Config, Failure> {
        let keys = Keys::in_folder(&self.folder)?;
        let partner_key = match &self.partner_public_key {
            Some(file) => {
                let bytes = fs::read(file).map_err(|e| in_file(file, e))?;
                PublicKey::parse(&bytes).map_err(|error| in_file(file, error))?
            }
            None => keys.partner.public_key(),
        };
        Ok(Config {
            client_id: self.client_id.clone(),
            partner_key,
            key: keys.gateway,
            key_version: self.key_version,
            http2: !self.http1_only,
            fault: self.fault,
            clock: Clock::system(),
        })
    }

    fn explain(&self, address: SocketAddr) {
        let folder = self.folder.display();
        log::print(format_args!(
            "the simulated gateway listens on https://{address}"
        ));
        log::print(format_args!(
            "it knows client {} and the keys in {folder}/",
            self.client_id
        ));
        log::print("put a sidecar in front of it:\n");
        log::print(format_args!(
            "  countersign run --client-id {} --private-key {folder}/partner.pem \\\n    \
             --alipay-public-key {folder}/alipayplus.pub.pem --upstream https://localhost:{} \\\n    \
             --upstream-ca {folder}/ca.pem\n",
            self.client_id,
            address.port()
        ));
        log::print("and send it what your app would send:\n");
        log::print(curl("127.0.0.1:18441", None));
    }
}

/// A curl line that makes a payment through a sidecar.
pub(super) fn curl(sidecar: &str, fault: Option<&str>) -> String {
    let fault = fault
        .map(|name| format!(" -H 'sandbox-fault: {name}'"))
        .unwrap_or_default();
    format!(
        "  curl -i http://{sidecar}/aps/api/v1/payments/pay -H 'Content-Type: application/json'{fault} \
         \\\n    -d '{{\"paymentRequestId\":\"R1\",\"paymentAmount\":{{\"currency\":\"JPY\",\"value\":\"100\"}}}}'\n"
    )
}

/// The two key pairs of a simulated world.
pub(super) struct Keys {
    partner: PrivateKey,
    gateway: PrivateKey,
}

impl Keys {
    /// Reads the pairs of a folder, or makes them.
    pub(super) fn in_folder(folder: &Path) -> Result<Self, Failure> {
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| in_file(folder, e))?;
        let partner = pair(folder, "partner")?;
        let gateway = pair(folder, "alipayplus")?;
        Ok(Self { partner, gateway })
    }

    /// What the simulated gateway of that client is made of.
    pub(super) fn gateway_config(&self, client_id: ClientId) -> Config {
        Config {
            client_id,
            partner_key: self.partner.public_key(),
            key: self.gateway.clone(),
            key_version: KeyVersion::default(),
            http2: true,
            fault: None,
            clock: Clock::system(),
        }
    }
}

fn pair(folder: &Path, name: &str) -> Result<PrivateKey, Failure> {
    let file = folder.join(format!("{name}.pem"));
    let key = match fs::read(&file) {
        Ok(bytes) => PrivateKey::parse(&bytes, None).map_err(|error| in_file(&file, error))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = PrivateKey::generate(2048).map_err(Failure::other)?;
            write(&file, key.to_pkcs8_pem().as_bytes(), 0o600)?;
            key
        }
        Err(error) => return Err(in_file(&file, error)),
    };
    let public = key.public_key().to_spki_pem();
    let file = folder.join(format!("{name}.pub.pem"));
    // A sidecar may have it in use: it would load its keys anew, or see half a file.
    if !fs::read(&file).is_ok_and(|there| there == public.as_bytes()) {
        write(&file, public.as_bytes(), 0o644)?;
    }
    Ok(key)
}

/// Writes or replaces a file.
pub(super) fn write(file: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let mut open = fs::OpenOptions::new();
    open.write(true).create(true).truncate(true).mode(mode);
    let mut opened = open.open(file).map_err(|error| in_file(file, error))?;
    std::io::Write::write_all(&mut opened, bytes).map_err(|error| in_file(file, error))
}

/// What is wrong with a file.
pub(super) fn in_file(file: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::Other(format!("{}: {error}", file.display()))
}
