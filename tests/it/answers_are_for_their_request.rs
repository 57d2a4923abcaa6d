//! An answer about another payment never reaches the app as the answer to its own, however well it is
//! signed.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::World;
use crate::support::process::PATIENCE;
use crate::support::raw::{Answer, RawGateway, read_message, send};
use crate::support::world::{PAY, pay_request};

const MISMATCH: &str = "response_mismatch unknown 502";
const CONNECTS: &str = "countersign_upstream_connects_total{result=\"ok\"}";

/// What the gateway would answer to a payment.
fn receipt(id: &str) -> String {
    format!(r#"{{"paymentId":"P-{id}","paymentRequestId":"{id}","result":{{"resultStatus":"S"}}}}"#)
}

async fn pay(world: &World, id: &str) -> Answer {
    send(world.egress, pay_request(world.egress, id)).await
}

/// The id that a request on its way to the gateway is about; a signature may hold the same letters.
fn id_of(request: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(request);
    let names = |id: &str| text.contains(&format!("\"paymentRequestId\":\"{id}\""));
    ["R1", "R2"].into_iter().find(|id| names(id)).unwrap()
}

/// Two payments at a time whose answers a middlebox exchanges; what the apps get.
async fn exchanged(route: &str) -> (World, Vec<Answer>) {
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), route, "").await;
    let (first, second, ()) = tokio::join!(pay(&world, "R1"), pay(&world, "R2"), async {
        let (one, mut to_one) = gateway.next().await;
        let (other, mut to_other) = gateway.next().await;
        for (stream, id) in [(&mut to_one, id_of(&other)), (&mut to_other, id_of(&one))] {
            let answer = world.signed_answer(&receipt(id), "");
            stream.write_all(&answer).await.unwrap();
        }
    });
    (world, vec![first, second])
}

#[tokio::test(flavor = "multi_thread")]
async fn two_answers_that_a_middlebox_exchanges_are_both_refused() {
    let (world, answers) = exchanged("").await;
    for answer in answers {
        assert_eq!(answer.outcome(), MISMATCH);
        assert!(!answer.text().contains("P-R"), "{}", answer.text());
        assert_eq!(answer.json()["result"]["resultStatus"], "U");
    }
    assert_eq!(world.verifications("response_mismatch"), 2.0);
    // So valid are they that nothing else would notice.
    let (_, answers) = exchanged("      bind: off").await;
    for answer in answers {
        assert_eq!(answer.outcome(), "verdict verified");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_about_another_payment_is_refused_or_reported_as_the_route_says() {
    for http2 in [false, true] {
        for (route, expected, counted) in [
            ("", MISMATCH, 1.0),
            ("      verify: report", "verdict failed", 1.0),
            ("      bind: [paymentRequestId]", MISMATCH, 1.0),
            ("      bind: [refundRequestId]", "verdict verified", 0.0),
            ("      bind: []", "verdict verified", 0.0),
            ("      bind: off", "verdict verified", 0.0),
            ("      verify: off", "verdict unchecked", 0.0),
        ] {
            let world = World::speaking(http2, route, "").await;
            let answer = world.pay("sandbox-fault: other-payment\r\n").await;
            assert_eq!(answer.outcome(), expected, "{route}");
            let mismatches = world.verifications("response_mismatch");
            assert_eq!(mismatches, counted, "{route}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_refusal_of_another_payment_is_refused_too() {
    for (id, expected) in [("R1", "verdict unsigned"), ("R2", MISMATCH)] {
        let body = receipt(id).replace("\"S\"", "\"F\"");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let gateway = RawGateway::answering(format!("{head}{body}")).await;
        let world = World::before(&format!("http://{gateway}"), "", "").await;
        assert_eq!(pay(&world, "R1").await.outcome(), expected, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_answer_is_looked_into() {
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(receipt("R2").as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    // Signed as it is packed, and signed as it is read.
    for signed in [packed.as_slice(), receipt("R2").as_bytes()] {
        let coding = "Content-Encoding: gzip\r\n";
        let answer = world.signed_answer_of(signed, coding, &packed);
        let (got, ()) = tokio::join!(pay(&world, "R1"), async {
            let (_, mut stream) = gateway.next().await;
            stream.write_all(&answer).await.unwrap();
        });
        assert_eq!(got.outcome(), MISMATCH);
    }
}

/// The coding is not signed: whoever exchanges answers can write it, and there are clients that ignore it.
#[tokio::test(flavor = "multi_thread")]
async fn a_coding_that_the_answer_does_not_have_is_no_way_round() {
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    for coding in ["br", "gzip", "deflate", "gzip, gzip", "identity, identity"] {
        for (id, expected) in [("R1", "verdict verified"), ("R2", MISMATCH)] {
            let field = format!("Content-Encoding: {coding}\r\n");
            let answer = world.signed_answer(&receipt(id), &field);
            let (got, ()) = tokio::join!(pay(&world, "R1"), async {
                let (_, mut stream) = gateway.next().await;
                stream.write_all(&answer).await.unwrap();
            });
            assert_eq!(got.outcome(), expected, "{coding} {id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_one_wrong_answer_the_connection_is_never_used_again() {
    // As when answers are one behind: the next one would be as wrong.
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    let first = world.signed_answer(&receipt("R1"), "");
    let unsigned = receipt("R2").replace('{', "{ ");
    let altered = world.signed_answer_of(unsigned.as_bytes(), "", receipt("R2").as_bytes());
    for (wrong, expected) in [
        (&first, MISMATCH),
        (&altered, "response_signature_invalid unknown 502"),
    ] {
        let (answer, mut stream) = tokio::join!(pay(&world, "R1"), async {
            let (_, mut stream) = gateway.next().await;
            stream.write_all(&first).await.unwrap();
            stream
        });
        assert_eq!(answer.outcome(), "verdict verified");
        let (answer, ()) = tokio::join!(pay(&world, "R2"), async {
            read_message(&mut stream).await.unwrap();
            stream.write_all(wrong).await.unwrap();
        });
        assert_eq!(answer.outcome(), expected);
        let before = gateway.connections();
        let (_, fresh): (_, TcpStream) = tokio::join!(pay(&world, "R3"), async {
            let fresh = timeout(PATIENCE, gateway.next()).await;
            let (_, mut fresh) = fresh.expect("it goes over the same connection");
            fresh.write_all(&altered).await.unwrap();
            fresh
        });
        assert_eq!(gateway.connections(), before + 1, "{expected}");
        drop(fresh);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn and_so_it_is_over_http_2() {
    let world = World::speaking(true, "", "").await;
    assert_eq!(world.pay("").await.outcome(), "verdict verified");
    for fault in ["other-payment", "altered-body"] {
        let before = world.metric(CONNECTS);
        let answer = world.pay(&format!("sandbox-fault: {fault}\r\n")).await;
        assert!(answer.outcome().starts_with("response_"), "{fault}");
        assert_eq!(world.metric(CONNECTS), before, "{fault}");
        assert_eq!(world.pay("").await.outcome(), "verdict verified");
        assert_eq!(world.metric(CONNECTS), before + 1.0, "{fault}");
    }
    assert!(world.gateway().last_seen().unwrap().uri == PAY);
}
