//! An in-process Remote Execution service and what tests need around it.
//!
//! [`Server`] serves CAS, `ByteStream`, the action cache, execution,
//! operations, capabilities and Remote Asset over
//! [`InMemory`](cas_client::InMemory) stores, as strictly as the
//! specification allows, counts what it does ([`Stats`]) and goes wrong on
//! demand ([`Faults`]). Actions run through a [`runner::Runner`]; the default
//! one starts commands on this machine, without a sandbox.
//!
//! [`toy`] is a small orchestrator with a small C project, which builds
//! through such a service; [`workload`] generates large recorded states.
//!
//! Not here: persistence, authentication beyond a scripted token, compression,
//! expiry other than on demand. Nothing but tests and the `demo` command uses it.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! let server = testbed::Server::start_default().await?;
//! server.store().put("a blob that clients of the service will find");
//! assert!(server.url().starts_with("http://127.0.0.1:"));
//! assert_eq!(server.stats().executed, []);
//! server.shutdown().await;
//! # Ok(()) }
//! ```

pub mod faults;
pub mod runner;
mod server;
mod stats;
pub mod toy;
pub mod workload;

pub use faults::{Fault, Faults, Gate};
pub use server::{ActionCacheUpdates, Completeness, LocalFiles, MissingInputs, Server, ServerConfig};
pub use stats::{Rpc, Stats};
