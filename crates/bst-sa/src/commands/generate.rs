//! `bst-sa generate`: record what a build ran.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use buildstream::introspect::SourcePolicy;
use std::sync::Arc;

use cas_client::BlobStoreExt;
use overlay::Mode;
use record::{ElementReport, GenerateReport, Generator, Layout};
use serde::Serialize;

use crate::cli::{GenerateArgs, ModeChoice};
use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;
use crate::project::Elements;

#[derive(Serialize)]
struct Json<'a> {
    elements: Vec<JsonElement<'a>>,
}

#[derive(Serialize)]
struct JsonElement<'a> {
    name: &'a str,
    actions: usize,
    overlays: usize,
    speculative_actions: Option<String>,
    bytes: u64,
    skipped: Vec<JsonSkipped>,
}

#[derive(Serialize)]
struct JsonSkipped {
    action: String,
    reason: String,
}

pub(crate) async fn run(args: GenerateArgs) -> Result<ExitCode, Failure> {
    let progress = Progress::new("recording");
    let elements = args.project.elements(&args.elements, SourcePolicy::AsTheyAre, &progress).await?;
    let blobs = elements.blobs(&args.connect)?;
    let cache = elements.action_cache(&args.connect)?;
    progress.say("finding the actions");
    let source = elements.subactions(&blobs, &cache).await?;
    let graph = &elements.graph;
    let names = wanted(&args.elements, &elements);
    progress.say(format!("recording {} elements", names.len()));
    let layout = if args.reference_layout { Layout::Reference } else { Layout::Compact };
    let report = Generator::new(Arc::clone(&blobs), cache, source)
        .with_mode(mode(args.mode))
        .with_layout(layout)
        .generate(graph, &names)
        .await
        .map_err(|e| Failure::usage("nothing was recorded").because(&e))?;
    // One that cannot be attached does not take the others, or the report, with it.
    let mut unattached = None;
    let mut attached = Vec::new();
    for element in &report.elements {
        let Some(digest) = &element.speculative_actions else { continue };
        match elements.attach(&element.name, digest) {
            Ok(()) => attached.push((element.name.clone(), *digest)),
            Err(failure) => {
                tracing::warn!("{failure}");
                unattached.get_or_insert(failure);
            }
        }
        if let Some(directory) = &args.out {
            write_message(directory, &element.name, &blobs.read_blob(digest).await?)?;
        }
    }
    elements.push(&blobs, &attached).await;
    drop(progress);
    if args.json.json {
        output::print_json(&Json { elements: report.elements.iter().map(json).collect() })?;
    } else {
        print_table(&report)?;
    }
    match report.stopped {
        Some(error) if report.elements.iter().any(|element| element.speculative_actions.is_some()) => {
            Err(Failure::from(error).hint("what is listed above with a digest was recorded; run it again for the rest"))
        }
        Some(error) => Err(error.into()),
        None => unattached.map_or(Ok(ExitCode::SUCCESS), Err),
    }
}

/// The named elements; without names, those of a graph file that have
/// subactions, or everything of a project that is built.
fn wanted(named: &[String], elements: &Elements) -> Vec<String> {
    if !named.is_empty() {
        return named.to_vec();
    }
    let has_something = |e: &&overlay::graph::Element| match &elements.project {
        Some(_) => e.is_current(),
        None => e.subactions.as_ref().is_some_and(|s| !s.is_empty()),
    };
    elements.graph.elements().filter(has_something).map(|e| e.name.clone()).collect()
}

pub(crate) fn mode(choice: ModeChoice) -> Mode {
    match choice {
        ModeChoice::None => Mode::None,
        ModeChoice::PrimeOnly => Mode::PrimeOnly,
        ModeChoice::SourceArtifact => Mode::SourceArtifact,
        ModeChoice::IntraElement => Mode::IntraElement,
        ModeChoice::Full => Mode::Full,
    }
}

fn json(element: &ElementReport) -> JsonElement<'_> {
    JsonElement {
        name: &element.name,
        actions: element.actions,
        overlays: element.overlays,
        speculative_actions: element.speculative_actions.map(|d| d.to_string()),
        bytes: element.bytes,
        skipped: element
            .skipped
            .iter()
            .map(|s| JsonSkipped { action: s.action.to_string(), reason: s.reason.to_string() })
            .collect(),
    }
}

/// `DIR/NAME.pb`; what separates directories or projects in a name becomes a dash.
fn write_message(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let path = directory.join(format!("{}.pb", name.replace(['/', ':'], "-")));
    let failed = |e: std::io::Error| Failure::new(format!("{} cannot be written", path.display())).because(&e);
    fs::create_dir_all(directory).map_err(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    std::io::Write::write_all(&mut file, bytes).map_err(failed)?;
    file.persist(&path).map_err(|e| failed(e.error))?;
    Ok(())
}

fn print_table(report: &GenerateReport) -> Result<(), Failure> {
    if report.elements.is_empty() && report.stopped.is_none() {
        return output::print("nothing to record: no element of the graph has subactions, or the mode records nothing");
    }
    let mut table = output::table(&["element", "actions", "overlays", "skipped", "size", "speculative actions"], 1);
    for element in &report.elements {
        table.add_row([
            element.name.clone(),
            element.actions.to_string(),
            element.overlays.to_string(),
            element.skipped.len().to_string(),
            output::bytes(element.bytes),
            element.speculative_actions.map_or("none".to_owned(), |d| d.to_string()),
        ]);
    }
    output::print(&table.trim_fmt())?;
    for element in &report.elements {
        if element.listed.is_none() {
            output::print(&format!("{}: the graph lists no subactions", element.name))?;
        }
        for skipped in &element.skipped {
            output::print(&format!("{}: skipped {}: {}", element.name, skipped.action, skipped.reason))?;
        }
    }
    for (name, reason) in &report.unusable_records {
        output::print(&format!("{name}: its stored record was not used: {reason}"))?;
    }
    if let Some(error) = &report.action_cache {
        output::print(&format!("results are not known, so nothing is recorded of outputs: {error}"))?;
    }
    Ok(())
}
