//! The local CA: real clients take its certificates with the trust material and refuse them without,
//! and refuse everything outside its constraints.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use countersign::ca::certificate::{self, Server, Validity};
use countersign::ca::local::Local;
use countersign::ca::{self, Authority, Permitted, directory, trust};
use countersign::clock::Clock;
use countersign::net::opening::takes_ecdsa;
use countersign::net::tls;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::Acceptor;

use crate::support::process::{command, text};

const HOST: &str = "open-sea-global.alipayplus.com";
const DAY: Duration = Duration::from_hours(24);

fn patterns() -> Vec<String> {
    vec!["open-*-global.alipayplus.com".to_owned()]
}

fn now() -> SystemTime {
    Clock::system().now()
}

/// Which settings a connection gets.
enum Shown {
    OfAuthority(Authority),
    Always(Arc<ServerConfig>),
}

/// A TLS server that says hello to whoever gets through.
async fn serve(shown: Shown) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shown = Arc::new(shown);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let shown = Arc::clone(&shown);
            tokio::spawn(async move {
                let Ok(start) = LazyConfigAcceptor::new(Acceptor::default(), stream).await else {
                    return;
                };
                let hello = start.client_hello();
                let ecdsa = takes_ecdsa(&hello);
                let config = match &*shown {
                    Shown::Always(config) => Arc::clone(config),
                    Shown::OfAuthority(authority) => {
                        let host = hello.server_name().unwrap_or("none").to_owned();
                        authority.server_config(&host, ecdsa).await.unwrap()
                    }
                };
                let Ok(mut stream) = start.into_stream(config).await else {
                    return;
                };
                let mut request = [0; 4096];
                let _closed = stream.read(&mut request).await;
                let _closed = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")
                    .await;
                let _closed = stream.shutdown().await;
            });
        }
    });
    address
}

/// An authority in memory, a server that uses it, and the material for its clients.
struct Stage {
    address: SocketAddr,
    trust: TempDir,
    count: usize,
}

impl Stage {
    async fn new() -> Self {
        let clock = Clock::held(now());
        let authority = Authority::new(&ca::Config::default(), &patterns(), clock).unwrap();
        let trust = tempfile::tempdir().unwrap();
        let pem = authority.ca_pem().await.unwrap();
        let count = trust::write(trust.path(), &pem, now()).unwrap();
        let address = serve(Shown::OfAuthority(authority)).await;
        Self {
            address,
            trust,
            count,
        }
    }

    fn setting(&self, runtime: &str) -> (String, String) {
        setting(self.trust.path(), runtime)
    }
}

/// The variable the hints tell to set, and its value.
fn setting(trust: &Path, runtime: &str) -> (String, String) {
    let hints = trust::hints(trust);
    let hint = hints.iter().find(|hint| hint.runtime == runtime).unwrap();
    let (name, value) = hint.setting.split_once('=').unwrap();
    (name.to_owned(), value.trim_matches('"').to_owned())
}

/// Exit and all output of a client that knows nothing but what it is told here.
async fn client(
    program: &str,
    arguments: &[&str],
    setting: Option<(String, String)>,
) -> (bool, String) {
    let mut command = tokio::process::Command::new(program);
    for name in [
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "CURL_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "JAVA_TOOL_OPTIONS",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .envs(setting)
        .stdin(std::process::Stdio::null());
    let output = command
        .output()
        .await
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// `openssl s_client` that checks certificate and name.
async fn s_client(
    address: SocketAddr,
    host: &str,
    ca: Option<&Path>,
    more: &[&str],
) -> (bool, String) {
    let address = address.to_string();
    let mut arguments = vec![
        "s_client",
        "-connect",
        &address,
        "-servername",
        host,
        "-verify_hostname",
        host,
        "-verify_return_error",
    ];
    match ca {
        Some(file) => arguments.extend(["-no-CApath", "-CAfile", text(file)]),
        None => arguments.extend(["-CApath", "/etc/ssl/certs"]),
    }
    arguments.extend(more);
    client("openssl", &arguments, None).await
}

async fn java(
    address: SocketAddr,
    host: &str,
    setting: Option<(String, String)>,
) -> (bool, String) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/Handshake.java");
    let port = address.port().to_string();
    client("java", &[text(&file), host, &port], setting).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_takes_its_certificates_with_the_hints_and_refuses_them_without() {
    const PYTHON: &str = "import socket, ssl, sys\n\
        plain = socket.create_connection(('127.0.0.1', int(sys.argv[2])))\n\
        tls = ssl.create_default_context().wrap_socket(plain, server_hostname=sys.argv[1])\n\
        print(tls.version())";
    const NODE: &str = "const [host, port] = process.argv.slice(1);\
        const tls = require('tls').connect({ port, servername: host }, \
        () => { console.log(tls.getProtocol()); tls.destroy() })";
    let stage = Stage::new().await;
    let port = stage.address.port().to_string();
    let url = format!("https://{HOST}:{port}/");
    let resolve = format!("{HOST}:{port}:127.0.0.1");
    let curl = ["-sS", "--resolve", &resolve, "--http1.1", &url];
    for (program, arguments, runtime, said, refused) in [
        ("curl", &curl[..], "curl", "hello", "certificate"),
        (
            "python3",
            &["-c", PYTHON, HOST, &port],
            "OpenSSL, Python, Ruby, Go, .NET",
            "TLSv1.3",
            "CERTIFICATE_VERIFY_FAILED",
        ),
        (
            "node",
            &["-e", NODE, HOST, &port],
            "Node",
            "TLSv1.3",
            "certificate",
        ),
    ] {
        let (took, output) = client(program, arguments, Some(stage.setting(runtime))).await;
        assert!(took && output.contains(said), "{program}: {output}");
        let (took, output) = client(program, arguments, None).await;
        assert!(!took && output.contains(refused), "{program}: {output}");
    }
    for runtime in ["Java", "Java before 8u301"] {
        let (took, output) = java(stage.address, HOST, Some(stage.setting(runtime))).await;
        assert!(took && output.contains("TLSv1.3 EC"), "{runtime}: {output}");
    }
    let (took, output) = java(stage.address, HOST, None).await;
    assert!(
        !took && output.contains("unable to find valid certification path"),
        "{output}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_the_key_it_can_verify_in_tls_1_2_and_1_3() {
    const RSA: &str = "PKEY: rsaEncryption, 2048";
    const EC: &str = "PKEY: id-ecPublicKey, 256";
    let stage = Stage::new().await;
    let ca = stage.trust.path().join(trust::CA);
    let rsa_only = "RSA+SHA256:RSA-PSS+SHA256";
    for (arguments, protocol, key) in [
        (&["-tls1_3"][..], "TLSv1.3", EC),
        (&["-tls1_2"], "TLSv1.2", EC),
        (&["-tls1_3", "-sigalgs", rsa_only], "TLSv1.3", RSA),
        (&["-tls1_2", "-sigalgs", rsa_only], "TLSv1.2", RSA),
        (
            &[
                "-tls1_2",
                "-sigalgs",
                "ECDSA+SHA256:RSA+SHA256",
                "-cipher",
                "ECDHE-ECDSA-AES128-GCM-SHA256",
            ],
            "TLSv1.2",
            EC,
        ),
        // These could verify ECDSA, but say otherwise that they do not want it.
        (
            &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"],
            "TLSv1.2",
            RSA,
        ),
        (&["-tls1_2", "-curves", "X25519"], "TLSv1.2", RSA),
    ] {
        let (took, output) = s_client(stage.address, HOST, Some(&ca), arguments).await;
        assert!(took, "{arguments:?}: {output}");
        assert!(
            output.contains(protocol) && output.contains(key),
            "{arguments:?}: {output}"
        );
        assert!(output.contains("Verify return code: 0 (ok)"), "{output}");
    }
    for protocol in ["h2", "http/1.1"] {
        let (_, output) = s_client(stage.address, HOST, Some(&ca), &["-alpn", protocol]).await;
        assert!(
            output.contains(&format!("ALPN protocol: {protocol}")),
            "{output}"
        );
    }
    let (took, output) = s_client(stage.address, HOST, None, &[]).await;
    assert!(!took && output.contains("verify error"), "{output}");
}

/// A setting whose certificate is signed with the stolen key of the CA.
fn stolen(local: &Local, server: &Server<'_>) -> Arc<ServerConfig> {
    let key = certificate::rsa_key().unwrap();
    let leaf = local
        .issuing
        .server(&key, server, Validity::starting(now(), DAY))
        .unwrap();
    let chain =
        [&leaf, &local.issuing.certificate].map(|one| CertificateDer::from(one.to_der().unwrap()));
    let key = PrivatePkcs8KeyDer::from(key.private_key_to_pkcs8().unwrap());
    let key = PrivateKeyDer::Pkcs8(key);
    Arc::new(tls::server(chain.to_vec(), key, &[b"http/1.1"]).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_and_java_refuse_what_its_stolen_key_signs_for_other_hosts() {
    let local = Local::make(&Permitted::of(&patterns()).unwrap(), ca::LIFE, now()).unwrap();
    let trust = tempfile::tempdir().unwrap();
    let pem = String::from_utf8(local.root.to_pem().unwrap()).unwrap();
    trust::write(trust.path(), &pem, now()).unwrap();
    let root = trust.path().join(trust::CA);
    let (v4, v6) = ("127.0.0.1".parse().unwrap(), "::1".parse().unwrap());
    for (host, addresses, refusal) in [
        (HOST, &[][..], None),
        ("bank.example", &[], Some("permitted subtree violation")),
        (
            "evilalipayplus.com",
            &[],
            Some("permitted subtree violation"),
        ),
        (HOST, &[v4], Some("excluded subtree violation")),
        (HOST, &[v6], Some("excluded subtree violation")),
    ] {
        let server = Server {
            common_name: host,
            names: &[host],
            addresses,
        };
        let address = serve(Shown::Always(stolen(&local, &server))).await;
        let (took, openssl) = s_client(address, host, Some(&root), &[]).await;
        assert_eq!(took, refusal.is_none(), "{host} {addresses:?}: {openssl}");
        let (took, java) = java(address, host, Some(setting(trust.path(), "Java"))).await;
        assert_eq!(took, refusal.is_none(), "{host} {addresses:?}: {java}");
        if let Some(refusal) = refusal {
            assert!(openssl.contains(refusal), "{host}: {openssl}");
            let refusal = "name constraints check failed";
            assert!(java.contains(refusal), "{host}: {java}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keytool_and_openssl_read_every_certificate_of_the_stores() {
    let stage = Stage::new().await;
    assert!(stage.count > 50, "only {} certificates", stage.count);
    let file = |name| stage.trust.path().join(name);
    for (name, said) in [
        (trust::PKCS12, "integrity"),
        (trust::JKS, "password was incorrect"),
    ] {
        let store = file(name);
        let list = async |password| {
            let arguments = ["-list", "-storepass", password, "-keystore", text(&store)];
            client("keytool", &arguments, None).await
        };
        let (_, output) = list(trust::PASSWORD).await;
        let counted = format!("{} entries", stage.count);
        assert!(output.contains(&counted), "{name}: {output}");
        let trusted = output.matches("trustedCertEntry").count();
        assert_eq!(trusted, stage.count, "{name}");
        let (read, output) = list("changed").await;
        assert!(!read && output.contains(said), "{name}: {output}");
    }
    let pass = format!("pass:{}", trust::PASSWORD);
    let store = file(trust::PKCS12);
    let arguments = ["pkcs12", "-in", text(&store), "-passin", &pass, "-nokeys"];
    let (read, output) = client("openssl", &arguments, None).await;
    assert!(read, "{output}");
    assert_eq!(output.matches("BEGIN CERTIFICATE").count(), stage.count);
    let bundle = fs::read_to_string(file(trust::BUNDLE)).unwrap();
    assert_eq!(
        bundle.matches("\n-----BEGIN CERTIFICATE").count(),
        stage.count
    );
    assert!(
        bundle.starts_with("# Countersign local CA "),
        "{}",
        &bundle[..60]
    );
    for name in [trust::CA, trust::BUNDLE, trust::PKCS12, trust::JKS] {
        let mode = fs::metadata(file(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "{name}");
    }
    assert_eq!(fs::read_dir(stage.trust.path()).unwrap().count(), 4);
}

#[test]
fn where_the_system_has_no_roots_the_bundled_ones_are_handed_out() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("ca"), folder.path().join("out"));
    let patterns = patterns();
    directory::create(&path, &patterns, ca::LIFE, now(), false).unwrap();
    let bundle = ["ca", "bundle", "--directory", text(&path), "--out"];
    let output = command(&[&bundle[..], &[text(&out)]].concat())
        .env("SSL_CERT_FILE", folder.path().join("none"))
        .env("SSL_CERT_DIR", folder.path().join("none"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let bundle = fs::read_to_string(out.join(trust::BUNDLE)).unwrap();
    let bundled = webpki_root_certs::TLS_SERVER_ROOT_CERTS.len();
    assert_eq!(bundle.matches("-----BEGIN").count(), bundled + 1);
}
