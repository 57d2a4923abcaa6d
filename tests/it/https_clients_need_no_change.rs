//! Real clients, unchanged, pay over their own https address through `HTTPS_PROXY`: the sidecar looks
//! inside with a certificate of the local CA, signs and verifies.

use std::process::Command;

use serde_json::Value;

use crate::support::World;
use crate::support::clients::{self, Surroundings};
use crate::support::world::{PAY, payment};

const GATEWAY: &str = "https://open-sea-global.alipayplus.com";

/// A world whose local CA real clients can trust: at the time they think it is.
async fn present_day() -> (World, Surroundings) {
    let world = World::now("", "ca: { directory: ca, trust_directory: trust }").await;
    let around = Surroundings {
        proxy: Some(world.egress),
        trust: world.files.path("trust"),
    };
    (world, around)
}

fn interceptions(world: &World, result: &str) -> f64 {
    world.metric(&format!(
        "countersign_interceptions_total{{result=\"{result}\"}}"
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_that_knows_a_proxy_pays_through_it() {
    let (world, around) = present_day().await;
    let url = format!("{GATEWAY}{PAY}");
    let mut failures = Vec::new();
    let all = clients::HTTPS.iter().filter(|client| client.takes_proxy);
    for (count, client) in all.enumerate() {
        let paid = clients::pay(
            client.command(&around, |program| Command::new(program)),
            &url,
            &payment(&format!("R{count}")),
        )
        .await;
        match paid {
            Ok(line) if line["status"] == 200 && line["verdict"] == "verified" => {
                let body: Value = serde_json::from_str(line["body"].as_str().unwrap()).unwrap();
                assert_eq!(body["result"]["resultStatus"], "S", "{}", client.name);
            }
            other => failures.push(format!("{}: {other:?}", client.name)),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(world.gateway().last_seen().unwrap().authentic);
    // All but the one that sends its https requests to the proxy in plain text.
    assert_eq!(interceptions(&world, "ok"), 11.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_trust_the_ca_refuse_and_are_counted() {
    let (world, mut around) = present_day().await;
    // Another CA of the same kind.
    let other = World::now("", "ca: { trust_directory: trust }").await;
    around.trust = other.files.path("trust");
    let url = format!("{GATEWAY}{PAY}");
    for name in ["curl", "php curl", "node axios", "java HttpClient"] {
        let client = clients::HTTPS
            .iter()
            .find(|client| client.name == name)
            .unwrap();
        let paid = clients::pay(
            client.command(&around, |program| Command::new(program)),
            &url,
            &payment("R1"),
        )
        .await;
        assert!(paid.is_err(), "{name}: {paid:?}");
    }
    // curl says why it goes; the other two just go.
    assert_eq!(interceptions(&world, "distrusted"), 2.0);
    assert_eq!(interceptions(&world, "closed"), 2.0);
    assert_eq!(world.gateway().deliveries(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_for_a_tunnel_to_port_80_pays_in_plain_http_inside() {
    let (world, around) = present_day().await;
    let undici = clients::HTTPS
        .iter()
        .find(|client| client.name == "node undici")
        .unwrap();
    let url = format!("{}{PAY}", GATEWAY.replace("https", "http"));
    let command = undici.command(&around, |program| Command::new(program));
    let line = clients::pay(command, &url, &payment("R1")).await.unwrap();
    assert_eq!(line["verdict"], "verified", "{line}");
    let connects = "countersign_exchanges_total{direction=\"egress\",outcome=\"connected\",\
                    route=\"gateway\"}";
    assert_eq!(world.metric(connects), 1.0, "it came through CONNECT");
    assert_eq!(interceptions(&world, "ok"), 0.0);
}
