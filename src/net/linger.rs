//! Lingering close: reads and discards what a client is still sending after its response was written.
//!
//! Closing a socket with unread bytes resets the connection, and a client that reads only after it has sent its whole body
//! loses the response (RFC 9112 section 9.6). Our side is shut down first, so that the client sees the end; then bytes are
//! discarded until the client closes, for a limited time, at a minimum rate, and on a limited number of connections. Beyond
//! that number a connection lingers for one second and 1 MiB only. A lingering connection holds no exchange and no memory,
//! and a drain does not wait for it. Used by `guard` for HTTP/1.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// The most connections that linger at a time, of a direction or a port for operators.
const MOST_CONNECTIONS: usize = 64;
/// Bytes that must come in each [`Linger::window`].
const LEAST: usize = 1024;
/// How long, and for how many bytes, a connection lingers when too many do.
const WITHOUT_PERMIT: (Duration, usize) = (Duration::from_secs(1), 1 << 20);

/// How connections linger; clones share the number of those that do.
#[derive(Clone, Debug)]
pub struct Linger {
    /// How long at the most.
    pub total: Duration,
    /// In each such time, 1 KiB must come.
    pub window: Duration,
    permits: Arc<Semaphore>,
}

impl Linger {
    /// Lingers as long as `total`, on 64 connections at the most.
    pub fn new(total: Duration, window: Duration) -> Self {
        Self {
            total,
            window,
            permits: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
        }
    }
}

impl Linger {
    /// For clients that may have proved nothing: 10 s, and 1 KiB in each 2 s.
    pub fn unauthenticated() -> Self {
        Self::new(Duration::from_secs(10), Duration::from_secs(2))
    }
}

impl Default for Linger {
    /// 30 s, and 1 KiB in each 5 s, as other proxies do.
    fn default() -> Self {
        Self::new(Duration::from_secs(30), Duration::from_secs(5))
    }
}

/// A connection that lingers.
#[derive(Debug)]
pub(super) struct Lingering {
    deadline: Pin<Box<Sleep>>,
    window: Pin<Box<Sleep>>,
    window_length: Duration,
    in_window: usize,
    /// The bytes that may still be discarded.
    remaining: usize,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Lingering {
    pub(super) fn start(linger: &Linger) -> Self {
        let permit = Arc::clone(&linger.permits).try_acquire_owned().ok();
        let (total, remaining) = match permit {
            Some(_) => (linger.total, usize::MAX),
            None => WITHOUT_PERMIT,
        };
        Self {
            deadline: Box::pin(sleep(total)),
            window: Box::pin(sleep(linger.window)),
            window_length: linger.window,
            in_window: 0,
            remaining,
            _permit: permit,
        }
    }

    /// Discards what comes; ready when the client has closed, or a limit is reached.
    pub(super) fn poll_discard<I: AsyncRead + Unpin>(
        &mut self,
        io: &mut I,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let mut scratch = [0; 8192];
        while self.remaining > 0 && self.deadline.as_mut().poll(cx).is_pending() {
            if self.window.as_mut().poll(cx).is_ready() {
                if self.in_window < LEAST {
                    break;
                }
                self.in_window = 0;
                let next = self.window.deadline() + self.window_length;
                self.window.as_mut().reset(next);
                continue;
            }
            let mut unread = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut *io).poll_read(cx, &mut unread));
            let count = unread.filled().len();
            if read.is_err() || count == 0 {
                break;
            }
            self.in_window += count;
            self.remaining = self.remaining.saturating_sub(count);
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream};

    use super::*;

    /// Lingers to the end, and how long that took.
    async fn lasted(linger: &Linger, near: &mut DuplexStream) -> Duration {
        let now = || sleep(Duration::ZERO).deadline();
        let (start, mut lingering) = (now(), Lingering::start(linger));
        std::future::poll_fn(|cx| lingering.poll_discard(near, cx)).await;
        now() - start
    }

    /// Sends this much every second, without end.
    async fn send(far: &mut DuplexStream, bytes: usize) {
        while far.write_all(&vec![b'x'; bytes]).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ends_by_time_by_rate_and_with_the_client() {
        let linger = Linger::default();
        for (each_second, seconds) in [(4096, 30), (100, 5), (0, 5)] {
            let (mut far, mut near) = tokio::io::duplex(1 << 16);
            let lasted = tokio::select! {
                lasted = lasted(&linger, &mut near) => lasted,
                () = send(&mut far, each_second) => unreachable!(),
            };
            assert_eq!(lasted.as_secs(), seconds, "{each_second} bytes a second");
        }
        let (far, mut near) = tokio::io::duplex(1 << 16);
        drop(far);
        assert_eq!(lasted(&linger, &mut near).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn few_connections_linger_long_and_the_others_a_second_or_a_mebibyte() {
        let linger = Linger::default();
        let held: Vec<_> = (0..MOST_CONNECTIONS)
            .map(|_| Lingering::start(&linger))
            .collect();
        let (mut far, mut near) = tokio::io::duplex(4 << 20);
        assert_eq!(lasted(&linger, &mut near).await, Duration::from_secs(1));
        far.write_all(&vec![b'x'; 2 << 20]).await.unwrap();
        assert_eq!(lasted(&linger, &mut near).await, Duration::ZERO);
        drop(held);
        assert_eq!(lasted(&linger, &mut near).await, Duration::from_secs(10));
    }
}
