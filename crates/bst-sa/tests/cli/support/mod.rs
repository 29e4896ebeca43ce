//! Running the program, and what it is run on.

mod by_hand;
mod program;
mod world;

pub(crate) use by_hand::{ByHand, directory_bytes, file_node, message};
pub(crate) use program::{Program, Ran, patiently};
pub(crate) use world::{World, actions, build, client, find, with_records, world};

use std::path::Path;

/// Every file below a directory with its size, sorted.
pub(crate) fn listing(root: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push((name, entry.metadata().unwrap().len()));
            }
        }
    }
    found.sort();
    found
}
