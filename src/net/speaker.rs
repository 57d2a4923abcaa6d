//! Speaks HTTP on one connection as its listener is set: HTTP/1.1, or HTTP/2 where TLS negotiated it (ALPN).
//!
//! Ends an idle connection when the drain closes, one with a request in it after its answer. Refuses to wait for a
//! head that does not arrive, and for a peer that takes no byte of its answer. Made by `serve`, used by services that look at a connection themselves.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use ::http::header::CONNECTION;
use ::http::{HeaderValue, Method, Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutStream;
use tracing::debug;

use super::busy::Busy;
use super::drain::{Drain, Phase};
use super::guard::{Guarded, Link};
use super::serve::{Ends, Service, Settings};
use crate::http::Body;
use crate::http::wire::Limits;
use crate::task;

/// Speaks HTTP on connections as their listener is set.
#[derive(Clone, Debug)]
pub struct Speaker {
    pub(super) settings: Settings,
    pub(super) drain: Drain,
    pub(super) busy: Busy,
}

impl Speaker {
    /// Serves HTTP/1.1, or behind TLS what ALPN chose, as the listener is configured.
    pub async fn as_configured<S: Service>(&self, service: &Arc<S>, stream: TcpStream, ends: Ends) {
        let patience = self.settings.write_timeout;
        let Some(tls) = &self.settings.tls else {
            let stream = patient(stream, patience);
            return self.http1(service, stream, ends.into()).await;
        };
        let Some(stream) = tls.accept(stream, ends.peer).await else {
            return;
        };
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let stream = patient(stream, patience);
        if is_http2 {
            self.http2(service, stream, ends.into()).await;
        } else {
            self.http1(service, stream, ends.into()).await;
        }
    }

    /// How long a request head may take.
    pub fn head_timeout(&self) -> Duration {
        self.settings.head_timeout
    }

    /// Speaks HTTP/1.1 until the connection ends, or until a request took it over (CONNECT, Upgrade).
    pub async fn http1<S, I>(&self, service: &Arc<S>, io: I, arrival: S::Arrival)
    where
        S: Service,
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let link = Arc::<Link>::default();
        let limits = Limits::of_head(self.settings.head_limit);
        let counted = self.settings.counted.as_ref();
        let malformed = counted.map(|(metrics, name)| (metrics.malformed.clone(), *name));
        let _unfinished = counted.map(|(metrics, name)| {
            let counter = metrics.unfinished_heads.with_label_values(&[*name]);
            Unfinished(counter, Arc::clone(&link))
        });
        let linger = self.settings.linger.clone();
        let io = Guarded::new(io, Arc::clone(&link), limits, malformed, linger);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.settings.head_timeout)
            .max_buf_size(self.settings.head_limit)
            // An app that half-closes after its request still wants the answer; and a payment in
            // mid-air is better finished and logged than cut off.
            .half_close(true)
            .serve_connection(
                TokioIo::new(io),
                self.hyper_service(service, arrival, Some(Arc::clone(&link))),
            )
            .with_upgrades();
        let shut_down = http1::UpgradeableConnection::graceful_shutdown;
        self.to_its_end(connection, shut_down).await;
    }

    /// Speaks HTTP/2 until the connection ends.
    pub async fn http2<S, I>(&self, service: &Arc<S>, io: I, arrival: S::Arrival)
    where
        S: Service,
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let head_limit = u32::try_from(self.settings.head_limit).unwrap_or(u32::MAX);
        let connection = http2::Builder::new(task::Executor)
            .timer(TokioTimer::new())
            .max_header_list_size(head_limit)
            .keep_alive_interval(self.settings.head_timeout)
            .serve_connection(TokioIo::new(io), self.hyper_service(service, arrival, None));
        let shut_down = http2::Connection::graceful_shutdown;
        self.to_its_end(connection, shut_down).await;
    }

    /// Ends an idle connection when the drain closes or its place is needed, one with a request in it after its answer.
    async fn to_its_end<C>(&self, connection: C, shut_down: impl FnOnce(Pin<&mut C>))
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            // First the connection: hyper ends one on which it has read nothing, and what has come must
            // be served.
            biased;
            ended = &mut connection => ended,
            () = self.busy.overdue() => return,
            () = self.is_to_end() => {
                shut_down(connection.as_mut());
                tokio::select! {
                    biased;
                    ended = connection => ended,
                    // A peer that never finishes a head has no exchange to be waited for.
                    () = self.busy.has_been_idle() => return,
                    () = self.busy.overdue() => return,
                }
            }
        };
        if let Err(error) = ended {
            debug!(%error, "connection ended");
        }
    }

    async fn is_to_end(&self) {
        tokio::select! {
            () = self.drain.reached(Phase::Closing) => {}
            () = self.busy.told_to_leave() => {}
        }
    }

    /// A service as hyper wants it.
    fn hyper_service<S: Service>(
        &self,
        service: &Arc<S>,
        arrival: S::Arrival,
        link: Option<Arc<Link>>,
    ) -> impl hyper::service::Service<
        Request<Incoming>,
        Response = Response<Body>,
        Error = Infallible,
        Future = impl Future<Output = Result<Response<Body>, Infallible>> + Send + use<S>,
    > + use<S> {
        let (service, busy) = (Arc::clone(service), self.busy.clone());
        // HTTP/2 has windows of its own, which a peer can keep shut while its socket takes all.
        let can_stall = link.is_none() && self.settings.quiet_give_way;
        let within = can_stall.then_some(self.settings.write_timeout);
        service_fn(move |request: Request<Incoming>| {
            let (service, arrival, exchange) =
                (Arc::clone(&service), arrival.clone(), busy.enter());
            let entered = link.as_ref().map_or(Ok(()), |link| link.enter());
            let link = link.clone();
            // On the heap while there is a request: most connections are idle, and many.
            Box::pin(async move {
                let is_connect = request.method() == Method::CONNECT;
                let is_last = S::IS_PROXY && request.version() == Version::HTTP_10;
                let mut response = match entered {
                    Ok(()) => service.answer(request, &arrival).await,
                    Err(reason) => service.refuse(&reason.fault()),
                };
                if let Some(link) = &link {
                    link.answered(is_connect, response.status());
                    if entered.is_err() || is_last || link.is_broken() {
                        let close = HeaderValue::from_static("close");
                        response.headers_mut().insert(CONNECTION, close);
                    }
                }
                Ok(response.map(|body| exchange.until_sent(body, within)))
            })
        })
    }
}

/// Counts a head that has begun and is not whole when its connection ends, in whatever way that is.
struct Unfinished(IntCounter, Arc<Link>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.1.is_in_a_head() {
            self.0.inc();
        }
    }
}

/// The same connection, broken when its peer takes no byte for so long: what it does not read is held in memory.
fn patient<I: AsyncRead + AsyncWrite>(io: I, how_long: Duration) -> Pin<Box<TimeoutStream<I>>> {
    let mut io = TimeoutStream::new(io);
    io.set_write_timeout(Some(how_long));
    Box::pin(io)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_is_given_up() {
        let (_never_reads, near) = tokio::io::duplex(8);
        let error = patient(near, Duration::from_secs(30))
            .write_all(&[0; 9])
            .await
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }
}
