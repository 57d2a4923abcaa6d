//! What the rules of `countersign redirect` do to connections and to others' rules: on the kernel, with
//! every tool, in networks of our own.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::netns::{Namespace, succeed};
use crate::support::redirected::{
    APP, FAR, FAR6, PYTHON, SIDECAR, Server, TALK, TOOLS, World, said,
};

#[test]
fn a_network_of_our_own_has_the_outside_its_hosts_and_leaves_nothing() {
    let network = Namespace::new("own");
    let outside = Server::start(network.outside(PYTHON), "outside", "0.0.0.0 443 :: 443");
    network.hosts("203.0.113.9 gateway.example");
    for (to, address) in [(FAR, FAR), (FAR6, FAR6), ("gateway.example", "203.0.113.9")] {
        let mut call = network.command_as(APP, APP, PYTHON);
        let said = succeed(call.args(["-c", TALK, "call", to, "443"]));
        assert_eq!(said, format!("outside {address} port 443\n"));
    }
    let traces = ["/run/netns/", "/etc/netns/"].map(|folder| folder.to_owned() + network.name());
    assert!(traces.iter().all(|trace| Path::new(trace).exists()));
    drop(outside);
    drop(network);
    assert!(!traces.iter().any(|trace| Path::new(trace).exists()));
}

#[test]
fn a_connection_arrives_at_the_sidecar_with_its_destination() {
    let world = World::new("arrives");
    for tool in TOOLS {
        assert_eq!(
            world.done(&format!("apply --exempt-uid {SIDECAR} --tool {tool}")),
            format!("outbound TCP now goes to port 18441 ({tool}, IPv4 and IPv6)\n")
        );
        for to in [FAR, FAR6] {
            for port in [443, 8443] {
                let greeting = format!("sidecar {to} port {port}");
                assert_eq!(world.call(APP, to, port), greeting, "{tool}");
            }
        }
        world.done("remove");
    }
}

#[test]
fn who_and_what_is_exempt_goes_out() {
    let world = World::new("exempt");
    for tool in TOOLS {
        world.done(&format!(
            "apply --tool {tool} --exempt-uid {SIDECAR} --exempt-gid 1500 --exempt-port 8443 \
             --exempt-network 198.51.100.0/24 --exempt-network 2001:db8:9::/48 \
             --exempt-network 203.0.113.99"
        ));
        for (user, to, port, who) in [
            (APP, FAR, 443, "sidecar"),
            (APP, FAR6, 443, "sidecar"),
            (SIDECAR, FAR, 443, "outside"),
            (SIDECAR, FAR6, 443, "outside"),
            (APP, FAR, 8443, "outside"),
            (APP, FAR6, 8443, "outside"),
            (APP, "198.51.100.255", 443, "outside"),
            (APP, "198.51.101.0", 443, "sidecar"),
            (APP, "2001:db8:9::1", 443, "outside"),
            (APP, "2001:db8:a::1", 443, "sidecar"),
            (APP, "203.0.113.99", 443, "outside"),
        ] {
            let greeting = format!("{who} {to} port {port}");
            assert_eq!(world.call(user, to, port), greeting, "{tool}, user {user}");
        }
        for (user, group, who) in [
            (APP, 1500, "outside"),
            (1500, APP, "sidecar"),
            (APP, SIDECAR, "sidecar"),
            (SIDECAR, APP, "outside"),
        ] {
            for to in [FAR, FAR6] {
                let greeting = format!("{who} {to} port 443");
                assert_eq!(world.call_as(user, group, to, 443), greeting, "{tool}");
            }
        }
        world.done("remove");
    }
}

#[test]
fn what_stays_on_the_host_is_not_redirected() {
    let world = World::new("stays");
    for tool in TOOLS {
        world.done(&format!("apply --exempt-uid {SIDECAR} --tool {tool}"));
        for to in ["127.0.0.1", "::1", "192.0.2.2", "2001:db8::2"] {
            assert_eq!(
                world.call(APP, to, 443),
                format!("own {to} port 443"),
                "{tool}"
            );
        }
        world.done("remove");
    }
}

#[test]
fn only_the_named_users_and_ports_are_redirected() {
    let world = World::new("only");
    for tool in TOOLS {
        world.done(&format!(
            "apply --tool {tool} --exempt-uid {SIDECAR} --only-uid {APP} --only-uid 1001 \
             --port 443 --port 444 --no-ipv6"
        ));
        for (user, to, port, who) in [
            (APP, FAR, 443, "sidecar"),
            (1001, FAR, 443, "sidecar"),
            (1002, FAR, 443, "outside"),
            (0, FAR, 443, "outside"),
            (APP, FAR, 8443, "outside"),
            (APP, FAR6, 443, "outside"),
        ] {
            let greeting = format!("{who} {to} port {port}");
            assert_eq!(world.call(user, to, port), greeting, "{tool}, user {user}");
        }
        world.done("remove");
    }
}

#[test]
fn a_connection_that_was_open_before_stays_as_it_was() {
    for tool in TOOLS {
        // A network of its own for each: only the first rules make the kernel track connections.
        let world = World::new("open");
        let calls = [FAR, FAR6].map(|to| {
            let (call, greeting) = world.open_call(APP, to);
            assert_eq!(greeting, format!("outside {to} port 443"));
            (to, call)
        });
        world.done(&format!("apply --exempt-uid {SIDECAR} --tool {tool}"));
        for (to, mut call) in calls {
            assert_eq!(call.say("still there"), "still there", "{tool}");
            assert_eq!(world.call(APP, to, 443), format!("sidecar {to} port 443"));
            assert_eq!(call.say("and now"), "and now", "{tool}");
        }
    }
}

#[test]
fn a_redirected_connection_outlives_a_change_of_the_rules() {
    for tool in TOOLS {
        let world = World::new("change");
        world.done(&format!("apply --exempt-uid {SIDECAR} --tool {tool}"));
        let calls = [FAR, FAR6].map(|to| {
            let (call, greeting) = world.open_call(APP, to);
            assert_eq!(greeting, format!("sidecar {to} port 443"));
            call
        });
        // Talks all the while, so that no moment without rules goes unseen.
        let changed = AtomicBool::new(false);
        thread::scope(|scope| {
            for mut call in calls {
                let changed = &changed;
                scope.spawn(move || {
                    while !changed.load(Ordering::Relaxed) {
                        assert_eq!(call.say("still there"), "still there", "{tool}");
                    }
                    assert_eq!(call.say("at last"), "at last", "{tool}");
                });
            }
            let change = format!("apply --exempt-uid {SIDECAR} --exempt-port 443 --tool {tool}");
            let output = world.redirect(&change);
            // Before anything may fail, for the others wait for it.
            changed.store(true, Ordering::Relaxed);
            said(&output, 0, "warning: port 443 is not redirected");
        });
        assert_eq!(world.call(APP, FAR, 443), format!("outside {FAR} port 443"));
    }
}

#[test]
fn applying_again_replaces_and_twice_is_once() {
    let world = World::new("again");
    for tool in TOOLS {
        let wanted = format!("apply --tool {tool} --exempt-uid {SIDECAR} --port 443");
        world.done(&wanted);
        let once = world.rules();
        world.done(&wanted);
        assert_eq!(world.rules(), once, "{tool}");
        world.done(&format!("apply --tool {tool} --exempt-uid {APP} --no-ipv6"));
        assert_ne!(world.rules(), once, "{tool}");
        assert_eq!(world.call(APP, FAR, 443), format!("outside {FAR} port 443"));
        assert_eq!(world.call(0, FAR6, 443), format!("outside {FAR6} port 443"));
        world.done(&wanted);
        assert_eq!(world.rules(), once, "{tool}");
        world.done("remove");
    }
}

#[test]
fn foreign_rules_survive_byte_for_byte_with_their_counters() {
    for tool in TOOLS {
        let world = World::new("foreign");
        world.shell(
            "nft 'table inet foreign { chain output { type filter hook output priority 0; \
             ct state new counter comment \"not ours\"; }; }'
             nft 'table ip countersign-not { chain output { type nat hook output priority 0; \
             counter; }; }'
             for v in '' 6; do for flavour in nft legacy; do
                 ip${v}tables-$flavour -t nat -N COUNTERSIGN2
                 ip${v}tables-$flavour -t nat -A COUNTERSIGN2 -j RETURN
                 ip${v}tables-$flavour -t nat -A OUTPUT -p tcp -m comment --comment COUNTERSIGN \
                     -j COUNTERSIGN2
             done; done",
        );
        for to in [FAR, FAR6] {
            assert_eq!(world.call(APP, to, 443), format!("outside {to} port 443"));
        }
        let before = world.ruleset();
        assert!(
            !before.contains("packets 0 ") && before.contains("[1:80] -A"),
            "{before}"
        );
        let apply = format!("apply --exempt-uid {SIDECAR} --tool {tool}");
        world.done(&apply);
        let ours = world.ruleset();
        let mut rest = ours.lines();
        let kept = before.lines().all(|line| rest.any(|other| other == line));
        assert!(kept && ours != before, "{tool}: {before}\n{ours}");
        world.done("remove");
        assert_eq!(world.ruleset(), before, "{tool}");
        // And one of theirs that stands behind ours.
        let late = |action: &str| {
            world.shell(&format!(
                "for v in '' 6; do for flavour in nft legacy; do
                     ip${{v}}tables-$flavour -t nat {action} OUTPUT -p udp -j RETURN
                 done; done"
            ))
        };
        late("-A");
        let expected = world.ruleset();
        late("-D");
        world.done(&apply);
        late("-A");
        world.done(&apply);
        world.done("remove");
        assert_eq!(world.ruleset(), expected, "{tool}");
    }
}

#[test]
fn remove_takes_the_rules_away_whichever_tool_made_them_and_twice_is_fine() {
    let world = World::new("remove");
    let nothing = "there are no rules to take away\n";
    assert_eq!(world.done("remove"), nothing);
    for tool in TOOLS {
        world.done(&format!("apply --exempt-uid {SIDECAR} --tool {tool}"));
        assert_eq!(
            world.done("remove"),
            format!("rules are taken away ({tool}, IPv4 and IPv6)\n")
        );
        for to in [FAR, FAR6] {
            assert_eq!(world.call(APP, to, 443), format!("outside {to} port 443"));
        }
        assert_eq!(world.done("remove"), nothing, "{tool}");
    }
    let rules = world.rules().to_lowercase();
    assert!(!rules.contains("countersign"), "{rules}");
}
