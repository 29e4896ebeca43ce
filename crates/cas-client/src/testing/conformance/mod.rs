//! One suite of checks for every implementation of the capability traits.
//!
//! Each function runs all checks of one trait over a subject and returns a
//! [`Report`]; a check that fails does not stop the others. Every run uses
//! content of its own, so a suite may run against a service that keeps what
//! earlier runs stored.
//!
//! ```
//! use cas_client::InMemory;
//! use cas_client::testing::conformance::{self, BlobStoreOptions};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let report = conformance::blob_store(&InMemory::new(), &BlobStoreOptions::default()).await;
//! for name in report.require_all_passed()? {
//!     println!("{name}");
//! }
//! # Ok(())
//! # }
//! ```

mod action_cache;
mod asset_index;
mod blob_store;
mod execution;
mod material;
mod report;

pub use action_cache::{ActionCacheRules, Rule, action_cache};
pub use asset_index::asset_index;
pub use blob_store::{BlobStoreOptions, blob_store};
pub use execution::{ExecutionRules, ExecutionSubject, Sandbox, execution};
pub use report::{Failures, Report};

#[cfg(test)]
mod tests;
