//! `bst-sa`: speculative actions on the command line.
//!
//! Only wiring lives here: arguments, connections, progress, tables. What the
//! commands do is in the library crates. stdout carries results, stderr
//! everything else; the exit status is 0 done, 1 failed, 2 usage.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the one crate that talks to people")]

mod cli;
mod commands;
mod connect;
mod failure;
mod files;
mod graph;
mod journal;
mod observe;
mod output;
mod progress;
mod project;
mod services;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let default = if cli.verbose { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("BST_SA_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // They read and write files; each has a stack, and hundreds of them are no faster.
        .max_blocking_threads(16)
        .build()
        .map_err(|e| Failure::new("the runtime cannot be started").because(&e))
        .and_then(|runtime| match cli.command {
            // It decides itself what an interrupt means for the build that it has started.
            command @ Command::Build(_) => runtime.block_on(commands::run(command)),
            command => runtime.block_on(interruptible(commands::run(command))),
        });
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{}", output::harmless(&failure.to_string()));
            failure.exit_code()
        }
    }
}

/// Dropping a command's future stops it and everything that it started.
async fn interruptible(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    tokio::select! {
        outcome = command => outcome,
        signal = tokio::signal::ctrl_c() => match signal {
            Ok(()) => Err(Failure::new("interrupted")),
            Err(error) => Err(Failure::new("signals cannot be received").because(&error)),
        },
    }
}
