//! No command repeats a secret that was given as an argument, of whatever form, at whatever place.

use std::collections::BTreeSet;
use std::process::{Output, Stdio};
use std::thread;

use countersign_protocol::PrivateKey;
use openssl::rsa::Rsa;
use openssl::symm::Cipher;

use crate::support::process::{command, text};
use crate::support::{CLIENT_ID, Files};

const PASSPHRASE: &str = "S3cret!-0451-marked";
const PIN: &str = "7305512946";

/// A secret as it may get into an argument, and the parts of it that must not be shown.
struct Secret {
    name: &'static str,
    value: String,
    parts: BTreeSet<String>,
}

impl Secret {
    fn new(name: &'static str, value: String, private: &str) -> Self {
        let private: Vec<char> = private.chars().filter(|one| !one.is_whitespace()).collect();
        let windows = private.windows(private.len().min(16));
        let parts = windows.map(String::from_iter).collect();
        Self { name, value, parts }
    }

    fn all() -> Vec<Self> {
        let key = PrivateKey::generate(2048).unwrap();
        let (pem, line) = (key.to_pkcs8_pem(), key.to_pkcs8_base64());
        let rsa = Rsa::private_key_from_pem(pem.as_bytes()).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let pkcs1 = text(rsa.private_key_to_pem().unwrap());
        let cipher = Cipher::aes_256_cbc();
        let encrypted = rsa.private_key_to_pem_passphrase(cipher, b"x").unwrap();
        let encrypted = text(encrypted);
        let body = |pem: &str| {
            let lines: Vec<_> = pem.lines().filter(|line| line.len() > 40).collect();
            lines.concat().replace("-----", "")
        };
        let encoded = line.replace('+', "%2B").replace('/', "%2F");
        vec![
            Self::new("PKCS#8", pem.to_string(), &line),
            Self::new("PKCS#1", pkcs1.clone(), &body(&pkcs1)),
            Self::new("encrypted", encrypted.clone(), &body(&encrypted)),
            Self::new("one line", line.to_string(), &line),
            Self::new("literal \\n", pem.replace('\n', "\\n"), &line),
            Self::new("blanks", pem.replace('\n', " "), &line),
            Self::new("percent-encoded", encoded.clone(), &encoded),
            Self::new("passphrase", PASSPHRASE.to_owned(), PASSPHRASE),
            Self::new("PIN", PIN.to_owned(), PIN),
        ]
    }

    fn is_in(&self, output: &Output) -> bool {
        [&output.stdout, &output.stderr].into_iter().any(|said| {
            let said = String::from_utf8_lossy(said);
            self.parts.iter().any(|part| said.contains(part.as_str()))
        })
    }
}

/// What is indented by two blanks under a heading of `--help`, up to the first blank.
fn listed(help: &str, heading: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != heading).skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names = names.filter(|name| !name.is_empty() && *name != "help");
    names.map(str::to_owned).collect()
}

fn help(of: &[String]) -> String {
    let of: Vec<_> = of.iter().map(String::as_str).collect();
    let help = command(&of).arg("-h").output().unwrap();
    assert!(help.status.success(), "{of:?}");
    String::from_utf8(help.stdout).unwrap()
}

/// Every command, and every one of its own.
fn commands() -> Vec<Vec<String>> {
    let mut all = vec![vec![]];
    for name in listed(&help(&[]), "Commands:") {
        let inner = listed(&help(std::slice::from_ref(&name)), "Commands:");
        all.push(vec![name.clone()]);
        all.extend(inner.into_iter().map(|one| vec![name.clone(), one]));
    }
    all
}

fn flags(help: &str) -> BTreeSet<String> {
    let words = help
        .split([' ', '\n'])
        .filter(|word| word.starts_with("--"));
    let names = words.map(|word| word.trim_end_matches([',', '.', ';', ')']));
    let names = names.filter(|name| !matches!(*name, "--help" | "--version" | "--"));
    names.map(str::to_owned).collect()
}

/// Runs it where it changes nothing: without the programs that set rules, and with addresses at which
/// nothing can listen. Nothing that is started serves.
fn run(of: &[String], arguments: &[&str]) -> Output {
    let of: Vec<_> = of.iter().map(String::as_str).collect();
    let mut command = command(&of);
    if matches!(of.as_slice(), ["sandbox" | "injector"])
        && !arguments.iter().any(|one| one.starts_with("--listen"))
    {
        command.args(["--listen", "192.0.2.1:1"]);
    }
    // A file of that name would make it one that may be shown.
    let folder = tempfile::tempdir().unwrap();
    command.args(arguments).current_dir(&folder).env("PATH", "");
    command.stdin(Stdio::null()).output().unwrap()
}

/// Gives each secret to each flag of a command, and beside them; how often that was.
fn try_all(of: &[String], secrets: &[Secret]) -> usize {
    let known = flags(&help(of));
    let mut tried = 0;
    for secret in secrets {
        let value = secret.value.as_str();
        let mut uses = vec![
            vec![value.to_owned()],
            vec!["--".to_owned(), value.to_owned()],
            vec![format!("--{value}")],
            vec![format!("--unknown={value}")],
        ];
        for flag in &known {
            // The demo serves until it is ended, whatever it logs.
            if of == ["demo"] && flag == "--log-level" {
                continue;
            }
            uses.push(vec![format!("{flag}={value}")]);
            if ["PKCS#8", "one line", "passphrase"].contains(&secret.name) {
                uses.push(vec![flag.clone(), value.to_owned()]);
            }
        }
        for arguments in uses {
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            let mut output = run(of, &arguments);
            tried += 1;
            // A name of digits is as good as any, and a result names the files that were made.
            if secret.name == "PIN" && output.status.success() {
                output.stdout.clear();
            }
            let flag = arguments[0].split('=').next().unwrap();
            let shown = if flag.len() < 30 { flag } else { "" };
            let name = secret.name;
            assert!(
                !secret.is_in(&output),
                "{of:?} {shown}: {name} is shown: {output:?}"
            );
        }
    }
    tried
}

#[test]
fn no_flag_of_any_command_repeats_a_secret() {
    let (secrets, commands) = (Secret::all(), commands());
    let tried: usize = thread::scope(|scope| {
        let halves = [0, 1].map(|half| {
            let commands = commands.iter().skip(half).step_by(2);
            scope.spawn(|| commands.map(|of| try_all(of, &secrets)).sum::<usize>())
        });
        halves.map(|half| half.join().unwrap()).into_iter().sum()
    });
    assert!(tried > 1_500, "only {tried} were tried");
}

#[test]
fn files_that_are_not_there_are_named_by_flag_and_paths_in_full() {
    let files = Files::new();
    let key = text(&files.path("partner.pem")).to_owned();
    let sign = [
        "sign",
        "--client-id",
        CLIENT_ID,
        "--uri",
        "/",
        "--private-key",
    ];
    for (arguments, expected) in [
        (
            vec!["check", "--config=S3cret!"],
            "(the value of --config, not shown): no such file",
        ),
        (
            vec!["check", "--config", "swordfish"],
            "(the value of --config, not shown): no such file",
        ),
        (
            vec!["check", "--config", "etc/absent"],
            "etc/absent: no such file",
        ),
        (
            vec!["check", "--config", "absent.yaml"],
            "absent.yaml: no such file",
        ),
        (vec!["chek"], "unrecognized subcommand 'chek'"),
        (
            vec!["check", "--confg", "x"],
            "unexpected argument '--confg'",
        ),
        (
            vec!["check", "--frobnicate"],
            "unexpected argument '--frobnicate'",
        ),
        (
            vec!["run", "--log-format", "loud"],
            "possible values: auto, json, text",
        ),
        (
            vec!["run", "--egress-listen", "S3cret!"],
            "(value not shown) for '--egress-listen <ADDRESS>'",
        ),
        (
            vec!["run", "--egress-listen", "10.0.0.1"],
            "'10.0.0.1' for '--egress-listen <ADDRESS>'",
        ),
        (
            [&sign[..], &[key.as_str(), "--passphrase-file", "S3cret!"]].concat(),
            "(the value of --passphrase-file, not shown): no such file",
        ),
        (
            [&sign[..], &["keys/absent.pem"]].concat(),
            "keys/absent.pem: no such file",
        ),
    ] {
        let output = command(&arguments).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

#[test]
fn variables_of_the_environment_are_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    for secret in Secret::all() {
        for name in ["COUNTERSIGN_LOG", "COUNTERSIGN_LOG_FORMAT"] {
            let mut help = command(&["run", "--help"]);
            let output = help.env(name, &secret.value).output().unwrap();
            assert!(
                !secret.is_in(&output),
                "{name}, {}: {output:?}",
                secret.name
            );
        }
        for (name, arguments) in [
            ("COUNTERSIGN_CONFIG", &["check"][..]),
            ("COUNTERSIGN_CONFIG", &["run"]),
            ("COUNTERSIGN_LOG", &["run", "--config", "absent.yaml"]),
            ("COUNTERSIGN_LOG_FORMAT", &["run"]),
            ("COUNTERSIGN_LOG_FORMAT", &["injector"]),
        ] {
            for value in [secret.value.clone(), format!("a={},b=c=d", secret.value)] {
                let mut run = command(arguments);
                run.current_dir(folder.path()).env(name, &value);
                let output = run.output().unwrap();
                assert!(
                    !secret.is_in(&output),
                    "{name}, {}: {output:?}",
                    secret.name
                );
                assert!(!output.status.success());
            }
        }
    }
}

#[test]
fn a_key_anywhere_in_a_configuration_is_not_repeated() {
    let files = Files::new();
    let file = files.config("https://localhost:1", "", "");
    let good = std::fs::read_to_string(&file).unwrap();
    // Keys have a form that is known; a passphrase in a file may be any word.
    let secrets = Secret::all()
        .into_iter()
        .filter(|one| one.value.len() > 100);
    for secret in secrets {
        let quoted = serde_json::to_string(&secret.value).unwrap();
        let block = |indent: usize| {
            let lines: Vec<_> = secret
                .value
                .lines()
                .map(|line| format!("{}{line}", " ".repeat(indent)))
                .collect();
            format!("|\n{}", lines.join("\n"))
        };
        for (from, to) in [
            ("partner.pem", quoted.clone()),
            (CLIENT_ID, quoted.clone()),
            ("1 }", format!("{quoted} }}")),
            ("127.0.0.1:0\n", format!("{quoted}\n")),
            ("gateway", quoted.clone()),
            ("[open-*-global.alipayplus.com]", format!("[{quoted}]")),
            ("https://localhost:1", quoted.clone()),
            ("admin:", format!("{quoted}:")),
            ("signing_key", quoted.clone()),
            ("{ file: partner.pem, key_version: 1 }", quoted.clone()),
            ("{ file: partner.pem, key_version: 1 }", block(6)),
            (
                "{ file: partner.pem, key_version: 1 }",
                format!("\n      file: {}", block(8)),
            ),
            (
                "{ file: partner.pem, key_version: 1 }",
                secret.value.clone(),
            ),
            ("identities:", secret.value.clone()),
            ("file: partner.pem", format!("env: {quoted}")),
            ("file: partner.pem", format!("fd: {quoted}")),
            (
                "file: partner.pem",
                format!("file: partner.pem, passphrase_file: {quoted}"),
            ),
            (
                "file: partner.pem",
                format!("file: partner.pem, passphrase: {quoted}"),
            ),
            (
                "file: partner.pem",
                format!(
                    "pkcs11: {{ module: {quoted}, token_label: {quoted}, key_label: {quoted}, pin_file: {quoted} }}"
                ),
            ),
        ] {
            assert!(good.contains(from), "{from}");
            files.write("bad.yaml", good.replacen(from, &to, 1).as_bytes());
            let bad = files.path("bad.yaml");
            for arguments in [
                ["check", "--config"],
                ["run", "--config"],
                ["keys", "--config"],
            ] {
                let output = command(&arguments).arg(&bad).output().unwrap();
                assert!(
                    !secret.is_in(&output),
                    "{from}, {}: {output:?}",
                    secret.name
                );
            }
        }
    }
}

#[test]
fn annotations_and_defaults_of_inject_are_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = Secret::all()
        .into_iter()
        .filter(|one| one.value.len() > 100);
    for secret in secrets {
        let quoted = serde_json::to_string(&secret.value).unwrap();
        for name in [
            "inject",
            "client-id",
            "keys",
            "app",
            "config",
            "way-in",
            "private-key",
            "unknown",
        ] {
            let pod = format!(
                "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations:\n    \
                 countersign.dev/inject: \"true\"\n    countersign.dev/{name}: {quoted}\nspec:\n  \
                 containers: [{{ name: app, image: app }}]\n"
            );
            std::fs::write(folder.path().join("pod.yaml"), pod).unwrap();
            let mut inject = command(&["inject", "pod.yaml"]);
            let output = inject.current_dir(folder.path()).output().unwrap();
            let stderr = Output {
                stdout: Vec::new(),
                ..output
            };
            assert!(
                !secret.is_in(&stderr),
                "{name}, {}: {stderr:?}",
                secret.name
            );
            let set = format!("{name}={}", secret.value);
            let mut inject = command(&["inject", "--set", &set, "pod.yaml"]);
            let output = inject.current_dir(folder.path()).output().unwrap();
            let stderr = Output {
                stdout: Vec::new(),
                ..output
            };
            assert!(
                !secret.is_in(&stderr),
                "--set {name}, {}: {stderr:?}",
                secret.name
            );
        }
    }
}
