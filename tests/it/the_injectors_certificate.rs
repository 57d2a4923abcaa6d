//! The injector's own certificate: kept in a Secret that replicas share, renewed in time, vouched for in the
//! caBundle, and never at the cost of somebody else's Secret.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign::clock::Clock;
use serde_json::json;

use crate::support::cluster::{
    Cluster, SECRET, SECRETS, WEBHOOK, WEBHOOKS, empty_secret, until, webhook,
};
use crate::support::injector::Started;
use crate::support::listener::Log;
use crate::support::process::PATIENCE;
use crate::support::raw::send;

const DAY: Duration = Duration::from_hours(24);

/// A clock that stands now: curl and OpenSSL look at the real time.
fn now() -> Clock {
    Clock::held(SystemTime::now())
}

/// As metrics and OpenSSL count it.
fn seconds(clock: &Clock) -> f64 {
    let since = clock.now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs_f64().floor()
}

async fn ready(started: &Started) -> (u16, String) {
    let answer = send(
        started.running.admin,
        "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    (answer.status, answer.text())
}

/// The certificate a client gets that trusts the bundle and nothing else, as PEM; the injector's error
/// otherwise.
async fn shown(cluster: &Cluster, started: &Started) -> Result<String, String> {
    shown_at(cluster, started, &Clock::system()).await
}

/// The same at another time.
async fn shown_at(cluster: &Cluster, started: &Started, clock: &Clock) -> Result<String, String> {
    cluster.pki.write("bundle.pem", cluster.bundle());
    let output = tokio::process::Command::new("openssl")
        .args(["s_client", "-verify_return_error", "-verify_hostname"])
        .args([
            "injector.countersign.svc",
            "-servername",
            "injector.countersign.svc",
        ])
        .arg("-CAfile")
        .arg(cluster.pki.path("bundle.pem"))
        .args(["-no-CApath", "-no-CAstore", "-attime"])
        .arg(seconds(clock).to_string())
        .args(["-connect", &started.running.address.to_string()])
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let begin = text.find("-----BEGIN").ok_or("no certificate")?;
    let end = text.find("-----END CERTIFICATE-----").unwrap() + 26;
    Ok(text[begin..end].to_owned())
}

/// Waits until it shows that certificate, which it must do soon.
async fn until_shown(cluster: &Cluster, started: &Started, clock: &Clock, expected: &str) {
    let showing =
        async { while shown_at(cluster, started, clock).await.as_deref() != Ok(expected) {} };
    let soon = tokio::time::timeout(PATIENCE, showing).await;
    soon.expect("it never shows what is in the Secret");
}

fn certificates(pem: &str) -> usize {
    pem.matches("BEGIN CERTIFICATE").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_gets_a_secret_and_a_bundle_that_vouches_for_what_is_shown() {
    let cluster = Cluster::new();
    let started = cluster.injector(&now()).await;
    started.running.ready().await;
    assert_eq!(ready(&started).await.0, 200);
    until("synced", || {
        started
            .metric("countersign_cluster_synced_timestamp_seconds")
            .is_some()
    })
    .await;
    let secret = cluster.get(SECRET).unwrap();
    assert_eq!(secret["type"], "kubernetes.io/tls");
    assert_eq!(
        secret["metadata"]["labels"]["countersign.dev/injector"],
        "injector"
    );
    assert_eq!(cluster.bundle(), cluster.item("ca.crt"));
    let pem = shown(&cluster, &started).await.unwrap();
    assert_eq!(pem, cluster.item("tls.crt"));
    cluster.pki.write("leaf.pem", &pem);
    for name in [
        "injector",
        "injector.countersign",
        "injector.countersign.svc",
        "injector.countersign.svc.cluster.local",
    ] {
        let line = [
            "verify",
            "-CAfile",
            "bundle.pem",
            "-verify_hostname",
            name,
            "leaf.pem",
        ];
        cluster.pki.openssl(&line);
    }
    let value = cluster.get(WEBHOOK).unwrap();
    // Of the other service's webhook, and of the labels, nothing was touched.
    assert_eq!(value["webhooks"][1], webhook()["webhooks"][1]);
    assert_eq!(value["metadata"]["labels"], webhook()["metadata"]["labels"]);
    let expiry = started
        .metric("countersign_certificate_expiry_timestamp_seconds{listener=\"injector\"}")
        .unwrap();
    let left = expiry
        - SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
    assert!((89.9 * 86_400.0..90.1 * 86_400.0).contains(&left), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_injectors_that_start_at_once_share_one_secret() {
    let cluster = Cluster::new();
    // Both see that there is none before either makes it.
    cluster.together("get secrets 2");
    let clock = now();
    let (one, two) = tokio::join!(cluster.injector(&clock), cluster.injector(&clock));
    one.running.ready().await;
    two.running.ready().await;
    let conflicts = |started: &Started| {
        let labels = "object=\"secret\",result=\"conflict\",verb=\"create\"";
        started.metric(&format!("countersign_cluster_requests_total{{{labels}}}"))
    };
    let lost = conflicts(&one).unwrap_or(0.0) + conflicts(&two).unwrap_or(0.0);
    assert!((lost - 1.0).abs() < f64::EPSILON, "{lost} lost the race");
    let kept = cluster.item("tls.crt");
    for started in [&one, &two] {
        let pem = shown(&cluster, started).await.unwrap();
        assert_eq!(pem, kept);
    }
    // And so they do when both find that it must be renewed: both have read it, and so has the test, when it is
    // time.
    cluster.together("get secrets 3");
    until("both have read it", || {
        cluster.waiting("get secrets 3") == 2
    })
    .await;
    clock.advance(61 * DAY);
    assert_eq!(cluster.item("tls.crt"), kept);
    let updates = |result: &str| {
        let labels = format!("object=\"secret\",result=\"{result}\",verb=\"update\"");
        let line = format!("countersign_cluster_requests_total{{{labels}}}");
        [&one, &two].map(|started| started.metric(&line).unwrap_or(0.0))
    };
    let total = |result| updates(result).iter().sum::<f64>();
    until("both tried", || total("ok") + total("conflict") > 1.0).await;
    assert_eq!((total("ok"), total("conflict")), (1.0, 1.0));
    let renewed = cluster.item("tls.crt");
    assert_ne!(renewed, kept);
    for started in [&one, &two] {
        until_shown(&cluster, started, &clock, &renewed).await;
    }
    assert_eq!(cluster.item("tls.crt"), renewed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_near_its_end_is_renewed_and_a_ca_is_trusted_before_it_signs() {
    let cluster = Cluster::new();
    let clock = now();
    let started = cluster.injector(&clock).await;
    started.running.ready().await;
    let (first, ca) = (cluster.item("tls.crt"), cluster.item("ca.crt"));
    clock.advance(59 * DAY);
    let synced = || started.metric("countersign_cluster_synced_timestamp_seconds");
    let then = seconds(&clock);
    until("looked at", || synced().is_some_and(|at| at == then)).await;
    assert_eq!(cluster.item("tls.crt"), first, "59 days");
    clock.advance(2 * DAY);
    until("renewed", || cluster.item("tls.crt") != first).await;
    assert_eq!(cluster.item("ca.crt"), ca);
    let expiry = || {
        let line = "countersign_certificate_expiry_timestamp_seconds{listener=\"injector\"}";
        started.metric(line).unwrap()
    };
    let end = seconds(&clock) + 90.0 * 86_400.0;
    until("in use", || expiry() == end).await;
    // Towards two thirds of the CA's life, and past them in steps.
    clock.advance(2250 * DAY);
    let mut signed_by_old = true;
    for _ in 0..5 {
        clock.advance(50 * DAY);
        let then = seconds(&clock);
        until("looked at", || synced().is_some_and(|at| at == then)).await;
        let all = cluster.item("ca.crt");
        assert_eq!(cluster.bundle(), all);
        if certificates(&all) == 2 && signed_by_old {
            signed_by_old = false;
            // The new CA is there, and the old one still vouches for what is shown.
            assert!(all.ends_with(&ca), "the old CA is gone");
        }
    }
    assert!(!signed_by_old, "the CA was never renewed");
    cluster.pki.write("bundle.pem", cluster.bundle());
    cluster.pki.write("leaf.pem", cluster.item("tls.crt"));
    let at = seconds(&clock).to_string();
    cluster.pki.openssl(&[
        "verify",
        "-attime",
        &at,
        "-CAfile",
        "bundle.pem",
        "leaf.pem",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_somebody_takes_away_is_put_back() {
    let cluster = Cluster::new();
    let started = cluster.injector(&now()).await;
    started.running.ready().await;
    until("written", || !cluster.bundle().is_empty()).await;
    let bundle = cluster.bundle();
    // As an upgrade of the chart does.
    cluster.put(WEBHOOK, &webhook());
    until("put back", || cluster.bundle() == bundle).await;
    // And as somebody does who installs it anew.
    cluster.delete(WEBHOOK);
    let missing =
        "countersign_cluster_requests_total{object=\"webhook\",result=\"missing\",verb=\"get\"}";
    until("missed", || started.metric(missing).is_some()).await;
    assert_eq!(ready(&started).await.0, 200);
    cluster.post(WEBHOOKS, &webhook());
    until("written again", || cluster.bundle() == bundle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_takes_nothing_away() {
    let mut cluster = Cluster::new();
    let clock = now();
    let started = cluster.injector(&clock).await;
    started.running.ready().await;
    let first = shown(&cluster, &started).await.unwrap();
    cluster.stop();
    let away = "countersign_cluster_requests_total{object=\"secret\",result=\"away\",verb=\"get\"}";
    until("away", || started.metric(away) > Some(1.0)).await;
    assert_eq!(ready(&started).await.0, 200);
    cluster.start();
    cluster.pki.replace("token", "another-token");
    assert_eq!(shown(&cluster, &started).await.unwrap(), first);
    // It is asked again, with the token of the moment.
    clock.advance(61 * DAY);
    until("renewed", || cluster.item("tls.crt") != first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_injector_that_starts_without_an_api_server_says_so_until_it_comes() {
    let mut cluster = Cluster::new();
    cluster.stop();
    let started = cluster.injector(&now()).await;
    let away = "countersign_cluster_requests_total{object=\"secret\",result=\"away\",verb=\"get\"}";
    until("away", || started.metric(away).is_some()).await;
    let mut said = ready(&started).await;
    while said.1.contains("was not asked") {
        said = ready(&started).await;
    }
    assert_eq!(said.0, 503);
    assert!(said.1.contains("the API server at localhost"), "{}", said.1);
    cluster.start();
    started.running.ready().await;
    assert_eq!(ready(&started).await, (200, "ready\n".to_owned()));
    shown(&cluster, &started).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_somebody_else_is_never_touched() {
    let cluster = Cluster::new();
    let mut secret = empty_secret();
    secret["metadata"]["labels"] = json!({ "app": "shop" });
    secret["data"] = json!({ "tls.crt": "eA==", "password": "aHVudGVyMg==" });
    cluster.post(SECRETS, &secret);
    let before = cluster.get(SECRET);
    let started = cluster.injector(&now()).await;
    let mut said = ready(&started).await;
    while said.1.contains("was not asked") {
        said = ready(&started).await;
    }
    assert_eq!(said.0, 503);
    for part in [
        "Secret countersign/injector-tls has no label countersign.dev/injector=injector",
        "--secret",
    ] {
        assert!(said.1.contains(part), "{}", said.1);
    }
    assert_eq!(cluster.get(SECRET), before);
    // Somebody says that it may be used; what else is in there stays.
    secret["metadata"]["labels"] = empty_secret()["metadata"]["labels"].clone();
    cluster.put(SECRET, &secret);
    started.running.ready().await;
    until("written", || cluster.bundle() == cluster.item("ca.crt")).await;
    assert_eq!(cluster.item("password"), "hunter2");
    assert_eq!(
        cluster.get(SECRET).unwrap()["metadata"]["labels"]["app"],
        "countersign"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_secret_is_mended_and_one_that_went_away_is_put_back() {
    let cluster = Cluster::new();
    // As a chart makes it, so that the injector needs no right to make Secrets.
    cluster.post(SECRETS, &empty_secret());
    cluster.forbid("create secrets");
    let started = cluster.injector(&now()).await;
    started.running.ready().await;
    until("written", || cluster.bundle() == cluster.item("ca.crt")).await;
    let old = cluster.item("ca.crt");
    // The CA's key is gone, or somebody takes it away to have another CA; and the bundle cannot be written.
    let first = shown(&cluster, &started).await.unwrap();
    cluster.forbid("update mutatingwebhookconfigurations");
    let mut secret = cluster.get(SECRET).unwrap();
    secret["data"].as_object_mut().unwrap().remove("ca.key");
    secret["data"]["tls.key"] = json!(STANDARD.encode("damaged"));
    cluster.put(SECRET, &secret);
    let forbidden = "object=\"webhook\",result=\"forbidden\",verb=\"update\"";
    let forbidden = format!("countersign_cluster_requests_total{{{forbidden}}}");
    until("forbidden", || started.metric(&forbidden) > Some(1.0)).await;
    assert!(
        cluster.item("ca.crt").ends_with(&old),
        "replicas still show what the old one signed"
    );
    assert!(cluster.item("tls.crt") != first);
    assert_eq!(
        shown(&cluster, &started).await.unwrap(),
        first,
        "nobody would believe the new one"
    );
    cluster.forbid("create secrets");
    let kept = cluster.item("tls.crt");
    until_shown(&cluster, &started, &Clock::system(), &kept).await;
    assert_eq!(cluster.bundle(), cluster.item("ca.crt"));
    cluster.forbid("");
    cluster.delete(SECRET);
    until("put back", || cluster.get(SECRET).is_some()).await;
    assert_eq!(cluster.item("tls.crt"), kept);
    assert_eq!(ready(&started).await.0, 200);
}

#[tokio::test]
async fn what_the_service_account_may_not_do_is_told_and_no_log_has_a_key_or_a_token() {
    let log = Log::capture();
    let cluster = Cluster::new();
    let started = cluster.injector(&now()).await;
    started.running.ready().await;
    let key = cluster.item("tls.key");
    let others = cluster.item("ca.key");
    for (verb, object, label) in [
        ("get", "secrets", "secret"),
        ("get", "mutatingwebhookconfigurations", "webhook"),
    ] {
        cluster.forbid(&format!("{verb} {object}"));
        let labels = format!("object=\"{label}\",result=\"forbidden\",verb=\"{verb}\"");
        let forbidden = format!("countersign_cluster_requests_total{{{labels}}}");
        let often = || started.metric(&forbidden) > Some(3.0);
        until("forbidden", often).await;
        let told = log.lines("WARN");
        let told = told.iter().filter(|line| line.contains(object));
        let told: Vec<_> = told.collect();
        assert!(told.len() == 1, "once, however often: {told:#?}");
        assert!(told[0].contains(&format!("may not {verb}")), "{told:#?}");
    }
    cluster.forbid("");
    until("well again", || {
        log.lines("INFO").iter().any(|line| line.contains("again"))
    })
    .await;
    let all = log.lines("").join("\n");
    for secret in [&key, &others] {
        for line in secret.lines().filter(|line| !line.starts_with("-----")) {
            assert!(!all.contains(line), "{all}");
            assert!(!all.contains(&STANDARD.encode(secret)[..40]), "{all}");
        }
    }
    assert!(!all.contains("the-first-token"), "{all}");
}
