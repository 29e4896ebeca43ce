//! Generation on the in-memory store.

mod copies;
mod cost;
mod failing;
mod hostile;
mod modes;
mod origins;
mod skips;
mod sources;
pub(crate) mod toy;
