//! Placeholder header.

pub mod adapt;
pub mod derive;
mod forest;
pub mod graph;
pub mod layout;
mod lookup;
mod model;
mod path;
pub mod rewrite;
mod substitution;

pub use adapt::{AdaptError, Adaptation, Adapted, Now, Standing};
pub use derive::{Dependency, DeriveError, Deriver, Mode, Observed, Observing, Prefetch};
pub use forest::{Forest, MAX_DEPTH, Missing};
pub use lookup::{Lookup, TreeKind};
pub use model::*;
pub use path::{NameId, PathId, Paths, join};
pub use rewrite::RewriteError;
pub use substitution::{Rewritten, Substitution};
