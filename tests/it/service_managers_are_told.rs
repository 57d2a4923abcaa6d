//! A service manager hears by `sd_notify(3)` when the sidecar is ready, reloads, drains and lives; and
//! SIGHUP, by which it asks for a reload, never ends the process.

use std::fs;
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::time::Instant;

use crate::support::Files;
use crate::support::process::{PATIENCE, Sidecar, command, text};

/// The manager's end.
struct Manager(UnixDatagram);

impl Manager {
    fn at(files: &Files) -> (Self, PathBuf) {
        let path = files.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        (Self(socket), path)
    }

    /// The lines of the next message.
    fn hears(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let length = self.0.recv(&mut message).expect("nothing more was told");
        let message = String::from_utf8(message[..length].to_vec()).unwrap();
        message.lines().map(str::to_owned).collect()
    }
}

/// A sidecar without a manager of its own, to be given one.
fn unattended(files: &Files) -> std::process::Command {
    let file = files.config(
        "http://127.0.0.1:1",
        "",
        "drain: { grace: 0s, deadline: 5s }",
    );
    let mut run = command(&["run", "--config", text(&file)]);
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        run.env_remove(name);
    }
    run
}

#[test]
fn it_tells_of_its_whole_life_and_of_reloads_that_fail() {
    let files = Files::new();
    let (manager, path) = Manager::at(&files);
    let mut run = unattended(&files);
    let mut sidecar = Sidecar::start({
        run.env("NOTIFY_SOCKET", &path);
        run
    });
    let places = format!("ready: egress {}, admin {}", sidecar.egress, sidecar.admin);
    assert_eq!(
        manager.hears(),
        ["READY=1".to_owned(), format!("STATUS={places}")]
    );
    let mut last = 0;
    let good = fs::read_to_string(files.path("config.yaml")).unwrap();
    for (config, how) in [
        (good.clone(), "reloaded"),
        (
            format!("{good}limits: {{ exchanges: 9 }}\n"),
            "the last reload failed, see the log",
        ),
        (good, "reloaded"),
    ] {
        files.write("config.yaml", config.as_bytes());
        sidecar.signal("HUP");
        let begins = manager.hears();
        assert_eq!(
            [&*begins[0], &*begins[2]],
            ["RELOADING=1", "STATUS=reloading"]
        );
        let time = begins[1].strip_prefix("MONOTONIC_USEC=").unwrap();
        let time: u64 = time.parse().unwrap();
        // The same clock as the manager's.
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let uptime: u64 = uptime.split('.').next().unwrap().parse().unwrap();
        let differ = (time / 1_000_000).abs_diff(uptime);
        assert!(last < time && differ < 60, "{time}, {uptime} s");
        last = time;
        let ends = manager.hears();
        assert_eq!(
            ends,
            ["READY=1".to_owned(), format!("STATUS={places}; {how}")]
        );
    }
    sidecar.signal("TERM");
    assert_eq!(manager.hears(), ["STOPPING=1", "STATUS=draining (SIGTERM)"]);
    sidecar.wait_for(|line| line["message"] == "drained");
    assert_eq!(sidecar.exit().code(), Some(0));
    manager.0.set_nonblocking(true).unwrap();
    assert!(
        manager.0.recv(&mut [0; 1]).is_err(),
        "told more after its end began"
    );
}

#[test]
fn a_watchdog_is_fed_as_long_as_the_runtime_turns_if_it_is_this_process_it_watches() {
    let files = Files::new();
    let (manager, path) = Manager::at(&files);
    let watched = |pid: Option<&str>| {
        let mut run = unattended(&files);
        run.env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "100000");
        if let Some(pid) = pid {
            run.env("WATCHDOG_PID", pid);
        }
        Sidecar::start(run)
    };
    let sidecar = watched(None);
    let start = Instant::now();
    let mut fed = 0;
    while fed < 5 {
        fed += usize::from(manager.hears() == ["WATCHDOG=1"]);
    }
    // The first comes at once, four more by half the time each.
    assert!(start.elapsed().as_millis() >= 150, "{:?}", start.elapsed());
    drop(sidecar);
    let sidecar = watched(Some("1"));
    // What the first has left behind.
    while manager.hears()[0] != "READY=1" {}
    sidecar.signal("HUP");
    assert_eq!(manager.hears()[0], "RELOADING=1");
    assert_eq!(manager.hears()[0], "READY=1");
    sidecar.signal("INT");
    assert_eq!(manager.hears()[0], "STOPPING=1");
}

#[test]
fn a_socket_may_have_an_abstract_name_and_a_wrong_one_is_no_harm() {
    let files = Files::new();
    let name = format!("countersign-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager(UnixDatagram::bind_addr(&address).unwrap());
    manager.0.set_read_timeout(Some(PATIENCE)).unwrap();
    let with = |name: &str| {
        let mut run = unattended(&files);
        run.env("NOTIFY_SOCKET", name);
        Sidecar::start(run)
    };
    let _sidecar = with(&format!("@{name}"));
    assert_eq!(manager.hears()[0], "READY=1");
    for (name, why) in [
        ("/no/such/socket", "No such file"),
        ("vsock:2:1", "neither a path nor"),
    ] {
        let sidecar = with(name);
        let told = sidecar.log.iter().any(|line| {
            let message = line["message"].as_str().unwrap();
            let error = line["error"].as_str().unwrap_or("");
            message.starts_with("the service manager cannot be told") && error.contains(why)
        });
        assert!(told, "{name}: {:#?}", sidecar.log);
    }
}

#[test]
fn sighup_before_anything_is_read_only_reloads_afterwards() {
    let files = Files::new();
    let file = files.config("http://127.0.0.1:1", "", "");
    let config = fs::read_to_string(&file).unwrap();
    let waiting = config.replacen("file: partner.pem", "fd: 0", 1);
    assert_ne!(config, waiting);
    files.write("config.yaml", waiting.as_bytes());
    let (key, mut writer) = std::io::pipe().unwrap();
    let mut run = command(&["run", "--config", text(&file)]);
    run.stdin(key);
    let mut sidecar = Sidecar::spawn(run);
    // It reads its key until the pipe is closed. The mask of signals that are caught: SIGHUP is bit 0.
    let start = Instant::now();
    let is_caught = || {
        let status = fs::read_to_string(format!("/proc/{}/status", sidecar.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        u64::from_str_radix(line.unwrap().trim(), 16).unwrap() & 1 == 1
    };
    while !is_caught() {
        assert!(start.elapsed() < PATIENCE, "SIGHUP would still end it");
        std::thread::yield_now();
    }
    sidecar.signal("HUP");
    writer
        .write_all(files.partner.to_pkcs8_pem().as_bytes())
        .unwrap();
    drop(writer);
    sidecar.until_ready();
    sidecar.wait_for(|line| line["message"] == "asked to reload");
    sidecar.wait_for(|line| line["message"] == "reloaded");
}
