//! The gRPC implementation of the capability traits.
//!
//! One [`GrpcClient`] speaks to one endpoint and instance and implements every
//! trait; split services are several clients side by side. It knows nothing of
//! builds, and it does not cache or merge calls: that is what decorators do.

mod action_cache;
mod asset;
mod batch;
mod batch_read;
mod batch_write;
mod capabilities;
mod channel;
mod client;
mod config;
mod endpoint;
mod execution;
mod find_missing;
mod local_cas;
mod metadata;
mod operation;
mod packing;
mod read_stream;
mod status;
mod transport;
mod wire;
mod write_stream;

pub use crate::retry::RetryPolicy;
pub use capabilities::ServerCapabilities;
pub use client::GrpcClient;
pub use config::{Access, GrpcConfig, KeepAlive, Limits, Timeouts};
pub use endpoint::{Endpoint, EndpointError};
pub use local_cas::LocalServerDetails;
pub use operation::FailedExecution;
