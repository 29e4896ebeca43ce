//! `bst-sa build`: everything around one `bst build`.
//!
//! The build itself is the released `bst`, run as it would be without us, and
//! its exit status is ours. Whatever of the rest does not work is said, and left out.

mod bst;
mod record;
mod session;
mod table;

use std::process::ExitCode;
use std::time::SystemTime;

use buildstream::Invocation;
use buildstream::introspect::SourcePolicy;

use crate::cli::BuildArgs;
use crate::commands::generate::mode;
use crate::commands::prime::lookup;
use crate::failure::Failure;
use crate::progress::{Lines, Progress};
use crate::project;
use bst::{Bst, Signals};
use session::{Plan, Session};
use table::Outcome;

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
    let mut session = tokio::select! {
        session = prepare(&installation, &invocation, &args.elements, plan, since) => session,
        () = signals.end() => return Err(Failure::new("interrupted")),
    };
    if let Err(failure) = &session {
        tracing::warn!("building without priming: {}", failure.summary());
    }

    let mut bst = Bst::start(&installation, &invocation, &args.elements)?;
    let status = loop {
        tokio::select! {
            biased;
            status = bst.wait() => break status?,
            signal = signals.next() => bst.forward(signal),
            () = step(&mut session) => {}
        }
    };
    let outcome = match session {
        Ok(session) => {
            let progress = Progress::new("recording what was built");
            let ended = tokio::select! {
                ended = session.finish() => ended,
                () = signals.end() => return Err(Failure::new("interrupted while recording; the build itself is over")),
            };
            drop(progress);
            Outcome { ended: Some(ended), without: None, status }
        }
        Err(failure) => Outcome { ended: None, without: Some(failure.summary()), status },
    };
    table::print(&outcome, args.json.json)?;
    Ok(bst::exit_code(status))
}

async fn prepare(
    installation: &buildstream::Installation,
    invocation: &Invocation,
    elements: &[String],
    plan: Plan,
    since: SystemTime,
) -> Result<Session, Failure> {
    let progress = Progress::new("looking at the elements");
    let project = project::ask(installation, invocation.clone(), elements, SourcePolicy::Stage, &progress).await?;
    Session::start(project, plan, since)
}

/// Never ready without a session.
async fn step(session: &mut Result<Session, Failure>) {
    match session {
        Ok(session) => session.step().await,
        Err(_) => std::future::pending().await,
    }
}
