//! The redirect rules take precedence over a mesh's, whichever were made first, and the sidecar notices when they do not.

use serde_json::Value;

use crate::support::netns::succeed;
use crate::support::redirected::{APP, FAR, SIDECAR, World};
use crate::support::town::Town;

/// What istio-init sets: all TCP but that of its proxy's user goes to port 15001.
const MESH: [(&str, &str); 3] = [
    (
        "nft",
        "nft 'table ip istio { chain to_proxy { meta skuid 1337 return; oifname lo return; \
         meta l4proto tcp redirect to :15001; }; \
         chain output { type nat hook output priority -100; meta l4proto tcp jump to_proxy; }; }'",
    ),
    ("iptables-nft", "iptables-nft"),
    ("iptables-legacy", "iptables-legacy"),
];

fn mesh(tool: &str) -> String {
    let (_, line) = MESH.iter().find(|(name, _)| *name == tool).unwrap();
    if *line != tool {
        return (*line).to_owned();
    }
    format!(
        "{tool} -t nat -N ISTIO_OUTPUT; {tool} -t nat -A OUTPUT -p tcp -j ISTIO_OUTPUT; \
         {tool} -t nat -A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN; \
         {tool} -t nat -A ISTIO_OUTPUT -o lo -j RETURN; \
         {tool} -t nat -A ISTIO_OUTPUT -p tcp -j REDIRECT --to-ports 15001"
    )
}

#[test]
fn no_connection_leaves_past_the_sidecar_in_either_order() {
    for (tool, _) in MESH {
        for first in ["ours", "mesh"] {
            let world = World::new("precedence");
            let apply = || {
                world.done(&format!(
                    "apply --exempt-uid {SIDECAR} --tool nft --no-ipv6"
                ))
            };
            if first == "ours" {
                apply();
                world.shell(&mesh(tool));
            } else {
                world.shell(&mesh(tool));
                apply();
            }
            for _ in 0..5 {
                let greeting = world.call(APP, FAR, 443);
                assert_eq!(
                    greeting,
                    format!("sidecar {FAR} port 443"),
                    "{tool}, {first} first"
                );
            }
        }
    }
}

#[test]
fn iptables_rules_are_the_first_of_their_chain_whenever_they_are_made() {
    for (name, tool) in [
        ("iptables", "iptables-nft"),
        ("iptables-legacy", "iptables-legacy"),
    ] {
        for first in ["ours", "mesh"] {
            let world = World::new("position");
            let apply = || {
                world.done(&format!(
                    "apply --exempt-uid {SIDECAR} --tool {name} --no-ipv6"
                ));
            };
            if first == "ours" {
                apply();
            }
            world.shell(&mesh(tool));
            // Also again, over rules that are no longer the first.
            apply();
            assert_eq!(
                world.call(APP, FAR, 443),
                format!("sidecar {FAR} port 443"),
                "{tool}, {first} first"
            );
            let jumps = world.shell(&format!("{tool} -t nat -S OUTPUT"));
            assert_eq!(jumps.matches("COUNTERSIGN").count(), 1, "{jumps}");
        }
    }
}

/// Whether the rules are in force, as the sidecar shows it.
fn active(town: &Town) -> Option<f64> {
    let mut curl = town.app("curl");
    let url = format!("http://{}/metrics", town.sidecar.admin);
    let metrics = succeed(curl.args(["-sS", &url]));
    let line = "countersign_redirect_active{family=\"ipv4\"} ";
    let mut values = metrics.lines().filter_map(|found| found.strip_prefix(line));
    values.next().map(|value| value.parse().unwrap())
}

fn message_of(line: &Value) -> &str {
    line["message"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_reports_whether_the_rules_are_in_force() {
    let rest = "  transparent: { self_check: 100ms }\nadmin: { listen: \"127.0.0.1:18449\" }";
    let mut town = Town::new("check", "\"localhost:18441\"", rest);
    let line = town.sidecar.wait_for(|line| line["family"] == "ipv4");
    assert_eq!(line["level"], "WARN");
    assert!(message_of(&line).contains("not in force"), "{line}");
    assert_eq!(active(&town), Some(0.0));
    town.redirect(&[
        "apply",
        "--exempt-uid",
        &SIDECAR.to_string(),
        "--tool",
        "nft",
    ]);
    let line = town.sidecar.wait_for(|line| line["family"] == "ipv4");
    assert_eq!(message_of(&line), "redirect rules are in force");
    assert_eq!(active(&town), Some(1.0));
    // A mesh that takes precedence over everything.
    let wins = mesh("nft").replace("-100", "-150");
    succeed(town.app("sh").args(["-ec", &wins]));
    let line = town.sidecar.wait_for(|line| line["family"] == "ipv4");
    assert!(message_of(&line).contains("not in force"), "{line}");
    assert_eq!(active(&town), Some(0.0));
}
