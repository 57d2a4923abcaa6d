//! The simulated gateway calls a partner as Alipay+ does, and nothing wrong with an answer escapes it.
//!
//! The official SDK is the other judge: it takes what the caller sends, and the caller takes what the
//! SDK signs. The simulated gateway with its keys exchanged plays a wallet behind TLS.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use countersign::clock::Clock;
use countersign::sandbox::caller::{Call, CallFault, Caller, Operation, Report, Verdict};
use countersign::sandbox::{self, Fault, Started, notify};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::Files;
use crate::support::clients::ask_sdk;
use crate::support::partner::{
    Arrived, NOTIFY, NOW, Reply, SdkPartner, call, caller, gateway, held, notified,
};
use crate::support::process::{PATIENCE, countersign, text};
use crate::support::raw::RawGateway;

/// Makes calls to a partner that only listens, and returns them as they arrived.
async fn sent(caller: &Caller, calls: &[(&str, Call)]) -> Vec<Arrived> {
    let mut arrived = Vec::new();
    for (path, call) in calls {
        let mut partner = RawGateway::by_hand().await;
        let target = format!("http://{}{path}", partner.address);
        let call = Call {
            target: target.parse().unwrap(),
            ..call.clone()
        };
        let caller = caller.clone();
        let calling = tokio::spawn(async move { caller.call(&call).await });
        arrived.push(Arrived::read(&partner.next().await.0));
        calling.await.unwrap().unwrap();
    }
    arrived
}

#[tokio::test]
async fn the_official_sdk_accepts_every_call_as_it_is_on_the_wire() {
    let files = Files::new();
    let mut calls = Vec::new();
    let mut caller = caller(&files, &held());
    for offset in ["Z", "+08:00"] {
        caller.offset = offset.parse().unwrap();
        let mut these = Vec::new();
        for (path, operation) in [
            (NOTIFY, Operation::NotifyPayment),
            ("/pay?partner=1&x=%2F%20", Operation::Pay),
            ("/a//b/../inquiryPayment?", Operation::InquiryPayment),
            ("/", Operation::CancelPayment),
            ("/refund/", Operation::Refund),
        ] {
            these.push((path, call(&caller, "http://any.test", operation, None)));
        }
        let mut own = these[0].1.clone();
        own.body = "  {\"name\": \"漢字 é + %20\"}\r\n".into();
        these.push(("/own", own));
        calls.extend(
            these
                .iter()
                .map(|(path, _)| *path)
                .zip(sent(&caller, &these).await),
        );
    }
    let questions: Vec<_> = calls.iter().map(|(_, one)| one.question(&files)).collect();
    for ((path, arrived), answer) in calls.iter().zip(ask_sdk(&questions)) {
        assert!(
            arrived
                .head
                .starts_with(&format!("POST {path} HTTP/1.1\r\n")),
            "{}",
            arrived.head
        );
        assert_eq!(
            arrived.field("content-type"),
            "application/json; charset=UTF-8"
        );
        assert_eq!(answer["verified"], true, "{}", arrived.head);
    }
    let times: Vec<_> = calls
        .iter()
        .map(|(_, one)| one.field("request-time"))
        .collect();
    assert_eq!((times[0], times[6]), (NOW, "2027-01-15T16:00:00+08:00"));
}

#[tokio::test]
async fn the_official_sdk_refuses_calls_with_a_wrong_body_signature_or_key() {
    let files = Files::new();
    let caller = caller(&files, &held());
    let faults = [
        CallFault::AlteredBody,
        CallFault::AlteredSignature,
        CallFault::WrongKey,
    ];
    let calls = faults.map(|fault| {
        let call = call(&caller, "http://any.test", Operation::Pay, Some(fault));
        ("/pay", call)
    });
    let arrived = sent(&caller, &calls).await;
    let questions: Vec<_> = arrived.iter().map(|one| one.question(&files)).collect();
    for (fault, answer) in faults.iter().zip(ask_sdk(&questions)) {
        assert_eq!(answer["verified"], false, "{fault:?}");
    }
}

#[tokio::test]
async fn a_partner_on_the_official_sdk_takes_calls_and_its_answers_verify() {
    let files = Files::new();
    let partner = SdkPartner::start(&files);
    let caller = caller(&files, &Clock::system());
    for (path, operation) in [
        (NOTIFY, Operation::NotifyPayment),
        ("/aps/api/v1/payments/pay?x=%2F", Operation::Pay),
    ] {
        let url = format!("http://{}{path}", partner.address);
        let report = caller
            .call(&call(&caller, &url, operation, None))
            .await
            .unwrap();
        assert!(report.is_good(), "{report}");
        assert_eq!(report.verdict, Verdict::Verified);
    }
}

#[tokio::test]
async fn a_partner_on_the_official_sdk_refuses_what_the_sdk_checks_and_is_caught_on_the_rest() {
    let files = Files::new();
    let partner = SdkPartner::start(&files);
    let caller = caller(&files, &Clock::system());
    for (fault, refused) in [
        (CallFault::AlteredBody, true),
        (CallFault::AlteredSignature, true),
        (CallFault::WrongKey, true),
        (CallFault::MissingTime, true),
        (CallFault::Unsigned, true),
        (CallFault::UnderscoreTwin, false),
        (CallFault::StaleTime, false),
        (CallFault::UnknownKeyVersion, false),
        (CallFault::RepeatedSignature, false),
    ] {
        let report = notified(&caller, partner.address, Some(fault)).await;
        assert_eq!(report.is_good(), refused, "{fault:?}: {report}");
        let taken = "a call that is forged or damaged was taken for a good one";
        let said = report.problems.iter().any(|problem| problem == taken);
        assert_eq!(said, !refused, "{fault:?}: {report}");
    }
    let replayed = notified(&caller, partner.address, Some(CallFault::Replay)).await;
    assert!(replayed.is_good(), "{replayed}");
    assert!(replayed.to_string().contains("answered twice alike"));
}

#[tokio::test]
async fn it_waits_as_long_as_alipay_plus_does_and_no_longer() {
    let files = Files::new();
    for (operation, seconds) in [(Operation::NotifyPayment, 5), (Operation::Pay, 8)] {
        let caller = caller(&files, &held());
        let mut partner = RawGateway::by_hand().await;
        let url = format!("http://{}/", partner.address);
        let call = call(&caller, &url, operation, None);
        let calling = tokio::spawn(async move { caller.call(&call).await.unwrap() });
        let (_request, stream) = partner.next().await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds - 1)).await;
        assert!(!calling.is_finished());
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::time::resume();
        let report = calling.await.unwrap();
        drop(stream);
        let expected = format!(
            "no complete answer within {seconds}s; Alipay+ waits no longer for {operation}"
        );
        assert_eq!(report.problems, [expected]);
    }
}

#[tokio::test]
async fn a_partner_out_of_reach_or_that_breaks_off_is_told_of() {
    let files = Files::new();
    let caller = caller(&files, &held());
    let closed = SocketAddr::from(([127, 0, 0, 1], 1));
    let unreachable = notified(&caller, closed, None).await;
    assert!(
        unreachable.problems[0].starts_with("no connection to 127.0.0.1:1: "),
        "{unreachable}"
    );
    let partner = RawGateway::answering("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{").await;
    let broken = notified(&caller, partner, None).await;
    assert!(
        broken.problems[0].contains("ended before the answer was complete"),
        "{broken}"
    );
    let endless = "HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n";
    let endless = notified(&caller, RawGateway::answering(endless).await, None).await;
    assert_eq!(
        endless.problems,
        ["the answer's body is over the limit of 1048576 bytes"]
    );
}

/// The simulated gateway with the keys exchanged: a wallet behind TLS that pays and signs.
async fn wallet(files: &Files, http2: bool, fault: Option<Fault>) -> Started {
    let config = sandbox::Config {
        partner_key: files.gateway.public_key(),
        key: files.partner.clone(),
        http2,
        fault,
        ..gateway(files, &held())
    };
    let wallet = sandbox::start(config, SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap();
    files.write("wallet-ca.pem", &wallet.ca_pem);
    wallet
}

async fn paid(files: &Files, wallet: &Started, ca: Option<&str>) -> Report {
    let ca = ca.map(|name| files.path(name));
    let caller = Caller::new(&gateway(files, &held()), ca.as_deref()).unwrap();
    let url = format!(
        "https://localhost:{}/aps/api/v1/payments/pay",
        wallet.address.port()
    );
    caller
        .call(&call(&caller, &url, Operation::Pay, None))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_behind_tls_is_called_over_http_1_1_and_http_2_if_its_ca_is_given() {
    let files = Files::new();
    for http2 in [false, true] {
        let wallet = wallet(&files, http2, None).await;
        let report = paid(&files, &wallet, Some("wallet-ca.pem")).await;
        assert!(report.is_good(), "{report}");
        let seen = wallet.gateway.last_seen().unwrap();
        assert!(seen.authentic && seen.http2 == http2, "{seen:?}");
        let distrusted = paid(&files, &wallet, None).await;
        assert!(
            distrusted.problems[0].starts_with("no trusted TLS connection"),
            "{distrusted}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_an_answer_escapes_it() {
    let files = Files::new();
    for fault in <Fault as clap::ValueEnum>::value_variants() {
        if *fault == Fault::Stall {
            continue;
        }
        let wallet = wallet(&files, true, Some(*fault)).await;
        let report = paid(&files, &wallet, Some("wallet-ca.pem")).await;
        assert!(!report.is_good(), "{fault:?}: {report}");
    }
}

#[tokio::test]
async fn a_payment_is_notified_and_once_more_when_that_is_not_taken() {
    let files = Files::new();
    let clock = held();
    let simulated = sandbox::start(
        gateway(&files, &clock),
        SocketAddr::from(([127, 0, 0, 1], 0)),
    )
    .await
    .unwrap();
    files.write("ca.pem", &simulated.ca_pem);
    let mut partner = RawGateway::by_hand().await;
    let target = format!("http://{}{NOTIFY}", partner.address)
        .parse()
        .unwrap();
    let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
    notify::notify(
        &simulated.gateway,
        caller(&files, &clock),
        target,
        move |line| {
            let _test_over = sender.send(line);
        },
    );
    // The partner pays as a wallet is called: with its own key, which is the gateway's peer.
    let app = sandbox::Config {
        key: files.partner.clone(),
        partner_key: files.gateway.public_key(),
        ..gateway(&files, &clock)
    };
    let app = Caller::new(&app, Some(&files.path("ca.pem"))).unwrap();
    let url = format!(
        "https://localhost:{}/aps/api/v1/payments/pay",
        simulated.address.port()
    );
    let paying = app
        .call(&call(&app, &url, Operation::Pay, None))
        .await
        .unwrap();
    assert!(paying.is_good(), "{paying}");

    let (first, mut stream) = partner.next().await;
    let body: Value = serde_json::from_slice(&Arrived::read(&first).body).unwrap();
    assert_eq!(
        (&body["paymentRequestId"], &body["paymentId"]),
        (&json!("R1"), &json!("sandbox-pay-00000001"))
    );
    let refusal = Reply::good(&files).status("503 Service Unavailable");
    stream.write_all(&refusal.bytes()).await.unwrap();
    drop(stream);
    assert!(
        lines
            .recv()
            .await
            .unwrap()
            .contains("WRONG: the status is 503")
    );
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    let again = tokio::time::timeout(PATIENCE, partner.next()).await;
    let (_second, mut stream) = again.unwrap();
    stream
        .write_all(&Reply::good(&files).bytes())
        .await
        .unwrap();
    drop(stream);
    let line = lines.recv().await.unwrap();
    assert!(
        line.starts_with("R1: notifyPayment to http://")
            && line.contains(": 200, verified, result S/SUCCESS, "),
        "{line}"
    );
}

#[test]
fn the_command_calls_once_and_exits_0_only_if_nothing_is_wrong() {
    let files = Files::new();
    files.write("alipayplus.pem", files.gateway.to_pkcs8_pem().as_bytes());
    let public = files.gateway.public_key().to_spki_pem();
    files.write("gateway.pub.pem", public.as_bytes());
    let started = Files {
        folder: tempfile::tempdir().unwrap(),
        partner: files.partner.clone(),
        gateway: files.gateway.clone(),
    };
    started.write("partner.pem", files.partner.to_pkcs8_pem().as_bytes());
    started.write("alipayplus.pem", public.as_bytes());
    let partner = SdkPartner::start(&started);
    let url = format!("http://{}{NOTIFY}", partner.address);
    let run = |more: &[&str]| {
        let fixed = [
            "sandbox",
            "--folder",
            text(files.folder.path()),
            "--call",
            &url,
        ];
        let output = countersign(&[&fixed[..], more].concat());
        let shown = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap(), shown)
    };
    let body = files.write("body.json", "{\"x\": \"é\"}".as_bytes());
    let (code, shown) = run(&["--body", text(&body), "--offset", "+08:00"]);
    assert_eq!(code, 0, "{shown}");
    for part in [
        "POST /aps/",
        "{\"x\": \"é\"}",
        "+08:00",
        "HTTP/1.1 200 OK",
        "signature: verified",
        "all as it should be",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("PRIVATE"), "{shown}");
    let (code, shown) = run(&["--call-fault", "altered-body"]);
    assert!(
        code == 0 && shown.contains("refused, as it should be"),
        "{shown}"
    );
    let (code, shown) = run(&["--call-fault", "stale-time"]);
    assert!(
        code == 1 && shown.contains("WRONG: a call that is forged"),
        "{shown}"
    );
    assert_eq!(run(&["--fault", "stall"]).0, 64);
    assert_eq!(run(&["--ca", "/nonexistent.pem"]).0, 64);
}

/// A sidecar that has them in use would load its keys anew at each call, or find half a file.
#[test]
fn the_keys_in_its_folder_are_left_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens there; the keys are made before that is found out.
    let call = || {
        countersign(&[
            "sandbox",
            "--folder",
            text(folder.path()),
            "--call",
            "http://127.0.0.1:1/",
        ])
    };
    let keys = [
        "partner.pem",
        "partner.pub.pem",
        "alipayplus.pem",
        "alipayplus.pub.pem",
    ];
    let states = || {
        keys.map(|name| {
            let state = fs::metadata(folder.path().join(name)).unwrap();
            (state.ino(), state.mtime(), state.mtime_nsec())
        })
    };
    call();
    let before = states();
    call();
    assert_eq!(states(), before);
    // But a public key that is not that of its private key misleads.
    let public = folder.path().join("partner.pub.pem");
    let good = fs::read(&public).unwrap();
    fs::write(&public, "another").unwrap();
    call();
    assert_eq!(fs::read(&public).unwrap(), good);
}
