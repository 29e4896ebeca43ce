//! `bst-sa show`: what is recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::ExitCode;

use buildstream::introspect::SourcePolicy;

use bytes::Bytes;
use cas_client::BlobStoreExt;
use overlay::layout::{self, ReferenceOrigin, ReferenceOverlay, ReferenceRecord, Stored};
use overlay::{Below, ElementId, InputId, LevelId, Making, Origin, Record, Recorded};
use reapi_proto::Digest;
use reapi_proto::raw::Node;
use serde::Serialize;

use crate::cli::ShowArgs;
use crate::failure::Failure;
use crate::files::{MAX_WHOLE_BYTES, read_whole};
use crate::output;
use crate::progress::Progress;

/// Everything that a message says, by name instead of by row.
#[derive(Serialize)]
struct Shown {
    layout: &'static str,
    bytes: usize,
    element: Option<String>,
    weak_key: Option<String>,
    actions: Vec<ShownAction>,
    artifact_overlays: Vec<ShownOverlay>,
}

#[derive(Serialize)]
struct ShownAction {
    base: String,
    /// Another element, for a copy.
    element: Option<String>,
    milliseconds: Option<u128>,
    output_bytes: Option<u64>,
    overlays: Vec<ShownOverlay>,
}

#[derive(Clone, Serialize)]
struct ShownOverlay {
    /// What the input was: a digest, or as much of its hash as is recorded; a symlink's target stands in quotes.
    target: String,
    /// Where it stands, authority first among its origins.
    origins: Vec<ShownOrigin>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct ShownOrigin {
    r#type: &'static str,
    /// Empty for the record's own element.
    element: String,
    action: Option<String>,
    path: String,
}

pub(crate) async fn run(args: ShowArgs) -> Result<ExitCode, Failure> {
    let bytes = message(&args).await?;
    let shown = match layout::decode(&bytes).map_err(|e| Failure::new("the message cannot be read").because(&e))? {
        Stored::Compact(record) => compact(&record, bytes.len()),
        Stored::Reference(record) => reference(&record, bytes.len()),
    };
    if args.json.json {
        output::print_json(&shown)?;
    } else if args.dot {
        output::print(&dot(&shown))?;
    } else {
        print_table(&shown)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn message(args: &ShowArgs) -> Result<Bytes, Failure> {
    if let Some(file) = &args.file {
        let bytes =
            read_whole(file).map_err(|e| Failure::new(format!("{} cannot be read", file.display())).because(&e))?;
        return Ok(bytes.into());
    }
    let mut elements = None;
    let digest: Digest = match (&args.digest, &args.element) {
        (Some(digest), _) => digest
            .parse()
            .map_err(|e: reapi_proto::DigestError| Failure::usage(format!("--digest {digest}")).because(&e))?,
        (None, Some(name)) => {
            let found = args
                .project
                .elements(
                    std::slice::from_ref(name),
                    SourcePolicy::AsTheyAre,
                    &Progress::new("looking at the elements"),
                )
                .await?;
            let record = found.get(name)?.speculative_actions.ok_or_else(|| {
                Failure::new(format!("{name} has no record in {}", found.place))
                    .hint("`bst-sa generate` makes one; a graph file names it as speculative_actions")
            })?;
            elements = Some(found);
            record
        }
        _ => return Err(Failure::usage("nothing to show").hint("give ELEMENT, --file or --digest")),
    };
    if digest.size_bytes() > MAX_WHOLE_BYTES {
        return Err(Failure::new(format!("{digest} is larger than {MAX_WHOLE_BYTES} bytes, the limit for a message")));
    }
    let blobs = match &elements {
        Some(elements) => elements.blobs(&args.connect)?,
        None => args.connect.blobs(digest.function())?,
    };
    Ok(blobs.read_blob(&digest).await?)
}

fn compact(record: &Record, bytes: usize) -> Shown {
    let actions = record.actions.iter().map(|action| {
        let inputs = action.properties.iter().map(|p| p.input).chain(inputs_below(record, action.root));
        let inputs: BTreeSet<InputId> = inputs.collect();
        let overlays = inputs.into_iter().map(|id| {
            let input = record.input(id);
            ShownOverlay {
                target: target(&input.recorded),
                origins: input.origins.iter().map(|id| origin(record, record.origin(*id))).collect(),
            }
        });
        ShownAction {
            base: action.base.to_string(),
            element: (action.element != ElementId::SELF).then(|| record.element(action.element).name.clone()),
            milliseconds: action.duration.map(|d| d.as_millis()),
            output_bytes: action.output_bytes,
            overlays: overlays.collect(),
        }
    });
    let artifact = record.artifact_overlays.iter().map(|overlay| ShownOverlay {
        target: record.paths.display(overlay.path),
        origins: vec![origin(record, record.origin(overlay.origin))],
    });
    Shown {
        layout: "compact",
        bytes,
        element: Some(record.element(ElementId::SELF).name.clone()).filter(|name| !name.is_empty()),
        weak_key: record.weak_key.clone(),
        actions: actions.collect(),
        artifact_overlays: artifact.collect(),
    }
}

fn inputs_below(record: &Record, root: Option<LevelId>) -> Vec<InputId> {
    let mut pending: Vec<LevelId> = root.into_iter().collect();
    let mut seen: BTreeSet<LevelId> = pending.iter().copied().collect();
    let mut inputs = Vec::new();
    while let Some(level) = pending.pop() {
        for (_, below) in record.level(level) {
            match below {
                Below::Input(input) => inputs.push(*input),
                Below::Level(level) if seen.insert(*level) => pending.push(*level),
                Below::Level(_) => {}
            }
        }
    }
    inputs
}

fn target(recorded: &Recorded) -> String {
    match recorded {
        Recorded::Whole(Node::File { digest, .. } | Node::Directory { digest }) => digest.to_string(),
        Recorded::Whole(Node::Symlink { target }) => format!("{:?}", String::from_utf8_lossy(target)),
        Recorded::Stamp(stamp) => format!("{stamp}…"),
    }
}

fn origin(record: &Record, origin: &Origin) -> ShownOrigin {
    let element = match origin.element() {
        ElementId::SELF => String::new(),
        other => record.element(other).name.clone(),
    };
    let path = record.paths.display(origin.path());
    match origin {
        Origin::Source { .. } => ShownOrigin { r#type: "SOURCE", element, action: None, path },
        Origin::Artifact { .. } => ShownOrigin { r#type: "ARTIFACT", element, action: None, path },
        Origin::Action { base, .. } => ShownOrigin { r#type: "ACTION", element, action: Some(base.to_string()), path },
        Origin::Derived(id) => {
            let r#type = match record.derivation(*id).making {
                Making::Merge => "MERGE",
                Making::Archive(_) => "ARCHIVE",
                Making::Locally => "LOCAL",
            };
            ShownOrigin { r#type, element, action: None, path }
        }
    }
}

fn reference(record: &ReferenceRecord, bytes: usize) -> Shown {
    let actions = record.actions.iter().map(|action| ShownAction {
        base: action.base.to_string(),
        element: None,
        milliseconds: None,
        output_bytes: None,
        overlays: reference_overlays(&action.overlays),
    });
    Shown {
        layout: "reference",
        bytes,
        element: None,
        weak_key: None,
        actions: actions.collect(),
        artifact_overlays: reference_overlays(&record.artifact_overlays),
    }
}

/// One entry per target, in the order of the message.
fn reference_overlays(overlays: &[ReferenceOverlay]) -> Vec<ShownOverlay> {
    let mut rows: BTreeMap<Digest, usize> = BTreeMap::new();
    let mut shown: Vec<ShownOverlay> = Vec::new();
    for overlay in overlays {
        let row = *rows.entry(overlay.target).or_insert(shown.len());
        if row == shown.len() {
            shown.push(ShownOverlay { target: overlay.target.to_string(), origins: Vec::new() });
        }
        let origin = match overlay.origin.clone() {
            ReferenceOrigin::Source { element, path } => ShownOrigin { r#type: "SOURCE", element, action: None, path },
            ReferenceOrigin::Artifact { element, path } => {
                ShownOrigin { r#type: "ARTIFACT", element, action: None, path }
            }
            ReferenceOrigin::Action { element, base, path } => {
                ShownOrigin { r#type: "ACTION", element, action: Some(base.to_string()), path }
            }
        };
        shown[row].origins.push(origin);
    }
    shown
}

fn print_table(shown: &Shown) -> Result<(), Failure> {
    let size = output::bytes(shown.bytes as u64);
    let name = shown.element.as_deref().unwrap_or("an element");
    output::print(&format!("{name}: {} actions, {size} in the {} layout\n", shown.actions.len(), shown.layout))?;
    let mut table = output::table(&["action", "of", "inputs", "sources", "artifacts", "actions", "ms", "outputs"], 2);
    for action in &shown.actions {
        let count =
            |kind| action.overlays.iter().filter(|o| o.origins.first().is_some_and(|o| o.r#type == kind)).count();
        table.add_row([
            short(&action.base).to_owned(),
            action.element.clone().unwrap_or_default(),
            action.overlays.len().to_string(),
            count("SOURCE").to_string(),
            count("ARTIFACT").to_string(),
            count("ACTION").to_string(),
            action.milliseconds.map(|ms| ms.to_string()).unwrap_or_default(),
            action.output_bytes.map(output::bytes).unwrap_or_default(),
        ]);
    }
    output::print(&table.trim_fmt())?;
    if !shown.artifact_overlays.is_empty() {
        output::print(&format!("\n{} files of its artifact have a known origin", shown.artifact_overlays.len()))?;
    }
    Ok(())
}

/// Enough of a digest to tell it from others.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// Actions, and the elements and actions that their inputs come from, with the number of inputs on the arrows.
fn dot(shown: &Shown) -> String {
    let mut text = String::from("digraph speculative_actions {\n  rankdir=LR;\n  node [shape=box];\n");
    let mut arrows: BTreeMap<(String, &str), usize> = BTreeMap::new();
    let mut places = BTreeSet::new();
    for action in &shown.actions {
        let element = action.element.as_deref().unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:?} [label={:?}];", action.base, format!("{} {element}", short(&action.base)));
        for origin in action.overlays.iter().filter_map(|o| o.origins.first()) {
            let from = match &origin.action {
                Some(base) => base.clone(),
                None => {
                    let owner = if origin.element.is_empty() { "own" } else { &origin.element };
                    let place = format!("{owner} {}", origin.r#type.to_lowercase());
                    places.insert(place.clone());
                    place
                }
            };
            *arrows.entry((from, &action.base)).or_default() += 1;
        }
    }
    for place in places {
        let _ = writeln!(text, "  {place:?} [shape=folder];");
    }
    for ((from, to), count) in arrows {
        let _ = writeln!(text, "  {from:?} -> {to:?} [label={count}];");
    }
    text.push('}');
    text
}
