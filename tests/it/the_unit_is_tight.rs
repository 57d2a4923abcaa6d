//! The unit of systemd is one that systemd understands, denies what it can, and waits long enough.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::support::Files;
use crate::support::process::{Sidecar, command, text};

/// The exposure that systemd-analyze 252 finds, times ten; more is a right that was given away.
const EXPOSURE: &str = "11";

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy/systemd")
        .join(name)
}

fn unit() -> String {
    std::fs::read_to_string(deploy("countersign.service")).unwrap()
}

fn analyze(arguments: &[&str], unit: &Path) -> Output {
    let mut command = Command::new("systemd-analyze");
    let output = command
        .args(["--no-pager"])
        .args(arguments)
        .arg(unit)
        .output();
    output.unwrap_or_else(|error| panic!("systemd-analyze: {error}; run make deps"))
}

/// Both streams; what systemd does not understand is only a line on stderr.
fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{out}{err}")
}

#[test]
fn systemd_understands_every_line() {
    let files = Files::new();
    // Where the package puts it, there is nothing here.
    let unit = unit().replace("/usr/bin/countersign", env!("CARGO_BIN_EXE_countersign"));
    let file = files.write("countersign.service", unit.as_bytes());
    let verified = analyze(&["verify", "--man=no"], &file);
    let said = said(&verified);
    // systemd's own units of this machine may have warnings of their own.
    let ours: Vec<_> = said
        .lines()
        .filter(|line| line.contains("countersign"))
        .collect();
    assert!(ours.is_empty(), "{said}");
    let wrong = unit + "[Service]\nProtectEverything=yes\n";
    let file = files.write("countersign.service", wrong.as_bytes());
    let said = self::said(&analyze(&["verify", "--man=no"], &file));
    assert!(
        said.contains("ProtectEverything"),
        "a test that sees nothing: {said}"
    );
}

#[test]
fn its_exposure_does_not_grow() {
    let threshold = format!("--threshold={EXPOSURE}");
    let arguments = ["security", "--offline=true", &threshold];
    let looked = analyze(&arguments, &deploy("countersign.service"));
    let said = said(&looked);
    assert!(looked.status.success(), "{said}");
    assert!(!said.contains("ignoring"), "{said}");
    // A single right more is seen.
    let files = Files::new();
    let loose = unit().replace("\nPrivateDevices=yes", "");
    let file = files.write("countersign.service", loose.as_bytes());
    let looked = analyze(&arguments, &file);
    assert!(!looked.status.success(), "{}", self::said(&looked));
}

#[test]
fn its_settings_are_those_the_sidecar_takes() {
    let files = Files::new();
    let file = files.config("https://localhost:1", "", "");
    let settings = std::fs::read_to_string(deploy("countersign.env")).unwrap();
    let settings = settings
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut run = command(&["run"]);
    let moved = |flags: &str| {
        let here = files.path("here");
        flags
            .replace("/var/lib/countersign", text(&here))
            .replace("/run/countersign", text(&here))
    };
    std::fs::create_dir(files.path("here")).unwrap();
    for setting in settings {
        let (name, value) = setting.split_once('=').unwrap();
        match name {
            "COUNTERSIGN_CONFIG" => run.env(name, text(&file)),
            "COUNTERSIGN_FLAGS" => run.args(moved(value).split(' ')),
            "COUNTERSIGN_LOG" | "COUNTERSIGN_LOG_FORMAT" => run.env(name, value),
            _ => panic!("nobody reads {name}"),
        };
    }
    let _sidecar = Sidecar::start(run);
    assert!(files.path("here/ca/ca.pem").exists() && files.path("here/trust/ca.pem").exists());
}

#[test]
fn it_waits_longer_for_the_end_than_a_drain_may_take() {
    let unit = unit();
    let seconds = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key));
        let seconds = line.unwrap().trim_end_matches('s').parse().unwrap();
        Duration::from_secs(seconds)
    };
    let deadline = countersign::net::drain::Config::default().deadline;
    assert!(seconds("TimeoutStopSec=") > deadline);
}
