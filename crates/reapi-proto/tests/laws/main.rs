//! Laws of the lossless views, checked on random messages.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod arbitrary;
mod directory;
mod messages;
mod names;
