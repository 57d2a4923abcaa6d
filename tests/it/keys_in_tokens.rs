//! A key in a token signs like a key in a file, and only with its owner's PIN.

use std::fs;
use std::process::Stdio;
use std::sync::LazyLock;

use countersign::keys::token::{Config, TokenError, TokenKey, finish};
use countersign_protocol::{ClientId, Content, PrivateKey, PublicKey, Timestamp, sign, verify};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use openssl::pkey::PKey;

use crate::support::process::{command, countersign, text};
use crate::support::softhsm::{PIN, SOFTHSM, TOKEN, Tokens, alone};

static CLIENT_ID: LazyLock<ClientId> =
    LazyLock::new(|| ClientId::parse("SANDBOX_5X00000000000000").unwrap());
static TIME: LazyLock<Timestamp> =
    LazyLock::new(|| Timestamp::parse("2026-11-22T10:44:53Z").unwrap());

pub fn message(body: &[u8]) -> Content<'_> {
    Content {
        method: "POST",
        uri: "/aps/api/v1/payments/pay",
        client_id: &CLIENT_ID,
        time: &TIME,
        body,
    }
}

/// Runs a test that signs.
pub fn signing<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread();
    runtime_of(runtime).block_on(test);
}

pub fn runtime_of(mut builder: tokio::runtime::Builder) -> tokio::runtime::Runtime {
    builder.enable_all().build().unwrap()
}

/// A new key that is on the token as `partner`, too.
pub fn imported(tokens: &Tokens) -> PrivateKey {
    let key = PrivateKey::generate(2048).unwrap();
    tokens.import(&key.to_pkcs8_pem(), "partner", "a1");
    key
}

#[test]
fn an_imported_key_signs_what_its_file_signs() {
    alone(|tokens| {
        let file = imported(tokens);
        let key = TokenKey::open(&tokens.config(SOFTHSM, "partner")).unwrap();
        assert_eq!(*key.public_key(), file.public_key());
        let large = vec![b'x'; 1 << 20];
        signing(async {
            for body in [&b""[..], b"{}", b"\x00\xff\r\n", &large] {
                let content = message(body);
                let signature = key.sign(&content).await.unwrap();
                assert_eq!(signature, sign(&file, &content).unwrap());
            }
        });
    });
}

#[test]
fn a_key_made_on_the_token_signs_for_its_public_key() {
    alone(|tokens| {
        tokens.tool(&[
            "--keypairgen",
            "--key-type",
            "rsa:3072",
            "--label",
            "made",
            "--id",
            "07",
        ]);
        let out = tokens.path("public.der");
        let what = ["--read-object", "--type", "pubkey", "--label", "made"];
        tokens.tool(&[&what[..], &["--output-file", text(&out)]].concat());
        let public = PublicKey::parse(&fs::read(out).unwrap()).unwrap();
        let key = TokenKey::open(&tokens.config(SOFTHSM, "made")).unwrap();
        assert_eq!(*key.public_key(), public);
        signing(async {
            let content = message(b"{}");
            let signature = key.sign(&content).await.unwrap();
            assert_eq!(verify(&public, &content, &signature), Ok(()));
        });
    });
}

#[test]
fn five_hundred_signatures_at_once_are_each_their_own_messages() {
    alone(|tokens| {
        let file = imported(tokens);
        let key = TokenKey::open(&tokens.config(SOFTHSM, "partner")).unwrap();
        signing(async {
            let tasks: Vec<_> = (0..500)
                .map(|number: u32| {
                    let key = key.clone();
                    tokio::spawn(async move { key.sign(&message(&number.to_be_bytes())).await })
                })
                .collect();
            for (number, task) in (0..500_u32).zip(tasks) {
                let signature = task.await.unwrap().unwrap();
                let expected = sign(&file, &message(&number.to_be_bytes())).unwrap();
                assert_eq!(signature, expected, "{number}");
            }
            assert_eq!(key.connected(), 4);
        });
    });
}

#[test]
fn as_many_signatures_are_made_at_a_time_as_there_are_sessions() {
    alone(|tokens| {
        imported(tokens);
        let key = TokenKey::open(&tokens.config(tokens.faulty(), "partner")).unwrap();
        let at_the_start = tokens.calls("C_Sign");
        tokens.hang();
        signing(async {
            let tasks: Vec<_> = (0..6)
                .map(|_| {
                    let key = key.clone();
                    tokio::spawn(async move { key.sign(&message(b"{}")).await })
                })
                .collect();
            while tokens.calls("C_Sign") < at_the_start + 4 {
                tokio::task::yield_now().await;
            }
            let _open = tokens.release();
            for task in tasks {
                task.await.unwrap().unwrap();
            }
            assert_eq!(tokens.calls("C_Sign"), at_the_start + 6);
        });
    });
}

#[test]
fn a_wrong_pin_is_given_to_the_token_once() {
    alone(|tokens| {
        imported(tokens);
        tokens.write("wrong", "31415926\r\n");
        let module = tokens.faulty();
        let right = tokens.config(&module, "partner");
        let wrong = Config {
            pin_file: Some(tokens.path("wrong")),
            ..right.clone()
        };
        for _ in 0..5 {
            let error = TokenKey::open(&wrong).unwrap_err();
            assert!(matches!(error, TokenError::PinRefused(_)), "{error}");
            let (line, details) = (error.to_string(), format!("{error:?}"));
            assert!(
                line.contains("was refused and is not tried again"),
                "{line}"
            );
            assert!(!line.contains("31415926") && !details.contains("31415926"));
        }
        assert_eq!(tokens.calls("C_Login"), 1);
        let right = Config {
            sessions: 1,
            ..right
        };
        let key = TokenKey::open(&right).unwrap();
        assert_eq!(tokens.calls("C_Login"), 2);
        let shown = format!("{key:?}");
        assert!(shown.contains("partner") && !shown.contains(PIN), "{shown}");
    });
}

/// What `C_GetTokenInfo` says, and what is said then.
#[test]
fn a_pin_is_not_given_where_a_mistake_would_lock_the_token() {
    alone(|tokens| {
        imported(tokens);
        let config = tokens.config(tokens.faulty(), "partner");
        let rows = [
            (0x0002_0000, "one more wrong PIN would lock the token"),
            (0x0004_0000, "the PIN is locked"),
        ];
        for (flags, expected) in rows {
            tokens.write("flags", &u32::to_string(&flags));
            let error = TokenKey::open(&config).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(tokens.calls("C_Login"), 0);
        tokens.remove("flags");
        TokenKey::open(&config).unwrap();
    });
}

#[test]
fn a_module_is_initialised_once_and_finalised_with_its_last_key() {
    alone(|tokens| {
        let file = imported(tokens);
        let config = tokens.config(tokens.faulty(), "partner");
        let first = TokenKey::open(&config).unwrap();
        // As a reload does it: the new one is opened while the old one is in use.
        let second = TokenKey::open(&config).unwrap();
        drop(first);
        signing(async {
            let expected = sign(&file, &message(b"1")).unwrap();
            assert_eq!(second.sign(&message(b"1")).await.unwrap(), expected);
        });
        assert_eq!(
            (tokens.calls("C_Initialize"), tokens.calls("C_Finalize")),
            (1, 0)
        );
        drop(second);
        while tokens.calls("C_Finalize") == 0 {
            std::thread::yield_now();
        }
        assert_eq!(
            (tokens.calls("C_Initialize"), tokens.calls("C_Finalize")),
            (1, 1)
        );
        let third = TokenKey::open(&config).unwrap();
        signing(async { drop(third.sign(&message(b"2")).await.unwrap()) });
        assert_eq!(
            (tokens.calls("C_Initialize"), tokens.calls("C_Finalize")),
            (2, 1)
        );
    });
}

#[test]
fn a_module_in_use_is_not_finalised_for_a_token_that_is_not_there() {
    alone(|tokens| {
        imported(tokens);
        let config = tokens.config(tokens.faulty(), "partner");
        let key = TokenKey::open(&config).unwrap();
        let elsewhere = Config {
            token_label: "elsewhere".to_owned(),
            ..config
        };
        let error = TokenKey::open(&elsewhere).unwrap_err();
        assert!(matches!(error, TokenError::NoToken { .. }), "{error}");
        assert_eq!(tokens.calls("C_Finalize"), 0);
        signing(async { drop(key.sign(&message(b"{}")).await.unwrap()) });
    });
}

/// A module that somebody else in the process initialised is used, and left to them.
#[test]
fn a_module_that_is_initialised_already_is_used_and_never_finalised() {
    alone(|tokens| {
        imported(tokens);
        let module = tokens.faulty();
        let theirs = Pkcs11::new(&module).unwrap();
        theirs
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .unwrap();
        let key = TokenKey::open(&tokens.config(&module, "partner")).unwrap();
        drop(key);
        finish();
        assert_eq!(tokens.calls("C_Finalize"), 0);
        assert!(!theirs.get_slots_with_token().unwrap().is_empty());
    });
}

/// Private keys need not show their exponent.
#[test]
fn the_public_half_is_read_from_the_public_key_beside_it() {
    alone(|tokens| {
        let file = imported(tokens);
        let config = tokens.config(tokens.faulty(), "partner");
        tokens.write("hidden", "");
        let by_label = TokenKey::open(&config).unwrap();
        assert_eq!(*by_label.public_key(), file.public_key());

        tokens.tool(&["--delete-object", "--type", "pubkey", "--label", "partner"]);
        let error = TokenKey::open(&config).unwrap_err();
        assert!(matches!(error, TokenError::NoPublicHalf(_)), "{error}");

        let public = PKey::public_key_from_pem(file.public_key().to_spki_pem().as_bytes());
        let public = public.unwrap().public_key_to_der().unwrap();
        let out = tokens.path("public.der");
        fs::write(&out, public).unwrap();
        let what = ["--write-object", text(&out)];
        let name = [
            "--type",
            "pubkey",
            "--id",
            "a1",
            "--label",
            "of another name",
        ];
        tokens.tool(&[&what[..], &name].concat());
        let by_id = TokenKey::open(&config).unwrap();
        assert_eq!(*by_id.public_key(), file.public_key());
    });
}

const MESSAGE: [&str; 7] = [
    "sign",
    "--client-id",
    "SANDBOX_5X00000000000000",
    "--uri",
    "/aps/api/v1/payments/pay",
    "--time",
    "2026-11-22T10:44:53Z",
];

#[test]
fn the_command_sign_takes_a_key_in_a_token() {
    alone(|tokens| {
        let file = imported(tokens);
        tokens.write("partner.pem", &file.to_pkcs8_pem());
        let (pem, pin) = (tokens.path("partner.pem"), tokens.path("pin"));
        let by_file = [&MESSAGE[..], &["--private-key", text(&pem)]].concat();
        let by_file = countersign(&by_file);
        let by_token = ["--pkcs11-module", SOFTHSM, "--token-label", TOKEN];
        let key = ["--key-label", "partner", "--pin-file", text(&pin)];
        let by_token = [&MESSAGE[..], &by_token, &key].concat();
        let output = command(&by_token).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout, by_file.stdout);
        assert!(output.stderr.is_empty(), "{output:?}");

        let both = [&by_token[..], &["--private-key", text(&pem)]].concat();
        assert_eq!(countersign(&both).status.code(), Some(64));
        assert_eq!(countersign(&MESSAGE).status.code(), Some(64));
        let half = [&MESSAGE[..], &["--pkcs11-module", SOFTHSM]].concat();
        assert_eq!(countersign(&half).status.code(), Some(64));
    });
}
