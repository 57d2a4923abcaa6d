//! What two readers could understand differently is refused at every entrance, before anybody reads it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::Files;
use crate::support::entrances::{Entrances, Way};
use crate::support::malformed::{cases, long_bodies};
use crate::support::process::{Sidecar, text};
use crate::support::raw::send;

/// What follows each malformed request: nothing may look at it.
const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: {host}\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ambiguous_is_refused_at_every_entrance_and_nothing_of_it_passes() {
    let mut entrances = Entrances::new().await;
    for way in Way::ALL {
        let host = entrances.host(way);
        for (reason, status, bytes) in cases() {
            let before = entrances.refused(way, reason);
            let bytes = (bytes.clone() + BEHIND).replace("{host}", &host);
            let answer = entrances.send(way, bytes.as_bytes()).await;
            let shown = format!(
                "{way:?} {reason} {bytes:?}: {}\n{}",
                answer.head,
                answer.text()
            );
            assert_eq!(answer.status, status, "{shown}");
            // One answer, and the end: what came behind was not looked at.
            assert_eq!(answer.field("connection"), Some("close"), "{shown}");
            let length = answer.body.len().to_string();
            assert_eq!(answer.field("content-length"), Some(&*length), "{shown}");
            if way == Way::Admin {
                assert!(answer.text().starts_with("the request "), "{shown}");
                continue;
            }
            let outcome = format!("request_malformed not-sent {status}");
            assert_eq!(answer.outcome(), outcome, "{shown}");
            let result = answer.json()["result"]["resultStatus"].clone();
            let is_ingress = way.listener() == Some("ingress");
            assert_eq!(result, if is_ingress { "F" } else { "U" }, "{shown}");
            assert!(answer.field("signature").is_none(), "{shown}");
            if way.listener().is_some() {
                assert_eq!(entrances.refused(way, reason), before + 1.0, "{shown}");
                assert!(answer.field("countersign-id").is_some(), "{shown}");
            }
        }
    }
    assert!(entrances.nothing_passed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_turns_out_malformed_later_is_refused_and_the_connection_ends() {
    let mut entrances = Entrances::new().await;
    for way in [Way::BaseUrl, Way::InsideConnect, Way::InsideTls] {
        let host = entrances.host(way);
        for (reason, status, bytes) in long_bodies() {
            let before = entrances.refused(way, reason);
            let bytes = (bytes + BEHIND).replace("{host}", &host);
            let answer = entrances.send(way, bytes.as_bytes()).await;
            let outcome = format!("request_malformed not-sent {status}");
            assert_eq!(answer.outcome(), outcome, "{way:?} {reason}");
            assert_eq!(
                answer.field("connection"),
                Some("close"),
                "{way:?} {reason}"
            );
            let length = answer.body.len().to_string();
            assert_eq!(answer.field("content-length"), Some(&*length));
            assert_eq!(entrances.refused(way, reason), before + 1.0);
        }
    }
    assert!(entrances.nothing_passed());
}

#[test]
fn every_reason_a_request_can_be_refused_for_is_tried() {
    let all = cases().into_iter().chain(long_bodies());
    let tried: Vec<_> = all.map(|(reason, ..)| reason).collect();
    for reason in countersign::http::wire::Malformed::ALL {
        let of_answers = reason.status().as_u16() == 502;
        let never = *reason == countersign::http::wire::Malformed::Disagreement;
        let label = reason.label();
        assert!(of_answers || never || tried.contains(&label), "{label}");
    }
}

#[tokio::test]
async fn a_refusal_is_one_exchange_one_fault_and_one_line_without_what_was_sent() {
    let files = Files::new();
    let file = files.config("http://127.0.0.1:9", "", "");
    let mut sidecar = Sidecar::run(&["run", "--config", text(&file)]);
    let request =
        "GET /hidden?hidden HTTP/1.1\r\nHost: hidden\r\nHidden: hidden\r\nHost: b\r\n\r\n";
    let answer = send(sidecar.egress, request).await;
    assert_eq!(answer.outcome(), "request_malformed not-sent 400");
    let line = sidecar.wait_for(|line| line["level"] == "WARN");
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.contains("the request has two Host fields"), "{line}");
    let ask = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let metrics = send(sidecar.admin, ask).await.text();
    for line in [
        "countersign_exchanges_total{direction=\"egress\",outcome=\"request_malformed\",route=\"none\"} 1",
        "countersign_faults_total{code=\"request_malformed\",delivery=\"not-sent\",direction=\"egress\",route=\"none\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    sidecar.signal("INT");
    sidecar.wait_for(|line| line["message"] == "drained");
    let warnings = sidecar.log.iter().filter(|line| line["level"] == "WARN");
    assert_eq!(warnings.count(), 1, "{:#?}", sidecar.log);
    let all = format!("{:?}", sidecar.log).to_ascii_lowercase();
    assert!(!all.contains("hidden"), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_still_sending_gets_its_refusal_and_an_end() {
    let entrances = Entrances::new().await;
    for way in [Way::BaseUrl, Way::Ingress] {
        let mut stream = entrances.open(way).await;
        // A socket that is closed with bytes unread is reset: writing would fail.
        let behind = vec![b'x'; 900_000];
        stream.write_all(b"GET / HTTP/1.1\n").await.unwrap();
        stream.write_all(&behind).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{way:?}");
        // But not for ever.
        let mut stream = entrances.open(way).await;
        stream.write_all(b"GET / HTTP/1.1\n").await.unwrap();
        while stream.write_all(&behind).await.is_ok() {}
    }
}
