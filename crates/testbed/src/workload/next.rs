//! The state after a change: what the tool is told, and what it should find out.

use std::collections::HashSet;

use reapi_proto::Digest;
use reapi_proto::v2::ActionResult;

use super::element::{Element, graph};
use super::layout::Layout;
use super::namespace::{FileId, id};
use super::state::{Contents, State};
use super::{Blobs, Variant, Workload};

/// What becomes of one base action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// The recorded action.
    pub base: Digest,
    /// The action that the next build runs in its place; the same where nothing changed.
    pub next: Digest,
    /// Whether it takes the output of an action that differs from its base: it can be known only where
    /// [`NextState::action_results`] are in the action cache.
    pub is_chained: bool,
}

impl Expected {
    /// Whether the next build runs something else.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.base != self.next
    }
}

/// The world after a change: dependencies rebuilt, `app.bst` not yet.
#[derive(Clone, Debug)]
pub struct NextState {
    variant: Variant,
    elements: Vec<Element>,
    blobs: Blobs,
    expected: Vec<Expected>,
    needed: Blobs,
    chained: HashSet<Digest>,
    action_results: Vec<(Digest, ActionResult)>,
    output_blobs: Blobs,
}

impl NextState {
    pub(super) fn build(old: &Workload, variant: Variant) -> Self {
        let changed = changed_files(&old.layout, variant, old.seed);
        let contents = Contents::changed(&old.layout, &changed, variant.name());
        let base: Vec<Digest> = old.base_actions().collect();
        let State {
            action_blobs: mut needed,
            output_blobs,
            element_blobs: mut blobs,
            mut action_results,
            chained,
            mut elements,
            input_directories,
            ..
        } = State::build(&old.layout, &contents, &base);

        blobs.extend(contents.blobs);
        blobs.retain(|digest, _| !old.blobs.contains_key(digest));
        needed.retain(|digest, _| !old.blobs.contains_key(digest) && !blobs.contains_key(digest));

        let expected: Vec<Expected> = base
            .into_iter()
            .zip(&action_results)
            .zip(chained)
            .map(|((base, (next, _)), is_chained)| Expected { base, next: *next, is_chained })
            .collect();
        let chained = input_directories
            .into_iter()
            .filter_map(|(digest, is_chained)| is_chained.then_some(digest))
            .chain(expected.iter().filter(|action| action.is_chained).map(|action| action.next))
            .filter(|digest| needed.contains_key(digest))
            .collect();
        action_results.retain(|(action, _)| needed.contains_key(action));
        if let Some(application) = elements.last_mut() {
            application.artifact = None;
            application.subactions.clear();
        }
        Self { variant, elements, blobs, expected, needed, chained, action_results, output_blobs }
    }

    /// What changed.
    #[must_use]
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// The elements, dependencies first, with the artifacts of the rebuilt ones. The last one is `app.bst`,
    /// without an artifact.
    #[must_use]
    pub fn elements(&self) -> &[Element] {
        &self.elements
    }

    /// The graph of this state: everything cached but `app.bst`.
    #[must_use]
    pub fn graph(&self) -> serde_json::Value {
        graph(&self.elements)
    }

    /// [`graph`](Self::graph) where `app.bst` names `message` as its record.
    #[must_use]
    pub fn graph_with_record(&self, message: &Digest) -> serde_json::Value {
        let mut document = self.graph();
        let application = document["elements"].as_array_mut().and_then(|elements| elements.last_mut());
        if let Some(application) = application {
            application["speculative_actions"] = message.to_string().into();
        }
        document
    }

    /// What fetching and rebuilding the dependencies added to CAS: trees of sources and artifacts and the
    /// files in them. Nothing that belongs to the actions of `app.bst`.
    #[must_use]
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// What becomes of every base action, in the order in which they ran.
    #[must_use]
    pub fn expected(&self) -> &[Expected] {
        &self.expected
    }

    /// The directories, actions and commands of the expected actions that CAS lacks: what a perfect tool
    /// stores, no more and no less, once [`action_results`](Self::action_results) are known.
    #[must_use]
    pub fn needed(&self) -> &Blobs {
        &self.needed
    }

    /// The part of [`needed`](Self::needed) that can be known before any action has run again.
    pub fn needed_before_results(&self) -> impl Iterator<Item = (&Digest, &bytes::Bytes)> {
        self.needed.iter().filter(|(digest, _)| !self.chained.contains(digest))
    }

    /// The results of the changed actions, by their new digests, in the order in which they run. Belongs
    /// into the action cache where chained actions are to be predicted, with [`output_blobs`](Self::output_blobs).
    #[must_use]
    pub fn action_results(&self) -> &[(Digest, ActionResult)] {
        &self.action_results
    }

    /// The outputs that the results name.
    #[must_use]
    pub fn output_blobs(&self) -> &Blobs {
        &self.output_blobs
    }
}

/// The files that differ in the next state.
fn changed_files(layout: &Layout, variant: Variant, seed: u64) -> HashSet<FileId> {
    let headers: Vec<(usize, usize)> = layout
        .libraries
        .iter()
        .enumerate()
        .flat_map(|(library, spec)| (0..spec.headers.len()).map(move |header| (library, header)))
        .collect();
    let picked = match variant {
        Variant::One => vec![(0, 0)],
        Variant::Ten => {
            // Another stream than the one that made the layout.
            let mut rng = fastrand::Rng::with_seed(seed ^ 0x7465_6e00);
            rng.choose_multiple(headers.iter().copied(), headers.len() / 10)
        }
        Variant::Sdk => {
            let not_empty = |file: &usize| layout.files[*file].text.as_ref().is_some_and(|text| !text.is_empty());
            let system = layout.system.iter().map(|file| *file as usize).filter(not_empty).map(id);
            return system.chain(layout.libraries.iter().map(|library| library.shared_object)).collect();
        }
    };
    let mut changed = HashSet::new();
    for (library, header) in picked {
        let library = &layout.libraries[library];
        let header = &library.headers[header];
        changed.extend([header.file, library.shared_object]);
        changed.extend(header.template);
    }
    changed
}
