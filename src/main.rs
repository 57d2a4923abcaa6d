//! The program: arguments to command to exit code. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    countersign::cli::main(std::env::args_os())
}
