//! What the process denies itself: core dumps, new privileges, and with Landlock all files it needs not.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::bad_input_is_explained::one_line;
use crate::support::Files;
use crate::support::pki::Pki;
use crate::support::process::{Sidecar, command, copy_of_binary, text};
use crate::support::raw::send;
use crate::support::town::SIDECAR;

/// What `hardened` says where the kernel has it all.
const ON: &str = "on";

fn hardened(sidecar: &Sidecar) -> &Value {
    let mut lines = sidecar.log.iter();
    let line = lines.find(|line| line["message"] == "hardened");
    line.unwrap_or_else(|| panic!("no such line: {:?}", sidecar.log))
}

/// Whether the kernel has Landlock, asked without the sidecar.
fn kernel_has_landlock() -> bool {
    let script = "import ctypes; print(ctypes.CDLL(None).syscall(444, None, 0, 1))";
    let output = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim() != "-1"
}

fn proc(sidecar: &Sidecar, name: &str) -> String {
    fs::read_to_string(format!("/proc/{}/{name}", sidecar.id())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_gains_no_privileges_and_its_memory_is_closed_to_its_own_user() {
    let files = Files::new();
    // The user must get in, and to a binary that no closed folder hides.
    fs::set_permissions(files.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    chown(files.folder.path(), Some(SIDECAR), Some(SIDECAR)).unwrap();
    let binary = files.path("countersign");
    copy_of_binary(&binary);
    // The key comes by a descriptor, as from a shell's <(…).
    let line = "ulimit -c unlimited; exec \"$0\" run --client-id C --private-key /dev/fd/3 \
                --alipay-public-key alipayplus.pem --egress-listen 127.0.0.1:0 \
                --admin-listen 127.0.0.1:0 3<partner.pem";
    let mut unprivileged = Command::new("setpriv");
    let user = SIDECAR.to_string();
    unprivileged
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .args(["sh", "-c", line, text(&binary)])
        .current_dir(&files.folder)
        .env_remove("COUNTERSIGN_CONFIG")
        .stdin(Stdio::null());
    chown(files.path("partner.pem"), Some(SIDECAR), Some(SIDECAR)).unwrap();
    let sidecar = Sidecar::start(unprivileged);
    let status = proc(&sidecar, "status");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let limits = proc(&sidecar, "limits");
    let core = limits.lines().find(|line| line.starts_with("Max core"));
    assert_eq!(core.unwrap().matches(" 0 ").count(), 2, "{limits}");
    // The kernel gives the files of a process that must not be dumped to root.
    let facts = fs::metadata(format!("/proc/{}/environ", sidecar.id())).unwrap();
    assert_eq!(facts.uid(), 0);
    assert!(status.contains(&format!("Uid:\t{SIDECAR}")), "{status}");
    // It still sees itself.
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let metrics = send(sidecar.admin, request).await.text();
    for name in [
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
    ] {
        let line = metrics.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split(' ').nth(1));
        assert!(value.is_some_and(|value| value != "0"), "{name}: {metrics}");
    }
}

#[test]
fn a_crash_leaves_no_core() {
    let files = Files::new();
    // Landlock would keep the kernel from writing one here; that is another promise.
    let off = "hardening: { landlock: off }";
    let file = files.config("http://127.0.0.1:1", "", off);
    let mut shell = Command::new("sh");
    let line = "ulimit -c unlimited; exec \"$0\" run --config \"$1\"";
    shell
        .args(["-c", line, env!("CARGO_BIN_EXE_countersign"), text(&file)])
        .current_dir(&files.folder)
        .env_remove("COUNTERSIGN_CONFIG")
        .stdin(Stdio::null());
    let sidecar = Sidecar::start(shell);
    sidecar.signal("ABRT");
    let exit = sidecar.exit();
    assert_eq!((exit.signal(), exit.core_dumped()), (Some(6), false));
    let core = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("core");
    let mut left = fs::read_dir(&files.folder).unwrap().map(Result::unwrap);
    assert!(!left.any(core));
}

/// A sidecar whose certificate of ingress is in `pki`, and a pair like it in a folder it was not told of.
struct Secluded {
    sidecar: Sidecar,
    pki: Pki,
    outside: Pki,
    _files: Files,
}

impl Secluded {
    fn with(rest: &str) -> Self {
        let (files, pki, outside) = (Files::new(), Pki::new(), Pki::new());
        let path = |name| text(&pki.path(name)).to_owned();
        let config = format!(
            "{}ingress:\n  listen: 127.0.0.1:0\n  tls: {{ certificate_file: {}, key_file: {}, \
             reload_interval: 50ms }}\n  routes: [{{ app: \"http://127.0.0.1:1\" }}]\n\
             ca: {{ directory: ca, trust_directory: made/trust }}\n\
             egress: {{ listen: \"127.0.0.1:0\" }}\n{rest}\n",
            Files::identities(),
            path("one.pem"),
            path("one.key"),
        );
        let file = files.write("config.yaml", config.as_bytes());
        let sidecar = Sidecar::start(command(&["run", "--config", text(&file)]));
        // What it writes, it may write.
        for made in ["ca/issuing.key", "made/trust/truststore.p12"] {
            assert!(files.path(made).exists(), "{made}");
        }
        Self {
            sidecar,
            pki,
            outside,
            _files: files,
        }
    }

    /// Exchanges the pair for links to another; returns what came of the reload.
    fn exchange(&mut self, with: &Path) -> String {
        for name in ["one.key", "one.pem"] {
            let new = self.pki.path("new");
            symlink(with.join(name), &new).unwrap();
            fs::rename(&new, self.pki.path(name)).unwrap();
        }
        let pair = |line: &Value| {
            let reason = line["reason"].to_string();
            line["message"] == "certificate reloaded" || reason.contains("cannot be read")
        };
        let line = self.sidecar.wait_for(pair);
        format!("{} {}", line["message"], line["reason"])
    }
}

#[test]
fn it_reads_no_file_outside_of_the_folders_it_was_told_of() {
    let mut secluded = Secluded::with("");
    let line = hardened(&secluded.sidecar).clone();
    if !kernel_has_landlock() {
        assert!(
            line["landlock"]
                .as_str()
                .unwrap()
                .starts_with("not available"),
            "{line}"
        );
        return;
    }
    assert!(line["landlock"].as_str().unwrap().starts_with(ON), "{line}");
    let folder = text(secluded.pki.folder.path());
    assert!(line["reads"].as_str().unwrap().contains(folder), "{line}");
    assert!(
        line["writes"].as_str().unwrap().ends_with("made/trust"),
        "{line}"
    );
    let outside: PathBuf = secluded.outside.folder.path().to_owned();
    let outcome = secluded.exchange(&outside);
    assert!(outcome.contains("outside of the folders"), "{outcome}");
    // As Kubernetes does: a new folder beside the old one.
    let version = secluded.pki.path("..version");
    fs::create_dir(&version).unwrap();
    for name in ["one.key", "one.pem"] {
        fs::copy(outside.join(name), version.join(name)).unwrap();
    }
    let outcome = secluded.exchange(&version);
    assert!(outcome.contains("certificate reloaded"), "{outcome}");
}

#[test]
fn landlock_can_be_switched_off() {
    let mut secluded = Secluded::with("hardening: { landlock: off }");
    let line = hardened(&secluded.sidecar);
    assert_eq!(line["landlock"], "off (hardening.landlock)");
    let outside = secluded.outside.folder.path().to_owned();
    let outcome = secluded.exchange(&outside);
    assert!(outcome.contains("certificate reloaded"), "{outcome}");
}

#[test]
fn a_word_that_is_no_switch_is_explained() {
    let files = Files::new();
    files.config("http://127.0.0.1:1", "", "hardening: { landlock: enforce }");
    let line = one_line(&files, "config.yaml");
    let expected = "hardening.landlock: \"enforce\" is neither auto nor off";
    assert!(line.ends_with(expected), "{line}");
}
