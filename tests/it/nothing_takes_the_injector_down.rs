//! Nothing that arrives takes the injector down: what is no review is refused, and what is too much is bounded.

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use crate::support::cluster::until;
use crate::support::reviews::{World, patched, pod, posted, review};

/// Every place in a value, as a JSON pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    let step = |name: &str| format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(members) => members
            .iter()
            .for_each(|(name, value)| places(value, &step(name), found)),
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(index, value)| places(value, &step(&index.to_string()), found));
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_stands_in_a_review_it_is_allowed() {
    let world = World::new().await;
    let mut session = world.session().await;
    let whole = review(&pod());
    let mut all = Vec::new();
    places(&whole, "", &mut all);
    assert!(all.len() > 30, "{all:?}");
    let must = ["", "/apiVersion", "/kind", "/request", "/request/uid"];
    for place in &all {
        for value in [
            Value::Null,
            json!(true),
            json!(-1),
            json!(1.5e300),
            json!(""),
            json!("x\u{0}\u{2028}"),
            json!([]),
            json!({}),
            json!([[{}]]),
            json!({ "": { "": null } }),
        ] {
            let mut review = whole.clone();
            *review.pointer_mut(place).unwrap() = value.clone();
            let is_other_uid =
                place == "/request/uid" && value.as_str().is_some_and(|uid| !uid.is_empty());
            if must.contains(&place.as_str()) && !is_other_uid {
                let (status, why) = session.post(&review).await;
                assert_eq!(status, 400, "{place} = {value}: {why}");
                assert!(why.starts_with("countersign: ") && why.len() < 200, "{why}");
            } else {
                session.ask(&review).await;
            }
        }
    }
    // And it goes on.
    patched(&pod(), &session.ask(&whole).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_review_is_refused_with_a_reason() {
    let world = World::new().await;
    let good = review(&pod()).to_string();
    let beta = good.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    let twice = good.replacen("\"uid\":", "\"uid\":\"another\",\"uid\":", 1);
    let operation = good.replacen(
        "\"operation\":",
        "\"operation\":\"UPDATE\",\"operation\":",
        1,
    );
    let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    let deep_pod = good.replace(
        "\"shop:1\"",
        &format!("{}{}", "{\"a\":".repeat(100_000), "1"),
    );
    let many = good.replace("\"shop:1\"", &format!("[{}0]", "0,".repeat(60_000)));
    let json = "Content-Type: application/json\r\n";
    for (line, head, body, status, why) in [
        ("POST /inject", json, "", 400, "ends too early"),
        ("POST /inject", json, "{\"a\":", 400, "ends too early"),
        ("POST /inject", json, "inject me", 400, "its JSON is wrong"),
        ("POST /inject", json, "\u{feff}{}", 400, "its JSON is wrong"),
        ("POST /inject", json, "[]", 400, "no JSON object"),
        (
            "POST /inject",
            json,
            "{}",
            400,
            "kind is not AdmissionReview",
        ),
        (
            "POST /inject",
            json,
            &beta,
            400,
            "admissionReviewVersions: [v1]",
        ),
        ("POST /inject", json, &twice, 400, "says request.uid twice"),
        (
            "POST /inject",
            json,
            &operation,
            400,
            "says request.operation twice",
        ),
        ("POST /inject", json, &deep, 400, "nested too deep"),
        ("POST /inject", json, &deep_pod, 400, "nested too deep"),
        ("POST /inject", json, &many, 400, "more than 50000 values"),
        (
            "POST /inject",
            "",
            &good,
            415,
            "Content-Type: application/json",
        ),
        (
            "POST /inject",
            "Content-Type: application/yaml\r\n",
            &good,
            415,
            "application/json",
        ),
        (
            "POST /inject",
            "Content-Type: application/jsonp\r\n",
            &good,
            415,
            "application/json",
        ),
        ("PUT /inject", json, &good, 405, "posted"),
        ("GET /inject", "", "", 405, "posted"),
        ("POST /", json, &good, 404, "/inject"),
        ("POST /inject/", json, &good, 404, "/inject"),
        ("POST /INJECT", json, &good, 404, "/inject"),
    ] {
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        let answer = world.send(request.as_bytes()).await;
        let text = answer.text();
        assert_eq!(answer.status, status, "{line}: {text}");
        assert!(text.contains(why), "{line}: {text}");
        assert_eq!(answer.field("allow"), (status == 405).then_some("POST"));
    }
    assert_eq!(
        (world.count("no_review"), world.count("failed")),
        (20.0, 0.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_makes_no_more_of_itself_than_a_pod_needs() {
    let world = World::new().await;
    let mut session = world.session().await;
    let annotated = |name: &str, value: String| {
        let mut pod = pod();
        pod["metadata"]["annotations"][format!("countersign.dev/{name}")] = json!(value);
        pod
    };
    let mut crowd = pod();
    crowd["spec"]["containers"] = json!(vec![json!({ "name": "a" }); 20_000]);
    let hosts: Vec<String> = (0..300_000).map(|number| format!("n{number}")).collect();
    let mut strange = pod();
    for number in 0..20_000 {
        strange["metadata"]["annotations"][format!("countersign.dev/zz{number}")] = json!("a");
    }
    for (pod, why) in [
        (crowd, "has 20000 containers"),
        (annotated("no-proxy", hosts.join(",")), "at most 4096"),
        (
            annotated(&"x".repeat(2_000_000), "a".to_owned()),
            "countersign.dev/xxx",
        ),
        (strange, "countersign.dev/zz"),
        (wordy(90), "the pod would be larger than a cluster stores"),
    ] {
        let response = session.ask(&review(&pod)).await;
        let said = response.to_string();
        assert!(said.contains(why) && said.len() < 5000, "{said:.5000}");
    }
    patched(&pod(), &session.ask(&review(&pod())).await);
}

/// A pod of many containers, each of which gets long variables.
fn wordy(containers: usize) -> Value {
    let hosts: Vec<String> = (0..700).map(|number| format!("n{number}")).collect();
    let mut pod = pod();
    pod["metadata"]["annotations"]["countersign.dev/no-proxy"] = json!(hosts.join(","));
    pod["spec"]["containers"] = json!(vec![json!({ "name": "a" }); containers]);
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_nobody_reads_take_no_more_memory_than_reviews_may() {
    let world = World::new().await;
    let stream = TokioIo::new(world.connect_by("h2").await);
    let mut client = http2::Builder::new(TokioExecutor::new());
    let client = client.initial_stream_window_size(1024).handshake(stream);
    let (mut sender, connection) = client.await.unwrap();
    tokio::spawn(connection);
    let review = review(&wordy(30));
    let held = || world.started.metric("countersign_buffered_bytes").unwrap();
    let (mut unread, mut refused) = (Vec::new(), 0);
    for _ in 0..60 {
        let request = posted("https://localhost/inject", &review);
        let answer = sender.send_request(request).await.unwrap();
        match answer.status().as_u16() {
            200 => unread.push(answer),
            status => {
                assert_eq!(status, 503);
                refused += 1;
            }
        }
    }
    assert!(unread.len() > 10 && refused > 10, "{refused} were refused");
    assert!(held() > 10e6 && held() <= f64::from(16 << 20), "{}", held());
    drop(unread);
    until("given back", || held() == 0.0).await;
}

#[tokio::test]
async fn a_review_that_is_too_large_or_too_slow_is_given_up() {
    let world = World::new().await;
    let head = "POST /inject HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n";
    // At once where it says so itself, without a byte of it.
    let announced = format!("{head}Content-Length: {}\r\n\r\n", (4 << 20) + 1);
    let answer = world.send(announced.as_bytes()).await;
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(answer.text().contains("4194304 bytes"), "{}", answer.text());
    // And where it shows. Time that is paused stands still while anybody has something to do: a busy
    // machine may need longer for megabytes than they may take.
    tokio::time::pause();
    let busy = tokio::spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(0x10_0000));
    let chunked = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n{}1\r\n \r\n0\r\n\r\n",
        chunk.repeat(4)
    );
    assert_eq!(world.send(chunked.as_bytes()).await.status, 413);
    // What is as large as it may be is read.
    let good = review(&pod()).to_string();
    let padded = format!("{good}{}", " ".repeat((4 << 20) - good.len()));
    let request = format!("{head}Content-Length: {}\r\n\r\n{padded}", 4 << 20);
    let answer = world.send(request.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    busy.abort();
    tokio::time::resume();
    let stopped = format!("{head}Content-Length: 100\r\n\r\n{{");
    let answer = world.send(stopped.as_bytes()).await;
    assert_eq!(answer.status, 408, "{}", answer.text());
    let held = || world.started.metric("countersign_buffered_bytes").unwrap();
    until("given back", || held() == 0.0).await;
}
