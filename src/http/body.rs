//! Bodies: whole ones under hard limits, and streamed ones that are never held.
//!
//! The signature stands in the head, so a signed message is buffered whole: each under its own limit
//! and all together under a [`Budget`]. Refuses a body as soon as its announced or real length is
//! over, before allocating for it.

use std::error::Error;
use std::fmt;
use std::io::Read;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use ::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use prometheus::IntGauge;

use super::pace::Slow;
use crate::exchange::{Code, Exchange, Fault};

/// How much of a source is read at a time.
const PIECE: usize = 8 << 10;

/// Any cause.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The body of a message we send to a peer that called us.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body that is known whole.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Bytes all buffered bodies of the process may take together.
#[derive(Clone, Debug)]
pub struct Budget {
    inner: Arc<Account>,
}

#[derive(Debug)]
struct Account {
    limit: usize,
    used: AtomicUsize,
    gauge: IntGauge,
}

impl Budget {
    /// A budget of `limit` bytes whose use `gauge` shows.
    pub fn new(limit: usize, gauge: IntGauge) -> Self {
        Self {
            inner: Arc::new(Account {
                limit,
                used: AtomicUsize::new(0),
                gauge,
            }),
        }
    }

    fn reservation(&self) -> Reservation {
        Reservation {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

/// Bytes taken from a budget, given back when dropped.
#[derive(Debug)]
struct Reservation {
    budget: Budget,
    bytes: usize,
}

impl Reservation {
    fn grow(&mut self, by: usize) -> Result<(), BodyError> {
        let account = &self.budget.inner;
        let take = |used: usize| used.checked_add(by).filter(|sum| *sum <= account.limit);
        account
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take)
            .map_err(|_full| BodyError::OverBudget)?;
        self.bytes += by;
        account.gauge.add(i64::try_from(by).unwrap_or(i64::MAX));
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let account = &self.budget.inner;
        account.used.fetch_sub(self.bytes, Ordering::AcqRel);
        account
            .gauge
            .sub(i64::try_from(self.bytes).unwrap_or(i64::MAX));
    }
}

/// A whole body together with its place in the budget.
#[derive(Debug)]
pub struct Held {
    /// The exact bytes.
    pub bytes: Bytes,
    /// Fields that came after the body.
    pub trailers: Option<HeaderMap>,
    _reservation: Reservation,
}

impl Held {
    /// Reads a source of bytes that are there already to its end, at most `limit` of them.
    ///
    /// # Errors
    /// [`BodyError`]; nothing stays allocated then.
    pub fn read(mut source: impl Read, limit: usize, budget: &Budget) -> Result<Self, BodyError> {
        let mut held = BytesMut::new();
        let mut reservation = budget.reservation();
        let mut piece = [0; PIECE];
        loop {
            let read = source.read(&mut piece);
            let read = read.map_err(|cause| BodyError::Broken(cause.into()))?;
            let Some(data) = piece.get(..read).filter(|data| !data.is_empty()) else {
                break;
            };
            if data.len() > limit - held.len() {
                return Err(BodyError::TooLarge(limit));
            }
            reservation.grow(data.len())?;
            held.extend_from_slice(data);
        }
        Ok(Self {
            bytes: held.freeze(),
            trailers: None,
            _reservation: reservation,
        })
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body that carries its exchange along: the exchange ends when the last byte is handed to the
/// connection, or when the connection gives up on it.
#[derive(Debug)]
pub struct Reported {
    body: Body,
    exchange: Exchange,
}

impl Reported {
    /// Ties an exchange to the body of its answer.
    pub fn tie(body: Body, exchange: Exchange) -> Body {
        Self { body, exchange }.boxed_unsync()
    }
}

impl http_body::Body for Reported {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                self.exchange
                    .sent_back(frame.data_ref().map_or(0, Bytes::len));
            }
            Poll::Ready(Some(Err(cause))) => {
                let (code, text) = if cause.is::<Slow>() {
                    (
                        Code::UpstreamTimeout,
                        "the answer stood still while it was passed on",
                    )
                } else {
                    (
                        Code::UpstreamBrokeOff,
                        "the answer broke off while it was passed on",
                    )
                };
                self.exchange.failed(&Fault::unknown(code, text));
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Why a body could not be held.
#[derive(Debug)]
pub enum BodyError {
    /// It is longer than its limit, in bytes.
    TooLarge(usize),
    /// All bodies together would be over the budget.
    OverBudget,
    /// The peer broke off, or its framing is wrong.
    Broken(BoxError),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(limit) => write!(f, "the body is over {limit} bytes"),
            Self::OverBudget => f.write_str("no memory left for buffered bodies"),
            Self::Broken(_) => f.write_str("the body did not arrive whole"),
        }
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Broken(cause) => Some(cause.as_ref()),
            Self::TooLarge(_) | Self::OverBudget => None,
        }
    }
}

/// Reads a body to its end, at most `limit` bytes of it.
///
/// # Errors
/// [`BodyError`]; nothing stays allocated then.
pub async fn hold<B>(body: B, limit: usize, budget: &Budget) -> Result<Held, BodyError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(BodyError::TooLarge(limit));
    }
    let mut body = pin!(body);
    let mut held = BytesMut::new();
    let mut reservation = budget.reservation();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|cause| BodyError::Broken(cause.into()))?;
        match frame.into_data() {
            Ok(data) => {
                if data.len() > limit - held.len() {
                    return Err(BodyError::TooLarge(limit));
                }
                reservation.grow(data.len())?;
                held.extend_from_slice(&data);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok(Held {
        bytes: held.freeze(),
        trailers,
        _reservation: reservation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(limit: usize) -> Budget {
        Budget::new(limit, IntGauge::new("held", "held").unwrap())
    }

    #[tokio::test]
    async fn holds_a_body_of_exactly_the_limit_and_refuses_one_byte_more() {
        let budget = budget(100);
        let held = hold(Full::new(Bytes::from_static(b"12345")), 5, &budget)
            .await
            .unwrap();
        assert_eq!(held.bytes, "12345");
        let refused = hold(Full::new(Bytes::from_static(b"123456")), 5, &budget).await;
        assert!(matches!(refused, Err(BodyError::TooLarge(5))));
    }

    #[tokio::test]
    async fn the_budget_counts_all_held_bodies_and_forgets_dropped_ones() {
        let budget = budget(8);
        let body = || Full::new(Bytes::from_static(b"12345"));
        let first = hold(body(), 5, &budget).await.unwrap();
        assert!(matches!(
            hold(body(), 5, &budget).await,
            Err(BodyError::OverBudget)
        ));
        assert_eq!(budget.inner.gauge.get(), 5);
        drop(first);
        assert!(hold(body(), 5, &budget).await.is_ok());
        assert_eq!(budget.inner.gauge.get(), 0);
    }
}
