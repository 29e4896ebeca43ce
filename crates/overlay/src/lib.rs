//! The pure algebra of speculative actions.
//!
//! A build ran *actions*: a command over a Merkle tree of inputs. For the next
//! build, three questions are answered here, without I/O, clocks or async:
//!
//! 1. **Where did each input come from?** [`Deriver`] walks the input trees in
//!    step with sources, artifacts and earlier outputs and makes a [`Record`]:
//!    tables of origins, inputs and directories, shared by all actions.
//!    [`layout`] turns it into bytes and back.
//! 2. **What is there now?** [`Lookup`] finds the recorded paths in the trees
//!    of the current state.
//! 3. **What would the same actions be now?** [`Adaptation`] takes such facts
//!    in as they become known, says which actions are ready, and rewrites
//!    those, each distinct directory once.
//!
//! Which tree of dependencies a build will see is [`Merge`]: the union of
//! artifacts as BuildStream stages them.
//!
//! Underneath is [`Substitution`]: edits at paths of a tree, with the laws that
//! make the rest trustworthy (identity, composition, commuting, exact inverses).
//!
//! Trees are read from a [`Forest`], which the caller fills; every step can
//! say what it lacks, level by level, so that fetching takes one batch per
//! level. Messages are edited as bytes: what is not named by an edit, unknown
//! fields included, stays as it was, and so does the digest of everything untouched.
//!
//! Not here: fetching, storing, executing (`cas-client`), generation and
//! priming as processes (`reapi-record`, `instantiate`), anything about BuildStream.
//!
//! ```
//! use bytes::Bytes;
//! use overlay::{Forest, Substitution};
//! use reapi_proto::DigestFunction;
//! use reapi_proto::raw::{Directory, Node, encode_directory};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sha = DigestFunction::Sha256;
//! let header = |text: &str| Node::File { digest: sha.digest(text.as_bytes()), executable: false };
//! let mut forest = Forest::new();
//! let include = encode_directory([
//!     (Bytes::from("a.h"), header("int a;")),
//!     (Bytes::from("same.h"), header("int a;")),
//! ])?;
//! let include = forest.add(sha, Directory::parse(include)?);
//! let root = encode_directory([(Bytes::from("include"), Node::Directory { digest: include })])?;
//! let root = forest.add(sha, Directory::parse(root)?);
//!
//! // One path changes; equal content elsewhere does not.
//! let mut change = Substitution::identity();
//! change.set(b"include/a.h", header("long a;"));
//! let changed = change.apply(&forest, root)?;
//! changed.add_to(&mut forest)?;
//! assert_eq!(forest.find(&changed.root, b"include/a.h")?, Some(header("long a;")));
//! assert_eq!(forest.find(&changed.root, b"include/same.h")?, Some(header("int a;")));
//!
//! // And back, byte for byte.
//! let back = change.inverse(&forest, root)?;
//! assert_eq!(back.apply(&forest, changed.root)?.root, root);
//! # Ok(())
//! # }
//! ```

pub mod adapt;
mod command;
pub mod derive;
mod difference;
mod forest;
pub mod graph;
pub mod layout;
mod listing;
mod lookup;
mod merge;
mod model;
mod path;
mod platform;
mod recorded;
pub mod rewrite;
mod substitution;

pub use adapt::{AdaptError, Adaptation, Adapted, Changed, ChangedEntry, Demand, Now, Standing};
pub use command::CommandChange;
pub use derive::{Content, Contents, Dependency, DeriveError, Deriver, Mode, Observed, Observing, Platform, Prefetch};
pub use difference::{Difference, difference, same_step};
pub use forest::{Forest, MAX_DEPTH, Missing};
pub use listing::{MAX_LISTED, Unlisted, appeared, files};
pub use lookup::{Lookup, TreeKind};
pub use merge::{Merge, MergeError, Merged, Unstaged};
pub use model::*;
pub use path::{NameId, PathId, Paths, join};
pub use recorded::{NodeKind, Recorded, Stamp};
pub use rewrite::RewriteError;
pub use substitution::{Rewritten, Substitution};
