//! Arguments to command to exit code.
//!
//! Exit codes: 0 done, 64 wrong usage or configuration, 1 anything else. Errors go to stderr, one
//! line a problem. The only room that reads the environment.

mod arguments;
pub mod ca;
mod call;
pub mod check;
pub mod demo;
mod hardening;
pub mod inject;
pub mod injector;
pub mod keygen;
pub mod keys;
pub mod message;
pub mod operate;
pub mod output;
pub mod redirect;
pub mod run;
pub mod sandbox;
mod signals;
mod supervisor;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::ffi::OsString;
use std::fmt::Display;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tracing::error;

use crate::keys::token;
use crate::telemetry::log;

/// Signing and verification sidecar for the Alipay+ and Antom message protocol.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Check(check::Check),
    Demo(demo::Demo),
    Sandbox(sandbox::Sandbox),
    Sign(message::Sign),
    Verify(message::Verify),
    Keygen(keygen::Keygen),
    Keys(keys::Keys),
    Ca(ca::Ca),
    Wait(operate::Wait),
    Shutdown(operate::Shutdown),
    Redirect(redirect::Redirect),
    Inject(inject::Inject),
    Injector(injector::Injector),
}

/// How a command ended badly.
#[derive(Debug)]
pub enum Failure {
    /// Wrong usage or configuration; one line each.
    Usage(Vec<String>),
    /// Anything else.
    Other(String),
}

impl Failure {
    fn usage(line: impl Display) -> Self {
        Self::Usage(vec![line.to_string()])
    }

    fn other(error: impl Display) -> Self {
        Self::Other(error.to_string())
    }
}

/// Runs the program with these arguments, the program's name first.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    arguments::remember(&arguments);
    panic::set_hook(Box::new(report_panic));
    let command = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments.command,
        Err(error) => {
            if error.use_stderr() {
                output::warn_of_usage(arguments::explain(&error));
                return ExitCode::from(64);
            }
            output::remember(error.print());
            return exit_code(Ok(()));
        }
    };
    // Nearly every command has a key in its memory.
    hardening::forbid_core_dumps();
    // What a panic leaves behind is not used again; its message was written by the hook.
    let result = panic::catch_unwind(AssertUnwindSafe(|| command.execute()));
    let result = result.unwrap_or_else(|_panic| Err(Failure::other("internal error")));
    // Nothing signs any more.
    token::finish();
    exit_code(result)
}

/// Writes what went wrong, waits for the log a little, and returns the code to exit with.
fn exit_code(result: Result<(), Failure>) -> ExitCode {
    let code = match result {
        Ok(()) if output::is_result_lost() => {
            output::complain("stdout: the result could not be written");
            ExitCode::FAILURE
        }
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(lines)) => {
            lines.iter().for_each(output::complain);
            ExitCode::from(64)
        }
        Err(Failure::Other(line)) => {
            output::complain(line);
            ExitCode::FAILURE
        }
    };
    log::flush(output::PATIENCE);
    code
}

/// Reports a panic in the log of a command that serves, and else on stderr: never both waiting and serving.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let trace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    if output::serves() {
        let trace = trace.map(|trace| trace.to_string());
        error!(panic = %panic, backtrace = trace, "internal error");
        return;
    }
    output::complain(panic);
    if let Some(trace) = trace {
        output::complain(trace);
    }
}

impl Command {
    fn execute(self) -> Result<(), Failure> {
        match self {
            Self::Run(command) => command.execute(),
            Self::Check(command) => command.execute(),
            Self::Demo(command) => command.execute(),
            Self::Sandbox(command) => command.execute(),
            Self::Sign(command) => command.execute(),
            Self::Verify(command) => command.execute(),
            Self::Keygen(command) => command.execute(),
            Self::Keys(command) => command.execute(),
            Self::Ca(command) => command.execute(),
            Self::Wait(command) => command.execute(),
            Self::Shutdown(command) => command.execute(),
            Self::Redirect(command) => command.execute(),
            Self::Inject(command) => command.execute(),
            Self::Injector(command) => command.execute(),
        }
    }
}

/// Whether it is the name of a command or a possible value of a flag.
fn is_known(word: &str) -> bool {
    fn knows(command: &clap::Command, word: &str) -> bool {
        let mut flags = command.get_arguments();
        command.get_name() == word
            || flags.any(|flag| {
                let values = flag.get_possible_values();
                values.iter().any(|value| value.matches(word, false))
            })
            || command.get_subcommands().any(|inner| knows(inner, word))
    }
    knows(&Arguments::command(), word)
}

/// The runtime all commands that serve run on. The log is written from now on: the process is confined.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    log::start().map_err(Failure::other)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::other)
}

/// A variable of the environment, if it is set and text.
fn environment(name: &str) -> Option<String> {
    variable(name).and_then(|value| value.into_string().ok())
}

/// A variable of the environment, if it is set.
fn variable(name: &str) -> Option<OsString> {
    #[expect(clippy::disallowed_methods, reason = "this room reads the environment")]
    std::env::var_os(name)
}
