//! Requests as bytes: segments decide nothing, and what passes is read alike by three readers: the
//! guard, a strict reference, and hyper behind it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use countersign::http::wire::{At, Limits, Malformed, Requests};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use crate::reference::{Framing, Message};

/// Where whole requests end, and how it went on.
#[derive(Debug, PartialEq)]
struct Cut {
    ends: Vec<usize>,
    took_over: bool,
    error: Option<Malformed>,
}

/// See the file's head.
pub fn check(data: &[u8]) {
    let whole = cut(data, data.len());
    assert_eq!(cut(data, 1), whole);
    assert_eq!(cut(data, 3), whole);
    let mut start = 0;
    let mut expected = Vec::new();
    for end in &whole.ends {
        let (mut message, body) = Message::head(&data[start..*end]);
        let framing = message.framing();
        message.take(&framing, body);
        assert!(message.values("host").len() <= 1 && framing != Framing::Length(usize::MAX));
        expected.push(message);
        start = *end;
    }
    let seen = crate::run(serve(&data[..start]));
    assert!(seen.len() <= expected.len(), "{seen:?} {expected:?}");
    for (seen, expected) in seen.iter().zip(&expected) {
        compare(seen, expected);
    }
}

fn cut(data: &[u8], size: usize) -> Cut {
    let mut requests = Requests::new(Limits::of_head(64 * 1024));
    let mut cut = Cut {
        ends: Vec::new(),
        took_over: false,
        error: None,
    };
    let (mut at, mut until) = (0, 0);
    while at < data.len() && !cut.took_over {
        until = data.len().min(at.max(until) + size);
        while at < until {
            let step = match requests.feed(&data[at..until]) {
                Ok(step) => step,
                Err(error) => {
                    assert_eq!(requests.feed(b"GET"), Err(error));
                    cut.error = Some(error);
                    return cut;
                }
            };
            assert!(step.taken > 0 && step.taken <= until - at);
            at += step.taken;
            if step.at == At::End {
                assert!(requests.is_between());
                cut.ends.push(at);
                if requests.asked().takeover {
                    cut.took_over = true;
                    break;
                }
            } else {
                assert_eq!(at, until);
            }
        }
    }
    cut
}

/// What a service behind hyper gets.
async fn serve(bytes: &[u8]) -> Vec<(Request<()>, Option<Bytes>)> {
    let (mut near, far) = tokio::io::duplex(1 << 20);
    near.write_all(bytes).await.expect("it fits");
    near.shutdown().await.expect("open");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.ok().map(|body| body.to_bytes());
            let request = Request::from_parts(head, ());
            seen.lock().expect("no panic").push((request, body));
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.half_close(true).max_buf_size(64 * 1024);
    let connection = builder
        .serve_connection(TokioIo::new(far), service)
        .with_upgrades();
    let _refused = connection.await;
    std::mem::take(&mut *seen.lock().expect("no panic"))
}

fn compare((seen, body): &(Request<()>, Option<Bytes>), expected: &Message) {
    let [method, target, _version] = &expected.start;
    assert_eq!(seen.method().as_str(), method);
    let uri = seen.uri().to_string();
    if target.starts_with('/') || target == "*" || method == "CONNECT" {
        assert_eq!(&uri, target);
    }
    assert_eq!(seen.headers().len(), expected.fields.len());
    for name in seen.headers().keys() {
        let values: Vec<_> = seen
            .headers()
            .get_all(name)
            .iter()
            .map(|value| value.as_bytes())
            .collect();
        assert_eq!(values, expected.values(name.as_str()), "{name}");
    }
    let body = body.as_ref().expect("a body that is there whole is read");
    assert_eq!(body, &expected.body);
}
