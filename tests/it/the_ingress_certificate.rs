//! The certificate of a TLS listener: real clients see it, see the next one without losing a
//! connection, and never see a broken one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use countersign::clock::Clock;
use countersign::net::certificate::Served;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::listener::{Lasting, Listener, Log, NOT_RELOADED, RELOADED};
use crate::support::pki::{P256, Pki};

const DAY: Duration = Duration::from_hours(24);

fn now() -> SystemTime {
    Clock::system().now()
}

#[tokio::test]
async fn clients_see_the_whole_chain_and_choose_the_protocol() {
    let pki = Pki::new();
    pki.intermediate("middle", "ca");
    pki.leaf("two", "middle");
    pki.write("two.pem", pki.read("two.pem") + &pki.read("middle.pem"));
    let listener = Listener::start(&pki.config("two"), &Clock::system()).await;
    assert_eq!(listener.chain().await, ["two", "middle"]);
    let curl = |flag: &str| {
        let flag = [flag.to_owned()];
        let (listener, pki) = (&listener, &pki);
        async move { listener.curl(pki, &flag).await.unwrap() }
    };
    assert_eq!(curl("--http2").await, "200 HTTP/2");
    assert_eq!(curl("--http1.1").await, "200 HTTP/1.1");
    assert_eq!(listener.handshakes("ok"), 3.0);
}

#[tokio::test]
async fn every_kind_of_key_is_served() {
    let pki = Pki::new();
    let curve = |name: &str| format!("ec_paramgen_curve:{name}");
    let (p384, p521) = (curve("P-384"), curve("P-521"));
    let rsa: &[&str] = &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
    for (name, algorithm, convert) in [
        ("rsa-pkcs8", rsa, None),
        ("rsa-pkcs1", rsa, Some("rsa")),
        ("p256-pkcs8", P256, None),
        ("p256-sec1", P256, Some("ec")),
        ("p384", &["EC", "-pkeyopt", &p384], None),
        ("p521", &["EC", "-pkeyopt", &p521], None),
    ] {
        pki.leaf_with(name, "ca", algorithm);
        let file = format!("{name}.key");
        if let Some(tool) = convert {
            let flag: &[&str] = if tool == "rsa" {
                &["-traditional"]
            } else {
                &[]
            };
            pki.openssl(&[&[tool, "-in", &file, "-out", &file], flag].concat());
            let parameters =
                "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
            let before = if tool == "ec" { parameters } else { "" };
            let expected = format!("BEGIN {} PRIVATE KEY", tool.to_uppercase());
            assert!(pki.read(&file).contains(&expected), "{name}");
            pki.write(&file, before.to_owned() + &pki.read(&file));
        }
        // One file for both is what some tools write.
        let both = format!("{name}-both.pem");
        pki.write(&both, pki.read(&file) + &pki.read(&format!("{name}.pem")));
        let mut config = pki.config(name);
        config.certificate = pki.source(&both, "certificate_file");
        config.key = config.certificate.clone();
        for config in [config, pki.config(name)] {
            let listener = Listener::start(&config, &Clock::system()).await;
            for version in ["--tls-max 1.2", "--tlsv1.3"] {
                let flags: Vec<_> = version.split(' ').map(str::to_owned).collect();
                let answer = listener.curl(&pki, &flags).await;
                assert_eq!(answer, Ok("200 HTTP/2".to_owned()), "{name} {version}");
            }
        }
    }
}

#[tokio::test]
async fn versions_below_1_2_are_refused() {
    let pki = Pki::new();
    let listener = Listener::start(&pki.config("one"), &Clock::system()).await;
    for (version, passes) in [("-tls1_1", false), ("-tls1_2", true), ("-tls1_3", true)] {
        // The client must be willing, or it would be the one that refuses.
        let flags = [version, "-cipher", "DEFAULT:@SECLEVEL=0"];
        let output = listener.s_client(&flags).await;
        assert_eq!(output.status.success(), passes, "{version}: {output:?}");
        if !passes {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("SSL alert number"), "by the listener: {said}");
        }
    }
    assert_eq!(
        (listener.handshakes("failed"), listener.handshakes("ok")),
        (1.0, 2.0)
    );
}

#[tokio::test]
async fn a_renamed_pair_is_shown_to_new_connections_and_old_ones_go_on() {
    let pki = Pki::new();
    pki.leaf("two", "ca");
    pki.rename_over("one", "served");
    let listener = Listener::start(&pki.config("served"), &Clock::system()).await;
    let mut old = Lasting::open(&listener).await;
    assert_eq!(listener.chain().await, ["one"]);
    pki.rename_over("two", "served");
    listener
        .until("shown", |one| one.metric(RELOADED) > Some(0.0))
        .await;
    assert_eq!(listener.chain().await, ["two"]);
    old.ask().await;
}

#[tokio::test]
async fn a_pair_written_in_place_is_shown() {
    let pki = Pki::new();
    pki.leaf("two", "ca");
    let listener = Listener::start(&pki.config("one"), &Clock::system()).await;
    let mut old = Lasting::open(&listener).await;
    for kind in ["pem", "key"] {
        fs::copy(
            pki.path(&format!("two.{kind}")),
            pki.path(&format!("one.{kind}")),
        )
        .unwrap();
    }
    listener
        .until("shown", |one| one.metric(RELOADED) > Some(0.0))
        .await;
    assert_eq!(listener.chain().await, ["two"]);
    old.ask().await;
}

#[tokio::test]
async fn a_mounted_secret_is_shown_when_its_data_link_is_swapped() {
    let pki = Pki::new();
    pki.leaf("two", "ca");
    for name in ["one", "two"] {
        fs::create_dir(pki.path(&format!("..{name}"))).unwrap();
        for (kind, mounted) in [("pem", "tls.crt"), ("key", "tls.key")] {
            let to = pki.path(&format!("..{name}/{mounted}"));
            fs::copy(pki.path(&format!("{name}.{kind}")), to).unwrap();
        }
    }
    symlink("..one", pki.path("..data")).unwrap();
    let mut config = pki.config("one");
    for (source, file) in [
        (&mut config.certificate, "tls.crt"),
        (&mut config.key, "tls.key"),
    ] {
        symlink(format!("..data/{file}"), pki.path(file)).unwrap();
        source.file = pki.path(file);
    }
    let listener = Listener::start(&config, &Clock::system()).await;
    let mut old = Lasting::open(&listener).await;
    assert_eq!(listener.chain().await, ["one"]);
    symlink("..two", pki.path("..data_tmp")).unwrap();
    fs::rename(pki.path("..data_tmp"), pki.path("..data")).unwrap();
    listener.until_reloaded(1.0).await;
    assert_eq!(listener.chain().await, ["two"]);
    old.ask().await;
    assert_eq!(listener.metric(NOT_RELOADED), Some(0.0), "both at once");
}

#[tokio::test]
async fn a_broken_reload_keeps_the_last_good_pair_is_told_once_and_recovers() {
    let log = Log::capture();
    let pki = Pki::new();
    pki.leaf("two", "ca");
    let one = pki.read("one.pem");
    let listener = Listener::start(&pki.config("one"), &Clock::system()).await;
    let half = one[..one.len() / 2].to_owned();
    let half = (
        half,
        "one.pem: is cut short or damaged; a whole PEM file is needed",
    );
    let other = "one.key: the private key does not fit the first certificate";
    let other = (pki.read("two.pem"), other);
    let empty = (String::new(), "one.pem: holds no certificate");
    for (count, (broken, reason)) in (1_u32..).zip([half, other, empty]) {
        pki.replace("one.pem", broken);
        let failed = |one: &Listener| one.metric(NOT_RELOADED) == Some(f64::from(count));
        listener.until(reason, failed).await;
        assert_eq!(listener.chain().await, ["one"], "{reason}");
        let warned = log.lines("WARN");
        assert_eq!(warned.len(), count as usize, "{warned:?}");
        let last = warned.last().unwrap();
        assert!(
            last.contains(reason) && last.contains("the last good one stays"),
            "{last}"
        );
        assert!(last.contains(pki.folder.path().to_str().unwrap()), "{last}");
    }
    // Many looks later there is still one line for each change; this time is not real.
    tokio::time::pause();
    tokio::time::sleep(Duration::from_mins(1)).await;
    tokio::time::resume();
    assert_eq!(log.lines("WARN").len(), 3);
    pki.replace("one.pem", one);
    listener.until_reloaded(1.0).await;
    assert_eq!(log.lines("INFO").len(), 1, "{:?}", log.lines("INFO"));
}

#[tokio::test]
async fn a_missing_file_and_changed_permissions_are_noticed() {
    let pki = Pki::new();
    pki.leaf("two", "ca");
    let listener = Listener::start(&pki.config("one"), &Clock::system()).await;
    let (key, aside) = (pki.path("one.key"), pki.path("aside"));
    fs::rename(&key, &aside).unwrap();
    listener
        .until("missed", |one| one.metric(NOT_RELOADED) == Some(1.0))
        .await;
    assert_eq!(listener.chain().await, ["one"]);
    fs::rename(&aside, &key).unwrap();
    listener.until_reloaded(1.0).await;
    // More than once, as the kernel's clock may not have ticked since the file was renamed.
    let noticed = |one: &Listener| {
        fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
        one.metric(RELOADED) >= Some(2.0)
    };
    listener.until("noticed", noticed).await;
}

#[tokio::test]
async fn an_expired_certificate_is_shown_with_a_warning() {
    shown_with_a_warning(now() + 60 * DAY, "expired at 20", "EXPIRED AT 20").await;
}

#[tokio::test]
async fn a_certificate_before_its_time_is_shown_with_a_warning() {
    let (word, summary) = ("is not valid before 20", "IS NOT VALID BEFORE 20");
    shown_with_a_warning(now() - 60 * DAY, word, summary).await;
}

async fn shown_with_a_warning(at: SystemTime, word: &str, summary: &str) {
    let log = Log::capture();
    let (pki, clock) = (Pki::new(), Clock::held(at));
    let found = Served::load(&pki.config("one"), &clock).unwrap().summary();
    assert!(found.contains(&format!("one.pem, {summary}")), "{found}");
    let warned = log.lines("WARN");
    assert_eq!(warned.len(), 1, "{warned:?}");
    let listener = Listener::start(&pki.config("one"), &clock).await;
    assert_eq!(listener.chain().await, ["one"]);
    assert_eq!(log.lines("WARN").len(), 2);
    pki.replace("one.pem", pki.read("one.pem"));
    listener.until_reloaded(1.0).await;
    let warned = log.lines("WARN");
    assert_eq!(warned.len(), 3, "{warned:?}");
    for line in warned {
        assert!(line.contains(word) && line.contains("one.pem"), "{line}");
    }
}

#[tokio::test]
async fn the_end_of_the_certificate_shown_now_is_a_metric() {
    const EXPIRY: &str = "countersign_certificate_expiry_timestamp_seconds{listener=\"ingress\"}";
    let pki = Pki::new();
    let listener = Listener::start(&pki.config("one"), &Clock::system()).await;
    assert_eq!(listener.metric(RELOADED), Some(0.0));
    let shown = || {
        let value = listener.metric(EXPIRY).unwrap();
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(value)
    };
    let expected = now() + 30 * DAY;
    let near = Duration::from_mins(5);
    assert!((expected - near..expected + near).contains(&shown()));
    let request = [
        "x509",
        "-req",
        "-in",
        "one.csr",
        "-extfile",
        "extensions",
        "-days",
        "90",
    ];
    let signed = [
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-out",
        "one.pem",
    ];
    pki.openssl(&[&request[..], &signed].concat());
    listener
        .until("reloaded", |one| one.metric(RELOADED) > Some(0.0))
        .await;
    assert!((expected + 60 * DAY - near..expected + 60 * DAY + near).contains(&shown()));
}

#[tokio::test]
async fn peers_that_speak_no_tls_or_leave_are_told_apart() {
    let pki = Pki::new();
    let listener = Listener::start(&pki.config("one"), &Clock::system()).await;
    drop(TcpStream::connect(listener.address).await.unwrap());
    listener
        .until("closed", |one| one.handshakes("closed") == 1.0)
        .await;
    let mut plain = TcpStream::connect(listener.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    listener
        .until("failed", |one| one.handshakes("failed") == 1.0)
        .await;
    let mut slow = TcpStream::connect(listener.address).await.unwrap();
    slow.write_all(&[22]).await.unwrap();
    listener
        .until("accepted", |one| {
            one.metric("countersign_connections{listener=\"ingress\"}") == Some(1.0)
        })
        .await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    listener
        .until("timeout", |one| one.handshakes("timeout") == 1.0)
        .await;
}
