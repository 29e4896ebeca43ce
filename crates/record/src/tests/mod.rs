//! Generation on the in-memory store.

mod copies;
mod cost;
mod failing;
mod hostile;
mod modes;
mod origins;
mod skips;
pub(crate) mod toy;
