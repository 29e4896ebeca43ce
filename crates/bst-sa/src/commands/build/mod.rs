//! `bst-sa build`: everything around one `bst build`.
//!
//! The build itself is the released `bst`, run as it would be without us, and
//! its exit status is ours. Whatever of the rest does not work is said, and left out.

mod bst;
mod record;
mod session;
mod table;
mod unchanged;

use std::process::{ExitCode, ExitStatus};
use std::time::SystemTime;

use buildstream::Invocation;
use buildstream::introspect::SourcePolicy;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::time::timeout;

use crate::cli::BuildArgs;
use crate::commands::generate::mode;
use crate::commands::prime::lookup;
use crate::failure::Failure;
use crate::progress::{Lines, Progress};
use crate::project;
use bst::{Bst, Signals};
use session::{Plan, Session};
use table::Outcome;
use unchanged::Look;

pub(crate) async fn run(args: BuildArgs) -> Result<ExitCode, Failure> {
    let mut signals = Signals::catch()?;
    let installation = project::installation()?;
    let invocation = args.project.invocation().with_options(args.bst_options.iter().cloned()).map_err(|e| {
        Failure::usage("the options for bst cannot be understood").because(&e).hint("they come after `--`, complete")
    })?;
    let since = SystemTime::now();
    let plan = Plan {
        mode: mode(args.mode),
        lookup: lookup(args.lookup),
        jobs: args.jobs,
        connect: args.connect.clone(),
        observe: args.observe.clone(),
        progress: args.progress.then(Lines::new),
    };
    let look = Look::at(&installation, &invocation, &args.elements);
    // Whoever wants a trace gets one.
    let unchanged = plan.observe.is_empty() && look.as_ref().is_some_and(Look::is_unchanged);
    let mut beside = if unchanged {
        Beside::Unchanged
    } else {
        Beside::Asking(prepare(&installation, &invocation, &args.elements, plan, since).boxed_local())
    };
    tokio::select! {
        _ = timeout(args.head_start, beside.prepared()) => {}
        () = signals.end() => return Err(Failure::new("interrupted")),
    }

    let mut bst = Bst::start(&installation, &invocation, &args.elements)?;
    let status = loop {
        tokio::select! {
            biased;
            status = bst.wait() => break status?,
            signal = signals.next() => bst.forward(signal),
            () = beside.step() => {}
        }
    };
    let progress = Progress::new("recording what was built");
    let outcome = tokio::select! {
        outcome = beside.finish(status) => outcome,
        () = signals.end() => return Err(Failure::new("interrupted while recording; the build itself is over")),
    };
    drop(progress);
    if let Some(look) = &look {
        take_to_mind(look, unchanged, &outcome);
    }
    table::print(&outcome, args.json.json)?;
    Ok(bst::exit_code(status))
}

/// Remembers how the project looked, if it is built now.
fn take_to_mind(look: &Look, unchanged: bool, outcome: &Outcome) {
    match &outcome.ended {
        _ if !outcome.status.success() => look.forget(),
        Some(ended) => look.remember(&ended.configuration, ended.artifacts.iter().cloned()),
        None if unchanged && !look.confirm() => tracing::warn!(
            "bst has built anew what it had built before, with nothing changed; `bst-sa generate` records what ran"
        ),
        None => {}
    }
}

/// What goes on beside the build.
enum Beside<'a> {
    /// BuildStream is being asked about the project.
    Asking(LocalBoxFuture<'a, Result<Session, Failure>>),
    Watching(Box<Session>),
    /// Nothing needs to.
    Unchanged,
    /// It cannot be, for this reason.
    Nothing(Failure),
}

impl Beside<'_> {
    /// Ready once BuildStream has answered. Dropping the future loses nothing.
    async fn prepared(&mut self) {
        if let Self::Asking(answer) = self {
            *self = match answer.await {
                Ok(session) => Self::Watching(Box::new(session)),
                Err(failure) => {
                    tracing::warn!("building without priming: {}", failure.summary());
                    Self::Nothing(failure)
                }
            };
        }
    }

    /// Does the next thing that is due; never ready if there is nothing more to do.
    async fn step(&mut self) {
        match self {
            Self::Asking(_) => self.prepared().await,
            Self::Watching(session) => session.step().await,
            Self::Unchanged | Self::Nothing(_) => std::future::pending().await,
        }
    }

    /// The build is over.
    async fn finish(mut self, status: ExitStatus) -> Outcome {
        self.prepared().await;
        match self {
            Self::Unchanged => {
                Outcome { ended: None, without: Some("nothing has changed since the last build".to_owned()), status }
            }
            Self::Watching(session) => Outcome { ended: Some(session.finish().await), without: None, status },
            Self::Nothing(failure) => Outcome { ended: None, without: Some(failure.summary()), status },
            Self::Asking(_) => Outcome { ended: None, without: Some("BuildStream did not answer".to_owned()), status },
        }
    }
}

async fn prepare(
    installation: &buildstream::Installation,
    invocation: &Invocation,
    elements: &[String],
    plan: Plan,
    since: SystemTime,
) -> Result<Session, Failure> {
    // `bst` is about to have the terminal.
    let progress = Progress::hidden();
    let project = project::ask(installation, invocation.clone(), elements, SourcePolicy::Stage, &progress).await?;
    Session::start(project, plan, since)
}
