//! One state of the world: contents of all files, and everything that follows from them.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use prost::Message as _;
use reapi_proto::Digest;
use reapi_proto::v2::{
    Action, ActionResult, Command, ExecutedActionMetadata, OutputFile, Platform, command::EnvironmentVariable,
    platform::Property,
};

use super::builder::{TreeBuilder, TreeTotals};
use super::element::{Element, keys};
use super::layout::{ActionSpec, Layout, WORKING_DIRECTORY};
use super::namespace::{FileId, PlaceId};
use super::{Blobs, DIGEST_FUNCTION};

/// Seconds since the epoch at which the first action started; the others follow one after another.
const FIRST_START_SECONDS: i64 = 1_700_000_000;

/// What every file of an element contains. Outputs of actions follow from the actions.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    /// Per file; the empty blob for outputs.
    digests: Vec<Digest>,
    pub(super) blobs: Blobs,
}

impl Contents {
    /// The old state's.
    pub(super) fn initial(layout: &Layout) -> Self {
        Self::new(layout, |_, text| text)
    }

    /// The old state's with the files of `changed` altered, each in a way of its own.
    pub(super) fn changed(layout: &Layout, changed: &HashSet<FileId>, change: &str) -> Self {
        Self::new(layout, |index, text| match layout.files.get(index) {
            Some(file) if u32::try_from(index).is_ok_and(|file| changed.contains(&file)) => {
                format!("{text}/* {change}: {} */\n", file.label)
            }
            _ => text,
        })
    }

    fn new(layout: &Layout, alter: impl Fn(usize, String) -> String) -> Self {
        let mut blobs = Blobs::new();
        let mut digests = Vec::with_capacity(layout.files.len());
        for (index, file) in layout.files.iter().enumerate() {
            let text = file.text.clone().map(|text| alter(index, text)).unwrap_or_default();
            let digest = DIGEST_FUNCTION.digest(text.as_bytes());
            blobs.entry(digest).or_insert_with(|| Bytes::from(text));
            digests.push(digest);
        }
        Self { digests, blobs }
    }
}

/// Everything that follows from contents. Blobs are kept apart by who brings them into CAS.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Input trees, actions and commands.
    pub(super) action_blobs: Blobs,
    /// Outputs of the actions.
    pub(super) output_blobs: Blobs,
    /// Trees of sources and of artifacts, that of `app.bst` excepted.
    pub(super) element_blobs: Blobs,
    /// The tree of the artifact of `app.bst`.
    pub(super) application_blobs: Blobs,
    /// In the order of the layout's actions.
    pub(super) action_results: Vec<(Digest, ActionResult)>,
    /// Per action: whether it takes an output of an action that differs from its base.
    pub(super) chained: Vec<bool>,
    pub(super) elements: Vec<Element>,
    pub(super) trees: TreeTotals,
    /// The distinct directories of all input trees; true for those that only chained actions have.
    pub(super) input_directories: HashMap<Digest, bool>,
}

impl State {
    /// Builds every tree and every action from nothing but contents. `base` has the actions of the state
    /// before, to tell which ones are chained to changed ones.
    pub(super) fn build(layout: &Layout, contents: &Contents, base: &[Digest]) -> Self {
        let mut builder = TreeBuilder::new(&layout.namespace);
        let mut digests = contents.digests.clone();
        let mut changed_outputs = HashSet::new();
        let mut state = Self {
            action_blobs: Blobs::new(),
            output_blobs: Blobs::new(),
            element_blobs: Blobs::new(),
            application_blobs: Blobs::new(),
            action_results: Vec::with_capacity(layout.actions.len()),
            chained: Vec::with_capacity(layout.actions.len()),
            elements: Vec::new(),
            trees: TreeTotals::default(),
            input_directories: HashMap::new(),
        };
        let mut start_milliseconds = 0;
        for (index, action) in layout.actions.iter().enumerate() {
            let chained = action
                .inputs
                .iter()
                .any(|place| changed_outputs.contains(&layout.namespace.places[*place as usize].file));
            let root = builder.build(
                &action.inputs,
                |place| content(layout, &digests, place),
                |digest, bytes| {
                    *state.input_directories.entry(digest).or_insert(chained) &= chained;
                    state.action_blobs.entry(digest).or_insert_with(|| Bytes::copy_from_slice(bytes));
                },
            );
            let (next, output) = state.run(layout, action, &root, start_milliseconds);
            digests[action.output as usize] = output;
            if base.get(index) != Some(&next) {
                changed_outputs.insert(action.output);
            }
            state.chained.push(chained);
            start_milliseconds += i64::from(action.milliseconds);
        }
        state.trees = builder.totals;
        state.add_elements(layout, &digests, &mut builder);
        state
    }

    /// Stores command, action, output and result of an action on `root`; returns the action's digest and
    /// the output's.
    fn run(&mut self, layout: &Layout, spec: &ActionSpec, root: &Digest, start_milliseconds: i64) -> (Digest, Digest) {
        let command = insert(&mut self.action_blobs, command(spec).encode_to_vec());
        let action = Action {
            command_digest: Some((&command).into()),
            input_root_digest: Some(root.into()),
            platform: Some(platform()),
            ..Action::default()
        };
        let action = insert(&mut self.action_blobs, action.encode_to_vec());
        let output = insert(&mut self.output_blobs, format!("output {} of {action}\n", spec.output_path).into_bytes());
        let result = ActionResult {
            output_files: vec![OutputFile {
                path: spec.output_path.clone(),
                digest: Some((&output).into()),
                is_executable: layout.files[spec.output as usize].is_executable,
                ..OutputFile::default()
            }],
            execution_metadata: Some(metadata(start_milliseconds, i64::from(spec.milliseconds))),
            ..ActionResult::default()
        };
        self.action_results.push((action, result));
        (action, output)
    }

    fn add_elements(&mut self, layout: &Layout, digests: &[Digest], builder: &mut TreeBuilder<'_>) {
        for spec in &layout.elements {
            let mut tree = |places: &[PlaceId], blobs: &mut Blobs| {
                builder.build(
                    places,
                    |place| content(layout, digests, place),
                    |digest, bytes| {
                        blobs.entry(digest).or_insert_with(|| Bytes::copy_from_slice(bytes));
                    },
                )
            };
            let sources = tree(&spec.sources, &mut self.element_blobs);
            let is_application = self.elements.len() + 1 == layout.elements.len();
            let blobs = if is_application { &mut self.application_blobs } else { &mut self.element_blobs };
            let artifact = tree(&spec.artifact, blobs);
            let below: Vec<&Element> = spec.build_deps.iter().map(|index| &self.elements[*index]).collect();
            let (weak_key, strong_key) = keys(
                &spec.name,
                &sources,
                below.iter().map(|element| (element.name.as_str(), element.strong_key.as_str())),
            );
            let build_deps = below.iter().map(|element| element.name.clone()).collect();
            self.elements.push(Element {
                name: spec.name.clone(),
                weak_key,
                strong_key,
                sources,
                artifact: Some(artifact),
                build_deps,
                subactions: Vec::new(),
            });
        }
        if let Some(application) = self.elements.last_mut() {
            application.subactions = self.action_results.iter().map(|(action, _)| *action).collect();
        }
    }
}

fn insert(blobs: &mut Blobs, bytes: Vec<u8>) -> Digest {
    let digest = DIGEST_FUNCTION.digest(&bytes);
    blobs.entry(digest).or_insert_with(|| Bytes::from(bytes));
    digest
}

fn content(layout: &Layout, digests: &[Digest], place: PlaceId) -> (Digest, bool) {
    let file = layout.namespace.places[place as usize].file as usize;
    (digests[file], layout.files[file].is_executable)
}

fn platform() -> Platform {
    let property = |name: &str, value: &str| Property { name: name.into(), value: value.into() };
    Platform { properties: vec![property("ISA", "x86-64"), property("OSFamily", "linux")] }
}

#[allow(deprecated, reason = "clients still copy the platform into the command")]
fn command(spec: &ActionSpec) -> Command {
    let variable = |name: &str, value: &str| EnvironmentVariable { name: name.into(), value: value.into() };
    Command {
        arguments: spec.arguments.clone(),
        environment_variables: vec![
            variable("LC_ALL", "C"),
            variable("PATH", "/usr/bin:/bin"),
            variable("SOURCE_DATE_EPOCH", "1321009871"),
        ],
        output_paths: vec![spec.output_path.clone()],
        platform: Some(platform()),
        working_directory: WORKING_DIRECTORY.into(),
        ..Command::default()
    }
}

fn metadata(start_milliseconds: i64, milliseconds: i64) -> ExecutedActionMetadata {
    let at = |milliseconds: i64| {
        Some(prost_types::Timestamp {
            seconds: FIRST_START_SECONDS + milliseconds / 1000,
            nanos: i32::try_from(milliseconds % 1000).unwrap_or_default() * 1_000_000,
        })
    };
    let (start, end) = (at(start_milliseconds), at(start_milliseconds + milliseconds));
    ExecutedActionMetadata {
        worker: "worker".into(),
        queued_timestamp: start,
        worker_start_timestamp: start,
        worker_completed_timestamp: end,
        execution_start_timestamp: start,
        execution_completed_timestamp: end,
        ..ExecutedActionMetadata::default()
    }
}
