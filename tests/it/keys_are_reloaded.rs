//! Keys and routes that changed on disk are taken over, whole or not at all.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use countersign_protocol::PrivateKey;

use crate::support::World;
use crate::support::rotation::{CONFIG_OK, identity, key, rewrite, rotate, write_pair};

const KEYS_OK: &str = "countersign_reloads_total{result=\"ok\",what=\"keys\"}";
const KEYS_FAILED: &str = "countersign_reloads_total{result=\"failed\",what=\"keys\"}";
type Change<'a> = Box<dyn Fn(&PrivateKey) + 'a>;

const SOON: &str = "reload_interval: 50ms";

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
