//! Stores that wrap stores. `Display` shows the stack, outermost first.

mod backed;
mod dry_run;
mod limited;
mod nearby;
mod read_only;
mod remembering;
mod supplying;

pub use backed::Backed;
pub use dry_run::DryRun;
pub use limited::Limited;
pub use nearby::Nearby;
pub use read_only::ReadOnly;
pub use remembering::{Clock, Remembering};
pub use supplying::Supplying;
