//! A connection whose first bytes were looked at and are still to be read.
//!
//! What is spoken on a connection shows only in its first bytes; whoever takes the connection
//! afterwards must get them again, each once and in order. Refuses to hold more than it was told to.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// A connection with the bytes of it that were looked at.
#[derive(Debug)]
pub struct Peeked<I> {
    seen: BytesMut,
    io: I,
}

impl<I> Peeked<I> {
    /// A connection of which nothing was read yet.
    pub fn new(io: I) -> Self {
        Self::with(Bytes::new(), io)
    }

    /// A connection of which `seen` was read already.
    pub fn with(seen: Bytes, io: I) -> Self {
        let seen = BytesMut::from(seen);
        Self { seen, io }
    }

    /// What was read and not yet handed on.
    pub fn seen(&self) -> &[u8] {
        &self.seen
    }

    /// What was read and not yet handed on, to be handed on by the caller.
    pub fn take_seen(&mut self) -> Bytes {
        std::mem::take(&mut self.seen).freeze()
    }

    /// The connection itself.
    pub fn io(&self) -> &I {
        &self.io
    }

    /// The bytes to be read first, and the connection.
    pub fn into_parts(self) -> (Bytes, I) {
        (self.seen.freeze(), self.io)
    }
}

impl<I: AsyncRead + Unpin> Peeked<I> {
    /// Waits for further bytes to look at. Returns how many came: none at the end of the stream.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn more(&mut self) -> io::Result<usize> {
        self.io.read_buf(&mut self.seen).await
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Peeked<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.seen.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let count = this.seen.len().min(buf.remaining());
        buf.put_slice(&this.seen.split_to(count));
        if !this.seen.has_remaining() {
            // The memory goes with the last byte: many connections are idle for long.
            this.seen = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Peeked<I> {
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

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
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
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn hands_on_every_byte_once_and_in_order() {
        let (mut far, near) = tokio::io::duplex(64);
        let mut peeked = Peeked::with(Bytes::from_static(b"ab"), near);
        far.write_all(b"cd").await.unwrap();
        assert_eq!(peeked.more().await.unwrap(), 2);
        assert_eq!(peeked.seen(), b"abcd");
        far.write_all(b"ef").await.unwrap();
        drop(far);
        let (mut one, mut rest) = ([0; 1], Vec::new());
        peeked.read_exact(&mut one).await.unwrap();
        peeked.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&one, rest.as_slice()), (b"a", b"bcdef".as_slice()));
    }
}
