//! Tells a partner of each payment the sandbox carried out, by `notifyPayment`.
//!
//! A notification that is not taken is sent once more after a pause; the real gateway tries more
//! often over a day. Refuses to let a slow partner hold up payments: what is too much is not told,
//! and said to be so. Started by `sandbox --notify`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;

use super::Sandbox;
use super::caller::{Call, Caller, Operation, Payment, Target};
use crate::task;

/// Before the second and last attempt.
const PAUSE: Duration = Duration::from_secs(2);
/// Payments that wait to be told of.
const WAITING: usize = 1_000;
/// Calls under way at a time.
const AT_A_TIME: usize = 16;

/// Tells `target` of every payment from now on; `log` gets one line for each attempt.
pub fn notify(
    gateway: &Sandbox,
    caller: Caller,
    target: Target,
    log: impl Fn(String) + Send + Sync + 'static,
) {
    let (sender, mut paid) = mpsc::channel(WAITING);
    gateway.tell(sender);
    let (caller, log) = (Arc::new(caller), Arc::new(log));
    let slots = Arc::new(Semaphore::new(AT_A_TIME));
    task::spawn(async move {
        while let Some(payment) = paid.recv().await {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let (caller, log) = (Arc::clone(&caller), Arc::clone(&log));
            let call = caller.about(target.clone(), Operation::NotifyPayment, &payment);
            task::spawn(async move {
                tell(&caller, &call, &payment, &*log).await;
                drop(slot);
            });
        }
    });
}

async fn tell(caller: &Caller, call: &Call, payment: &Payment, log: &impl Fn(String)) {
    if attempt(caller, call, payment, log).await {
        return;
    }
    sleep(PAUSE).await;
    if !attempt(caller, call, payment, log).await {
        let id = &payment.request_id;
        log(format!(
            "{id}: not taken twice; the sandbox does not try again"
        ));
    }
}

/// Whether the notification was taken.
async fn attempt(caller: &Caller, call: &Call, payment: &Payment, log: &impl Fn(String)) -> bool {
    let id = &payment.request_id;
    match caller.call(call).await {
        Ok(report) => {
            log(format!("{id}: {}", report.line()));
            report.is_good()
        }
        Err(error) => {
            log(format!("{id}: {error}"));
            false
        }
    }
}
