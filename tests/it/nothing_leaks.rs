//! Whatever the process says, and however it fails, no key, passphrase or PIN is among it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use countersign::clock::Clock;
use countersign::{app, config};
use countersign_protocol::PrivateKey;
use openssl::rsa::Rsa;

use crate::support::process::{Sidecar, command, text};
use crate::support::raw::{post, send};
use crate::support::world::{PAY, payment};
use crate::support::{CLIENT_ID, Files, World};

const PASSPHRASE: &str = "marked-passphrase-0451";

/// Looks for secrets in text, in every form they could be written in.
struct Marks(Vec<(String, String)>);

impl Marks {
    /// The private parts of a key, cut into pieces short enough that a part of one is found as well.
    fn of(key: &PrivateKey) -> Self {
        let rsa = Rsa::private_key_from_pem(key.to_pkcs8_pem().as_bytes()).unwrap();
        let parts = [
            ("d", rsa.d().to_vec()),
            ("p", rsa.p().unwrap().to_vec()),
            ("q", rsa.q().unwrap().to_vec()),
            ("dmp1", rsa.dmp1().unwrap().to_vec()),
            ("dmq1", rsa.dmq1().unwrap().to_vec()),
            ("iqmp", rsa.iqmp().unwrap().to_vec()),
        ];
        let mut marks = vec![("passphrase".to_owned(), PASSPHRASE.to_owned())];
        for (name, bytes) in &parts {
            for piece in bytes.chunks_exact(12) {
                let hex: String = piece.iter().map(|byte| format!("{byte:02x}")).collect();
                let list: Vec<_> = piece.iter().map(ToString::to_string).collect();
                marks.push((format!("{name} in hex"), hex.clone()));
                marks.push((format!("{name} in HEX"), hex.to_uppercase()));
                marks.push((format!("{name} in a list"), list.join(", ")));
                marks.push((format!("{name} escaped"), piece.escape_ascii().to_string()));
                for engine in [&STANDARD, &URL_SAFE] {
                    // Of whatever alignment: the middle of each encoding does not depend on what is
                    // before and behind.
                    for offset in 0..3 {
                        let encoded = engine.encode(&piece[offset..offset + 9]);
                        marks.push((format!("{name} in base64"), encoded));
                    }
                }
            }
        }
        // The file's own text, of whatever line length: 24 characters behind the beginning that all
        // private keys share. In its first third stands the public half, which may be shown.
        let base64 = key.to_pkcs8_base64();
        let private = &base64[base64.len() / 3..];
        for piece in private.as_bytes().chunks_exact(24) {
            let piece = String::from_utf8(piece.to_vec()).unwrap();
            marks.push(("the file".to_owned(), piece));
        }
        Self(marks)
    }

    fn found_in(&self, text: &str) -> Option<&str> {
        let found = self.0.iter().find(|(_, mark)| text.contains(mark.as_str()));
        found.map(|(name, _)| name.as_str())
    }

    fn none_in(&self, what: &str, text: &str) {
        assert!(!text.is_empty(), "{what}: nothing was said at all");
        assert_eq!(self.found_in(text), None, "{what}");
    }
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|said| String::from_utf8_lossy(said).into_owned())
        .concat()
}

/// The key of the files in a file of its own, encrypted.
fn encrypt(files: &Files) {
    let path = |name: &str| text(&files.path(name)).to_owned();
    let (from, to) = (path("partner.pem"), path("encrypted.pem"));
    let pass = format!("pass:{PASSPHRASE}");
    let mut made = Command::new("openssl");
    made.args(["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", &pass]);
    assert!(
        made.args(["-in", &from, "-out", &to])
            .status()
            .unwrap()
            .success()
    );
    files.write("passphrase", PASSPHRASE.as_bytes());
}

#[test]
fn the_search_finds_a_secret_in_every_form() {
    let key = PrivateKey::generate(2048).unwrap();
    let marks = Marks::of(&key);
    let rsa = Rsa::private_key_from_pem(key.to_pkcs8_pem().as_bytes()).unwrap();
    let (d, p) = (rsa.d().to_vec(), rsa.p().unwrap().to_vec());
    for leak in [
        key.to_pkcs8_pem().as_str().replace('\n', ""),
        key.to_pkcs8_base64().to_string(),
        format!("{d:?}"),
        format!("{}", p.escape_ascii()),
        rsa.q().unwrap().to_hex_str().unwrap().to_string(),
        STANDARD.encode(&d),
        STANDARD.encode([b"x".as_slice(), &p].concat()),
        format!("the passphrase is {PASSPHRASE}"),
    ] {
        assert!(marks.found_in(&leak).is_some(), "{leak}");
    }
    let public = key.public_key();
    let shown = public.to_spki_pem() + &public.to_spki_base64() + &format!("{public:?} {key:?}");
    assert_eq!(marks.found_in(&shown), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_at_its_most_talkative_tells_no_secret() {
    let world = World::now("", "").await;
    let files = &world.files;
    encrypt(files);
    let marks = Marks::of(&files.partner);
    let path = files.path("config.yaml");
    let plain = fs::read_to_string(&path).unwrap();
    let file = "{ file: partner.pem, key_version: 1 }";
    assert!(plain.contains(file));
    let encrypted = "{ file: encrypted.pem, passphrase_file: passphrase }";
    for source in [file, encrypted, "{ env: KEY }"] {
        fs::write(&path, plain.replace(file, source)).unwrap();
        let mut run = command(&["run", "--config", text(&path), "--log-level", "trace"]);
        run.env("KEY", files.partner.to_pkcs8_base64().as_str());
        let mut sidecar = Sidecar::start(run);
        for fault in [
            "",
            "sandbox-fault: altered-body\r\n",
            "sandbox-fault: broken-off\r\n",
        ] {
            let request = post(PAY, "x", fault, payment("R1").as_bytes());
            let _answer = send(sidecar.egress, request).await;
        }
        for page in ["/", "/metrics", "/keys", "/readyz", "/nothing"] {
            let ask = format!("GET {page} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let answer = send(sidecar.admin, ask).await;
            marks.none_in(page, &(answer.head.clone() + &answer.text()));
        }
        // A reload that fails over a key of which half is there.
        let good = fs::read(files.path("partner.pem")).unwrap();
        let broken = fs::read(files.path("encrypted.pem")).unwrap();
        files.write("partner.pem", &good[..good.len() / 2]);
        files.write("encrypted.pem", &broken[..broken.len() / 2]);
        sidecar.signal("HUP");
        sidecar.wait_for(|line| {
            let said = line["message"].as_str().unwrap_or_default();
            said.starts_with("not reloaded") || said == "reloaded"
        });
        files.write("partner.pem", &good);
        files.write("encrypted.pem", &broken);
        sidecar.signal("INT");
        sidecar.wait_for(|line| {
            line["message"]
                .as_str()
                .is_some_and(|said| said == "drained")
        });
        marks.none_in(source, &format!("{:?}", sidecar.log));
    }
}

#[test]
fn commands_and_their_complaints_tell_no_secret() {
    let files = Files::new();
    encrypt(&files);
    let marks = Marks::of(&files.partner);
    let path = |name: &str| text(&files.path(name)).to_owned();
    let config = files.config("https://localhost:1", "", "");
    let good = fs::read_to_string(&config).unwrap();
    let pem = files.partner.to_pkcs8_pem();
    files.write("half.pem", &pem.as_bytes()[..pem.len() / 2]);
    files.write("twice.pem", format!("{}{}", *pem, *pem).as_bytes());
    files.write("noise.pem", pem.replace("BEGIN", "BEGUN").as_bytes());
    for name in [
        "partner.pem",
        "half.pem",
        "twice.pem",
        "noise.pem",
        "encrypted.pem",
    ] {
        for place in ["file: partner.pem", "file: alipayplus.pem"] {
            fs::write(&config, good.replace(place, &format!("file: {name}"))).unwrap();
            let check = command(&["check", "--config", text(&config)])
                .output()
                .unwrap();
            marks.none_in(&format!("check, {place} is {name}"), &said(&check));
        }
    }
    // A key pasted where its file's name belongs is a mistake people make.
    let pasted = format!("file: \"{}\"", files.partner.to_pkcs8_base64().as_str());
    fs::write(&config, good.replace("file: partner.pem", &pasted)).unwrap();
    let check = command(&["check", "--config", text(&config)])
        .output()
        .unwrap();
    marks.none_in("a key in place of a file's name", &said(&check));

    let pasted = format!("file: partner.pem, passphrase_file: {PASSPHRASE}");
    fs::write(&config, good.replace("file: partner.pem", &pasted)).unwrap();
    let check = command(&["check", "--config", text(&config)])
        .output()
        .unwrap();
    marks.none_in("a passphrase in place of a file's name", &said(&check));
    let run = ["run", "--client-id", CLIENT_ID, "--alipay-public-key", "x"];
    let base64 = files.partner.to_pkcs8_base64();
    for key in [base64.as_str(), pem.as_str()] {
        // After a `=`, as a PEM text begins like a flag.
        let mut run = command(&run);
        let output = run.arg(format!("--private-key={key}")).output().unwrap();
        assert!(
            said(&output).contains("write the name of a file"),
            "{output:?}"
        );
        marks.none_in("a key in place of --private-key's file", &said(&output));
    }

    let message = [
        "--client-id",
        CLIENT_ID,
        "--uri",
        PAY,
        "--body",
        &path("half.pem"),
    ];
    let keys = ["partner.pem", "half.pem", "encrypted.pem"].map(path);
    for key in keys.iter().map(String::as_str).chain([base64.as_str()]) {
        let mut sign = command(&["sign", "--private-key", key]);
        marks.none_in("sign", &said(&sign.args(message).output().unwrap()));
    }
    let verify = [
        "verify",
        "--public-key",
        &path("partner.pem"),
        "--time",
        "2026-01-01T00:00:00Z",
    ];
    let mut verify = command(&verify);
    let verify = verify
        .args(message)
        .args(["--signature", "algorithm=RSA256,signature=AA"]);
    marks.none_in("verify", &said(&verify.output().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_over_everything_that_holds_keys_tells_no_secret() {
    let files = Files::new();
    let marks = Marks::of(&files.partner);
    let file = files.config("https://localhost:1", "", "");
    let prepared = app::prepare(config::load(&file), Clock::system()).unwrap();
    let shown = format!("{prepared:#?}");
    assert!(
        shown.contains("Identity"),
        "the keys are not even among it: {shown}"
    );
    let running = app::start(prepared).await.unwrap();
    let running = AssertUnwindSafe((&running, &files.partner));
    let panic = catch_unwind(|| {
        let (running, key) = *running;
        panic!("{running:?} {key:?} {:?}", key.clone());
    });
    let panic = *panic.unwrap_err().downcast::<String>().unwrap();
    marks.none_in("a panic", &panic);
    marks.none_in("Debug", &shown);
}
