//! The flags of `sandbox` by which the simulated gateway calls a partner.
//!
//! `--call` makes one call and ends; `--notify` goes on beside the gateway. Used by `sandbox` only.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use countersign_protocol::Offset;

use super::Failure;
use super::output::say;
use super::sandbox::in_file;
use crate::clock::Clock;
use crate::sandbox::caller::{Call, CallFault, Caller, Operation, Payment, Target};
use crate::sandbox::{Config, Sandbox, notify};
use crate::telemetry::log;

/// Whom the gateway calls, and how.
#[derive(Args, Debug)]
#[command(next_help_heading = "Calling a partner, as Alipay+ does")]
pub(super) struct Calling {
    /// Make one call to this URL instead of serving, and say all that is wrong with the answer.
    ///
    /// Exits with 0 only if nothing is wrong, or if a call with --call-fault is refused properly:
    /// with 401 and an unsigned F of the code `INVALID_SIGNATURE` (or `KEY_NOT_FOUND` for the key
    /// version).
    #[arg(long, value_name = "URL", group = "calls", conflicts_with_all = ["listen", "http1_only", "fault"])]
    call: Option<Target>,
    /// What it calls for; decides the body and how long it waits [default: what the URL's path ends
    /// with, or notifyPayment]
    #[arg(long, value_enum, requires = "call")]
    operation: Option<Operation>,
    /// The paymentRequestId in the body [default: one made from the time]
    #[arg(long, value_name = "ID", requires = "call", conflicts_with = "body")]
    payment: Option<String>,
    /// Send this body as it is.
    #[arg(long, value_name = "FILE", requires = "call")]
    body: Option<PathBuf>,
    /// What is wrong with the call; it is expected to be refused.
    #[arg(long, value_enum, value_name = "FAULT", requires = "call")]
    call_fault: Option<CallFault>,
    /// Follow each payment by a notifyPayment to this URL, one line each; what is not taken is sent
    /// once more after two seconds.
    #[arg(long, value_name = "URL", group = "calls")]
    notify: Option<Target>,
    /// The CA of the partner's certificate, besides the system's.
    #[arg(long, value_name = "FILE", requires = "calls")]
    ca: Option<PathBuf>,
    /// The offset of Request-Time, such as +08:00.
    #[arg(
        long,
        default_value = "Z",
        requires = "calls",
        allow_hyphen_values = true
    )]
    offset: Offset,
}

impl Calling {
    /// Where the one call goes, if there is to be one.
    pub(super) fn target(&self) -> Option<&Target> {
        self.call.as_ref()
    }

    /// Makes the one call and shows what came of it.
    pub(super) async fn once(&self, target: &Target, config: &Config) -> Result<(), Failure> {
        let caller = self.caller(config)?;
        let report = caller.call(&self.prepare(target, &caller)?).await;
        let report = report.map_err(Failure::other)?;
        say(&report);
        if report.is_good() {
            return Ok(());
        }
        let count = report.problems.len();
        let things = if count == 1 { "thing" } else { "things" };
        Err(Failure::Other(format!("{count} {things} wrong")))
    }

    /// From now on tells of payments, if that is wanted.
    pub(super) fn attach(&self, gateway: &Sandbox, config: &Config) -> Result<(), Failure> {
        if let Some(target) = &self.notify {
            notify::notify(gateway, self.caller(config)?, target.clone(), log::print);
        }
        Ok(())
    }

    fn caller(&self, config: &Config) -> Result<Caller, Failure> {
        let mut caller = Caller::new(config, self.ca.as_deref()).map_err(Failure::usage)?;
        caller.offset = self.offset;
        Ok(caller)
    }

    fn prepare(&self, target: &Target, caller: &Caller) -> Result<Call, Failure> {
        let operation = self.operation.or_else(|| target.operation());
        let operation = operation.unwrap_or(Operation::NotifyPayment);
        let payment = match &self.payment {
            Some(id) => Payment::sample(id),
            None => Payment::sample(&made_from_time()),
        };
        let mut call = caller.about(target.clone(), operation, &payment);
        call.fault = self.call_fault;
        if let Some(file) = &self.body {
            call.body = fs::read(file).map_err(|error| in_file(file, error))?.into();
        }
        Ok(call)
    }
}

fn made_from_time() -> String {
    let since = Clock::system().now().duration_since(std::time::UNIX_EPOCH);
    format!("R{}", since.unwrap_or_default().as_millis())
}
