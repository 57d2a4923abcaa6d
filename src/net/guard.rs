//! Stands before hyper's server and lets no byte of a request through that two readers could understand
//! differently.
//!
//! Follows the bytes of a connection and hands on whole heads, and bodies as they come, all unchanged,
//! and never in one read more than the rest of one message. A head that is malformed is kept back:
//! hyper reads a stand-in for it, so that earlier answers keep their order, and the service is asked for
//! the refusal. A body that is malformed breaks off. Either way nothing behind it is looked at. Stops
//! looking when a request took the connection over. Made by `serve`.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use ::http::StatusCode;
use bytes::{Bytes, BytesMut};
use prometheus::IntCounterVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::linger::{Linger, Lingering};
use crate::http::wire::{At, BadRequest, Limits, Malformed, Requests, Step};

/// What hyper reads in place of a head that is refused. Its answer is given by [`Link`] alone.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused.invalid\r\nconnection: close\r\n\r\n";

/// A connection whose requests are read strictly before hyper gets them.
#[derive(Debug)]
pub struct Guarded<I> {
    io: I,
    requests: Requests,
    link: Arc<Link>,
    counted: Option<(IntCounterVec, &'static str)>,
    flow: Flow,
    /// What hyper has not got yet.
    held: BytesMut,
    /// How many bytes of it were looked at, and how many of these may be handed on.
    read: usize,
    ready: usize,
    /// Whether the head of the message that is being read was handed on.
    passed: bool,
    end: End,
}

/// What hyper gets to read.
#[derive(Debug)]
enum Flow {
    /// What comes.
    Following,
    /// The rest of the stand-in, and then the end.
    Refused(&'static [u8]),
    /// An error: the body it is reading is malformed.
    Broken(Malformed),
}

/// How far the end of a connection is.
#[derive(Debug)]
struct End {
    linger: Linger,
    is_shut: bool,
    lingering: Option<Lingering>,
}

/// What the two sides of hyper, its connection and its service, know of each other.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Heads handed to hyper.
    heads: AtomicU64,
    /// Requests hyper made of them.
    requests: AtomicU64,
    /// The head that a stand-in stands for, by its number, and why.
    refused: OnceLock<(u64, Malformed)>,
    taken_over: AtomicBool,
    /// A body broke off: there will be no further request.
    broken: AtomicBool,
    /// A head has begun and is not whole.
    in_a_head: AtomicBool,
}

impl Link {
    /// Hyper has made a request of what it read: whether it is to be refused.
    pub(super) fn enter(&self) -> Result<(), BadRequest> {
        let number = self.requests.fetch_add(1, Ordering::AcqRel) + 1;
        match self.refused.get() {
            Some((refused, reason)) if *refused == number => Err(BadRequest(*reason)),
            _ if number > self.heads.load(Ordering::Acquire) => {
                Err(BadRequest(Malformed::Disagreement))
            }
            _ => Ok(()),
        }
    }

    /// A request is answered with that status: what follows may be no HTTP any more (RFC 9110 sections
    /// 7.8 and 9.3.6).
    pub(super) fn answered(&self, is_connect: bool, status: StatusCode) {
        if status == StatusCode::SWITCHING_PROTOCOLS || (is_connect && status.is_success()) {
            self.taken_over.store(true, Ordering::Release);
        }
    }

    /// Whether the connection ends with the request that is being answered.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Whether a head has begun and is not whole.
    pub(super) fn is_in_a_head(&self) -> bool {
        self.in_a_head.load(Ordering::Acquire)
    }

    fn pass(&self) -> u64 {
        self.in_a_head.store(false, Ordering::Release);
        self.heads.fetch_add(1, Ordering::AcqRel) + 1
    }
}

impl<I> Guarded<I> {
    /// Guards a connection; what is refused is counted under the listener's name.
    pub(super) fn new(
        io: I,
        link: Arc<Link>,
        limits: Limits,
        counted: Option<(IntCounterVec, &'static str)>,
        linger: Linger,
    ) -> Self {
        Self {
            io,
            requests: Requests::new(limits),
            link,
            counted,
            flow: Flow::Following,
            held: BytesMut::new(),
            read: 0,
            ready: 0,
            passed: false,
            end: End {
                linger,
                is_shut: false,
                lingering: None,
            },
        }
    }

    /// The bytes that hyper has not got, and the connection.
    pub fn into_parts(self) -> (Bytes, I) {
        (self.held.freeze(), self.io)
    }

    /// Looks at bytes that come next. Returns how many of them, and of what is held before them, end in
    /// something that may be handed on; none when they are to be held.
    fn look(&mut self, bytes: &[u8]) -> usize {
        match self.requests.feed(bytes) {
            Ok(Step { at: At::Head, .. }) => {
                self.link.in_a_head.store(true, Ordering::Release);
                0
            }
            Ok(Step { taken, at }) => {
                if !self.passed {
                    self.link.pass();
                }
                self.passed = at == At::Body;
                taken
            }
            Err(reason) => {
                self.refuse(reason);
                0
            }
        }
    }

    fn refuse(&mut self, reason: Malformed) {
        if let Some((malformed, listener)) = &self.counted {
            let labels = [*listener, reason.label()];
            malformed.with_label_values(&labels).inc();
        }
        self.held = BytesMut::new();
        (self.read, self.ready) = (0, 0);
        self.flow = if self.passed {
            self.link.broken.store(true, Ordering::Release);
            Flow::Broken(reason)
        } else {
            let number = self.link.pass();
            let _first_stays = self.link.refused.set((number, reason));
            Flow::Refused(STAND_IN)
        };
    }

    /// Looks at what is held and was not looked at.
    fn look_at_held(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        let more = self.look(held.get(self.read..).unwrap_or_default());
        if matches!(self.flow, Flow::Following) {
            self.ready = if more == 0 { 0 } else { self.read + more };
            self.read = if more == 0 { held.len() } else { self.ready };
            std::mem::swap(&mut self.held, &mut held);
        }
    }

    fn hand_on(&mut self, count: usize, buf: &mut ReadBuf<'_>) {
        let count = count.min(buf.remaining());
        buf.put_slice(&self.held.split_to(count));
        self.ready = self.ready.saturating_sub(count);
        self.read = self.read.saturating_sub(count);
        if self.held.is_empty() {
            // The memory goes with the last byte: many connections are idle for long.
            self.held = BytesMut::new();
        }
    }

    /// Whether the peer may still be sending what nobody will read.
    fn is_behind(&self) -> bool {
        !matches!(self.flow, Flow::Following)
            || !self.requests.is_between()
            || !self.held.is_empty()
    }
}

impl<I: AsyncRead + Unpin> Guarded<I> {
    /// Bytes as they come.
    fn poll_unseen(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        self.hand_on(self.held.len(), buf);
        Poll::Ready(Ok(()))
    }

    /// Reads until something may be handed on; whether `buf` holds it, or the end.
    fn poll_more(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let new = buf.filled().get(before..).unwrap_or_default();
        if new.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let pass = if self.held.is_empty() {
            // The usual case takes no copy: a message, or a part of its body, in one piece.
            let pass = self.look(new);
            self.read = if pass == 0 { new.len() } else { 0 };
            pass
        } else {
            0
        };
        if matches!(self.flow, Flow::Following) {
            let rest = new.get(pass..).unwrap_or_default();
            self.held.extend_from_slice(rest);
        }
        buf.set_filled(before + pass);
        Poll::Ready(Ok(pass > 0))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Guarded<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.link.taken_over.load(Ordering::Acquire) {
            return this.poll_unseen(cx, buf);
        }
        loop {
            if this.ready > 0 {
                this.hand_on(this.ready, buf);
                return Poll::Ready(Ok(()));
            }
            match &mut this.flow {
                Flow::Following => {}
                Flow::Refused(rest) => {
                    let count = rest.len().min(buf.remaining());
                    let (now, later) = rest.split_at_checked(count).unwrap_or_default();
                    buf.put_slice(now);
                    *rest = later;
                    return Poll::Ready(Ok(()));
                }
                Flow::Broken(reason) => {
                    let cause = BadRequest(*reason);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, cause)));
                }
            }
            if this.read < this.held.len() {
                this.look_at_held();
            } else if ready!(this.poll_more(cx, buf))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    /// Ends our side, and lingers while the client may still be sending.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.end.is_shut {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            this.end.is_shut = true;
        }
        if !this.is_behind() {
            return Poll::Ready(Ok(()));
        }
        let linger = &this.end.linger;
        let lingering = this
            .end
            .lingering
            .get_or_insert_with(|| Lingering::start(linger));
        lingering.poll_discard(&mut this.io, cx).map(Ok)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use tokio::time::timeout;

    use super::*;

    fn pair() -> (DuplexStream, Guarded<DuplexStream>) {
        let (far, near) = tokio::io::duplex(1024);
        let limits = Limits::of_head(64 * 1024);
        (
            far,
            Guarded::new(near, Arc::default(), limits, None, Linger::default()),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_still_sending_is_lingered_for() {
        let (mut far, mut near) = pair();
        far.write_all(b"GET / HTTP/1.1\nand more").await.unwrap();
        let mut seen = Vec::new();
        near.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, STAND_IN);
        let mut ending = std::pin::pin!(near.shutdown());
        let sending = async {
            for _ in 0..3000 {
                far.write_all(&[b'x'; 1000]).await.unwrap();
            }
        };
        tokio::select! {
            biased;
            ended = &mut ending => panic!("too early: {ended:?}"),
            () = sending => {}
        }
        let most = Duration::from_millis(10_100);
        assert!(timeout(most, &mut ending).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_behind_a_whole_request_or_when_gone() {
        for (bytes, stays) in [
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".as_slice(), true),
            (b"GET / HTTP/1.1\n".as_slice(), false),
        ] {
            let (mut far, mut near) = pair();
            far.write_all(bytes).await.unwrap();
            assert_ne!(near.read(&mut [0; 256]).await.unwrap(), 0);
            let far = stays.then_some(far);
            let at_once = Duration::from_millis(1);
            assert!(timeout(at_once, near.shutdown()).await.is_ok());
            drop(far);
        }
    }

    #[test]
    fn a_request_that_the_guard_has_not_handed_on_is_refused() {
        let link = Link::default();
        link.pass();
        assert_eq!(link.enter(), Ok(()));
        assert_eq!(link.enter(), Err(BadRequest(Malformed::Disagreement)));
    }
}
