//! The gRPC implementation of the capability traits.
//!
//! One [`GrpcClient`] speaks to one endpoint and instance and implements every
//! trait; split services are several clients side by side. It knows nothing of
//! builds, and it does not cache or merge calls: that is what decorators do. One
//! of them is here, because it asks what only this protocol tells: [`Direct`]
//! reads past a service on this machine.
//!
//! ```no_run
//! use cas_client::BlobStore as _;
//! use cas_client::grpc::{GrpcClient, GrpcConfig};
//! # async fn example(digests: &[reapi_proto::Digest]) -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = GrpcConfig::new("unix:/run/casd.sock".parse()?);
//! config.tool_name = "example".to_owned();
//! let client = GrpcClient::new(config)?;
//! println!("{client} lacks {} blobs", client.find_missing(digests).await?.len());
//! # Ok(())
//! # }
//! ```

mod action_cache;
mod asset;
mod batch;
mod batch_read;
mod batch_write;
mod capabilities;
mod channel;
mod client;
mod config;
mod direct;
mod endpoint;
mod execution;
mod find_missing;
mod local_cas;
mod metadata;
mod operation;
mod packing;
mod read_stream;
mod route;
mod status;
mod tls;
mod token;
mod transport;
mod wire;
mod write_stream;

pub use crate::retry::RetryPolicy;
pub use capabilities::ServerCapabilities;
pub use client::GrpcClient;
pub use config::{Access, GrpcConfig, KeepAlive, Limits, Timeouts};
pub use direct::Direct;
pub use endpoint::{Endpoint, EndpointError};
pub use local_cas::LocalServerDetails;
pub use operation::FailedExecution;
pub use tls::{Pem, TlsError, TlsMaterial};
pub use token::{PlaintextToken, TokenFile};
