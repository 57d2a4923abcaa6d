//! What alerts ask for is there before anything has gone wrong, and as long as it does.

use std::fs;

use crate::support::raw::{RawGateway, UNSIGNED, send};
use crate::support::{World, reviews};

const ADMIN: &str = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// A sidecar of both directions, reloaded by nothing but the test.
async fn world(rest: &str) -> World {
    let app = RawGateway::answering(UNSIGNED).await;
    let ingress = format!(
        "reload_interval: off\ningress: {{ listen: [\"127.0.0.1:0\", \"127.0.0.2:0\"], \
         routes: [{{ name: calls, app: \"http://{app}\" }}] }}\n{rest}"
    );
    World::with("", &ingress).await
}

fn last_reload(world: &World) -> [f64; 2] {
    ["config", "keys"].map(|what| {
        let line = format!("countersign_last_reload_successful{{what=\"{what}\"}}");
        world.metric(&line)
    })
}

async fn reload(world: &World, counted: &str) {
    let (result, what) = counted.split_once(' ').unwrap();
    let line = format!("countersign_reloads_total{{result=\"{result}\",what=\"{what}\"}}");
    let before = world.metric(&line);
    world.running.trigger.reload();
    world.until(&line, before + 1.0).await;
}

#[tokio::test]
async fn a_fresh_sidecar_shows_0_for_what_can_go_wrong() {
    let world = world("").await;
    let text = world.running.metrics.render().unwrap();
    for line in [
        "countersign_faults_total{code=\"response_signature_invalid\",delivery=\"unknown\",direction=\"egress\",route=\"gateway\"}",
        "countersign_faults_total{code=\"app_timeout\",delivery=\"unknown\",direction=\"ingress\",route=\"calls\"}",
        "countersign_faults_total{code=\"overloaded\",delivery=\"not-sent\",direction=\"egress\",route=\"none\"}",
        "countersign_exchanges_total{direction=\"egress\",outcome=\"upstream_timeout\",route=\"gateway\"}",
        "countersign_exchanges_total{direction=\"ingress\",outcome=\"app_unreachable\",route=\"calls\"}",
        "countersign_verifications_total{direction=\"egress\",result=\"response_signature_missing\"}",
        "countersign_verifications_total{direction=\"ingress\",result=\"request_signature_invalid\"}",
        "countersign_unsigned_answers_total{kind=\"5xx\",route=\"gateway\"}",
        "countersign_unsigned_answers_total{kind=\"refusal\",route=\"gateway\"}",
        "countersign_replays_total{route=\"calls\"}",
        "countersign_connections_full_total{listener=\"ingress\"}",
        "countersign_tunnels_total{result=\"loop_detected\"}",
        "countersign_interceptions_total{result=\"distrusted\"}",
    ] {
        assert!(text.contains(&format!("{line} 0\n")), "{line}: {text}");
    }
}

#[tokio::test]
async fn a_route_that_comes_by_a_reload_is_shown_too() {
    let world = world("").await;
    let file = world.files.path("config.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("name: gateway", "name: other")).unwrap();
    reload(&world, "ok config").await;
    let text = world.running.metrics.render().unwrap();
    let line =
        "countersign_exchanges_total{direction=\"egress\",outcome=\"verified\",route=\"other\"} 0";
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn a_reload_that_fails_is_shown_until_one_works() {
    let world = world("").await;
    let (config, key) = (
        world.files.path("config.yaml"),
        world.files.path("partner.pem"),
    );
    let (good, good_key) = (fs::read(&config).unwrap(), fs::read(&key).unwrap());
    reload(&world, "ok keys").await;
    assert_eq!(last_reload(&world), [1.0, 1.0]);
    fs::write(&config, "nonsense").unwrap();
    reload(&world, "failed config").await;
    assert_eq!(last_reload(&world), [0.0, 1.0]);
    // The very text that runs: nothing of the configuration is left to be taken over.
    fs::write(&config, &good).unwrap();
    reload(&world, "ok keys").await;
    assert_eq!(last_reload(&world), [1.0, 1.0]);
    fs::write(&key, "no key").unwrap();
    reload(&world, "failed keys").await;
    assert_eq!(last_reload(&world), [1.0, 0.0]);
    fs::write(&config, "nonsense").unwrap();
    reload(&world, "failed config").await;
    assert_eq!(last_reload(&world), [0.0, 0.0]);
    fs::write(&config, &good).unwrap();
    reload(&world, "failed keys").await;
    assert_eq!(last_reload(&world), [1.0, 0.0]);
    fs::write(&key, &good_key).unwrap();
    reload(&world, "ok keys").await;
    assert_eq!(last_reload(&world), [1.0, 1.0]);
}

#[tokio::test]
async fn limits_are_shown_beside_what_they_limit() {
    let limits = "limits: { connections: 7, tunnels: 5, exchanges: 3, buffered: 64KiB }\n";
    let world = world(limits).await;
    for (line, expected) in [
        ("connections_limit{listener=\"egress\"}", 7.0),
        // Each address for itself.
        ("connections_limit{listener=\"ingress\"}", 14.0),
        ("connections_limit{listener=\"admin\"}", 7.0),
        ("in_flight_limit{direction=\"egress\"}", 3.0),
        ("in_flight_limit{direction=\"ingress\"}", 3.0),
        ("tunnels_limit", 5.0),
        // Each direction, and what apps answer.
        ("buffered_limit_bytes", 3.0 * 65536.0),
    ] {
        let line = format!("countersign_{line}");
        assert_eq!(world.metric(&line), expected, "{line}");
    }
}

#[tokio::test]
async fn an_injector_shows_what_its_listeners_may_take_too() {
    let world = reviews::World::new().await;
    for listener in ["injector", "admin"] {
        for (line, expected) in [
            ("connections_limit", 256.0),
            ("connections_full_total", 0.0),
            ("unfinished_heads_total", 0.0),
        ] {
            let line = format!("countersign_{line}{{listener=\"{listener}\"}}");
            assert_eq!(world.started.metric(&line), Some(expected), "{line}");
        }
    }
}

#[tokio::test]
async fn the_end_of_the_local_ca_is_shown_once_there_is_one() {
    let world = world("ca: { life: 40d }\n").await;
    let admin = world.running.admin.unwrap();
    let ask = || async { send(admin, ADMIN).await.text() };
    let name = "countersign_local_ca_expiry_timestamp_seconds";
    assert!(!ask().await.contains(name), "none was needed so far");
    let ca = send(admin, ADMIN.replace("/metrics", "/ca.pem")).await;
    assert_eq!(ca.status, 200);
    // Forty days behind the world's time.
    let line = format!("{name} {}\n", 1_800_000_000 + 40 * 86_400);
    let text = ask().await;
    assert!(text.contains(&line), "{text}");
}
