//! One module per command.

mod build;
mod demo;
mod doctor;
mod exec;
mod explain;
mod generate;
mod graph;
pub(crate) mod prime;
mod show;
mod simulate;

use std::process::ExitCode;

use clap::CommandFactory;

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::output;

pub(crate) async fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Build(args) => build::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Generate(args) => generate::run(args).await,
        Command::Instantiate(args) => prime::instantiate(args).await,
        Command::Prime(args) => prime::prime(args).await,
        Command::Explain(args) => explain::run(args).await,
        Command::Simulate(args) => simulate::run(args).await,
        Command::Show(args) => show::run(args).await,
        Command::Graph(args) => graph::run(args).await,
        Command::Exec(args) => exec::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "bst-sa", &mut script);
            output::print(String::from_utf8_lossy(&script).trim_end())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
