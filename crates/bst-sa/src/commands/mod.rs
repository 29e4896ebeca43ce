//! One module per command.

mod doctor;
mod exec;
mod show;

use std::process::ExitCode;

use clap::CommandFactory;

use crate::cli::{Cli, Command};
use crate::failure::Failure;

pub(crate) async fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Doctor(args) => doctor::run(args).await,
        Command::Exec(args) => exec::run(args).await,
        Command::Show(args) => show::run(args).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "bst-sa", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(Failure::new("not yet")),
    }
}
