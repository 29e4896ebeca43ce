//! Remote Execution storage and execution as small capability traits.
//!
//! A [`BlobStore`] keeps blobs by digest, an [`ActionCache`] the results of
//! actions, an [`Execution`] runs actions, an [`AssetIndex`] gives names to
//! blobs. A program takes the capabilities it needs; what it is not given it
//! cannot do, writing an action cache above all ([`ActionCacheWriter`]).
//!
//! What is here:
//!
//! - implementations: over gRPC (module `grpc`, feature `grpc`), in a
//!   directory in buildbox-casd's layout ([`FileStore`]), in memory ([`InMemory`]);
//! - what callers want of any of them: [`BlobStoreExt`], [`ActionCacheExt`]
//!   with results whose outputs were found, [`read_trees`], [`outputs()`];
//! - [`decorators`]: read-only, limited, remembering, dry run;
//! - for tests, behind the feature `testing`: mocks, and one suite of checks
//!   for all implementations of a trait.
//!
//! What is deliberately not here: anything about BuildStream or about
//! speculative actions, writing trees to disk, running commands, and a server.
//! No public type mentions the gRPC library. Nothing here reads a
//! configuration file, or the environment; the one exception is that the
//! certificates which the system trusts are looked for where `SSL_CERT_FILE`
//! and `SSL_CERT_DIR` say.
//!
//! Every byte that is handed out was checked against its digest, whichever
//! way it came. Errors say what a caller can do about them ([`ErrorKind`]).
//!
//! ```
//! use cas_client::{Blob, BlobStore, BlobStoreExt, ErrorKind, InMemory};
//! use reapi_proto::DigestFunction;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> cas_client::Result<()> {
//! let store: &dyn BlobStore = &InMemory::new();
//! let blob = Blob::new(DigestFunction::Sha256, "int main(void) { return 0; }\n");
//!
//! let uploaded = store.upload_missing(&[blob.clone()]).await?;
//! assert_eq!((uploaded.asked, uploaded.uploaded), (1, 1));
//! assert_eq!(store.read_blob(&blob.digest()).await?, blob.data());
//!
//! let unknown = DigestFunction::Sha256.digest(b"something else");
//! let error = store.read_blob(&unknown).await.unwrap_err();
//! assert_eq!((error.kind(), error.digests()), (ErrorKind::NotFound, &[unknown][..]));
//! # Ok(())
//! # }
//! ```

mod batch;
mod closure;
mod copy;
pub mod decorators;
mod error;
mod ext;
mod file;
#[cfg(feature = "grpc")]
pub mod grpc;
mod in_memory;
mod outputs;
#[cfg(feature = "grpc")]
mod retry;
mod shared;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod traits;
mod tree;

pub use copy::{Copied, copy};
pub use error::{Error, ErrorKind, Result};
pub use ext::{ActionCacheExt, BlobStoreExt, Lookup, UploadStats};
pub use file::FileStore;
pub use in_memory::{InMemory, MethodStats, Stats};
pub use outputs::{Output, OutputKind, outputs};
pub use reapi_proto::Blob;
pub use traits::*;
pub use tree::{TreeBudget, Trees, read_trees};
