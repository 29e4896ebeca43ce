//! `bst-sa graph`: a BuildStream project as a graph file.

use std::process::ExitCode;

use buildstream::introspect::SourcePolicy;

use crate::cli::GraphArgs;
use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;

pub(crate) async fn run(args: GraphArgs) -> Result<ExitCode, Failure> {
    let elements = args
        .project
        .elements(&args.elements, SourcePolicy::AsTheyAre, &Progress::new("looking at the elements"))
        .await?;
    output::print(&elements.graph.to_json())?;
    Ok(ExitCode::SUCCESS)
}
