//! The server as clients see it: through the generated stubs, over a socket.

mod action_cache;
mod asset;
mod byte_stream;
mod cas;
mod execution;
mod faults;
mod local;
mod rig;
