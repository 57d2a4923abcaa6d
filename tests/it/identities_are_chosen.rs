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

const THIRD: &str = "      identity: THIRD";
const UNKNOWN: &str = "identity_unknown not-sent 400";
const MALFORMED: &str = "request_malformed not-sent 400";

async fn signs(table: &[(&str, &str, Result<&str, &str>)]) {
    for (route, fields, expected) in table {
        let found = signed_as(route, fields).await;
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(found, expected, "{route} {fields:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_the_app_names_signs_and_the_routes_where_it_names_none() {
    signs(&[
        (THIRD, "", Ok("THIRD")),
        (THIRD, "Client-Id: SECOND\r\n", Ok("SECOND")),
        (THIRD, "client-id:  SECOND \r\n", Ok("SECOND")),
        (THIRD, "Client_Id: SECOND\r\n", Ok("SECOND")),
        (
            THIRD,
            "Client-Id: SECOND\r\nClient-Id: SECOND\r\n",
            Ok("SECOND"),
        ),
        (THIRD, "Client-Id: SECOND, SECOND\r\n", Ok("SECOND")),
        ("", "Client-Id: SECOND\r\n", Ok("SECOND")),
        ("", "", Err(UNKNOWN)),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_names_two_of_our_clients_is_malformed() {
    signs(&[
        (
            THIRD,
            "Client-Id: SECOND\r\nClient-Id: THIRD\r\n",
            Err(MALFORMED),
        ),
        (
            THIRD,
            "Client-Id: SECOND\r\nClient_Id: THIRD\r\n",
            Err(MALFORMED),
        ),
        // As libraries write what was set twice.
        (THIRD, "Client-Id: SECOND, THIRD\r\n", Err(MALFORMED)),
        ("", "Client-Id: THIRD,SECOND\r\n", Err(MALFORMED)),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_names_a_client_which_is_not_configured_is_refused() {
    let fields = [
        "Client-Id: SOMEBODY\r\n",
        "Client-Id: second\r\n",
        "Client-Id: SECOND_\r\n",
        "Client-Id: A.B\r\n",
        "Client-Id: \r\n",
        "Client-Id:\t \t\r\n",
        "Client-Id: ,\r\n",
        "Client-Id: \"SECOND\"\r\n",
        "Client-Id: SEC OND\r\n",
        "Client-Id: S\u{e9}COND\r\n",
        "Client-Id: SOMEBODY\r\nClient-Id: SECOND\r\n",
        "Client-Id: SECOND\r\nClient-Id: SOMEBODY\r\n",
        "Client-Id: SECOND, SOMEBODY\r\n",
        "Client-Id: SECOND\r\nClient-Id: \r\n",
        "Client-Id: SECOND\r\nClient_Id: SOMEBODY\r\n",
        "Client_Id: SOMEBODY\r\n",
        "client.id: SOMEBODY\r\n",
        "Connection: client-id\r\nClient-Id: SOMEBODY\r\n",
    ];
    for fields in fields {
        signs(&[(THIRD, fields, Err(UNKNOWN)), ("", fields, Err(UNKNOWN))]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_ignores_the_field_signs_for_a_client_which_is_not_configured() {
    let third = "      identity: THIRD\n      client_id_field: ignore";
    let none = "      client_id_field: ignore";
    signs(&[
        (third, "", Ok("THIRD")),
        (third, "Client-Id: SOMEBODY\r\n", Ok("THIRD")),
        (third, "Client-Id: \r\n", Ok("THIRD")),
        (third, "Client_Id: SOMEBODY\r\n", Ok("THIRD")),
        (third, "Client-Id: SECOND\r\n", Ok("SECOND")),
        (third, "Client-Id: SOMEBODY, SECOND\r\n", Ok("SECOND")),
        (third, "Client-Id: SECOND, THIRD\r\n", Err(MALFORMED)),
        (none, "Client-Id: SOMEBODY\r\n", Err(UNKNOWN)),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_identity_no_other_client_is_signed_for_until_a_reload_ignores_the_field() {
    let world = World::with("", "reload_interval: off").await;
    let other = "Client-Id: SOMEBODY\r\n";
    assert_eq!(world.pay(other).await.outcome(), UNKNOWN);
    assert!(world.gateway().last_seen().is_none());
    let own = format!("Client-Id: {CLIENT_ID}\r\n");
    assert_eq!(world.pay(&own).await.outcome(), "verdict verified");

    let file = world.files.path("config.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let hosts = "      hosts:";
    assert!(text.contains(hosts), "{text}");
    let ignore = format!("      client_id_field: ignore\n{hosts}");
    fs::write(&file, text.replacen(hosts, &ignore, 1)).unwrap();
    world.running.trigger.reload();
    let done = "countersign_reloads_total{result=\"ok\",what=\"config\"}";
    world.until(done, 1.0).await;
    assert_eq!(world.pay(other).await.outcome(), "verdict verified");
    let seen = world.gateway().last_seen().unwrap();
    assert_eq!(seen.headers["client-id"], CLIENT_ID);

    fs::write(&file, text).unwrap();
    world.running.trigger.reload();
    world.until(done, 2.0).await;
    assert_eq!(world.pay(other).await.outcome(), UNKNOWN);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_unsigned_may_name_any_client() {
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    let bearer = "Client-Id: SOMEBODY\r\nAuthorization: Bearer isak_x\r\n";
    let mut paying = Box::pin(world.pay(bearer));
    tokio::select! {
        answer = &mut paying => panic!("{}", answer.outcome()),
        (request, mut stream) = gateway.next() => {
            stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
            assert_eq!(paying.await.outcome(), "verdict unsigned");
            assert_eq!(Arrived::read(&request).field("client-id"), "SOMEBODY");
        }
    }
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
