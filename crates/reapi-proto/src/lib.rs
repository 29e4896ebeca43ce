//! Remote Execution API messages.

mod digest;
mod digest_wire;
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::missing_errors_doc
)]
mod generated;
pub mod precondition;
pub mod raw;
pub mod resource;

pub use digest::{Digest, DigestError, DigestFunction, Hasher};
pub use generated::build::bazel::remote::asset::v1 as asset;
pub use generated::build::bazel::remote::execution::v2;
pub use generated::build::bazel::semver;
pub use generated::build::buildgrid;
pub use generated::bst_sa::v1 as bst_sa;
pub use generated::buildstream::v2 as buildstream;
pub use generated::google::{bytestream, longrunning, rpc};
