//! Answers as bytes: segments decide nothing, and what passes is read alike by the guard, a strict
//! reference, and hyper's client. The first byte says what was asked: HEAD, GET, or GET with Upgrade.

use bytes::Bytes;
use countersign::http::wire::{Answers, Asked, At, Limits, Malformed};
use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::reference::{Framing, Message};

/// See the file's head.
pub fn check(data: &[u8]) {
    let Some((first, data)) = data.split_first() else {
        return;
    };
    let asked = Asked {
        head_only: first % 3 == 1,
        takeover: first % 3 == 2,
    };
    let whole = read(data, asked, data.len());
    assert_eq!(read(data, asked, 1), whole);
    assert_eq!(read(data, asked, 3), whole);
    let Ok((taken, at)) = whole else {
        return;
    };
    // Only whole ones are compared; a body to the end of the connection is whole at every byte.
    let expected = match at {
        At::End => Some(reference(&data[..taken], asked)),
        At::Body => Message::until_close(data),
        At::Head | At::Switched => None,
    };
    let Some(expected) = expected else {
        return;
    };
    // What hyper refuses on top of that harms nobody.
    let Some((seen, body)) = crate::run(ask(&data[..taken], asked)) else {
        return;
    };
    assert_eq!(seen.status().as_str(), expected.start[1]);
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
    assert_eq!(body, expected.body);
}

/// How far one answer goes, or why it is none.
fn read(data: &[u8], asked: Asked, size: usize) -> Result<(usize, At), Malformed> {
    let mut answers = Answers::new(Limits::of_head(64 * 1024));
    answers.expect(asked);
    let (mut taken, mut at) = (0, At::Head);
    for segment in data.chunks(size.max(1)) {
        let step = answers.feed(segment)?;
        assert!(step.taken > 0 && step.taken <= segment.len());
        taken += step.taken;
        at = step.at;
        if matches!(at, At::End | At::Switched) {
            assert!(answers.is_idle());
            assert_eq!(answers.feed(b"H"), Err(Malformed::Unasked));
            break;
        }
    }
    Ok((taken, at))
}

fn reference(bytes: &[u8], asked: Asked) -> Message {
    let (mut message, rest) = Message::answer(bytes);
    let has_none = asked.head_only || matches!(message.start[1].as_str(), "204" | "304");
    let framing = if has_none {
        Framing::None
    } else {
        message.framing()
    };
    message.take(&framing, rest);
    message
}

/// What hyper's client makes of it.
async fn ask(bytes: &[u8], asked: Asked) -> Option<(Response<()>, Bytes)> {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake(TokioIo::new(near))
        .await
        .ok()?;
    let mut request = Request::new(Empty::<Bytes>::new());
    if asked.head_only {
        *request.method_mut() = Method::HEAD;
    }
    let answer = async {
        let answer = sender.send_request(request).await.ok()?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some((Response::from_parts(head, ()), body))
    };
    let gateway = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(far.read_u8().await.ok()?);
        }
        far.write_all(bytes).await.ok()?;
        far.shutdown().await.ok()
    };
    let (answer, _, _) = tokio::join!(answer, gateway, connection);
    answer
}
