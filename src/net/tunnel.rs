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
    /// Directions in which bytes wait for a peer to read.
    waiting: AtomicU64,
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
            let out = Direction(&moved.sent, &moved.waiting);
            out.write_all(there, &first).await?;
            drop(first);
            out.copy(&app, there).await
        };
        let back = async {
            let back = Direction(&moved.received, &moved.waiting);
            back.write_all(&app, &early).await?;
            drop(early);
            back.copy(there, &app).await
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
            () = emptiness(moved) => {}
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

/// The same, and nothing waits for a peer to read it: what a slow reader was promised it still gets.
async fn emptiness(moved: &Moved) {
    loop {
        stillness(moved, LAST_PATIENCE).await;
        if moved.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
    }
}

/// One direction: what it has moved, and how many directions wait.
#[derive(Clone, Copy)]
struct Direction<'a>(&'a AtomicU64, &'a AtomicU64);

impl Direction<'_> {
    /// Copies to the end, and passes the end on.
    async fn copy(self, from: &TcpStream, to: &TcpStream) -> io::Result<()> {
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
                self.write_all(to, &chunk).await?;
                // A fast peer must not keep the thread from others.
                consume_budget().await;
            }
        }
    }

    async fn write_all(self, to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        let Self(moved, waiting) = self;
        while !bytes.is_empty() {
            match to.try_write(bytes) {
                Ok(count) => {
                    moved.fetch_add(count as u64, Ordering::Relaxed);
                    bytes = bytes.get(count..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    waiting.fetch_add(1, Ordering::Relaxed);
                    let writable = to.writable().await;
                    waiting.fetch_sub(1, Ordering::Relaxed);
                    writable?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_what_is_still_but_not_what_waits_for_a_slow_reader() {
        let drain = Drain::new();
        drain.enter(Phase::Closing);
        let moved = Moved::default();
        moved.waiting.store(1, Ordering::Relaxed);
        let never = || std::future::pending::<io::Result<()>>();
        let hour = Duration::from_hours(1);
        let waiting = watched(never(), &moved, None, &drain);
        assert!(tokio::time::timeout(hour, waiting).await.is_err());
        moved.waiting.store(0, Ordering::Relaxed);
        let still = watched(never(), &moved, None, &drain).await;
        assert!(matches!(still, End::Drained));
        // At the deadline nothing is waited for any more.
        moved.waiting.store(1, Ordering::Relaxed);
        drain.enter(Phase::Expired);
        let late = watched(never(), &moved, None, &drain).await;
        assert!(matches!(late, End::Drained));
    }
}
