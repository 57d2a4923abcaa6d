//! Each way in which module, token, PIN or key can be wrong has a line of its own, which says what is
//! there instead or what would be right.

use countersign::keys::token::{Config, TokenKey};
use countersign_protocol::PrivateKey;

use crate::keys_in_tokens::imported;
use crate::support::process::text;
use crate::support::softhsm::{SOFTHSM, TOKEN, Tokens, alone, forbid_to_sign};

/// A label, a configuration, and what must be in its line.
type Row = (&'static str, Config, Vec<String>);

fn check(rows: Vec<Row>) {
    let mut lines = Vec::new();
    for (label, config, parts) in rows {
        let line = TokenKey::open(&config).expect_err(label).to_string();
        for part in parts {
            assert!(line.contains(&part), "{label}: {line:?} holds no {part:?}");
        }
        assert!(
            !line.contains('\n') && !line.ends_with('.'),
            "{label}: {line}"
        );
        assert!(
            !lines.contains(&line),
            "{label} has no line of its own: {line}"
        );
        lines.push(line);
    }
}

fn parts(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|&part| part.to_owned()).collect()
}

#[test]
fn modules_and_pins() {
    alone(|tokens| {
        imported(tokens);
        let good = || tokens.config(SOFTHSM, "partner");
        let module = |module: &str| Config {
            module: module.into(),
            ..good()
        };
        let pin = |file: &str, content: Option<&str>| {
            if let Some(content) = content {
                tokens.write(file, content);
            }
            Config {
                pin_file: Some(tokens.path(file)),
                ..good()
            }
        };
        let path = |name: &str| text(&tokens.path(name)).to_owned();
        tokens.write("text.so", "no library");
        let missing = "/usr/lib/no-such-module.so";
        let long = "1".repeat(2000);
        check(vec![
            (
                "no module",
                module(missing),
                parts(&[missing, "no such file", "PKCS#11 module"]),
            ),
            (
                "no such name",
                module("no-such-module.so"),
                parts(&["no-such-module.so: cannot be loaded"]),
            ),
            (
                "no library",
                module(&path("text.so")),
                parts(&["text.so: cannot be loaded"]),
            ),
            (
                "a directory",
                module("/usr/lib"),
                parts(&["/usr/lib: cannot be loaded"]),
            ),
            (
                "another library",
                module("libc.so.6"),
                parts(&["libc.so.6: is no PKCS#11 module"]),
            ),
            (
                "no PIN file",
                pin("none", None),
                parts(&[&path("none"), "no such file", "PIN"]),
            ),
            (
                "a directory of PINs",
                pin("tokens", None),
                parts(&["is a directory"]),
            ),
            (
                "an empty PIN file",
                pin("empty", Some("\n")),
                parts(&[&path("empty"), "is empty"]),
            ),
            (
                "a long PIN",
                pin("long", Some(&long)),
                parts(&["over 1 KiB"]),
            ),
            (
                "no PIN",
                Config {
                    pin_file: None,
                    ..good()
                },
                parts(&["pin_file", "partner", TOKEN]),
            ),
            (
                "no session",
                Config {
                    sessions: 0,
                    ..good()
                },
                parts(&["0 sessions", "1 to 64"]),
            ),
            (
                "many sessions",
                Config {
                    sessions: 65,
                    ..good()
                },
                parts(&["65 sessions", "1 to 64"]),
            ),
        ]);
        TokenKey::open(&good()).unwrap();
    });
}

/// Puts every kind of unsuitable key onto the token.
fn unsuitable_keys(tokens: &Tokens) {
    let make = |arguments: &[&str]| tokens.tool(&[&["--keypairgen"], arguments].concat());
    make(&[
        "--key-type",
        "EC:prime256v1",
        "--label",
        "curve",
        "--id",
        "01",
    ]);
    make(&["--key-type", "rsa:1024", "--label", "short", "--id", "02"]);
    make(&["--key-type", "rsa:2048", "--label", "twice", "--id", "03"]);
    make(&["--key-type", "rsa:2048", "--label", "twice", "--id", "04"]);
    make(&[
        "--key-type",
        "rsa:2048",
        "--label",
        "decrypts",
        "--id",
        "05",
    ]);
    forbid_to_sign("decrypts");
    let always = ["--label", "always", "--id", "06", "--always-auth"];
    make(&[&["--key-type", "rsa:2048"], &always[..]].concat());
}

#[test]
fn tokens_and_keys() {
    alone(|tokens| {
        unsuitable_keys(tokens);
        let key = PrivateKey::generate(2048).unwrap();
        tokens.import(&key.to_pkcs8_pem(), "partner", "a1");
        tokens.add("same");
        tokens.add("same");
        let key = |label: &str| tokens.config(SOFTHSM, label);
        let token = |label: &str| Config {
            token_label: label.to_owned(),
            ..key("partner")
        };
        let named = |label: &str, what: &str| parts(&[SOFTHSM, TOKEN, label, what]);
        check(vec![
            (
                "no token",
                token("elsewhere"),
                parts(&[SOFTHSM, "'elsewhere'", "'partner keys', 'same', 'same'"]),
            ),
            (
                "two tokens",
                token("same"),
                parts(&[SOFTHSM, "2 tokens are labelled 'same'"]),
            ),
            (
                "no key",
                key("part"),
                named(
                    "'part'",
                    "present: 'always', 'decrypts', 'partner', 'short', 'twice', 'twice'",
                ),
            ),
            (
                "an EC key",
                key("curve"),
                named("'curve'", "is an EC key; an RSA private key"),
            ),
            (
                "1024 bits",
                key("short"),
                named("'short'", "1024 bits; at least 2048"),
            ),
            (
                "two keys",
                key("twice"),
                named("'twice'", "2 private keys have this label"),
            ),
            (
                "may not sign",
                key("decrypts"),
                named("'decrypts'", "CKA_SIGN is false"),
            ),
            (
                "a PIN each time",
                key("always"),
                named("'always'", "CKA_ALWAYS_AUTHENTICATE"),
            ),
        ]);
        TokenKey::open(&key("partner")).unwrap();
    });
}

#[test]
fn a_token_without_keys_says_that_there_is_none() {
    alone(|tokens| {
        let error = TokenKey::open(&tokens.config(SOFTHSM, "partner")).unwrap_err();
        let line = error.to_string();
        assert!(
            line.ends_with("no RSA private key is labelled 'partner'; there is none"),
            "{line}"
        );
    });
}
