//! The `keyferry` command.

fn main() -> std::process::ExitCode {
    keyferry::cli::run(std::env::args_os())
}
