//! A log that cannot be written costs log lines, never a response, a probe or the exit code.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Instant;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::Files;
use crate::support::pki::Pki;
use crate::support::process::{PATIENCE, command, countersign, text};
use crate::support::raw::{RawGateway, UNSIGNED, post, read_message, send};
use crate::support::reviews::{pod, review};
use crate::support::world::{PAY, payment};

/// A sidecar whose output is the test's business, on ports that were free a moment ago.
struct Muted {
    child: Child,
    egress: SocketAddr,
    admin: SocketAddr,
    _files: Files,
}

impl Muted {
    /// Starts it in front of a gateway that answers everything; `output` sets stdout and stderr.
    async fn start(output: impl FnOnce(&mut Command)) -> Self {
        let gateway = RawGateway::answering(UNSIGNED).await;
        let files = Files::new();
        let rest = "drain: { grace: 0s, deadline: 60s }";
        let file = files.config(&format!("http://{gateway}"), "", rest);
        let (egress, admin) = (free(), free());
        let mut command = command(&[
            "run",
            "--config",
            text(&file),
            "--egress-listen",
            &egress.to_string(),
            "--admin-listen",
            &admin.to_string(),
        ]);
        output(&mut command);
        let sidecar = Self {
            child: command.spawn().unwrap(),
            egress,
            admin,
            _files: files,
        };
        until_ready(admin).await;
        sidecar
    }

    /// Pays this often with a long path, so that its line is long, and expects each response.
    async fn pay(&self, times: usize, path: &str) {
        for id in 0..times {
            let target = format!("{PAY}{path}");
            let body = payment(&id.to_string());
            let request = post(&target, &self.egress.to_string(), "", body.as_bytes());
            let answer = send(self.egress, request).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }

    /// Sends requests that are refused at once, each with a line of nearly 1 KiB.
    async fn refuse(&self, times: usize) {
        let mut stream = TcpStream::connect(self.egress).await.unwrap();
        let path = "x".repeat(512);
        let request = format!(
            "POST /{path} HTTP/1.1\r\nHost: open-sea-global.alipayplus.com\r\nClient-Id: OTHER\r\n\
             Content-Length: 0\r\n\r\n"
        );
        for _ in 0..times {
            stream.write_all(request.as_bytes()).await.unwrap();
            let response = read_message(&mut stream).await.unwrap();
            assert!(response.starts_with(b"HTTP/1.1 400"), "{response:?}");
        }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        get(self.admin, path).await
    }

    async fn lost(&self) -> u64 {
        let (_, metrics) = self.get("/metrics").await;
        let mut lines = metrics.lines();
        let line = lines.find_map(|line| line.strip_prefix("countersign_log_lines_lost_total "));
        line.unwrap().parse().unwrap()
    }

    /// The probes answer, and SIGTERM ends it as if the log were read.
    async fn answers_and_drains(mut self) {
        assert_eq!(self.get("/livez").await.0, 200);
        assert_eq!(self.get("/readyz").await.0, 200);
        let pid = self.child.id().to_string();
        Command::new("kill").arg(pid).status().unwrap();
        assert_eq!(ended(&mut self.child).code(), Some(0));
    }
}

impl Drop for Muted {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

async fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    let answer = send(admin, request).await;
    (answer.status, answer.text())
}

async fn until_ready(admin: SocketAddr) {
    let start = Instant::now();
    while TcpStream::connect(admin).await.is_err() || get(admin, "/readyz").await.0 != 200 {
        assert!(start.elapsed() < PATIENCE, "it is never ready");
    }
}

fn ended(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::yield_now();
    }
}

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// One end of a stream that takes no byte more, and the other end, which nobody reads.
fn stuck() -> (OwnedFd, UnixStream) {
    let (mut writer, reader) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    while writer.write(&[b' '; 4096]).is_ok() {}
    while writer.write(b" ").is_ok() {}
    writer.set_nonblocking(false).unwrap();
    (writer.into(), reader)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_log_delays_no_response_and_no_drain() {
    let mut sidecar = Muted::start(|command| {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    })
    .await;
    // Open to the end, and never read.
    let _unread = (sidecar.child.stdout.take(), sidecar.child.stderr.take());
    sidecar.pay(600, "").await;
    assert_eq!(sidecar.lost().await, 0, "the queue holds them");
    sidecar.answers_and_drains().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_lost_to_a_full_queue_are_counted_and_reported() {
    let mut sidecar = Muted::start(|command| {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
    })
    .await;
    let stdout: ChildStdout = sidecar.child.stdout.take().unwrap();
    let mut requests = 0;
    while sidecar.lost().await == 0 {
        sidecar.refuse(1000).await;
        requests += 1000;
    }
    let lost = sidecar.lost().await;
    let (mut exchanges, mut reported) = (0, 0);
    let mut lines = BufReader::new(stdout).lines();
    for line in lines.by_ref() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        exchanges += u64::from(line["message"] == "exchange");
        let message = line["message"].as_str().unwrap_or_default();
        if message.starts_with("log lines were lost") {
            assert_eq!(line["level"], "WARN");
            reported += line["lost"].as_u64().unwrap();
        }
        if exchanges + lost == requests {
            break;
        }
    }
    assert_eq!(reported, lost);
    assert_eq!(sidecar.lost().await, lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_both_streams_loses_lines_alone() {
    let sidecar = Muted::start(|command| {
        command.stdout(full()).stderr(full());
    })
    .await;
    let before = sidecar.lost().await;
    assert!(before > 0);
    sidecar.pay(50, "").await;
    // The writer may be at the last of them.
    let start = Instant::now();
    while sidecar.lost().await < before + 50 {
        assert!(start.elapsed() < PATIENCE, "{}", sidecar.lost().await);
    }
    sidecar.answers_and_drains().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_gone_and_closed_streams_change_nothing() {
    let mut sidecar = Muted::start(|command| {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    })
    .await;
    drop((sidecar.child.stdout.take(), sidecar.child.stderr.take()));
    sidecar.pay(50, "").await;
    sidecar.answers_and_drains().await;

    let sidecar = Muted::start(|command| {
        let closing = [r#"exec "$@" >&- 2>&-"#, "sh"];
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut shell = Command::new("sh");
        shell.arg("-c").args(closing);
        shell.arg(command.get_program()).args(arguments);
        *command = shell;
    })
    .await;
    sidecar.pay(50, "").await;
    sidecar.answers_and_drains().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_injector_that_cannot_log_allows_pods_and_drains() {
    let pki = Pki::new();
    pki.authority("ca");
    pki.leaf("tls", "ca");
    std::fs::rename(pki.path("tls.pem"), pki.path("tls.crt")).unwrap();
    let (listen, admin) = (free(), free());
    let folder = pki.path("");
    pki.write("review.json", review(&pod()).to_string());
    let (writer, _reader) = stuck();
    for (stdout, stderr) in [
        (Stdio::from(full()), Stdio::from(full())),
        (Stdio::from(writer), Stdio::null()),
    ] {
        let mut injector = command(&[
            "injector",
            "--certificate-directory",
            text(&folder),
            "--listen",
            &listen.to_string(),
            "--admin-listen",
            &admin.to_string(),
            "--drain-grace=1ms",
        ]);
        let mut injector = injector.stdout(stdout).stderr(stderr).spawn().unwrap();
        until_ready(admin).await;
        for _ in 0..50 {
            let output = Command::new("curl")
                .args([
                    "-sS",
                    "--max-time",
                    "20",
                    "--cacert",
                    text(&pki.path("ca.pem")),
                ])
                .args(["-H", "Content-Type: application/json", "--data-binary"])
                .arg(format!("@{}", pki.path("review.json").display()))
                .arg(format!("https://localhost:{}/inject", listen.port()))
                .output()
                .unwrap();
            let answer = String::from_utf8(output.stdout).unwrap();
            assert!(
                answer.contains("\"allowed\":true"),
                "{answer} {output:?}",
                output = output.stderr
            );
        }
        let pid = injector.id().to_string();
        Command::new("kill").arg(pid).status().unwrap();
        assert_eq!(ended(&mut injector).code(), Some(0));
    }
}

/// Commands whose result goes to stdout.
fn results(files: &Files) -> Vec<Vec<String>> {
    let key = text(&files.path("partner.pem")).to_owned();
    let config = files.config("http://127.0.0.1:1", "", "");
    let config = text(&config);
    let manifest = text(&files.write("pod.yaml", b"apiVersion: v1\nkind: ConfigMap\n")).to_owned();
    [
        format!("sign --private-key {key} --client-id C --uri /pay"),
        format!("check --config {config}"),
        format!("inject {manifest}"),
        "redirect print --exempt-uid 4343".to_owned(),
        "--help".to_owned(),
        "--version".to_owned(),
        "sandbox --help".to_owned(),
    ]
    .iter()
    .map(|line| line.split(' ').map(ToOwned::to_owned).collect())
    .collect()
}

#[test]
fn a_result_that_cannot_be_written_is_exit_code_1() {
    let files = Files::new();
    for arguments in results(&files) {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let whole = countersign(&arguments);
        assert!(whole.status.success(), "{arguments:?} {whole:?}");
        assert!(!whole.stdout.is_empty(), "{arguments:?}");
        let output = command(&arguments).stdout(full()).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?} {errors}");
        assert!(errors.contains("stdout: "), "{arguments:?} {errors}");
        // Nowhere to say it: the code says it.
        let mut silent = command(&arguments);
        let status = silent.stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(1), "{arguments:?}");
        // A reader that left did not want the rest.
        let mut left = command(&arguments);
        let mut child = left.stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let code = ended(&mut child).code();
        assert!(matches!(code, Some(0 | 1)), "{arguments:?} {code:?}");
    }
}

#[test]
fn errors_that_cannot_be_written_keep_their_exit_code() {
    let files = Files::new();
    let missing = text(&files.path("missing.yaml")).to_owned();
    let (writer, _reader) = stuck();
    let writer = File::from(writer);
    for (arguments, code) in [
        (vec!["run", "--config", &missing], 64),
        (vec!["run", "--no-such-flag"], 64),
        (vec!["check", "--config", &missing], 64),
        (vec!["wait", "--admin", "127.0.0.1:1", "--timeout", "1s"], 1),
    ] {
        let status = command(&arguments).stdout(full()).stderr(full()).status();
        assert_eq!(status.unwrap().code(), Some(code), "{arguments:?}");
        // Commands that serve give a stuck reader a second; others wait for it, as any tool does.
        if arguments[..] == ["run", "--config", &missing] {
            let mut command = command(&arguments);
            command.stdout(writer.try_clone().unwrap());
            command.stderr(writer.try_clone().unwrap());
            let mut child = command.spawn().unwrap();
            assert_eq!(ended(&mut child).code(), Some(code), "{arguments:?}");
        }
    }
}
