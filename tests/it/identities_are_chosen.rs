//! With many identities, whose key signs and whose verifies is never a guess.

use std::fs;

use countersign_protocol::PrivateKey;
use tokio::io::AsyncWriteExt;

use crate::support::inbound::{Inbound, NOTIFY, SUCCESS};
use crate::support::partner::Arrived;
use crate::support::raw::{RawGateway, UNSIGNED};
use crate::support::{CLIENT_ID, Files, World};

/// As whom a request with these fields reaches the gateway, or how the app is refused.
async fn signed_as(route: &str, fields: &str) -> Result<String, String> {
    let files = Files::new();
    let mut gateway = RawGateway::by_hand().await;
    let further = ["SECOND", "THIRD"].map(|name| {
        format!(
            "  - client_id: {name}\n    signing_key: {{ file: partner.pem }}\n    \
             verification_keys: [{{ file: alipayplus.pem }}]\n"
        )
    });
    let identities = Files::identities() + &further.concat();
    let file = files.config(&format!("http://{}", gateway.address), route, "");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(&Files::identities(), &identities)).unwrap();
    let world = World::of(files, &file).await;
    let mut paying = Box::pin(world.pay(fields));
    tokio::select! {
        answer = &mut paying => Err(answer.outcome()),
        (request, mut stream) = gateway.next() => {
            stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
            assert_eq!(paying.await.outcome(), "verdict unsigned");
            Ok(Arrived::read(&request).field("client-id").to_owned())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_the_app_names_signs_when_it_is_ours_and_the_routes_otherwise() {
    let third = "      identity: THIRD";
    let unknown = "identity_unknown not-sent 400";
    let malformed = "request_malformed not-sent 400";
    for (route, fields, expected) in [
        (third, "", Ok("THIRD")),
        (third, "Client-Id: SECOND\r\n", Ok("SECOND")),
        (third, "client-id:  SECOND \r\n", Ok("SECOND")),
        (third, "Client-Id: SOMEBODY\r\n", Ok("THIRD")),
        (third, "Client-Id: second\r\n", Ok("THIRD")),
        (third, "Client-Id: A.B\r\n", Ok("THIRD")),
        (
            third,
            "Client-Id: SOMEBODY\r\nClient-Id: SECOND\r\n",
            Ok("SECOND"),
        ),
        (
            third,
            "Client-Id: SECOND\r\nClient-Id: SECOND\r\n",
            Ok("SECOND"),
        ),
        (
            third,
            "Client-Id: SECOND\r\nClient-Id: THIRD\r\n",
            Err(malformed),
        ),
        // As libraries write what was set twice.
        (third, "Client-Id: SECOND, THIRD\r\n", Err(malformed)),
        ("", "Client-Id: THIRD,SECOND\r\n", Err(malformed)),
        (third, "Client-Id: SECOND, SECOND\r\n", Ok("SECOND")),
        (third, "Client-Id: SOMEBODY, SECOND\r\n", Ok("SECOND")),
        ("", "Client-Id: SECOND\r\n", Ok("SECOND")),
        ("", "", Err(unknown)),
        ("", "Client-Id: SOMEBODY\r\n", Err(unknown)),
    ] {
        let found = signed_as(route, fields).await;
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(found, expected, "{route} {fields:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_identity_it_signs_whatever_the_app_calls_itself() {
    let world = World::new().await;
    let answer = world.pay("Client-Id: SOMEBODY\r\n").await;
    assert_eq!(answer.outcome(), "verdict verified");
    assert_eq!(
        world.gateway().last_seen().unwrap().headers["client-id"],
        CLIENT_ID
    );
}

const TRY_ALL: &str = "verification_keys: [";

/// Asks for the answer that names the version `named` and is signed with the key of another.
async fn pay_with_unknown_version(try_all: bool) -> (World, String) {
    let world = World::with("", "reload_interval: off").await;
    let file = world.files.path("config.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let other = PrivateKey::generate(2048)
        .unwrap()
        .public_key()
        .to_spki_pem();
    world.files.write("other.pem", other.as_bytes());
    let keys =
        format!("try_all_keys: {try_all}\n    {TRY_ALL}{{ file: other.pem, key_version: 5 }}, ");
    // For all identities, and for one.
    let all = format!("try_all_keys: {}\n", !try_all);
    fs::write(&file, all + &text.replace(TRY_ALL, &keys)).unwrap();
    world.running.trigger.reload();
    let done = "countersign_reloads_total{result=\"ok\",what=\"config\"}";
    world.until(done, 1.0).await;
    let partner = [(
        countersign_protocol::KeyVersion::new(1),
        world.files.partner.public_key(),
    )];
    let own = (
        countersign_protocol::KeyVersion::new(7),
        world.files.gateway.clone(),
    );
    world.gateway().rotate(partner.into(), own);
    let answer = world.pay("").await;
    (world, answer.outcome())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_version_is_tried_with_no_key() {
    let (world, outcome) = pay_with_unknown_version(false).await;
    assert_eq!(outcome, "response_key_unknown unknown 502");
    assert_eq!(
        world.metric("countersign_verify_duration_seconds_count"),
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_version_is_tried_with_all_keys_where_it_is_asked_for() {
    let (world, outcome) = pay_with_unknown_version(true).await;
    assert_eq!(outcome, "verdict verified");
    let stranger = PrivateKey::generate(2048).unwrap();
    let partner = [(
        countersign_protocol::KeyVersion::new(1),
        world.files.partner.public_key(),
    )];
    let own = (countersign_protocol::KeyVersion::new(7), stranger);
    world.gateway().rotate(partner.into(), own);
    assert_eq!(
        world.pay("").await.outcome(),
        "response_signature_invalid unknown 502"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_holds_for_calls_from_the_gateway() {
    let app_answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{SUCCESS}",
        SUCCESS.len()
    );
    for (try_all, expected) in [(false, "request_key_unknown not-sent 401"), (true, "")] {
        let mut inbound = Inbound::new().await;
        let file = inbound.files.path("ingress.yaml");
        let text = fs::read_to_string(&file).unwrap();
        let text = text.replace(TRY_ALL, &format!("try_all_keys: {try_all}\n    {TRY_ALL}"));
        fs::write(&file, text).unwrap();
        inbound.running.trigger.reload();
        let done = "countersign_reloads_total{result=\"ok\",what=\"config\"}";
        while inbound.metric(done) != 1.0 {
            tokio::task::yield_now().await;
        }
        let mut message = inbound.message(NOTIFY, b"{}");
        message.key_version = 9;
        let answer = if try_all {
            inbound
                .exchange(message.bytes(), app_answer.as_bytes())
                .await
                .0
        } else {
            crate::support::raw::send(inbound.ingress, message.bytes()).await
        };
        if expected.is_empty() {
            assert_eq!(answer.status, 200, "{}", answer.head);
            assert_eq!(inbound.flaw(&message, &answer), None);
        } else {
            assert_eq!(answer.outcome(), expected);
        }
    }
}
