//! Messages of the Remote Execution API and of its relatives.
//!
//! - [`Digest`], [`DigestFunction`], [`Hasher`]: content identities that are
//!   well formed from the moment they exist. [`Blob`]: bytes with the digest
//!   that names them.
//! - [`raw`]: views of the messages that are named by the digest of their
//!   bytes. They read and edit without decoding and encoding again, so that
//!   what this crate does not know survives.
//! - [`v2`], [`asset`], [`bytestream`], [`longrunning`], [`buildgrid`],
//!   [`buildstream`], [`bst_sa`], [`rpc`], [`semver`]: types generated from
//!   the `.proto` files in this crate's `proto` folder, one module per
//!   protobuf package.
//!   Blob data is [`bytes::Bytes`]. They are for requests and replies; a
//!   Directory, Action or Command that has a digest belongs in [`raw`].
//! - [`resource`], [`precondition`]: blobs named in text.
//!
//! It contains no I/O, no client and no retries. The client and server stubs
//! of the services are there with the feature `grpc`, which adds `tonic`.
//! Only digest functions that the crate can compute are representable:
//! SHA-256, SHA-384 and SHA-512.
//!
//! # Example
//!
//! A file's digest changes in a Directory that also says something which this
//! crate has never heard of:
//!
//! ```
//! use bytes::Bytes;
//! use reapi_proto::raw::{Directory, Edit, Node, encode_directory};
//! use reapi_proto::DigestFunction;
//!
//! let file = |content: &str| Node::File {
//!     digest: DigestFunction::Sha256.digest(content.as_bytes()),
//!     executable: false,
//! };
//! let known = encode_directory([("main.c".into(), file("int main;")), ("util.h".into(), file(""))])?;
//! // Field 100, a string: an extension of whoever wrote the message.
//! let extension = b"\xa2\x06\x05hello";
//! let message = Bytes::from([&known[..], extension].concat());
//!
//! let directory = Directory::parse(message.clone())?;
//! let edits = [(Bytes::from("util.h"), Edit::Set(file("#define X")))];
//! let edited = directory.splice(&edits)?;
//! assert!(edited.ends_with(extension));
//! assert_eq!(Directory::parse(edited.clone())?.get(b"util.h"), Some(file("#define X")));
//!
//! // Undone, it is the same message, hence the same digest.
//! let undo = directory.inverse(&edits)?;
//! assert_eq!(Directory::parse(edited)?.splice(&undo)?, message);
//! # Ok::<(), reapi_proto::raw::RawError>(())
//! ```

mod blob;
mod digest;
mod digest_wire;
pub mod raw;

pub mod precondition;
pub mod resource;

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::missing_errors_doc,
    reason = "written by `cargo xtask codegen`; the .proto files are the source"
)]
mod generated;

pub use blob::Blob;
pub use digest::{Digest, DigestError, DigestFunction, Hasher};
pub use generated::bst_sa::v1 as bst_sa;
pub use generated::build::bazel::remote::asset::v1 as asset;
pub use generated::build::bazel::remote::execution::v2;
pub use generated::build::bazel::semver;
pub use generated::build::buildgrid;
pub use generated::buildstream::v2 as buildstream;
pub use generated::google::{bytestream, longrunning, rpc};
