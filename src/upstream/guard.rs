//! Stands below hyper's client and lets no byte of an answer through that two readers could understand
//! differently, and none that answers nothing.
//!
//! Follows what is written, to know what was asked, and what is read. Bytes behind an answer are not
//! handed on, and nothing is read or written after them: they could be taken for the next answer, which
//! a signature does not rule out, as it does not bind the request's body. For the same reason it asks
//! the kernel, before the first byte of each request, whether anything has come unasked. What came so
//! late that it crosses the request on the network cannot be told from an answer. Over HTTP/2, and
//! behind a 101, it looks at nothing. Made by `connect`.

use std::error::Error;
use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::stream::Dialled;
use crate::http::wire::{Answers, At, BadAnswer, BadRequest, Limits, Malformed, Requests};

/// The largest head of an answer, in bytes.
const HEAD_LIMIT: usize = 64 * 1024;
/// What hyper writes was read and bounded when it came; what is added since is little.
const WRITTEN: Limits = Limits {
    head: 1 << 20,
    request_line: 1 << 17,
    fields: 1 << 12,
};

/// A connection whose answers are read strictly before hyper gets them.
#[derive(Debug)]
pub struct Guarded<I> {
    io: I,
    requests: Requests,
    answers: Answers,
    state: State,
    /// Whether the answer to the request that is being written is expected already.
    announced: bool,
    /// Whether a request waits to begin until what is unread was read.
    waiting: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Http1,
    /// No HTTP/1, or no more.
    Unseen,
    /// Never to be used again.
    Poisoned(Malformed),
}

/// The connection was of no use before a byte of the request was written.
#[derive(Debug)]
pub(super) struct Unsent(pub(super) Option<Malformed>);

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(reason) => write!(f, "nothing was written: {}", BadAnswer(reason)),
            None => f.write_str("nothing was written: the other side had closed the connection"),
        }
    }
}

impl Error for Unsent {}

/// A connection that the kernel can be asked about.
pub trait Unread {
    /// Whether bytes have come that were not read, or the end of the stream.
    fn has_unread(&self) -> io::Result<bool>;
}

impl Unread for TcpStream {
    fn has_unread(&self) -> io::Result<bool> {
        // Around tokio, which learns of what has come only when it next asks for events.
        match SockRef::from(self).peek(&mut [MaybeUninit::uninit()]) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Unread for Dialled {
    fn has_unread(&self) -> io::Result<bool> {
        self.socket().has_unread()
    }
}

impl Unread for TlsStream<Dialled> {
    fn has_unread(&self) -> io::Result<bool> {
        self.get_ref().0.has_unread()
    }
}

impl<I> Guarded<I> {
    /// A connection on which nothing was asked yet.
    pub(super) fn new(io: I) -> Self {
        Self {
            io,
            requests: Requests::new(WRITTEN),
            answers: Answers::new(Limits::of_head(HEAD_LIMIT)),
            state: State::Http1,
            announced: false,
            waiting: false,
        }
    }

    /// One that does not speak HTTP/1.
    pub(super) fn unseen(io: I) -> Self {
        Self {
            state: State::Unseen,
            ..Self::new(io)
        }
    }

    /// The connection itself.
    pub(super) fn io(&self) -> &I {
        &self.io
    }

    /// Takes note of what was written.
    fn note(&mut self, mut written: &[u8]) -> io::Result<()> {
        while !written.is_empty() {
            let step = self.requests.feed(written).map_err(|reason| {
                self.state = State::Poisoned(reason);
                io::Error::new(io::ErrorKind::InvalidData, BadRequest(reason))
            })?;
            if step.at != At::Head && !self.announced {
                self.answers.expect(self.requests.asked());
            }
            self.announced = step.at == At::Body;
            written = written.get(step.taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Looks at what was read. Returns how much of it may be handed on.
    fn look(&mut self, read: &[u8]) -> Result<usize, Malformed> {
        let step = self.answers.feed(read)?;
        match step.at {
            At::Switched => {
                self.state = State::Unseen;
                return Ok(read.len());
            }
            // Answered before it was asked to the end: what is left to write makes no sense there.
            At::End if step.taken < read.len() || !self.requests.is_between() => {
                self.state = State::Poisoned(Malformed::Unasked);
            }
            At::Head | At::Body | At::End => {}
        }
        Ok(step.taken)
    }

    fn poison(&mut self, reason: Malformed) -> io::Error {
        self.state = State::Poisoned(reason);
        io::Error::new(io::ErrorKind::InvalidData, BadAnswer(reason))
    }
}

fn unsent(reason: Option<Malformed>) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, Unsent(reason))
}

impl<I: AsyncRead + Unread + Unpin> Guarded<I> {
    /// Waits until nothing is left to be read before a request begins; fails if that was anything.
    fn poll_clear(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_begun = !self.requests.is_between();
        match self.state {
            State::Unseen => return Poll::Ready(Ok(())),
            State::Poisoned(reason) if is_begun => return Poll::Ready(Err(self.poison(reason))),
            State::Poisoned(reason) => return Poll::Ready(Err(unsent(Some(reason)))),
            State::Http1 if is_begun || !self.answers.is_idle() => return Poll::Ready(Ok(())),
            State::Http1 => {}
        }
        let mut scratch = [0; 1];
        let mut unasked = ReadBuf::new(&mut scratch);
        let reason = match Pin::new(&mut self.io).poll_read(cx, &mut unasked) {
            Poll::Ready(Ok(())) if unasked.filled().is_empty() => None,
            Poll::Ready(Ok(())) => Some(Malformed::Unasked),
            Poll::Ready(Err(_broken)) => None,
            Poll::Pending => match self.io.has_unread() {
                Ok(false) => return Poll::Ready(Ok(())),
                // It will be readable in a moment. Of TLS it may be nothing but a ticket.
                Ok(true) => {
                    self.waiting = true;
                    return Poll::Pending;
                }
                Err(_broken) => None,
            },
        };
        self.state = State::Poisoned(Malformed::Unasked);
        Poll::Ready(Err(unsent(reason)))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Guarded<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.state {
            State::Unseen => return Pin::new(&mut this.io).poll_read(cx, buf),
            State::Poisoned(reason) => return Poll::Ready(Err(this.poison(reason))),
            State::Http1 => {}
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut this.io).poll_read(cx, buf));
        let new = buf.filled().get(before..).unwrap_or_default();
        if std::mem::take(&mut this.waiting) && (read.is_err() || new.is_empty()) {
            // The request that waits was not begun, so it can say so.
            this.state = State::Poisoned(Malformed::Unasked);
            return Poll::Ready(Err(unsent(None)));
        }
        read?;
        if new.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let looked = this.look(new);
        buf.set_filled(before + looked.unwrap_or(0));
        Poll::Ready(looked.map(drop).map_err(|reason| this.poison(reason)))
    }
}

impl<I: AsyncRead + AsyncWrite + Unread + Unpin> AsyncWrite for Guarded<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_clear(cx))?;
        this.waiting = false;
        let count = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, bufs))?;
        if matches!(this.state, State::Http1) {
            let mut left = count;
            for buf in bufs {
                let written = buf.get(..left.min(buf.len())).unwrap_or_default();
                left = left.saturating_sub(written.len());
                this.note(written)?;
            }
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const REQUEST: &[u8] = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}";
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

    /// A guarded connection, and its other end, which waits for nothing.
    async fn pair() -> (Guarded<TcpStream>, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await;
        (Guarded::new(near.unwrap()), listener.accept().unwrap().0)
    }

    async fn exchange(near: &mut Guarded<TcpStream>, far: &mut std::net::TcpStream) {
        near.write_all(REQUEST).await.unwrap();
        far.read_exact(&mut [0; REQUEST.len()]).unwrap();
        far.write_all(ANSWER).unwrap();
        let mut answer = [0; ANSWER.len()];
        near.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, ANSWER);
    }

    /// Waits for the kernel, which takes a moment also on loopback.
    fn has_come(near: &Guarded<TcpStream>) {
        while !near.io.has_unread().unwrap() {
            std::hint::spin_loop();
        }
    }

    fn unsent(error: &io::Error) -> Option<Malformed> {
        let inner = error.get_ref().unwrap();
        inner.downcast_ref::<Unsent>().expect("nothing was sent").0
    }

    #[tokio::test]
    async fn what_came_unasked_keeps_the_next_request_back_also_before_tokio_knows_of_it() {
        for rounds in [0, 1, 3] {
            let (mut near, mut far) = pair().await;
            for _ in 0..rounds {
                exchange(&mut near, &mut far).await;
            }
            far.write_all(ANSWER).unwrap();
            has_come(&near);
            // Nothing was awaited since, so tokio cannot have been told.
            let error = near.write_all(REQUEST).await.unwrap_err();
            assert_eq!(unsent(&error), Some(Malformed::Unasked));
            assert!(near.read_u8().await.is_err());
            drop(near);
            let mut seen = Vec::new();
            let _reset = far.read_to_end(&mut seen);
            assert_eq!(seen, b"", "after {rounds} rounds");
        }
    }

    #[tokio::test]
    async fn on_a_connection_that_was_closed_nothing_is_written() {
        let (mut near, mut far) = pair().await;
        exchange(&mut near, &mut far).await;
        drop(far);
        has_come(&near);
        let error = near.write_all(REQUEST).await.unwrap_err();
        assert_eq!(unsent(&error), None);
    }

    #[tokio::test]
    async fn bytes_behind_an_answer_are_not_handed_on_and_end_the_connection() {
        let (mut near, mut far) = pair().await;
        near.write_all(REQUEST).await.unwrap();
        far.write_all(&[ANSWER, b"HTTP/1.1 200"].concat()).unwrap();
        let mut answer = [0; 4096];
        let count = near.read(&mut answer).await.unwrap();
        assert_eq!(&answer[..count], ANSWER);
        let error = near.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let error = near.write_all(REQUEST).await.unwrap_err();
        assert_eq!(unsent(&error), Some(Malformed::Unasked));
    }

    #[tokio::test]
    async fn an_answer_before_the_request_was_written_whole_ends_the_connection_behind_it() {
        let (mut near, mut far) = pair().await;
        near.write_all(&REQUEST[..REQUEST.len() - 1]).await.unwrap();
        far.write_all(ANSWER).unwrap();
        near.read_exact(&mut [0; ANSWER.len()]).await.unwrap();
        assert!(near.write_all(b"}").await.is_err());
    }

    #[tokio::test]
    async fn an_answer_before_the_head_was_written_whole_is_refused() {
        let (mut near, mut far) = pair().await;
        near.write_all(&REQUEST[..20]).await.unwrap();
        far.write_all(ANSWER).unwrap();
        let error = near.read_u8().await.unwrap_err();
        let reason = error.get_ref().unwrap().downcast_ref::<BadAnswer>();
        assert_eq!(reason, Some(&BadAnswer(Malformed::Unasked)));
    }

    #[tokio::test]
    async fn behind_a_101_that_was_asked_for_bytes_pass_unseen() {
        let (mut near, mut far) = pair().await;
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n";
        near.write_all(request).await.unwrap();
        let switched = b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n\x00\n";
        far.write_all(switched).unwrap();
        let mut seen = [0; 32];
        near.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, switched);
        far.write_all(b"\r\r\0").unwrap();
        near.write_all(b"\n\n").await.unwrap();
        let mut seen = [0; 3];
        near.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"\r\r\0");
    }
}
