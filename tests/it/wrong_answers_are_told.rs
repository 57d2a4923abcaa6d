//! Nothing wrong with a partner's answer escapes the simulated gateway, and each thing has its line.

use countersign::sandbox::caller::{CallFault, Verdict};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::support::partner::{GOOD, NOW, Reply, caller, held, notified};
use crate::support::raw::RawGateway;
use crate::support::{CLIENT_ID, Files};

/// Answers a call without a fault and compares the problems, one part of each.
async fn tells(files: &Files, rows: Vec<(Reply, &[&str])>) {
    let caller = caller(files, &held());
    for (reply, expected) in rows {
        let partner = RawGateway::answering(reply.bytes()).await;
        let report = notified(&caller, partner, None).await;
        assert_eq!(
            report.problems.len(),
            expected.len(),
            "{expected:?}: {report}"
        );
        for (problem, part) in report.problems.iter().zip(expected) {
            assert!(problem.contains(part), "{part}: {problem}");
        }
        assert!(
            report.verdict == Verdict::Verified || !report.is_good(),
            "{report}"
        );
    }
}

#[tokio::test]
async fn everything_wrong_with_a_signature_is_told_each_in_a_line() {
    let files = Files::new();
    let good = || Reply::good(&files);
    let signed = |client, time, version| Reply::signed(&files, GOOD, client, time, version);
    let replaced = |name, value| good().without(&[name]).with(name, value);
    let all = ["Client-Id", "Response-Time", "Signature"];
    let mut other_bytes = good();
    other_bytes.body.push('\n');
    let rows: Vec<(Reply, &[&str])> = vec![
        (good(), &[]),
        (
            good().without(&all),
            &["not signed: it has neither signature nor response-time"],
        ),
        (
            good().without(&all[..1]),
            &["half signed: client-id is missing"],
        ),
        (
            good().without(&all[1..2]),
            &["half signed: response-time is missing"],
        ),
        (
            good().without(&all[2..]),
            &["half signed: signature is missing"],
        ),
        (
            signed("SOMEBODY", NOW, 1),
            &["client-id is SOMEBODY, and the call was for SANDBOX_5X"],
        ),
        (
            replaced("Response-Time", "yesterday"),
            &["response-time cannot be read"],
        ),
        (
            signed(CLIENT_ID, "2027-01-15T07:54:59Z", 1),
            &["is 5m 1s from now; at most 5m is taken"],
        ),
        (signed(CLIENT_ID, "2027-01-15T08:05:00Z", 1), &[]),
        (
            signed(CLIENT_ID, NOW, 7),
            &["keyVersion 7 is unknown; the partner's key has 1"],
        ),
        (
            good().with("Signature", "x"),
            &["signature is there more than once"],
        ),
        (
            replaced("Signature", "signature=%"),
            &["signature cannot be read"],
        ),
        (
            other_bytes,
            &["does not verify: the signature is valid for"],
        ),
    ];
    tells(&files, rows).await;
}

#[tokio::test]
async fn everything_wrong_with_a_result_is_told_each_in_a_line() {
    let files = Files::new();
    let signed = |body: &str| Reply::signed(&files, body, CLIENT_ID, NOW, 1);
    let result = |status: &str, code: &str, message: &str| {
        let result = json!({"resultStatus": status, "resultCode": code, "resultMessage": message});
        signed(&json!({"result": result}).to_string())
    };
    let rows: Vec<(Reply, &[&str])> = vec![
        (result("S", &"c".repeat(64), &"é".repeat(256)), &[]),
        (signed("<html>"), &["the body is no JSON"]),
        (signed("{\"ok\":true}"), &["no object \"result\""]),
        (
            result("s", "SUCCESS", ""),
            &["none of S, F and U", "would send notifyPayment again"],
        ),
        (result("S", "", ""), &["result.resultCode is missing"]),
        (
            result("S", &"c".repeat(65), ""),
            &["resultCode has 65 characters; at most 64"],
        ),
        (
            result("S", "C", &"m".repeat(257)),
            &["resultMessage has 257 characters; at most 256"],
        ),
        (
            result("F", "X", ""),
            &["the result is F/X, so Alipay+ would send notifyPayment again"],
        ),
    ];
    tells(&files, rows).await;
}

#[tokio::test]
async fn everything_wrong_with_the_http_of_an_answer_is_told_and_all_of_it_at_once() {
    let files = Files::new();
    let good = || Reply::good(&files);
    let worst = Reply::signed(&files, "", "SOMEBODY", "2026-01-01T00:00:00Z", 9)
        .status("500 Internal Server Error")
        .body("{}");
    let rows: Vec<(Reply, &[&str])> = vec![
        (
            good().status("404 Not Found"),
            &["the status is 404 Not Found; Alipay+ expects 200"],
        ),
        (
            good().with("Content-Encoding", "gzip"),
            &["content coding \"gzip\""],
        ),
        (
            good().with("Transfer-Encoding", "chunked"),
            &["says in two ways where it ends"],
        ),
        (
            worst,
            &[
                "is SOMEBODY",
                "from now",
                "keyVersion 9",
                "does not verify",
                "no object",
                "is 500",
            ],
        ),
    ];
    tells(&files, rows).await;
}

#[tokio::test]
async fn a_refusal_is_proper_only_with_401_unsigned_and_the_right_code() {
    let files = Files::new();
    let caller = caller(&files, &held());
    let refusal = r#"{"result":{"resultStatus":"F","resultCode":"INVALID_SIGNATURE"}}"#;
    let plain = |body: &str| {
        Reply::good(&files)
            .without(&["Client-Id", "Response-Time", "Signature"])
            .body(body)
    };
    let rows: Vec<(Reply, &[&str])> = vec![
        (plain(refusal).status("401 Unauthorized"), &[]),
        (plain(refusal), &["the status is 200 OK; a refusal has 401"]),
        (
            Reply::signed(&files, refusal, CLIENT_ID, NOW, 1).status("401 Unauthorized"),
            &["the refusal is signed"],
        ),
        (
            plain(&refusal.replace("INVALID_SIGNATURE", "PROCESS_FAIL")).status("401 Unauthorized"),
            &["F/PROCESS_FAIL"],
        ),
        (plain("no").status("401 Unauthorized"), &["no JSON"]),
        (
            Reply::good(&files),
            &[
                "taken for a good one",
                "a refusal has 401",
                "signed",
                "S/SUCCESS",
            ],
        ),
    ];
    for (reply, expected) in rows {
        let partner = RawGateway::answering(reply.bytes()).await;
        let report = notified(&caller, partner, Some(CallFault::StaleTime)).await;
        assert_eq!(report.problems.len(), expected.len(), "{report}");
        for (problem, part) in report.problems.iter().zip(expected) {
            assert!(problem.contains(part), "{problem}");
        }
    }
    let unknown = plain(&refusal.replace("INVALID_SIGNATURE", "KEY_NOT_FOUND"));
    let partner = RawGateway::answering(unknown.status("401 Unauthorized").bytes()).await;
    for (fault, proper) in [
        (CallFault::UnknownKeyVersion, true),
        (CallFault::WrongKey, false),
    ] {
        let report = notified(&caller, partner, Some(fault)).await;
        assert_eq!(report.is_good(), proper, "{report}");
    }
}

#[tokio::test]
async fn a_replay_sends_the_same_bytes_twice_and_notices_another_result() {
    let files = Files::new();
    let caller = caller(&files, &held());
    let mut partner = RawGateway::by_hand().await;
    let (address, calls) = (partner.address, caller.clone());
    let calling =
        tokio::spawn(async move { notified(&calls, address, Some(CallFault::Replay)).await });
    let (first, mut stream) = partner.next().await;
    stream
        .write_all(&Reply::good(&files).bytes())
        .await
        .unwrap();
    drop(stream);
    let (second, mut stream) = partner.next().await;
    let other = GOOD.replace("SUCCESS", "TAKEN_AGAIN");
    let other = Reply::signed(&files, &other, CLIENT_ID, NOW, 1);
    stream.write_all(&other.bytes()).await.unwrap();
    drop(stream);
    assert_eq!(first, second);
    let report = calling.await.unwrap();
    let expected = "the same call has result S/TAKEN_AGAIN the second time and S/SUCCESS the first";
    assert_eq!(report.problems, [expected]);
}
