//! What `countersign redirect` says, prints and refuses, and that it leaves nothing half done.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::netns::succeed;
use crate::support::redirected::{APP, COUNTERSIGN, FAR, FAR6, SIDECAR, TOOLS, World, said};

#[test]
fn rules_another_tool_has_made_are_named_and_not_doubled() {
    let world = World::new("another");
    for first in TOOLS {
        world.done(&format!("apply --exempt-uid {SIDECAR} --tool {first}"));
        let rules = world.rules();
        for second in TOOLS.into_iter().filter(|tool| *tool != first) {
            let output = world.redirect(&format!("apply --exempt-uid 7 --tool {second}"));
            let complaint = format!(
                "countersign: {first} has made such rules already; take them away first: \
                 countersign redirect remove\n"
            );
            said(&output, 1, &complaint);
        }
        assert_eq!(world.rules(), rules);
        world.done("remove");
    }
    // Both at once, as an older version or a hand might leave them.
    for tool in ["iptables", "iptables-legacy"] {
        let script = world.done(&format!("print --exempt-uid 7 --no-ipv6 --tool {tool}"));
        world.shell(&format!("{tool}-restore --noflush <<'END'\n{script}END"));
    }
    assert_eq!(
        world.done("remove"),
        "rules are taken away (iptables, IPv4)\nrules are taken away (iptables-legacy, IPv4)\n"
    );
}

#[test]
fn print_is_what_apply_hands_to_the_tool() {
    let world = World::new("print");
    let flags = format!(
        "--exempt-uid {SIDECAR} --exempt-gid 9 --only-uid {APP} --port 443 --exempt-port 22 \
         --exempt-network 10.0.0.0/8 --exempt-network fd00::/8 --to-port 15999"
    );
    for tool in TOOLS {
        let print = format!("print {flags} --tool {tool}");
        let mut plain = world.network.command_as(APP, APP, COUNTERSIGN);
        let script = succeed(plain.arg("redirect").args(print.split(' ')));
        if tool == "nft" {
            world.shell(&format!("nft -c -f - <<'END'\n{script}END"));
            world.shell(&format!("nft -f - <<'END'\n{script}END"));
        } else {
            let second = script.rfind('#').unwrap();
            let (v4, v6) = script.split_at(second);
            world.shell(&format!("{tool}-restore --noflush <<'END'\n{v4}END"));
            let tool6 = tool.replace("ip", "ip6");
            world.shell(&format!("{tool6}-restore --noflush <<'END'\n{v6}END"));
        }
        let by_hand = world.rules();
        world.done("remove");
        world.done(&format!("apply {flags} --tool {tool}"));
        assert_eq!(world.rules(), by_hand, "{tool}");
        assert!(by_hand.contains("15999"));
        world.done("remove");
    }
}

#[test]
fn a_lack_of_privilege_is_named() {
    let world = World::new("lack");
    for (lacking, action, complaint) in [
        (
            "net_admin",
            "apply --exempt-uid 1",
            "needs the capability NET_ADMIN, such as in an init",
        ),
        (
            "net_admin",
            "remove",
            "needs the capability NET_ADMIN, such as in an init",
        ),
        (
            "net_raw",
            "apply --exempt-uid 1 --tool iptables-legacy",
            "iptables-legacy needs the capability NET_RAW beside NET_ADMIN",
        ),
    ] {
        let mut command = world.network.command("setpriv");
        let lacking = format!("-{lacking}");
        command.args(["--bounding-set", &lacking, "--inh-caps", &lacking]);
        command
            .args([COUNTERSIGN, "redirect"])
            .args(action.split(' '));
        assert_eq!(said(&command.output().unwrap(), 1, complaint), "");
    }
    // NET_ADMIN alone is enough for the others, for any user.
    for tool in ["nft", "iptables"] {
        let mut command = world.network.command("setpriv");
        command.args([
            "--reuid",
            "1000",
            "--clear-groups",
            "--bounding-set",
            "-all,+net_admin",
        ]);
        command.args([
            "--inh-caps",
            "-all,+net_admin",
            "--ambient-caps",
            "+net_admin",
        ]);
        let words = format!("redirect apply --exempt-uid {SIDECAR} --tool {tool}");
        succeed(command.arg(COUNTERSIGN).args(words.split(' ')));
        assert_eq!(world.call(APP, FAR, 443), format!("sidecar {FAR} port 443"));
        world.done("remove");
    }
}

#[test]
fn wrong_usage_is_explained_and_changes_nothing() {
    let world = World::new("usage");
    for (flags, complaint) in [
        ("", "nobody is exempt"),
        (
            " --exempt-uid app",
            "\"app\" is no number of a user or group",
        ),
        (
            " --exempt-uid 4294967295",
            "is no number of a user or group",
        ),
        (
            " --exempt-uid 1 --only-uid 1",
            "user 1 is in --only-uid and in --exempt-uid",
        ),
        (
            " --exempt-uid 1 --port 5 --exempt-port 5",
            "port 5 is in --port and in --exempt-port",
        ),
        (
            " --exempt-uid 1 --to-port 0",
            "\"0\" is no port from 1 to 65535",
        ),
        (
            " --exempt-uid 1 --port 65536",
            "\"65536\" is no port from 1 to 65535",
        ),
        (
            " --exempt-uid 1 --exempt-network 10.0.0.1/8",
            "the network is 10.0.0.0/8",
        ),
        (
            " --exempt-uid 1 --exempt-network fd00::1/8",
            "the network is fd00::/8",
        ),
        (
            " --exempt-uid 1 --exempt-network 0.0.0.0/0",
            "\"0.0.0.0/0\" is every address",
        ),
        (
            " --exempt-uid 1 --exempt-network ::/0",
            "\"::/0\" is every address",
        ),
        (
            " --exempt-uid 1 --exempt-network 10.0.0.0/33",
            "is no network; write it like",
        ),
        (" --exempt-uid 1 --tool ipfw", "iptables-legacy"),
    ] {
        for action in ["apply", "print"] {
            let output = world.redirect(&format!("{action}{flags}"));
            assert_eq!(said(&output, 64, complaint), "", "{flags}");
        }
    }
    assert_eq!(world.ruleset(), "");
    let warning =
        "countersign: warning: port 443 is not redirected: calls to the gateway go out unsigned\n";
    for (flags, says) in [
        ("--port 80", warning),
        ("--exempt-port 443", warning),
        ("--port 80 --port 443", ""),
        ("--exempt-port 22", ""),
    ] {
        let output = world.redirect(&format!("print --exempt-uid 7 {flags}"));
        assert_eq!(String::from_utf8(output.stderr).unwrap(), says, "{flags}");
        assert!(output.status.success());
    }
    let output = world.redirect("print --exempt-uid 0");
    assert!(
        !said(
            &output,
            0,
            "warning: with --exempt-uid 0 everything root sends"
        )
        .is_empty()
    );
}

#[test]
fn a_kernel_without_ipv6_is_told_and_gets_the_rules_for_ipv4() {
    let world = World::new("no6");
    for tool in TOOLS {
        let mut command = world.network.command("unshare");
        // The shell becomes countersign, whose /proc/net is empty then.
        let script = format!(
            "mount -t tmpfs none /proc/$$/net && exec {COUNTERSIGN} redirect apply \
             --exempt-uid {SIDECAR} --tool {tool}"
        );
        assert_eq!(
            succeed(command.args(["-m", "sh", "-c", &script])),
            format!(
                "outbound TCP now goes to port 18441 ({tool}, IPv4)\n\
                 IPv6 is not redirected: this kernel has none\n"
            )
        );
        assert_eq!(world.call(APP, FAR, 443), format!("sidecar {FAR} port 443"));
        assert_eq!(
            world.call(APP, FAR6, 443),
            format!("outside {FAR6} port 443")
        );
        world.done("remove");
    }
}

#[test]
fn when_ipv6_fails_everything_is_as_before() {
    let world = World::new("fails");
    let folder = TempDir::new().unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let apply = |tool: &str| {
        let mut command = world.network.command(COUNTERSIGN);
        let words = format!("redirect apply --exempt-uid {SIDECAR} --tool {tool}");
        let command = command.args(words.split(' ')).env("PATH", &path);
        command.output().unwrap()
    };
    for tool in ["iptables", "iptables-legacy"] {
        let restore = format!("{}-restore", tool.replace("ip", "ip6"));
        // With no rules before, and with other rules before.
        world.done(&format!("apply --exempt-uid 7 --tool {tool}"));
        world.done("remove");
        for earlier in [false, true] {
            if earlier {
                world.done(&format!("apply --exempt-uid 7 --port 443 --tool {tool}"));
            }
            let before = world.rules();
            failing(&folder, &restore, "the second failed");
            assert_eq!(
                said(&apply(tool), 1, &format!("{restore}: the second failed\n")),
                ""
            );
            assert_eq!(world.rules(), before, "{tool}");
            fs::remove_file(folder.path().join(&restore)).unwrap();
        }
        // Neither silence nor a guess when it is not the kernel that lacks IPv6.
        let list = tool.replace("ip", "ip6");
        failing(&folder, &list, "out of order");
        said(&apply(tool), 1, &format!("{list}: out of order"));
        failing(
            &folder,
            &list,
            "Table does not exist (do you need to insmod?)",
        );
        assert_eq!(
            said(&apply(tool), 0, ""),
            format!(
                "outbound TCP now goes to port 18441 ({tool}, IPv4)\n\
                 IPv6 is not redirected: this kernel has no NAT for it: {list}: Table does not \
                 exist (do you need to insmod?)\n"
            )
        );
        fs::remove_file(folder.path().join(&list)).unwrap();
        world.done("remove");
    }
}

#[test]
fn without_a_tool_that_works_the_packages_are_named() {
    let world = World::new("tools");
    let folder = TempDir::new().unwrap();
    let apply = |tool: &str, hide: &str| {
        let mut command = world.network.command("unshare");
        let script = format!(
            "{hide} exec {COUNTERSIGN} redirect apply --exempt-uid {SIDECAR} --tool {tool}"
        );
        command.args(["-m", "sh", "-c", &script]);
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        command.env("PATH", path).output().unwrap()
    };
    let hide = "mount -t tmpfs none /usr/sbin &&";
    for (tool, complaint) in [
        (
            "auto",
            "no tool works here: neither nft nor iptables is in PATH",
        ),
        ("auto", "; install the package nftables or iptables\n"),
        (
            "nft",
            "nft: not found in PATH, /usr/sbin and /sbin; install the package nftables\n",
        ),
        (
            "iptables",
            "iptables: not found in PATH, /usr/sbin and /sbin; install the package ipt",
        ),
    ] {
        said(&apply(tool, hide), 1, complaint);
    }
    // One that is there and does not work gives way to the next, and is quoted where it is wanted.
    failing(&folder, "nft", "no netlink here");
    said(&apply("nft", ""), 1, "countersign: nft: no netlink here\n");
    let fallen_back = said(&apply("auto", ""), 0, "");
    assert_eq!(
        fallen_back,
        "outbound TCP now goes to port 18441 (iptables, IPv4 and IPv6)\n\
         whether nft has made such rules is unknown: nft: no netlink here\n"
    );
}

/// A folder with a program of this name that says something and fails.
fn failing(folder: &TempDir, program: &str, words: &str) {
    let file = folder.path().join(program);
    // By a program, so that nothing that other tests start has it open for writing (ETXTBSY).
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(&file);
    let mut install = install.stdin(Stdio::piped()).spawn().unwrap();
    let script = format!("#!/bin/sh\necho '{words}' >&2\nexit 1\n");
    let mut stdin = install.stdin.take().unwrap();
    stdin.write_all(script.as_bytes()).unwrap();
    drop(stdin);
    assert!(install.wait().unwrap().success());
}
