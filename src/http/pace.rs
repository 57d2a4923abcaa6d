//! Bodies that must not stand still: in every stretch of waiting so many bytes must come, or the end.
//!
//! A time for the whole body alone lets whoever drips one byte a second hold memory and a place to its
//! end. Only waiting counts: a body that is not asked for cannot be late. Refuses by [`Slow`].

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::body::BoxError;

/// What must come of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long a stretch of waiting is.
    pub within: Duration,
    /// How many bytes must come in each, unless the body ends.
    pub least: usize,
}

impl Pace {
    /// Something must come in each stretch.
    pub fn any(within: Duration) -> Self {
        Self { within, least: 1 }
    }
}

/// Too little of a body came.
#[derive(Debug)]
pub struct Slow(Pace);

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pace { within, least } = self.0;
        let within = humantime::format_duration(within);
        write!(
            f,
            "less than {least} bytes of the body came within {within}"
        )
    }
}

impl Error for Slow {}

/// A body that ends by [`Slow`] when it falls behind its pace.
#[derive(Debug)]
pub struct Paced<B> {
    body: B,
    pace: Option<Pace>,
    /// The end of this stretch; none before it is waited for.
    end: Option<Pin<Box<Sleep>>>,
    came: usize,
}

impl<B> Paced<B> {
    /// The same body at that pace, or at any when there is none.
    pub fn new(body: B, pace: impl Into<Option<Pace>>) -> Self {
        Self {
            body,
            pace: pace.into(),
            end: None,
            came: 0,
        }
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let (Some(Ok(frame)), Some(pace)) = (&frame, this.pace) {
                this.came += frame.data_ref().map_or(0, Buf::remaining);
                if this.came >= pace.least {
                    (this.end, this.came) = (None, 0);
                }
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(pace) = this.pace else {
            return Poll::Pending;
        };
        let end = this.end.get_or_insert_with(|| Box::pin(sleep(pace.within)));
        ready!(end.as_mut().poll(cx));
        Poll::Ready(Some(Err(Slow(pace).into())))
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
    use http_body_util::BodyExt;
    use tokio::sync::mpsc::{Receiver, Sender, channel};
    use tokio::time::{advance, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PACE: Pace = Pace {
        within: Duration::from_secs(2),
        least: 10,
    };

    struct Pieces(Receiver<&'static str>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            let piece = ready!(self.0.poll_recv(cx));
            Poll::Ready(piece.map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))))
        }
    }

    fn body() -> (Sender<&'static str>, Paced<Pieces>) {
        let (sender, pieces) = channel(8);
        (sender, Paced::new(Pieces(pieces), PACE))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_too_slow_however_regularly_it_does() {
        for (piece, is_slow) in [("1", true), ("123456", false)] {
            let (sender, body) = body();
            let dripping = async {
                loop {
                    sender.send(piece).await.unwrap();
                    sleep(SECOND * 9 / 10).await;
                }
            };
            let end = tokio::select! {
                end = timeout(if is_slow { SECOND * 3 } else { SECOND * 60 }, body.collect()) => end,
                () = dripping => unreachable!("it drips for ever"),
            };
            let error = end.ok().map(Result::unwrap_err);
            assert_eq!(
                error.is_some_and(|error| error.is::<Slow>()),
                is_slow,
                "{piece}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_is_too_slow_whatever_came_before() {
        let (sender, mut body) = body();
        sender.send("1234567890").await.unwrap();
        assert!(body.frame().await.unwrap().is_ok());
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(
            error.to_string(),
            "less than 10 bytes of the body came within 2s"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn only_waiting_counts() {
        let (sender, mut body) = body();
        sender.send("1").await.unwrap();
        assert!(body.frame().await.unwrap().is_ok());
        // Nobody asks for more.
        advance(SECOND * 60).await;
        sender.send("2").await.unwrap();
        assert!(body.frame().await.unwrap().is_ok());
        drop(sender);
        assert!(body.frame().await.is_none());
    }
}
