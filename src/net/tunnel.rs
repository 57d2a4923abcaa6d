//! Carries bytes between two connections, untouched, until both ends are done.
//!
//! Half-close is kept: when one side has finished writing, the other is told and may go on. A side
//! that breaks off is passed on as a reset, never as a clean end, so that nobody takes half a
//! download for a whole one. Memory for bytes is taken only while there are some: an idle tunnel
//! holds none.

use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::task::consume_budget;
use tokio::time::sleep;

use super::drain::{Drain, Phase};
use super::peeked::Peeked;

/// What is read at a time, in bytes.
const CHUNK: usize = 64 * 1024;
/// How long a silent tunnel lasts once the drain closes connections.
const LAST_PATIENCE: Duration = Duration::from_secs(1);
/// After how much silence the kernel asks whether a peer is still there.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// Why a tunnel ended.
#[derive(Debug)]
pub enum End {
    /// Both sides finished.
    Closed,
    /// Nothing moved for the idle time.
    Idle,
    /// The sidecar is stopping.
    Drained,
    /// A side broke off.
    Broken(io::Error),
}

/// How much went through, in bytes.
#[derive(Debug, Default)]
pub struct Moved {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Moved {
    /// From the one who opened the tunnel.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Back to the one who opened the tunnel.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn total(&self) -> u64 {
        self.sent().wrapping_add(self.received())
    }
}

/// Joins an app's connection with the one to its destination, of which `early` was read already.
pub async fn join(
    app: Peeked<TcpStream>,
    (early, there): (Bytes, &TcpStream),
    moved: &Moved,
    idle: Option<Duration>,
    drain: &Drain,
) -> End {
    let (first, app) = app.into_parts();
    keep_alive(&app);
    keep_alive(there);
    let both = async {
        let out = async {
            pass(first, there, &moved.sent).await?;
            copy(&app, there, &moved.sent).await
        };
        let back = async {
            pass(early, &app, &moved.received).await?;
            copy(there, &app, &moved.received).await
        };
        tokio::try_join!(out, back).map(|_both| ())
    };
    let end = watched(both, moved, idle, drain).await;
    if !matches!(end, End::Closed) {
        // With a linger time of zero, closing sends a reset (RFC 9293 section 3.6: abort).
        for stream in [&app, there] {
            let _already_gone = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
    end
}

/// Joins two connections of any kind, such as after an upgrade.
pub async fn join_any<A, B>(
    mut app: A,
    mut there: B,
    moved: &Moved,
    idle: Option<Duration>,
    drain: &Drain,
) -> End
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let both = async {
        let mut app = Counted(&mut app, &moved.sent);
        let mut there = Counted(&mut there, &moved.received);
        copy_bidirectional(&mut app, &mut there)
            .await
            .map(|_both| ())
    };
    watched(both, moved, idle, drain).await
}

/// Runs a copy until it is done, nothing moves for too long, or the process stops.
async fn watched(
    copying: impl Future<Output = io::Result<()>>,
    moved: &Moved,
    idle: Option<Duration>,
    drain: &Drain,
) -> End {
    let stopping = async {
        drain.reached(Phase::Closing).await;
        tokio::select! {
            () = stillness(moved, LAST_PATIENCE) => {}
            () = drain.reached(Phase::Expired) => {}
        }
    };
    let idling = async {
        match idle {
            Some(idle) => stillness(moved, idle).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        copied = copying => copied.map_or_else(End::Broken, |()| End::Closed),
        () = idling => End::Idle,
        () = stopping => End::Drained,
    }
}

/// Waits until nothing moved for at least `time`, at most twice as long.
async fn stillness(moved: &Moved, time: Duration) {
    loop {
        let before = moved.total();
        sleep(time).await;
        if moved.total() == before {
            return;
        }
    }
}

/// Copies one direction to its end, and passes the end on.
async fn copy(from: &TcpStream, to: &TcpStream, moved: &AtomicU64) -> io::Result<()> {
    loop {
        from.readable().await?;
        let mut chunk = Vec::with_capacity(CHUNK);
        loop {
            chunk.clear();
            match from.try_read_buf(&mut chunk) {
                Ok(0) => return finish(to),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            write_all(to, &chunk).await?;
            moved.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            // A fast peer must not keep the thread from others.
            consume_budget().await;
        }
    }
}

/// Passes on what was read before, and forgets it.
async fn pass(bytes: Bytes, to: &TcpStream, moved: &AtomicU64) -> io::Result<()> {
    write_all(to, &bytes).await?;
    moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    Ok(())
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn finish(to: &TcpStream) -> io::Result<()> {
    match SockRef::from(to).shutdown(Shutdown::Write) {
        // The other side is gone already; its own direction will say how.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        done => done,
    }
}

fn keep_alive(stream: &TcpStream) {
    let probes = TcpKeepalive::new().with_time(KEEPALIVE);
    // Only a help against peers that vanish; the tunnel works without.
    let _unsupported = SockRef::from(stream).set_tcp_keepalive(&probes);
}

/// Counts what is read from a connection.
struct Counted<'a, I>(&'a mut I, &'a AtomicU64);

impl<I: AsyncRead + Unpin> AsyncRead for Counted<'_, I> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = std::pin::Pin::new(&mut *self.0).poll_read(cx, buf);
        let count = buf.filled().len().saturating_sub(before);
        self.1.fetch_add(count as u64, Ordering::Relaxed);
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<'_, I> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut *self.0).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}
