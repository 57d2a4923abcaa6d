//! Arguments to command to exit code.
//!
//! Exit codes: 0 done, 64 wrong usage or configuration, 1 anything else. Errors go to stderr, one
//! line a problem. The only room that reads the environment.

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

use std::ffi::OsString;
use std::fmt::Display;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::keys::token;

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
    let command = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments.command,
        Err(error) => {
            // Help and version go to stdout; a closed pipe is nobody's loss.
            let _closed = error.print();
            return if error.use_stderr() {
                ExitCode::from(64)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    // Nearly every command has a key in its memory.
    hardening::forbid_core_dumps();
    let result = match command {
        Command::Run(command) => command.execute(),
        Command::Check(command) => command.execute(),
        Command::Demo(command) => command.execute(),
        Command::Sandbox(command) => command.execute(),
        Command::Sign(command) => command.execute(),
        Command::Verify(command) => command.execute(),
        Command::Keygen(command) => command.execute(),
        Command::Keys(command) => command.execute(),
        Command::Ca(command) => command.execute(),
        Command::Wait(command) => command.execute(),
        Command::Shutdown(command) => command.execute(),
        Command::Redirect(command) => command.execute(),
        Command::Inject(command) => command.execute(),
        Command::Injector(command) => command.execute(),
    };
    // Nothing signs any more.
    token::finish();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(lines)) => {
            lines.iter().for_each(output::complain);
            ExitCode::from(64)
        }
        Err(Failure::Other(line)) => {
            output::complain(line);
            ExitCode::FAILURE
        }
    }
}

/// The runtime all commands that serve run on.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
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
