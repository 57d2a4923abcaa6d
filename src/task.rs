//! The only place that starts a task or a thread.
//!
//! Everything that runs beside its caller is started here, so that a search for `spawn` finds all of
//! it. A task that panics ends alone; nothing waits for it for ever, as all state is given back by
//! `Drop`.

use std::future::Future;
use std::io;

use tokio::task::{JoinError, JoinHandle};

/// Runs a future beside the caller.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that spawns"
    )]
    tokio::spawn(future)
}

/// Runs work that takes the processor for long away from the threads that serve.
///
/// # Errors
/// When the work panicked, or the runtime ends.
pub async fn aside<T, F>(work: F) -> Result<T, JoinError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    tokio::task::spawn_blocking(work).await
}

/// Runs work on a thread of its own, for calls into foreign code that may block for ever. Nobody waits
/// for its end.
///
/// # Errors
/// When the system gives no thread.
pub fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(work).map(drop)
}

/// Lets hyper start its connection tasks through [`spawn`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Executor;

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        // The connection's end is seen through its peer; nobody needs the handle.
        drop(spawn(future));
    }
}
