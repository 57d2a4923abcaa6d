//! The simulated gateway and the sidecar's ingress agree on what is taken and what is refused.

use clap::ValueEnum;
use countersign::sandbox::caller::{CallFault, Report, Verdict};
use tokio::io::AsyncWriteExt;

use crate::support::inbound::{Inbound, SUCCESS};
use crate::support::partner::{caller, notified};

/// Calls a world whose app answers every request with success; how many the app saw.
async fn called(world: &mut Inbound, fault: Option<CallFault>) -> (Report, usize) {
    let length = SUCCESS.len();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{SUCCESS}");
    let caller = caller(&world.files, &world.clock);
    let mut seen = 0;
    let app = &mut world.app;
    let answering = async {
        loop {
            let (_, mut stream) = app.next().await;
            seen += 1;
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    };
    let report = tokio::select! {
        report = notified(&caller, world.ingress, fault) => report,
        () = answering => unreachable!("it answers for ever"),
    };
    (report, seen)
}

#[tokio::test]
async fn a_right_call_is_taken_and_the_sidecars_answer_is_as_alipay_plus_wants_it() {
    let mut world = Inbound::new().await;
    let (report, seen) = called(&mut world, None).await;
    assert!(report.is_good(), "{report}");
    assert_eq!((report.verdict, seen), (Verdict::Verified, 1));
}

#[tokio::test]
async fn every_wrong_call_is_refused_as_alipay_plus_expects_and_the_app_sees_none() {
    let mut world = Inbound::new().await;
    for fault in CallFault::value_variants() {
        if *fault == CallFault::Replay {
            continue;
        }
        let (report, seen) = called(&mut world, Some(*fault)).await;
        assert!(report.is_good(), "{fault:?}: {report}");
        assert_eq!((report.verdict, seen), (Verdict::Unsigned, 0), "{fault:?}");
    }
}

#[tokio::test]
async fn a_replay_is_answered_alike_or_refused_as_the_route_says() {
    for (route, verdict, expected) in [
        ("", Verdict::Verified, 2),
        ("      replay: enforce", Verdict::Unsigned, 1),
    ] {
        let mut world = Inbound::with(route, "").await;
        let (report, seen) = called(&mut world, Some(CallFault::Replay)).await;
        assert!(report.is_good(), "{report}");
        assert_eq!((report.verdict, seen), (verdict, expected), "{route}");
    }
}
