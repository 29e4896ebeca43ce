//! Lossless views of messages that are named by the digest of their bytes.
//!
//! A decoder that keeps only the fields it knows changes the digest of what
//! it re-encodes. The types here keep the bytes, remember where the known
//! fields are, and edit by replacing exactly those, so that unknown fields,
//! field order and unusual but legal encodings survive. What an edit does not
//! name stays byte for byte; an edit that changes nothing returns the input.
//!
//! Names and paths are bytes: the specification asks for UTF-8, file systems do not.

mod error;
mod splice;
mod wire;

mod entry;
mod node;

mod directory;
mod edit;

mod platform;

mod action;
mod command;
mod message;
mod tree;

pub use action::{Action, ActionEdit};
pub use command::Command;
pub use directory::{Directory, Entry, encode_directory};
pub use edit::Edit;
pub use entry::RawEntry;
pub use error::RawError;
pub use message::set_message_field;
pub use node::Node;
pub use platform::{Property, PropertyEdit};
pub use tree::Tree;
