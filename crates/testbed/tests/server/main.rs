//! The server as clients see it: through the generated stubs, over a socket.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests may fail like tests")]

mod action_cache;
mod asset;
mod byte_stream;
mod cas;
mod execution;
mod faults;
mod local;
mod rig;
