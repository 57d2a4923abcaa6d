//! The local CA in its directory and in its cache: made once, found again, checked, shown.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use countersign::ca::{self, Authority, directory};
use countersign::clock::Clock;

use crate::support::Files;
use crate::support::process::{countersign, text};

const HOST: &str = "open-sea-global.alipayplus.com";
const DAY: Duration = Duration::from_hours(24);

fn patterns() -> Vec<String> {
    vec!["open-*-global.alipayplus.com".to_owned()]
}

fn now() -> SystemTime {
    Clock::system().now()
}

fn in_memory(clock: Clock) -> Authority {
    Authority::new(&ca::Config::default(), &patterns(), clock).unwrap()
}

fn in_directory(path: &Path) -> ca::Config {
    ca::Config {
        directory: Some(path.to_owned()),
        ..ca::Config::default()
    }
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_directory_keeps_the_ca_and_hides_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/ca");
    let load = || Authority::new(&in_directory(&path), &patterns(), Clock::system()).unwrap();
    let first = load().ca_pem().await.unwrap();
    assert_eq!(load().ca_pem().await.unwrap(), first);
    let root = fs::read_to_string(path.join(directory::ROOT)).unwrap();
    assert_eq!(root, first);
    let key = path.join(directory::KEY);
    assert_eq!((mode(&path), mode(&key)), (0o700, 0o600));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 3);
}

#[tokio::test]
async fn without_a_directory_every_start_has_a_ca_of_its_own() {
    let (one, other) = (in_memory(Clock::system()), in_memory(Clock::system()));
    let pem = one.ca_pem().await.unwrap();
    assert_eq!(one.ca_pem().await.unwrap(), pem);
    assert_ne!(other.ca_pem().await.unwrap(), pem);
}

#[test]
fn processes_that_start_at_once_end_with_one_ca() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca");
    let load = || directory::load_or_make(&path, &patterns(), ca::LIFE, now()).unwrap();
    let roots: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
        let locals = threads.into_iter().map(|thread| thread.join().unwrap());
        locals.map(|local| local.root.to_der().unwrap()).collect()
    });
    assert!(roots.iter().all(|root| *root == roots[0]));
    assert_eq!(load().root.to_der().unwrap(), roots[0]);
}

/// A good CA in a directory, and another one's files.
struct Kept {
    folder: tempfile::TempDir,
}

impl Kept {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ca", "other"] {
            let path = folder.path().join(name);
            directory::create(&path, &patterns(), ca::LIFE, now(), false).unwrap();
        }
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("ca")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn take_from_other(&self, name: &str) {
        fs::copy(self.folder.path().join("other").join(name), self.file(name)).unwrap();
    }

    fn remedy(&self) -> String {
        format!(
            "countersign ca create --directory {} --force",
            self.path().display()
        )
    }

    /// The line that refuses it, which names its directory.
    fn refused(&self, patterns: &[String], at: SystemTime) -> String {
        let error = Authority::new(&in_directory(&self.path()), patterns, Clock::held(at));
        let line = error.unwrap_err().to_string();
        assert!(line.starts_with(text(&self.path())), "{line}");
        line
    }
}

#[test]
fn every_spoiled_directory_has_its_line_with_what_mends_it() {
    type Spoil = fn(&Kept);
    let cases: [(Spoil, &str); 6] = [
        (
            |ca| fs::remove_file(ca.file("ca.pem")).unwrap(),
            "/ca.pem: is missing, though the CA's other files are there",
        ),
        (
            |ca| fs::remove_file(ca.file("issuing.key")).unwrap(),
            "/issuing.key: is missing, though the CA's other files are there",
        ),
        (
            |ca| fs::write(ca.file("issuing.pem"), "x").unwrap(),
            "/issuing.pem: holds no certificate in PEM form",
        ),
        (
            |ca| fs::write(ca.file("issuing.key"), "x").unwrap(),
            "/issuing.key: holds no private key in PEM form without passphrase",
        ),
        (
            |ca| ca.take_from_other("issuing.key"),
            "/issuing.key: does not belong to issuing.pem",
        ),
        (
            |ca| ca.take_from_other("ca.pem"),
            "/issuing.pem: clients refuse what this CA signs (unable to get local issuer certificate)",
        ),
    ];
    for (spoil, expected) in cases {
        let kept = Kept::new();
        spoil(&kept);
        let line = kept.refused(&patterns(), now());
        assert!(line.contains(expected), "{expected}: {line}");
        assert!(line.ends_with(&kept.remedy()), "{line}");
    }
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let kept = Kept::new();
    let key = kept.file("issuing.key");
    for bits in [0o604, 0o660, 0o644] {
        fs::set_permissions(&key, Permissions::from_mode(bits)).unwrap();
        let line = kept.refused(&patterns(), now());
        let said = format!("others can read or write this key (mode {bits:04o})");
        assert!(line.contains(&said), "{line}");
        assert!(
            line.ends_with(&format!("chmod 600 {}", text(&key))),
            "{line}"
        );
    }
    // A mounted secret belongs to root and is shared with a group.
    let of_root = fs::metadata(&key).unwrap().uid() == 0;
    for (bits, good) in [(0o400, true), (0o440, of_root)] {
        fs::set_permissions(&key, Permissions::from_mode(bits)).unwrap();
        let loaded = Authority::new(&in_directory(&kept.path()), &patterns(), Clock::system());
        assert_eq!(loaded.is_ok(), good, "{bits:o}");
    }
}

#[test]
fn an_encrypted_key_is_refused() {
    let kept = Kept::new();
    let local = directory::load(&kept.path()).unwrap();
    let cipher = openssl::symm::Cipher::aes_256_cbc();
    let pem = local
        .issuing
        .key
        .private_key_to_pem_pkcs8_passphrase(cipher, b"secret");
    fs::write(kept.file("issuing.key"), pem.unwrap()).unwrap();
    let line = kept.refused(&patterns(), now());
    assert!(
        line.contains("no private key in PEM form without passphrase"),
        "{line}"
    );
}

#[test]
fn a_ca_is_good_only_in_its_time_and_for_its_hosts() {
    let kept = Kept::new();
    let line = kept.refused(&patterns(), now() + DAY * 3651);
    assert!(line.contains("/ca.pem: expired on "), "{line}");
    assert!(line.ends_with(&kept.remedy()), "{line}");
    let line = kept.refused(&patterns(), now() - DAY * 30);
    assert!(line.contains("/ca.pem: is valid only from "), "{line}");
    let more = [patterns(), vec!["pay.*.bank.example".to_owned()]].concat();
    let line = kept.refused(&more, now());
    assert!(
        line.contains("this CA does not permit pay.*.bank.example"),
        "{line}"
    );
    assert!(line.contains(&kept.remedy()), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_made_once_and_anew_before_it_ends() {
    let clock = Clock::held(now());
    let authority = in_memory(clock.clone());
    let config = async |host, ecdsa| authority.server_config(host, ecdsa).await.unwrap();
    let shouted = "Open-SEA-global.alipayplus.com.";
    let (first, at_once, same) = tokio::join!(
        config(HOST, true),
        config(HOST, true),
        config(shouted, true)
    );
    assert!(Arc::ptr_eq(&first, &at_once) && Arc::ptr_eq(&first, &same));
    clock.advance(DAY * 19);
    assert!(Arc::ptr_eq(&first, &config(HOST, true).await));
    clock.advance(DAY * 2);
    let renewed = config(HOST, true).await;
    assert!(!Arc::ptr_eq(&first, &renewed));
    assert!(Arc::ptr_eq(&renewed, &config(HOST, true).await));
    // The last one ends with the CA, and after that there is none.
    clock.advance(DAY * (3650 - 21 - 5));
    let last = config(HOST, true).await;
    clock.advance(DAY * 4);
    assert!(Arc::ptr_eq(&last, &config(HOST, true).await));
    clock.advance(DAY * 2);
    let error = authority.server_config(HOST, true).await.unwrap_err();
    let line = error.to_string();
    assert!(line.starts_with("the local CA expired on "), "{line}");
}

#[tokio::test]
async fn hosts_and_algorithms_share_no_sessions_and_there_is_no_early_data() {
    let authority = in_memory(Clock::system());
    let config = async |host, ecdsa| authority.server_config(host, ecdsa).await.unwrap();
    let first = config(HOST, true).await;
    let others = [
        config(HOST, false).await,
        config("open-na-global.alipayplus.com", true).await,
    ];
    for other in others {
        let (one, other) = (&first.session_storage, &other.session_storage);
        assert!(!Arc::ptr_eq(one, other));
    }
    assert_eq!(first.max_early_data_size, 0);
}

#[tokio::test]
async fn it_vouches_for_no_address_and_no_host_that_is_not_signed_for() {
    let authority = in_memory(Clock::system());
    for (host, said) in [
        (
            "bank.example",
            "the local CA does not vouch for bank.example",
        ),
        (
            "evilalipayplus.com",
            "does not vouch for evilalipayplus.com",
        ),
        ("127.0.0.1", "is no DNS name"),
        ("[::1]", "is no DNS name"),
        ("*.alipayplus.com", "is no DNS name"),
        ("", "is no DNS name"),
    ] {
        let error = authority.server_config(host, true).await.unwrap_err();
        assert!(error.to_string().contains(said), "{host}: {error}");
    }
}

/// Exit code and all output of `countersign ca`.
fn command(arguments: &[&str]) -> (i32, String) {
    let output = countersign(&[&["ca"], arguments].concat());
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    (output.status.code().unwrap(), text)
}

#[test]
fn the_command_makes_shows_and_hands_out_a_ca() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("ca"), folder.path().join("trust"));
    let directory = text(&path);
    let (code, none) = command(&["show", "--directory", directory]);
    assert_eq!(code, 1, "{none}");
    let remedy = "holds no CA; make one by: countersign ca create --directory";
    assert!(none.contains(remedy), "{none}");
    let (code, made) = command(&["create", "--directory", directory]);
    assert_eq!(code, 0, "{made}");
    let permits = "permits:  alipayplus.com and names below\n";
    assert!(made.contains(permits), "{made}");
    let (code, shown) = command(&["show", "--directory", directory]);
    assert!(code == 0 && made.starts_with(&shown), "{made} {shown}");
    let root = path.join("ca.pem");
    let fingerprint = [
        "x509",
        "-noout",
        "-fingerprint",
        "-sha256",
        "-in",
        text(&root),
    ];
    let printed = Command::new("openssl").args(fingerprint).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    let (_, fingerprint) = printed.trim().split_once('=').unwrap();
    assert!(
        shown.contains(&format!("SHA-256:  {fingerprint}\n")),
        "{shown}"
    );
    let (code, hints) = command(&["bundle", "--directory", directory, "--out", text(&out)]);
    assert_eq!(code, 0, "{hints}");
    let node = format!("  NODE_EXTRA_CA_CERTS={}/ca.pem\n", text(&out));
    assert!(hints.contains(&node), "{hints}");
    assert_eq!(
        fs::read(root).unwrap(),
        fs::read(out.join("ca.pem")).unwrap()
    );
}

#[test]
fn the_command_replaces_a_ca_only_when_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let create = [
        "create",
        "--directory",
        text(folder.path()),
        "--host",
        "*.a.example",
    ];
    let root = || fs::read(folder.path().join("ca.pem")).unwrap();
    assert_eq!(command(&create).0, 0);
    let first = root();
    let (code, refused) = command(&create);
    assert!(
        code == 1 && refused.contains("--force replaces it"),
        "{refused}"
    );
    assert_eq!(root(), first);
    let (code, made) = command(&[&create[..], &["--force"]].concat());
    assert!(
        code == 0 && made.contains("permits:  a.example and"),
        "{made}"
    );
    assert_ne!(root(), first);
}

#[test]
fn the_command_makes_no_ca_for_every_host_and_none_that_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for (flag, value, said) in [
        ("--host", "*", "hosts of every owner;"),
        ("--host", "*.com", "every owner below com, a public suffix"),
        (
            "--host",
            "open-*.CO.UK.",
            "every owner below co.uk, a public suffix",
        ),
        (
            "--host",
            "*.github.io",
            "every owner below github.io, a public suffix",
        ),
        ("--host", "co.uk", "is a public suffix"),
        (
            "--host",
            "*.internal",
            "every owner below the top-level domain internal",
        ),
        ("--host", "https://a.example", "no host name"),
        ("--life", "1d", "30d to 36500d"),
        ("--config", "/no/such/file.yaml", "no such file"),
    ] {
        let directory = text(folder.path());
        let (code, line) = command(&["create", "--directory", directory, flag, value]);
        assert!(code == 64 && line.contains(said), "{flag} {value}: {line}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_configuration_whose_hosts_have_many_owners_is_refused_by_check_run_and_ca_create() {
    let files = Files::new();
    let config = files.config("https://localhost:1", "", "");
    let good = fs::read_to_string(&config).unwrap();
    let ingress = "ingress:\n  listen: 127.0.0.1:0\n  routes:\n    - hosts: [\"*.com\"]\n      \
                   app: http://127.0.0.1:1\n";
    let gateway = "open-*-global.alipayplus.com";
    for (text_of, said) in [
        (
            good.replace(gateway, "\"*.com\""),
            "egress.routes[0].hosts[0]: \"*.com\" would match hosts of every owner below com",
        ),
        (
            good.replace(gateway, "open-na.alipayplus.com, \"pay-*.co.uk\""),
            "egress.routes[0].hosts[1]: \"pay-*.co.uk\" would match hosts of every owner below co.uk",
        ),
        (
            format!("{good}{ingress}"),
            "ingress.routes[0].hosts[0]: \"*.com\" would match hosts of every owner below com",
        ),
    ] {
        fs::write(&config, text_of).unwrap();
        let directory = files.path("ca");
        let create = ["ca", "create", "--directory", text(&directory)];
        for command in [&["check"][..], &["run"], &create] {
            let output = countersign(&[command, &["--config", text(&config)]].concat());
            let line = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(64), "{line}");
            assert!(line.contains(said), "{line}");
            assert_eq!(line.lines().count(), 1, "{line}");
        }
        assert!(!directory.exists());
    }
}

#[test]
fn an_expired_ca_is_shown_as_such_and_not_handed_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca");
    directory::create(&path, &patterns(), DAY * 30, now() - DAY * 40, false).unwrap();
    let (code, shown) = command(&["show", "--directory", text(&path)]);
    assert!(code == 0 && shown.contains("  EXPIRED\n"), "{shown}");
    let out = folder.path().join("out");
    let (code, line) = command(&["bundle", "--directory", text(&path), "--out", text(&out)]);
    assert!(code == 1 && line.contains("ca.pem: expired on "), "{line}");
    assert!(!out.exists());
}

#[test]
fn the_command_takes_the_hosts_of_a_configuration() {
    let files = Files::new();
    let config = files.config(
        "https://localhost:1",
        "    - { hosts: [pay.b.example] }",
        "",
    );
    let path = files.path("ca");
    let create = [
        "create",
        "--directory",
        text(&path),
        "--config",
        text(&config),
    ];
    let (code, made) = command(&create);
    assert_eq!(code, 0, "{made}");
    let permits = "permits:  alipayplus.com, pay.b.example and";
    assert!(made.contains(permits), "{made}");
}
