//! A token may go away, come back, fail or hang: requests get clear errors at once, no wrong
//! signature, and later ones are signed again without a restart.

use std::time::{Duration, Instant, UNIX_EPOCH};

use countersign::keys::token::{Config, DEFAULT_SESSIONS, TokenError, TokenKey};
use countersign::keys::{self, Environment, IdentityConfig, KeyConfig, Keyring, Source};
use countersign_protocol::{KeyVersion, Offset, PrivateKey, sign};

use crate::keys_in_tokens::{imported, message, runtime_of, signing};
use crate::support::process::PATIENCE;
use crate::support::softhsm::{SOFTHSM, alone, client};

/// What a request may wait for a token that is away.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Waits until every thread has its session.
async fn until_connected(key: &TokenKey) {
    while key.connected() < DEFAULT_SESSIONS {
        tokio::task::yield_now().await;
    }
}

/// Signs until it succeeds, and says why it did not at first.
async fn until_it_signs(key: &TokenKey) -> Option<String> {
    let start = Instant::now();
    let mut first = None;
    while let Err(error) = key.sign(&message(b"{}")).await {
        first.get_or_insert(error.to_string());
        assert!(start.elapsed() < PATIENCE, "never again: {error}");
        tokio::task::yield_now().await;
    }
    first
}

/// Signs until it fails as it should.
async fn until_it_fails(key: &TokenKey, expected: impl Fn(&str) -> bool) -> TokenError {
    let start = Instant::now();
    loop {
        let asked = Instant::now();
        let result = key.sign(&message(b"{}")).await;
        if let Err(error) = result {
            assert!(asked.elapsed() < AT_ONCE, "{error}: {:?}", asked.elapsed());
            if expected(&error.to_string()) {
                return error;
            }
            assert!(start.elapsed() < PATIENCE, "never as expected: {error}");
        }
        assert!(start.elapsed() < PATIENCE, "never fails as expected");
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_token_that_is_unplugged_is_told_at_once_and_found_again() {
    alone(|tokens| {
        let file = imported(tokens);
        let server = tokens.plug_in(SOFTHSM.as_ref());
        let config = tokens.config(client(), "partner");
        let key = TokenKey::open(&config).unwrap();
        signing(async {
            let expected = sign(&file, &message(b"{}")).unwrap();
            let mut server = Some(server);
            for _ in 0..3 {
                // In the middle of traffic.
                let busy: Vec<_> = (0..20)
                    .map(|_| {
                        let key = key.clone();
                        tokio::spawn(async move { key.sign(&message(b"{}")).await })
                    })
                    .collect();
                tokio::task::yield_now().await;
                drop(server.take());
                for task in busy {
                    if let Ok(signature) = task.await.unwrap() {
                        assert_eq!(signature, expected);
                    }
                }
                let away = until_it_fails(&key, |line| line.contains("no token is labelled")).await;
                assert!(matches!(away, TokenError::NoSession(_)), "{away:?}");
                for _ in 0..200 {
                    until_it_fails(&key, |_| true).await;
                }
                assert_eq!(key.connected(), 0);
                // A reload meanwhile says the same, and disturbs nothing.
                let error = TokenKey::open(&config).unwrap_err();
                assert!(matches!(error, TokenError::NoToken { .. }), "{error}");

                server = Some(tokens.plug_in(SOFTHSM.as_ref()));
                until_it_signs(&key).await;
                for _ in 0..50 {
                    assert_eq!(key.sign(&message(b"{}")).await.unwrap(), expected);
                }
            }
        });
    });
}

#[test]
fn a_token_that_was_away_between_two_requests_is_not_missed() {
    alone(|tokens| {
        imported(tokens);
        let server = tokens.plug_in(SOFTHSM.as_ref());
        let key = TokenKey::open(&tokens.config(client(), "partner")).unwrap();
        signing(until_connected(&key));
        drop(server);
        let _server = tokens.plug_in(SOFTHSM.as_ref());
        signing(async { assert_eq!(until_it_signs(&key).await, None) });
    });
}

/// What `C_Sign` may answer when its session is no more.
#[test]
fn a_session_that_is_lost_costs_no_request() {
    alone(|tokens| {
        imported(tokens);
        let key = TokenKey::open(&tokens.config(tokens.faulty(), "partner")).unwrap();
        let rows = [
            ("CKR_GENERAL_ERROR", 0x05),
            ("CKR_FUNCTION_FAILED", 0x06),
            ("CKR_DEVICE_ERROR", 0x30),
            ("CKR_DEVICE_REMOVED", 0x32),
            ("CKR_KEY_HANDLE_INVALID", 0x60),
            ("CKR_OPERATION_NOT_INITIALIZED", 0x91),
            ("CKR_SESSION_CLOSED", 0xb0),
            ("CKR_SESSION_HANDLE_INVALID", 0xb3),
            ("CKR_TOKEN_NOT_PRESENT", 0xe0),
            ("CKR_USER_NOT_LOGGED_IN", 0x101),
        ];
        signing(async {
            for (name, code) in rows {
                tokens.write("fault", &u32::to_string(&code));
                let result = key.sign(&message(b"{}")).await;
                assert!(result.is_ok(), "{name}: {result:?}");
                assert!(!tokens.path("fault").exists(), "{name} did not happen");
            }
        });
        assert_eq!(tokens.calls("C_Finalize"), 0);
    });
}

#[test]
fn another_key_under_the_same_label_is_refused() {
    alone(|tokens| {
        let first = imported(tokens);
        let server = tokens.plug_in(SOFTHSM.as_ref());
        let key = TokenKey::open(&tokens.config(client(), "partner")).unwrap();
        drop(server);
        let forget = |kind| tokens.tool(&["--delete-object", "--type", kind, "--label", "partner"]);
        let replace = |by: &PrivateKey| {
            ["privkey", "pubkey"].into_iter().for_each(forget);
            tokens.import(&by.to_pkcs8_pem(), "partner", "a1");
        };
        let second = PrivateKey::generate(2048).unwrap();
        replace(&second);
        let server = tokens.plug_in(SOFTHSM.as_ref());
        signing(async {
            let another = |line: &str| line.contains("another key has this label now");
            let line = until_it_fails(&key, another).await.to_string();
            let fingerprint = |key: &PrivateKey| key.public_key().fingerprint().to_string();
            assert!(line.contains(&fingerprint(&first)), "{line}");
            assert!(line.contains(&fingerprint(&second)), "{line}");
            drop(server);
            replace(&first);
            let _server = tokens.plug_in(SOFTHSM.as_ref());
            until_it_signs(&key).await;
        });
    });
}

/// The PIN is changed on the token while it is in use; at the next reconnect the old one is refused.
#[test]
fn a_pin_that_became_wrong_is_given_once_by_all_sessions_together() {
    alone(|tokens| {
        imported(tokens);
        let module = tokens.faulty();
        let server = tokens.plug_in(&module);
        let key = TokenKey::open(&tokens.config(client(), "partner")).unwrap();
        signing(async {
            until_it_signs(&key).await;
            drop(server);
            tokens.tool(&["--change-pin", "--new-pin", "16180339"]);
            tokens.write("calls", "");
            let _server = tokens.plug_in(&module);
            let refused = |line: &str| line.contains("the PIN was refused");
            until_it_fails(&key, refused).await;
            // Through several rounds of looking for the token.
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(3) {
                until_it_fails(&key, refused).await;
            }
            assert_eq!(tokens.calls("C_Login"), 1);
        });
    });
}

/// The old one is refused and not tried again, so whoever mends that by the file must be heard.
#[test]
fn a_reload_takes_over_a_pin_that_was_changed_in_its_file() {
    alone(|tokens| {
        imported(tokens);
        let config = keyring_config(tokens.config(client(), "partner"));
        let load = |before| Keyring::load(&config, before, UNIX_EPOCH);
        let server = tokens.plug_in(SOFTHSM.as_ref());
        let first = load(None).unwrap();
        let facts = first.facts()[0].to_string();
        drop(server);
        tokens.tool(&["--change-pin", "--new-pin", "16180339"]);
        tokens.write("pin", "16180339");
        let _server = tokens.plug_in(SOFTHSM.as_ref());
        let start = Instant::now();
        let second = loop {
            match load(Some(&first)) {
                Ok(ring) => break ring,
                Err(errors) => assert!(start.elapsed() < PATIENCE, "{errors:?}"),
            }
        };
        signing(async {
            let identity = second.identity(message(b"").client_id).unwrap();
            identity.sign(&message(b"{}")).await.unwrap();
        });
        // It is the same key all the same.
        let shown = &second.facts()[0];
        assert_eq!((shown.to_string(), shown.since), (facts, UNIX_EPOCH));
    });
}

fn keyring_config(token: Config) -> keys::Config {
    keys::Config {
        identities: vec![IdentityConfig {
            client_id: message(b"").client_id.clone(),
            signing_key: KeyConfig {
                source: Source::Token(token),
                key_version: KeyVersion::default(),
                passphrase_file: None,
                strict_permissions: false,
                place: "signing_key".to_owned(),
            },
            verification_keys: Vec::new(),
            try_all_keys: false,
            time_offset: Offset::UTC,
        }],
        environment: Environment::default(),
    }
}

#[test]
fn what_is_no_signature_of_the_key_is_thrown_away() {
    alone(|tokens| {
        imported(tokens);
        let config = tokens.config(tokens.faulty(), "partner");
        let key = TokenKey::open(&config).unwrap();
        signing(async {
            tokens.write("garbage", "");
            let error = key.sign(&message(b"{}")).await.unwrap_err();
            assert!(matches!(error, TokenError::WrongSignature(_)), "{error}");
            let error = TokenKey::open(&config).unwrap_err();
            assert!(matches!(error, TokenError::WrongSignature(_)), "{error}");
            tokens.remove("garbage");
            key.sign(&message(b"{}")).await.unwrap();
        });
    });
}

#[test]
fn a_token_that_hangs_gives_an_error_in_time_and_holds_a_bounded_queue() {
    alone(|tokens| {
        imported(tokens);
        let config = Config {
            sessions: 1,
            ..tokens.config(tokens.faulty(), "partner")
        };
        let key = TokenKey::open(&config).unwrap();
        let at_the_start = tokens.calls("C_Sign");
        tokens.hang();
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.start_paused(true);
        runtime_of(builder).block_on(async {
            let ask = || {
                let key = key.clone();
                tokio::spawn(async move { key.sign(&message(b"{}")).await })
            };
            let first = ask();
            let wait = async || {
                while tokens.calls("C_Sign") == at_the_start {
                    tokio::task::yield_now().await;
                }
            };
            wait().await;
            let waiting: Vec<_> = (0..1024).map(|_| ask()).collect();
            let one_more = ask();
            let error = one_more.await.unwrap().unwrap_err();
            assert!(
                error.to_string().contains("1024 signatures wait"),
                "{error}"
            );
            for task in [first].into_iter().chain(waiting) {
                let error = task.await.unwrap().unwrap_err();
                assert!(
                    error.to_string().contains("no signature within 5s"),
                    "{error}"
                );
            }
            // Nobody waits any more, so there is room.
            let error = ask().await.unwrap().unwrap_err();
            assert!(matches!(error, TokenError::Slow { .. }), "{error}");
            let _open = tokens.release();
            tokio::time::resume();
            key.sign(&message(b"{}")).await.unwrap();
            // What was given up in the queue was never signed.
            assert_eq!(tokens.calls("C_Sign"), at_the_start + 2);
        });
    });
}
