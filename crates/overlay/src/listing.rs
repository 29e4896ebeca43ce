//! What files trees hold, and which of them are new.

use bytes::Bytes;
use reapi_proto::Digest;
use reapi_proto::raw::Node;

use crate::forest::{Forest, MAX_DEPTH};

/// The most entries that are listed or compared; what has more is no tree that a compile reads.
pub const MAX_LISTED: usize = 200_000;

/// Why a list cannot be given.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unlisted {
    /// These directories are not at hand: get them, and ask again. That
    /// happens at most once per level.
    #[error("{} directories are not at hand", .0.len())]
    Missing(Vec<Digest>),
    /// More entries than [`MAX_LISTED`], or deeper than [`MAX_DEPTH`].
    #[error("the tree is larger than any that is listed ({MAX_LISTED} entries, {MAX_DEPTH} levels)")]
    TooLarge,
}

/// Every file and symlink of the tree at `root`, sorted by path.
///
/// # Errors
/// [`Unlisted`].
pub fn files(forest: &Forest, root: &Digest) -> Result<Vec<(Bytes, Node)>, Unlisted> {
    appeared(forest, None, root)
}

/// The files and symlinks of the tree at `new` at whose paths the tree at `old`
/// has nothing, or a directory; sorted by path. Of the trees, only what differs is walked.
///
/// # Errors
/// [`Unlisted`].
pub fn appeared(forest: &Forest, old: Option<&Digest>, new: &Digest) -> Result<Vec<(Bytes, Node)>, Unlisted> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    let mut pending = vec![(Vec::new(), old.copied(), *new, 0)];
    // A few directories that hold each other many times over are no large tree, but have as many paths.
    let mut looked_at = 0;
    while let Some((path, old, new, depth)) = pending.pop() {
        if old == Some(new) {
            continue;
        }
        looked_at += 1 + forest.get(&new).map_or(0, reapi_proto::raw::Directory::len);
        if depth > MAX_DEPTH || looked_at > MAX_LISTED {
            return Err(Unlisted::TooLarge);
        }
        let before = old.map(|old| forest.get(&old).ok_or(old));
        let (before, now) = match (before.transpose(), forest.get(&new)) {
            (Ok(before), Some(now)) => (before, now),
            (before, now) => {
                missing.extend(before.err());
                missing.extend(now.is_none().then_some(new));
                continue;
            }
        };
        for entry in now.entries() {
            let stood = before.and_then(|before| before.get(entry.name));
            let here = [path.as_slice(), if path.is_empty() { b"" } else { b"/" }, entry.name].concat();
            match (entry.node, stood) {
                (Node::Directory { digest }, Some(Node::Directory { digest: old })) => {
                    pending.push((here, Some(old), digest, depth + 1));
                }
                (Node::Directory { digest }, _) => pending.push((here, None, digest, depth + 1)),
                (node, None | Some(Node::Directory { .. })) => found.push((Bytes::from(here), node)),
                _ => {}
            }
        }
    }
    if !missing.is_empty() {
        missing.sort_unstable();
        missing.dedup();
        return Err(Unlisted::Missing(missing));
    }
    found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reapi_proto::DigestFunction;
    use reapi_proto::raw::{Directory, encode_directory};

    const SHA: DigestFunction = DigestFunction::Sha256;

    fn file(text: &str) -> Node {
        Node::File { digest: SHA.digest(text.as_bytes()), executable: false }
    }

    fn directory(forest: &mut Forest, entries: Vec<(&'static str, Node)>) -> Digest {
        let entries = entries.into_iter().map(|(name, node)| (Bytes::from(name), node));
        forest.add(SHA, Directory::parse(encode_directory(entries).unwrap()).unwrap())
    }

    fn paths(found: Vec<(Bytes, Node)>) -> Vec<String> {
        found.into_iter().map(|(path, _)| String::from_utf8(path.to_vec()).unwrap()).collect()
    }

    #[test]
    fn what_is_new_is_found_and_what_only_changed_is_not() {
        let mut forest = Forest::new();
        let same = directory(&mut forest, vec![("deep.h", file("d"))]);
        let old = directory(&mut forest, vec![("a.h", file("a")), ("same", Node::Directory { digest: same })]);
        let more = directory(&mut forest, vec![("b.h", file("b"))]);
        let new = directory(
            &mut forest,
            vec![
                ("a.h", file("changed")),
                ("link", Node::Symlink { target: Bytes::from("a.h") }),
                ("more", Node::Directory { digest: more }),
                ("same", Node::Directory { digest: same }),
            ],
        );
        assert_eq!(paths(appeared(&forest, Some(&old), &new).unwrap()), ["link", "more/b.h"]);
        assert_eq!(paths(appeared(&forest, Some(&new), &old).unwrap()), [] as [&str; 0]);
        assert_eq!(paths(files(&forest, &old).unwrap()), ["a.h", "same/deep.h"]);
    }

    #[test]
    fn what_is_lacking_is_said_at_once() {
        let mut forest = Forest::new();
        let [x, y] = ["x", "y"].map(|text| SHA.digest(text.as_bytes()));
        let new =
            directory(&mut forest, vec![("x", Node::Directory { digest: x }), ("y", Node::Directory { digest: y })]);
        let Err(Unlisted::Missing(missing)) = files(&forest, &new) else { panic!("nothing is missing") };
        assert_eq!(missing.len(), 2);
    }
}
