//! The `netemctl` command: parse the command line, run one command, map the result to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    netemctl::cli::main()
}
