//! The first bytes of a connection: none is lost, and how they were cut into segments decides nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use countersign::net::opening::{self, Head, Hello, Kind};
use countersign::net::peeked::Peeked;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

const LONG: Duration = Duration::from_secs(10);

/// Bytes that come in segments of so many, then the end.
struct Segments<'a> {
    bytes: &'a [u8],
    size: usize,
}

impl AsyncRead for Segments<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = self.size.min(buf.remaining()).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(most);
        buf.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

#[derive(Debug, PartialEq)]
struct Seen {
    kind: Kind,
    hello: Option<Option<Hello>>,
    head: Option<Option<Head>>,
}

/// See the file's head.
pub fn check(data: &[u8]) {
    crate::run(async {
        let whole = look(data, data.len().max(1)).await;
        if data.len() <= 4096 {
            assert_eq!(look(data, 1).await, whole);
        }
        assert_eq!(look(data, 7).await, whole);
    });
}

async fn look(data: &[u8], size: usize) -> Seen {
    let mut connection = Peeked::new(Segments { bytes: data, size });
    let kind = opening::kind(&mut connection, LONG).await;
    let mut seen = Seen {
        kind,
        hello: None,
        head: None,
    };
    match kind {
        Kind::Tls => seen.hello = opening::hello(&mut connection, LONG).await.ok(),
        Kind::Plain => {
            seen.head = opening::head(&mut connection, LONG).await.ok();
            opening::to_blank_line(&mut connection, LONG).await;
        }
        Kind::Silent => panic!("there were bytes, or the end"),
        Kind::Gone => assert!(data.is_empty()),
    }
    let mut all = Vec::new();
    connection
        .read_to_end(&mut all)
        .await
        .expect("no errors here");
    assert_eq!(all, data);
    seen
}
