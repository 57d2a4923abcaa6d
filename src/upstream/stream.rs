//! Open connections: a TCP connection that stays known as ours, with TLS on it or without.
//!
//! Only passes bytes through; opening and judging is the connector's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::guard::Guarded;
use super::own::Registration;
use crate::net::peeked::Peeked;

/// A connection this process has opened, directly or through the proxy, known to `OwnAddresses`
/// until it is dropped.
#[derive(Debug)]
pub struct Dialled {
    /// With what the proxy sent behind its consent: the first bytes of a server that speaks first.
    io: Peeked<TcpStream>,
    _registration: Registration,
}

impl Dialled {
    pub(super) fn new(tcp: TcpStream, registration: Registration) -> Self {
        Self {
            io: Peeked::new(tcp),
            _registration: registration,
        }
    }

    /// The bytes that came early, once, and the connection.
    pub fn tcp(&mut self) -> (Bytes, &TcpStream) {
        (self.io.take_seen(), self.io.io())
    }

    /// The connection, to ask the kernel about.
    pub(super) fn socket(&self) -> &TcpStream {
        self.io.io()
    }

    /// The same connection behind bytes of it that were read already.
    pub(super) fn after(self, early: Bytes) -> Self {
        let io = Peeked::with(early, self.io.into_parts().1);
        Self { io, ..self }
    }
}

impl AsyncRead for Dialled {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Dialled {
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

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }
}

/// A connection of the pool.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Plain(Box<TokioIo<Guarded<Dialled>>>),
    /// TLS on TCP.
    Tls(Box<TokioIo<Guarded<TlsStream<Dialled>>>>),
}

impl Stream {
    /// A connection without TLS.
    pub(super) fn plain(io: Dialled) -> Self {
        Self::Plain(Box::new(TokioIo::new(Guarded::new(io))))
    }

    /// A connection with TLS, on which ALPN chose between HTTP/1.1 and HTTP/2.
    pub(super) fn tls(io: TlsStream<Dialled>) -> Self {
        let io = if is_http2(&io) {
            Guarded::unseen(io)
        } else {
            Guarded::new(io)
        };
        Self::Tls(Box::new(TokioIo::new(io)))
    }
}

fn is_http2(io: &TlsStream<Dialled>) -> bool {
    io.get_ref().1.alpn_protocol() == Some(b"h2")
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(tls) if is_http2(tls.inner().io()) => Connected::new().negotiated_h2(),
            Self::Tls(_) | Self::Plain(_) => Connected::new(),
        }
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }
}
