//! Interned names and paths: every path is a row that points at its parent.

use std::fmt;

use bytes::Bytes;
use rustc_hash::FxHashMap;

/// A single path segment (or other short byte string) in a [`Paths`] table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NameId(pub(crate) u32);

/// A slash-separated relative path in a [`Paths`] table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PathId(pub(crate) u32);

impl PathId {
    /// The empty path: the root of whatever tree the path is about.
    pub const ROOT: Self = Self(0);
}

/// A table of distinct names and distinct paths.
///
/// Ids are dense and handed out in order of first use; a parent's id is
/// always smaller than its children's. Ids of one table mean nothing in another.
#[derive(Clone)]
pub struct Paths {
    names: Vec<Bytes>,
    name_ids: FxHashMap<Bytes, u32>,
    /// Row 0 is the root and its own parent.
    rows: Vec<(u32, u32)>,
    row_ids: FxHashMap<(u32, u32), u32>,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            names: vec![Bytes::new()],
            name_ids: FxHashMap::from_iter([(Bytes::new(), 0)]),
            rows: vec![(0, 0)],
            row_ids: FxHashMap::default(),
        }
    }
}

impl Paths {
    /// An empty table, which still has the root path and the empty name.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The id of a name, added if new.
    pub fn name_id(&mut self, name: &[u8]) -> NameId {
        if let Some(&id) = self.name_ids.get(name) {
            return NameId(id);
        }
        let id = index(self.names.len());
        let name = Bytes::copy_from_slice(name);
        self.names.push(name.clone());
        self.name_ids.insert(name, id);
        NameId(id)
    }

    /// The id of a name that the table already has.
    #[must_use]
    pub fn find_name(&self, name: &[u8]) -> Option<NameId> {
        self.name_ids.get(name).copied().map(NameId)
    }

    /// The bytes of a name.
    #[must_use]
    pub fn name(&self, id: NameId) -> &Bytes {
        &self.names[id.0 as usize]
    }

    /// The path `parent/name`, added if new.
    pub fn child(&mut self, parent: PathId, name: NameId) -> PathId {
        let row = (parent.0, name.0);
        if let Some(&id) = self.row_ids.get(&row) {
            return PathId(id);
        }
        let id = index(self.rows.len());
        self.rows.push(row);
        self.row_ids.insert(row, id);
        PathId(id)
    }

    /// The path `parent/name` if the table already has it.
    #[must_use]
    pub fn find_child(&self, parent: PathId, name: NameId) -> Option<PathId> {
        self.row_ids.get(&(parent.0, name.0)).copied().map(PathId)
    }

    /// The id of a slash-separated path, added if new. Empty segments and `.` are skipped.
    pub fn intern(&mut self, path: &[u8]) -> PathId {
        segments(path).fold(PathId::ROOT, |parent, segment| {
            let name = self.name_id(segment);
            self.child(parent, name)
        })
    }

    /// The id of a path that the table already has.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<PathId> {
        segments(path).try_fold(PathId::ROOT, |parent, segment| self.find_child(parent, self.find_name(segment)?))
    }

    /// Parent and last segment; `None` for the root.
    #[must_use]
    pub fn split(&self, path: PathId) -> Option<(PathId, NameId)> {
        if path == PathId::ROOT {
            return None;
        }
        let (parent, name) = self.rows[path.0 as usize];
        Some((PathId(parent), NameId(name)))
    }

    /// The segments of a path, first one first.
    #[must_use]
    pub fn segments(&self, mut path: PathId) -> Vec<NameId> {
        let mut out = Vec::new();
        while let Some((parent, name)) = self.split(path) {
            out.push(name);
            path = parent;
        }
        out.reverse();
        out
    }

    /// The path as bytes with slashes; empty for the root.
    #[must_use]
    pub fn bytes(&self, path: PathId) -> Vec<u8> {
        let upwards = || std::iter::successors(self.split(path), |(parent, _)| self.split(*parent));
        let len: usize = upwards().map(|(_, name)| self.name(name).len() + 1).sum();
        let mut out = vec![b'/'; len.saturating_sub(1)];
        let mut end = out.len();
        for (_, name) in upwards() {
            let name = self.name(name);
            let start = end - name.len();
            out[start..end].copy_from_slice(name);
            end = start.saturating_sub(1);
        }
        out
    }

    /// Whether [`bytes`](Self::bytes) of a path are these.
    #[must_use]
    pub fn is(&self, path: PathId, bytes: &[u8]) -> bool {
        let mut left = Some(bytes).filter(|bytes| !bytes.is_empty());
        let mut upwards = std::iter::successors(self.split(path), |(parent, _)| self.split(*parent));
        let fits = upwards.all(|(_, name)| {
            let rest = left.and_then(|left| left.strip_suffix(&**self.name(name)));
            left = rest.and_then(|rest| rest.strip_suffix(b"/"));
            rest.is_some_and(|rest| rest.is_empty() || left.is_some())
        });
        fits && left.is_none()
    }

    /// The path for people: what is not UTF-8 is replaced.
    #[must_use]
    pub fn display(&self, path: PathId) -> String {
        String::from_utf8_lossy(&self.bytes(path)).into_owned()
    }

    /// A table with these names behind the empty one, and no path but the
    /// root; `None` if a name stands there twice.
    pub(crate) fn with_names(names: &[Bytes]) -> Option<Self> {
        let mut paths = Self::new();
        for (i, name) in names.iter().enumerate() {
            if paths.name_ids.insert(name.clone(), index(i + 1)).is_some() {
                return None;
            }
            paths.names.push(name.clone());
        }
        Some(paths)
    }

    /// The place of each name among all of them, sorted by their bytes.
    pub(crate) fn name_ranks(&self) -> Vec<u32> {
        let mut sorted: Vec<u32> = (0..index(self.names.len())).collect();
        sorted.sort_unstable_by(|a, b| self.names[*a as usize].cmp(&self.names[*b as usize]));
        let mut ranks = vec![0; sorted.len()];
        for (rank, name) in (0..).zip(sorted) {
            ranks[name as usize] = rank;
        }
        ranks
    }

    /// Every name but the empty one, in order.
    pub(crate) fn stored_names(&self) -> &[Bytes] {
        &self.names[1..]
    }

    /// Every path but the root, in order: parent and last segment.
    pub(crate) fn stored_rows(&self) -> impl Iterator<Item = (PathId, NameId)> {
        self.rows[1..].iter().map(|(parent, name)| (PathId(*parent), NameId(*name)))
    }

    /// Number of paths, the root included.
    #[must_use]
    pub fn path_count(&self) -> usize {
        self.rows.len()
    }

    /// Number of names, the empty one included.
    #[must_use]
    pub fn name_count(&self) -> usize {
        self.names.len()
    }
}

impl fmt::Debug for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Paths({} paths, {} names)", self.rows.len(), self.names.len())
    }
}

/// The segments of a slash-separated path; empty ones and `.` say nothing and are skipped.
pub(crate) fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|s| !s.is_empty() && *s != b".")
}

/// Joins and normalises two relative paths; `None` when `..` leads outside.
#[must_use]
pub fn join(base: &[u8], path: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for segment in segments(base).chain(segments(path)) {
        if segment == b".." {
            parts.pop()?;
        } else {
            parts.push(segment);
        }
    }
    Some(parts.join(&b'/'))
}

/// Table sizes stay far below `u32::MAX`: every row comes from bytes in memory.
#[allow(clippy::cast_possible_truncation, reason = "a table of 2^32 rows does not fit in memory")]
pub(crate) fn index(len: usize) -> u32 {
    len as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_paths_have_equal_ids() {
        let mut paths = Paths::new();
        let a = paths.intern(b"usr/include/a.h");
        assert_eq!(paths.intern(b"usr//include/./a.h"), a);
        assert_eq!(paths.find(b"usr/include/a.h"), Some(a));
        assert_eq!(paths.find(b"usr/include/b.h"), None);
        assert_eq!(paths.bytes(a), b"usr/include/a.h");
        assert_eq!(paths.intern(b""), PathId::ROOT);
    }

    proptest! {
        #[test]
        fn a_path_is_its_bytes_and_no_others(a in "[ab/]{0,6}", b in "[ab/]{0,6}") {
            let mut paths = Paths::new();
            let path = paths.intern(a.as_bytes());
            let bytes = paths.bytes(path);
            prop_assert!(paths.is(path, &bytes));
            prop_assert_eq!(paths.is(path, b.as_bytes()), bytes == b.as_bytes());
        }
    }

    #[test]
    fn joining_stays_inside() {
        assert_eq!(join(b"a/b", b"../c.o").as_deref(), Some(&b"a/c.o"[..]));
        assert_eq!(join(b"", b"x").as_deref(), Some(&b"x"[..]));
        assert_eq!(join(b"a", b"../../x"), None);
    }
}
