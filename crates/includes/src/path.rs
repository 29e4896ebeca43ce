//! Paths as the tree's root sees them.

use bytes::Bytes;

/// `path` as a path relative to the root of the tree, for a process that runs
/// in `working_directory` (itself relative to that root, possibly empty).
///
/// An absolute path only loses its leading slash: inside of a sandbox the root
/// of the tree is `/`. Empty steps and `.` are dropped, `..` takes the step
/// before it away. That is done by text, so it is wrong where that step is a
/// symbolic link: callers with links in their trees resolve those first.
///
/// `None`: the path climbs out of the tree. The root itself is the empty path.
#[must_use]
pub fn normalise(path: &[u8], working_directory: &[u8]) -> Option<Bytes> {
    let from: &[u8] = if path.starts_with(b"/") { b"" } else { working_directory };
    let mut whole: Vec<u8> = Vec::with_capacity(from.len() + 1 + path.len());
    for step in from.split(|b| *b == b'/').chain(path.split(|b| *b == b'/')) {
        match step {
            b"" | b"." => {}
            b".." => {
                if whole.is_empty() {
                    return None;
                }
                let end = whole.iter().rposition(|b| *b == b'/').unwrap_or(0);
                whole.truncate(end);
            }
            name => {
                if !whole.is_empty() {
                    whole.push(b'/');
                }
                whole.extend_from_slice(name);
            }
        }
    }
    Some(Bytes::from(whole))
}

/// The directory that holds `path`; the root's is the root.
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    &path[..path.iter().rposition(|b| *b == b'/').unwrap_or(0)]
}

/// The last step of `path`.
pub(crate) fn file_name(path: &[u8]) -> &[u8] {
    &path[path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1)..]
}

/// What follows the last dot of the last step; empty without one.
pub(crate) fn extension(path: &[u8]) -> &[u8] {
    let name = file_name(path);
    name.iter().rposition(|b| *b == b'.').map_or(b"", |at| &name[at + 1..])
}

/// Whether `path` lies below `directory`; everything lies below the root.
pub(crate) fn below(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty() || path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_seen_from_the_root() {
        let check = |path: &str, directory: &str, expected: Option<&str>| {
            let found = normalise(path.as_bytes(), directory.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{path} in {directory}");
        };
        check("a.c", "", Some("a.c"));
        check("a.c", "build/x", Some("build/x/a.c"));
        check("../../src/./a.c", "build/x", Some("src/a.c"));
        check("/usr//include/stdio.h", "build/x", Some("usr/include/stdio.h"));
        check("/usr/lib/../include/x.h", "", Some("usr/include/x.h"));
        check("..", "build", Some(""));
        check("../../a.c", "build", None);
        check("/../a.c", "build", None);
        check("a.c", "/build/", Some("build/a.c"));
    }
}
