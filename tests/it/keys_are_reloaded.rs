//! Keys and routes that changed on disk are taken over while exchanges run, whole or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use countersign_protocol::{
    ClientId, Content, KeyVersion, Offset, PrivateKey, Signature, Timestamp, sign,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::raw::{RawGateway, read_message};
use crate::support::world::{PAY, payment};
use crate::support::{CLIENT_ID, Files, World};

const KEYS_OK: &str = "countersign_reloads_total{result=\"ok\",what=\"keys\"}";
const CONFIG_OK: &str = "countersign_reloads_total{result=\"ok\",what=\"config\"}";
const KEYS_FAILED: &str = "countersign_reloads_total{result=\"failed\",what=\"keys\"}";
type Change<'a> = Box<dyn Fn(&PrivateKey) + 'a>;

const SOON: &str = "reload_interval: 50ms";

/// An identity whose key files bear their versions.
fn identity(signing: u32, verifying: &[u32]) -> String {
    let keys: Vec<_> = verifying
        .iter()
        .map(|version| format!("{{ file: gateway-{version}.pem, key_version: {version} }}"))
        .collect();
    format!(
        "identities:\n  - client_id: {CLIENT_ID}\n    \
         signing_key: {{ file: partner-{signing}.pem, key_version: {signing} }}\n    \
         verification_keys: [{}]\n",
        keys.join(", ")
    )
}

/// The same configuration with other identities.
fn rewrite(files: &Files, identities: &str) {
    let text = fs::read_to_string(files.path("config.yaml")).unwrap();
    let rest = &text[text.find("egress:").unwrap()..];
    // Renamed into place, as every careful tool does.
    files.write("config.next", format!("{identities}{rest}").as_bytes());
    fs::rename(files.path("config.next"), files.path("config.yaml")).unwrap();
}

fn write_pair(files: &Files, version: u32, partner: &PrivateKey, gateway: &PrivateKey) {
    let (own, theirs) = (partner.to_pkcs8_pem(), gateway.public_key().to_spki_pem());
    files.write(&format!("partner-{version}.pem"), own.as_bytes());
    files.write(&format!("gateway-{version}.pem"), theirs.as_bytes());
}

fn key() -> PrivateKey {
    PrivateKey::generate(2048).unwrap()
}

/// Lets the gateway know these versions of the partner's key, and sign with its own of that version.
fn rotate(world: &World, partner: &[(u32, &PrivateKey)], own: (u32, &PrivateKey)) {
    let partner: BTreeMap<_, _> = partner
        .iter()
        .map(|(version, key)| (KeyVersion::new(*version), key.public_key()))
        .collect();
    let own = (KeyVersion::new(own.0), own.1.clone());
    world.gateway().rotate(partner, own);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_replace_key_files_is_noticed() {
    let world = World::with("", SOON).await;
    let (files, mut reloads) = (&world.files, 0.0);
    let partner = world.files.path("partner.pem");
    // As Kubernetes mounts a Secret: the file is a link through `..data`, which is swapped.
    for (folder, content) in [("..1", &world.files.partner), ("..2", &key())] {
        fs::create_dir(files.path(folder)).unwrap();
        let pem = content.to_pkcs8_pem();
        fs::write(files.path(folder).join("partner.pem"), pem.as_bytes()).unwrap();
    }
    let swapped = |to: &str| {
        symlink(to, files.path("..data_tmp")).unwrap();
        fs::rename(files.path("..data_tmp"), files.path("..data")).unwrap();
    };
    let changes: [(&str, Change<'_>); 4] = [
        (
            "in place",
            // In one piece, filled up to more than before: truncated first, the file would hold no
            // key for a moment.
            Box::new(|key| {
                let length = fs::metadata(&partner).unwrap().len() as usize + 1;
                let pem = format!("{:\n<length$}", *key.to_pkcs8_pem());
                let mut file = fs::OpenOptions::new().write(true).open(&partner).unwrap();
                file.write_all(pem.as_bytes()).unwrap();
            }),
        ),
        (
            "renamed",
            Box::new(|key| {
                files.write("next", key.to_pkcs8_pem().as_bytes());
                fs::rename(files.path("next"), &partner).unwrap();
            }),
        ),
        (
            "became a link through ..data",
            Box::new(|key| {
                let pem = key.to_pkcs8_pem();
                fs::write(files.path("..1/partner.pem"), pem.as_bytes()).unwrap();
                swapped("..1");
                symlink("..data/partner.pem", files.path("link")).unwrap();
                fs::rename(files.path("link"), &partner).unwrap();
            }),
        ),
        (
            "..data swapped",
            Box::new(|key| {
                let pem = key.to_pkcs8_pem();
                fs::write(files.path("..2/partner.pem"), pem.as_bytes()).unwrap();
                swapped("..2");
            }),
        ),
    ];
    for (how, change) in changes {
        let next = key();
        rotate(&world, &[(1, &next)], (1, &world.files.gateway));
        change(&next);
        reloads += 1.0;
        world.until(KEYS_OK, reloads).await;
        assert_eq!(world.pay("").await.outcome(), "verdict verified", "{how}");
    }
    assert_eq!(world.metric(KEYS_FAILED), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_written_files_change_nothing_and_are_taken_over_when_they_are_whole() {
    let world = World::with("", SOON).await;
    let next = key();
    let pem = next.to_pkcs8_pem();
    let (half, rest) = pem.split_at(pem.len() / 2);
    // Renamed and appended: a file is empty for a moment when it is written anew, which is told, too.
    world.files.write("half.pem", half.as_bytes());
    let file = world.files.path("partner.pem");
    fs::rename(world.files.path("half.pem"), &file).unwrap();
    world.until(KEYS_FAILED, 1.0).await;
    // Long enough for many silent tries.
    for _ in 0..100 {
        assert_eq!(world.pay("").await.outcome(), "verdict verified");
    }
    assert_eq!(world.metric(KEYS_FAILED), 1.0, "told at every try");
    rotate(&world, &[(1, &next)], (1, &world.files.gateway));
    let mut file = fs::OpenOptions::new().append(true).open(file).unwrap();
    file.write_all(rest.as_bytes()).unwrap();
    world.until(KEYS_OK, 1.0).await;
    assert_eq!(world.pay("").await.outcome(), "verdict verified");
    // Told and counted once, however often it was tried in between.
    assert_eq!(world.metric(KEYS_FAILED), 1.0);
}

/// What the gateway answers to a payment, signed by that key.
fn answer(world: &World, version: u32, key: &PrivateKey) -> Vec<u8> {
    let body = r#"{"result":{"resultCode":"SUCCESS","resultStatus":"S"}}"#;
    let (client_id, time) = (
        ClientId::parse(CLIENT_ID).unwrap(),
        Timestamp::at(world.clock.now(), Offset::UTC),
    );
    let content = Content {
        method: "POST",
        uri: PAY,
        client_id: &client_id,
        time: &time,
        body: body.as_bytes(),
    };
    let signature = Signature {
        key_version: KeyVersion::new(version),
        value: sign(key, &content).unwrap(),
    };
    format!(
        "HTTP/1.1 200 OK\r\nClient-Id: {CLIENT_ID}\r\nResponse-Time: {time}\r\n\
         Signature: {signature}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_finishes_with_the_keys_it_began_with() {
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    let old = &world.files.gateway;
    let (paid, ()) = tokio::join!(world.pay(""), async {
        let (_, mut stream) = gateway.next().await;
        write_pair(&world.files, 2, &key(), &key());
        rewrite(&world.files, &identity(2, &[2]));
        world.running.trigger.reload();
        world.until(CONFIG_OK, 1.0).await;
        // Only the ring it began with knows this key.
        stream.write_all(&answer(&world, 1, old)).await.unwrap();
    });
    assert_eq!(paid.outcome(), "verdict verified");
    let (paid, request) = tokio::join!(world.pay(""), async {
        let (request, mut stream) = gateway.next().await;
        stream.write_all(&answer(&world, 1, old)).await.unwrap();
        String::from_utf8(request).unwrap()
    });
    assert!(request.contains("keyVersion=2,"), "{request}");
    assert_eq!(paid.outcome(), "response_key_unknown unknown 502");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_comes_while_the_gateway_works_is_known_when_it_answers() {
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    let new = key();
    let (paid, ()) = tokio::join!(world.pay(""), async {
        let (_, mut stream) = gateway.next().await;
        write_pair(&world.files, 2, &key(), &new);
        rewrite(&world.files, &identity(2, &[2]));
        world.running.trigger.reload();
        world.until(CONFIG_OK, 1.0).await;
        stream.write_all(&answer(&world, 2, &new)).await.unwrap();
    });
    assert_eq!(paid.outcome(), "verdict verified");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_kept_signs_with_the_key_of_the_moment() {
    let world = World::new().await;
    let mut app = TcpStream::connect(world.egress).await.unwrap();
    let body = payment("R1");
    let request = format!(
        "POST {PAY} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
        world.egress,
        body.len()
    );
    for version in [1, 2] {
        if version == 2 {
            let (partner, gateway) = (key(), key());
            write_pair(&world.files, 2, &partner, &gateway);
            rotate(&world, &[(2, &partner)], (2, &gateway));
            rewrite(&world.files, &identity(2, &[2]));
            world.running.trigger.reload();
            world.until(CONFIG_OK, 1.0).await;
        }
        app.write_all(request.as_bytes()).await.unwrap();
        let answer = read_message(&mut app).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains("countersign-verdict: verified"), "{answer}");
        let seen = world.gateway().last_seen().unwrap();
        let signature = seen.headers["signature"].to_str().unwrap();
        assert!(signature.contains(&format!("keyVersion={version},")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_refused_whole() {
    let world = World::with("", "reload_interval: off").await;
    let (partner, gateway) = (key(), key());
    write_pair(&world.files, 2, &partner, &gateway);
    rewrite(&world.files, &identity(2, &[2]));
    let file = world.files.path("config.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let failed = "countersign_reloads_total{result=\"failed\",what=\"config\"}";
    let mut count = 0.0;
    for (from, to) in [
        ("listen: 127.0.0.1:0", "listen: 127.0.0.2:0"),
        ("open-*-global", "open-*-other"),
        ("reload_interval: off", "reload_interval: 1h"),
        ("admin: {", "limits: { exchanges: 9 }\nadmin: {"),
        ("admin: {", "ca: { life: 365d }\nadmin: {"),
        ("admin: {", "drain: { grace: 1s }\nadmin: {"),
        (
            "admin: {",
            "resolve: { hosts: { a.example: [127.0.0.1] } }\nadmin: {",
        ),
        (
            "admin: {",
            "upstream_proxy: { url: \"http://p:1\" }\nadmin: {",
        ),
        ("ca_file: ca.pem", "ca_file: partner.pub.pem"),
    ] {
        count += 1.0;
        assert!(text.contains(from), "{from}");
        fs::write(&file, text.replacen(from, to, 1)).unwrap();
        world.running.trigger.reload();
        world.until(failed, count).await;
        // The keys that the same file names are not taken over either.
        assert_eq!(world.pay("").await.outcome(), "verdict verified", "{to}");
    }
    fs::write(&file, &text).unwrap();
    rotate(&world, &[(2, &partner)], (2, &gateway));
    world.running.trigger.reload();
    world.until(CONFIG_OK, 1.0).await;
    assert_eq!(world.pay("").await.outcome(), "verdict verified");
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_are_taken_over_too() {
    let world = World::new().await;
    let file = world.files.path("config.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let stricter = text.replace("upstream:", "request_limit: 5\n      upstream:");
    fs::write(&file, stricter).unwrap();
    world.running.trigger.reload();
    world.until(CONFIG_OK, 1.0).await;
    assert_eq!(
        world.pay("").await.outcome(),
        "request_too_large not-sent 413"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_show_the_keys_of_the_moment_and_since_when() {
    let world = World::new().await;
    let shown = |name: &str| {
        let text = world.running.metrics.render().unwrap();
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let loaded = "countersign_key_loaded_timestamp_seconds{";
    let before = shown(loaded);
    world.clock.advance(std::time::Duration::from_mins(1));
    // The old one stays as it is, the new one comes, the signing key is replaced.
    let (partner, gateway) = (key(), key());
    write_pair(&world.files, 2, &partner, &gateway);
    let gateway_1 = world.files.gateway.public_key().to_spki_pem();
    world.files.write("gateway-1.pem", gateway_1.as_bytes());
    rewrite(&world.files, &identity(2, &[1, 2]));
    world.running.trigger.reload();
    world.until(CONFIG_OK, 1.0).await;
    let after = shown(loaded);
    assert_eq!(
        (before.len(), after.len()),
        (2, 3),
        "{before:#?} {after:#?}"
    );
    assert_eq!(shown("countersign_key_info{").len(), 3);
    let now = after.iter().filter(|line| line.ends_with(" 1800000060"));
    assert_eq!(now.count(), 3, "other files, so all are new: {after:#?}");
    world.clock.advance(std::time::Duration::from_mins(1));
    rewrite(&world.files, &identity(2, &[2]));
    world.running.trigger.reload();
    world.until(CONFIG_OK, 2.0).await;
    let last = shown(loaded);
    assert_eq!(last.len(), 2, "{last:#?}");
    assert!(last.iter().all(|line| after.contains(line)), "{last:#?}");
}

const EXCHANGES: u32 = 10_000;
const ROTATIONS: u32 = 50;
const APPS: usize = 16;
/// How many of them have begun.
static BEGUN: AtomicU32 = AtomicU32::new(0);

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_exchanges_outlive_fifty_rotations_of_both_keys() {
    let world = Arc::new(World::now("", "reload_interval: off").await);
    let pairs: Vec<(PrivateKey, PrivateKey)> = (0..4).map(|_| (key(), key())).collect();
    let pair = |version: u32| &pairs[version as usize % pairs.len()];
    let finished = Arc::new(AtomicU32::new(0));
    let apps: Vec<_> = (0..APPS)
        .map(|_| tokio::spawn(pay_on(Arc::clone(&world), Arc::clone(&finished))))
        .collect();
    // The first one replaces the keys the world began with, which have version 1.
    let mut before = (
        1,
        (world.files.partner.clone(), world.files.gateway.clone()),
    );
    write_pair(&world.files, 1, &before.1.0, &before.1.1);
    for rotation in 1..=ROTATIONS {
        while finished.load(Ordering::SeqCst) < rotation * EXCHANGES / (ROTATIONS + 1) {
            assert!(!apps.iter().any(tokio::task::JoinHandle::is_finished));
            tokio::task::yield_now().await;
        }
        let (version, new) = (rotation + 1, pair(rotation));
        let (old, (old_partner, old_gateway)) = &before;
        let old = *old;
        // Two phases: everybody knows the new keys, then everybody uses them.
        write_pair(&world.files, version, &new.0, &new.1);
        let partner = [(old, old_partner), (version, &new.0)];
        rotate(&world, &partner, (old, old_gateway));
        rewrite(&world.files, &identity(version, &[old, version]));
        world.running.trigger.reload();
        world.until(CONFIG_OK, f64::from(rotation)).await;
        rotate(&world, &partner, (version, &new.1));
        before = (version, new.clone());
    }
    for app in apps {
        app.await.unwrap();
    }
    assert_eq!(world.gateway().deliveries(), u64::from(EXCHANGES));
    assert_eq!(world.verifications("verified"), f64::from(EXCHANGES));
    let seen = world.gateway().last_seen().unwrap();
    let signature = seen.headers["signature"].to_str().unwrap();
    assert!(signature.contains("keyVersion=51,"), "{signature}");
}

/// Pays on one connection until all have paid enough. The gateway checks each request with the key of
/// the version that it names, so one that mixed two would come back as a refusal.
async fn pay_on(world: Arc<World>, finished: Arc<AtomicU32>) {
    let mut stream = TcpStream::connect(world.egress).await.unwrap();
    loop {
        let number = BEGUN.fetch_add(1, Ordering::SeqCst);
        if number >= EXCHANGES {
            return;
        }
        let body = payment(&format!("R{number}"));
        let request = format!(
            "POST {PAY} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
            world.egress,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_message(&mut stream).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains("countersign-verdict: verified"), "{answer}");
        finished.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_change_while_they_are_read_are_refused_until_they_rest() {
    let world = World::with("", "reload_interval: off").await;
    let stop = Arc::new(AtomicBool::new(false));
    let (key, next) = (world.files.path("alipayplus.pem"), world.files.path("next"));
    let pem = world.files.gateway.public_key().to_spki_pem();
    let pipe = |at: &Path| {
        let made = Command::new("mkfifo").arg(at).status().unwrap();
        assert!(made.success());
    };
    pipe(&next);
    fs::rename(&next, &key).unwrap();
    let (stopped, file, content) = (Arc::clone(&stop), key.clone(), pem.clone());
    let restless = std::thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            // Opens when the other end does: from here on the sidecar reads, and the file is another one.
            let mut writer = fs::OpenOptions::new().write(true).open(&file).unwrap();
            pipe(&next);
            fs::rename(&next, &file).unwrap();
            writer.write_all(content.as_bytes()).unwrap();
        }
    });
    world.running.trigger.reload();
    world.until(KEYS_FAILED, 1.0).await;
    assert_eq!(world.metric(KEYS_OK), 0.0);
    stop.store(true, Ordering::SeqCst);
    // Lets the thread go, which waits for a reader.
    let mut both = fs::OpenOptions::new();
    let reader = both.read(true).write(true).open(&key).unwrap();
    restless.join().unwrap();
    drop(reader);
    world.files.write("rests", pem.as_bytes());
    fs::rename(world.files.path("rests"), &key).unwrap();
    world.running.trigger.reload();
    world.until(KEYS_OK, 1.0).await;
    assert_eq!(world.pay("").await.outcome(), "verdict verified");
}
