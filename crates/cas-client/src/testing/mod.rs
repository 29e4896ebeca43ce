//! Help for the tests of whoever uses or implements the capability traits.
//!
//! [`conformance`] is one suite for all implementations; the mocks answer what
//! a test tells them to. For a store that simply works, use
//! [`InMemory`](crate::InMemory).

pub mod conformance;
mod mocks;

pub use mocks::{MockActionCache, MockAssetIndex, MockBlobStore, MockExecution};
