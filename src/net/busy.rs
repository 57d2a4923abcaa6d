//! Whether a connection has exchanges on it: from a request's head to its answer's last byte.
//!
//! A drain waits for exchanges, and not for peers that never finish a head.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::http::Body;
use crate::http::body::BoxError;

/// How long a connection without an exchange is left to finish a head, or to take the last bytes.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// The exchanges of a connection; clones count together.
#[derive(Clone, Debug)]
pub(super) struct Busy(Arc<watch::Sender<usize>>);

/// One exchange, over when dropped.
#[derive(Debug)]
pub(super) struct Exchanging(Busy);

/// A body that keeps its exchange until it is handed over whole.
struct Sent {
    body: Body,
    _exchange: Exchanging,
}

impl Default for Busy {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Busy {
    /// An exchange begins.
    pub(super) fn enter(&self) -> Exchanging {
        self.0.send_modify(|count| *count += 1);
        Exchanging(self.clone())
    }

    /// Waits until there was none for a second.
    pub(super) async fn has_been_idle(&self) {
        let mut changes = self.0.subscribe();
        loop {
            // The sender lives as long as `self`, so the channel cannot close.
            let _idle = changes.wait_for(|count| *count == 0).await.is_ok();
            let begins = changes.wait_for(|count| *count > 0);
            if timeout(LAST_PATIENCE, begins).await.is_err() {
                return;
            }
        }
    }
}

impl Exchanging {
    /// Makes the exchange last as long as the body of its answer.
    pub(super) fn until_sent(self, body: Body) -> Body {
        let sent = Sent {
            body,
            _exchange: self,
        };
        sent.boxed_unsync()
    }
}

impl Drop for Exchanging {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::full;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_busy_to_the_last_byte_of_an_answer() {
        let busy = Busy::default();
        let hour = Duration::from_hours(1);
        let body = busy.enter().until_sent(full("answer"));
        assert!(timeout(hour, busy.has_been_idle()).await.is_err());
        drop(body);
        assert!(timeout(hour, busy.has_been_idle()).await.is_ok());
    }
}
