//! A build of BuildStream while it goes on.
//!
//! BuildStream tells nobody what it is doing, but it leaves files: a
//! [`Watcher`] reports them as they appear, as [`Sighting`]s. A [`LiveBuild`]
//! knows the elements and makes of each sighting what it means: events for the
//! priming engine, and artifacts whose actions can be recorded. What came of
//! it all is a [`Summary`].

mod build;
mod summary;
mod watch;

pub use build::{Built, LiveBuild, News};
pub use summary::{Asked, ElementSummary, Summary};
pub use watch::{Sighting, WatchError, Watcher};
