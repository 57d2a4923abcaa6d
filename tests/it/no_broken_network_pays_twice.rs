//! Whatever the network does at whatever byte, a request of the app reaches the gateway at most once,
//! what is said of it is true, and no altered answer passes.
//!
//! A man in the middle cuts, resets, stalls or alters the connection to the gateway, new or used. Over
//! plain HTTP/1.1 he does so at every byte of request and answer. TLS makes more bytes and more work,
//! so there he does so at every 11th, and alters all bits of a byte only at every 5th.
//! `COUNTERSIGN_FAULTS=all` takes every byte everywhere, which takes some ten minutes.

#![expect(clippy::print_stdout, reason = "the complete run is read by people")]

use std::time::Instant;

use crate::support::faulty::{Fault, Plan, Way};
use crate::support::lanes::{Case, Lanes, Speech, Tally, cases};
use crate::support::world::faults_told;

/// Flips the lowest bit: digits, letters and lengths become their neighbours.
const NEIGHBOUR: Fault = Fault::Garble(1);
/// Flips all bits, which makes of text what is none.
const NOISE: Fault = Fault::Garble(0xff);

/// Pays with each of these faults at every so many bytes, and checks what must hold of all.
async fn pays_once(speech: Speech, faults: &[(Fault, usize)], (lanes, within): (usize, &str)) {
    let all = std::env::var("COUNTERSIGN_FAULTS").is_ok_and(|value| value == "all");
    let begun = Instant::now();
    let mut lanes = Lanes::open(lanes, speech, within).await;
    let mut planned: Vec<Case> = Vec::new();
    for reused in [false, true] {
        let lengths = lanes.lengths(reused).await;
        println!("{speech:?} reused {reused}: {lengths:?}");
        for (fault, step) in faults {
            let step = if all { 1 } else { *step };
            planned.extend(cases(lengths, reused, (*fault, step)));
        }
    }
    let count = planned.len();
    let (tally, running) = lanes.pay(planned).await;
    let Tally {
        outcomes,
        wrong,
        struck,
        early,
    } = &tally;
    let took = begun.elapsed();
    println!("{speech:?} {faults:?}: {count} payments in {took:?}, {struck} struck, {outcomes:#?}");
    println!("{} did not go through without any harm", early.len());
    let shown = wrong.iter().take(5).cloned().collect::<Vec<_>>();
    assert!(
        wrong.is_empty(),
        "{} of {count} are wrong: {}",
        wrong.len(),
        shown.join("\n\n")
    );
    // Lengths vary, resumed TLS is shorter, and a busy machine may be too slow to come that far.
    assert!(*struck * 2 > count, "only {struck} of {count} were struck");
    for delivery in ["not-sent", "unknown"] {
        let answered = tally.say(&format!(" {delivery} "));
        assert_eq!(
            faults_told(&running, "egress", delivery),
            answered,
            "{delivery}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_or_reset_at_any_byte_pays_once_at_most() {
    let faults = [(Fault::Cut, 1), (Fault::Reset, 1)];
    pays_once(Speech::Plain, &faults, (16, "15s")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_stalls_at_any_byte_pays_once_at_most() {
    pays_once(Speech::Plain, &[(Fault::Stall, 1)], (96, "1s")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_altered_byte_never_pays_twice_and_never_passes_as_verified() {
    pays_once(Speech::Plain, &[(NEIGHBOUR, 1), (NOISE, 5)], (16, "2s")).await;
}

/// What TLS and HTTP/2 are tried with.
const ALL: [(Fault, usize); 4] = [
    (Fault::Cut, 11),
    (Fault::Reset, 11),
    (Fault::Stall, 11),
    (NEIGHBOUR, 11),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_so_it_is_behind_tls() {
    pays_once(Speech::Tls, &ALL, (96, "1s")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_over_http_2() {
    pays_once(Speech::Http2, &ALL, (96, "1s")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payments_that_share_a_broken_connection_are_each_made_once_at_most() {
    const TOGETHER: usize = 8;
    let mut lanes = Lanes::open(1, Speech::Http2, "1s").await;
    let (mut broken, mut verified) = (0, 0);
    for at in (0..40).map(|step| step * 131) {
        for (way, fault) in [
            (Way::Request, Fault::Cut),
            (Way::Request, NOISE),
            (Way::Response, Fault::Reset),
            (Way::Response, NOISE),
        ] {
            let plan = Plan { way, at, fault };
            for (outcome, arrived) in lanes.pay_together(plan, TOGETHER).await {
                assert!(arrived <= 1, "{plan:?}: {arrived} times: {outcome}");
                let sent = arrived == 0 || !outcome.contains(" not-sent ");
                assert!(sent, "{plan:?}: {outcome}");
                broken += usize::from(outcome.contains(" unknown "));
                verified += usize::from(outcome == "verdict verified");
            }
        }
    }
    assert!(broken > 100 && verified > 100, "{broken} {verified}");
}
