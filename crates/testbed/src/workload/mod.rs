//! Deterministic workloads: one element built by many actions, before and after a change underneath it.
//!
//! `app.bst` runs N compiles and A archives and links on top of D libraries and a system import (`sdk.bst`).
//! Every tree is a plain bottom-up build from a list of files, in the old state and in the next one alike:
//! nothing here shares code with the adaptation of actions, so that the *expected* actions of the next state
//! can be held against what the tool makes of the recorded ones, digest for digest.
//!
//! Contents are repeated on purpose: empty files in all places, identical stubs, one header that three
//! libraries install, and a vendored copy of a library's header among the element's own files. A tool that
//! replaces digests without looking at paths gets these wrong.
//!
//! ```
//! use testbed::workload::{Size, Variant, Workload};
//!
//! let workload = Workload::generate(Size::Small, 1);
//! let next = workload.next(Variant::One);
//! assert!(next.expected().iter().any(|adapted| adapted.is_changed()));
//! assert!(next.needed().len() < next.expected().len() * 10);
//! ```

mod builder;
mod element;
mod layout;
mod namespace;
mod next;
mod results;
mod shape;
mod state;
mod write;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use reapi_proto::v2::ActionResult;
use reapi_proto::{Digest, DigestFunction};

pub use element::Element;
pub use next::{Expected, NextState};
pub use results::Results;

use builder::TreeTotals;
use layout::Layout;
use state::{Contents, State};

/// Blobs by digest. Every value hashes to its key.
pub type Blobs = HashMap<Digest, Bytes>;

/// The function that names every blob of a workload.
pub const DIGEST_FUNCTION: DigestFunction = DigestFunction::Sha256;

/// How large a workload is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Size {
    /// 50 compiles and 3 links on 5 libraries of 30 headers.
    Small,
    /// 1,000 compiles and 20 links on 20 libraries of 60 headers.
    Medium,
    /// 5,000 compiles and 50 links on 40 libraries of 80 headers.
    Large,
}

impl Size {
    /// Every size, smallest first.
    pub const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    /// The name, as [`FromStr`] reads it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Size {
    type Err = UnknownName;

    fn from_str(s: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|size| size.name() == s).ok_or_else(|| UnknownName(s.to_owned()))
    }
}

/// What changes between the old state and the next one. The libraries that a change
/// concerns are rebuilt, which gives each of them another shared library as well.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Variant {
    /// One core header of one library that about half of the modules use.
    One,
    /// A tenth of all headers of all libraries.
    Ten,
    /// Every file of the system import that is not empty; all libraries are rebuilt on top of it.
    Sdk,
}

impl Variant {
    /// Every variant, the smallest change first.
    pub const ALL: [Self; 3] = [Self::One, Self::Ten, Self::Sdk];

    /// The name, as [`FromStr`] reads it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Ten => "ten",
            Self::Sdk => "sdk",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Variant {
    type Err = UnknownName;

    fn from_str(s: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|variant| variant.name() == s).ok_or_else(|| UnknownName(s.to_owned()))
    }
}

/// A name that no size or variant has.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is none of small, medium, large, one, ten, sdk")]
pub struct UnknownName(String);

/// What a workload amounts to, over the input trees of all its actions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Compile actions.
    pub compiles: usize,
    /// Archive and link actions.
    pub links: usize,
    /// Files in all input trees, counted once per action.
    pub file_nodes: u64,
    /// Directories in all input trees, counted once per action.
    pub directory_visits: u64,
    /// Distinct directories in all input trees.
    pub unique_directories: u64,
    /// Bytes of the distinct directories together.
    pub directory_bytes: u64,
}

impl Totals {
    /// Mean size of a distinct directory in bytes, rounded down.
    #[must_use]
    pub fn mean_directory_bytes(&self) -> u64 {
        self.directory_bytes.checked_div(self.unique_directories).unwrap_or_default()
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compiles, links, file_nodes, directory_visits, unique_directories, .. } = self;
        write!(
            f,
            "{compiles}+{links} actions, {file_nodes} file nodes, {directory_visits} directory visits, \
             {unique_directories} unique directories (mean {} bytes)",
            self.mean_directory_bytes()
        )
    }
}

/// A complete old state: blobs, action results and elements, all in memory.
///
/// Equal sizes and seeds give equal workloads, in every run and on every machine.
#[derive(Clone, Debug)]
pub struct Workload {
    size: Size,
    seed: u64,
    layout: Layout,
    blobs: Blobs,
    action_results: Vec<(Digest, ActionResult)>,
    elements: Vec<Element>,
    trees: TreeTotals,
    input_directories: Vec<Digest>,
}

impl Workload {
    /// Generates the old state. `Large` takes about a second in an optimised build.
    #[must_use]
    pub fn generate(size: Size, seed: u64) -> Self {
        let layout = Layout::generate(&shape::Shape::of(size), seed);
        let contents = Contents::initial(&layout);
        let State {
            action_blobs: mut blobs,
            output_blobs,
            element_blobs,
            application_blobs,
            action_results,
            elements,
            trees,
            input_directories,
            ..
        } = State::build(&layout, &contents, &[]);
        for more in [output_blobs, element_blobs, application_blobs, contents.blobs] {
            blobs.extend(more);
        }
        let mut input_directories: Vec<Digest> = input_directories.into_keys().collect();
        input_directories.sort_unstable();
        Self { size, seed, layout, blobs, action_results, elements, trees, input_directories }
    }

    /// The size it was generated with.
    #[must_use]
    pub fn size(&self) -> Size {
        self.size
    }

    /// The seed it was generated with.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Everything that CAS holds after the old build: actions, commands, input trees, sources, artifacts and
    /// the contents of all their files.
    #[must_use]
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// The results of all actions of `app.bst`, by action digest, in the order in which they ran.
    #[must_use]
    pub fn action_results(&self) -> &[(Digest, ActionResult)] {
        &self.action_results
    }

    /// The elements, dependencies first; the last one is `app.bst`, whose subactions are the base actions.
    #[must_use]
    pub fn elements(&self) -> &[Element] {
        &self.elements
    }

    /// The base action digests of `app.bst`, in the order in which they ran.
    pub fn base_actions(&self) -> impl ExactSizeIterator<Item = Digest> + '_ {
        self.action_results.iter().map(|(digest, _)| *digest)
    }

    /// What the input trees amount to.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let TreeTotals { file_nodes, directory_visits } = self.trees;
        Totals {
            compiles: self.layout.compiles(),
            links: self.layout.actions.len() - self.layout.compiles(),
            file_nodes,
            directory_visits,
            unique_directories: self.input_directories.len() as u64,
            directory_bytes: self.input_directories.iter().map(Digest::size_bytes).sum(),
        }
    }

    /// The distinct directories of all input trees, ordered by digest.
    #[must_use]
    pub fn input_directories(&self) -> &[Digest] {
        &self.input_directories
    }

    /// The graph of the old state, as a producer writes it: every element cached, `app.bst` with its subactions.
    #[must_use]
    pub fn graph(&self) -> serde_json::Value {
        element::graph(&self.elements)
    }

    /// One digest over everything: blobs, results and elements. Equal digests mean equal workloads.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        let mut hasher = DIGEST_FUNCTION.hasher();
        // Blobs are named by their content, so their names in order stand for them.
        let blobs: BTreeSet<&Digest> = self.blobs.keys().collect();
        for digest in blobs {
            hasher.update(digest.hash());
        }
        for (action, result) in &self.action_results {
            hasher.update(action.hash());
            hasher.update(&prost::Message::encode_to_vec(result));
        }
        for Element { name, weak_key, strong_key, sources, artifact, .. } in &self.elements {
            hasher.update(format!("{name} {weak_key} {strong_key} {sources} {artifact:?}\n").as_bytes());
        }
        hasher.finish()
    }

    /// The state after `variant` changed and its libraries were rebuilt, while `app.bst` was not yet.
    #[must_use]
    pub fn next(&self, variant: Variant) -> NextState {
        NextState::build(self, variant)
    }
}

#[cfg(test)]
mod tests;
