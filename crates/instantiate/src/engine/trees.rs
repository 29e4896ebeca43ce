//! What an element is built in, and where compilers look there.

use std::collections::BTreeSet;

use bytes::Bytes;
use includes::{CompileCommand, Language};
use overlay::Forest;
use reapi_proto::Digest;
use reapi_proto::raw::Node;

/// An artifact among those that are staged.
pub(super) struct Staged {
    /// `None`: it is not built.
    pub(super) now: Option<Digest>,
    /// As recorded, if it is known.
    pub(super) then: Option<Digest>,
}

/// The file system that an element is built in, apart from what its build makes.
pub(super) struct Trees {
    pub(super) own_root: Option<Vec<u8>>,
    pub(super) sources: Option<Digest>,
    /// In staging order.
    pub(super) staged: Vec<Staged>,
    /// What artifacts have at the root, where that is where own files are, too.
    pub(super) staged_at_root: Vec<Bytes>,
}

impl Trees {
    /// What stands at a path. `Err(Some)`: this directory must be read first;
    /// `Err(None)`: an element that has something there is not built.
    pub(super) fn find(&self, forest: &Forest, path: &[u8]) -> Result<Option<Node>, Option<Digest>> {
        if let Some(inside) = self.own(path) {
            return match self.sources {
                Some(sources) => forest.find(&sources, inside).map_err(|missing| Some(missing.0)),
                None => Ok(None),
            };
        }
        let mut unknown = false;
        for staged in self.staged.iter().rev() {
            let Some(root) = staged.now.or(staged.then) else { continue };
            if let Some(node) = forest.find(&root, path).map_err(|missing| Some(missing.0))? {
                if staged.now.is_none() {
                    unknown = true;
                    break;
                }
                return Ok(Some(node));
            }
        }
        if unknown { Err(None) } else { Ok(None) }
    }

    /// The targets and versions of the compilers that are staged as gcc is: in
    /// `usr/lib/gcc/TARGET/VERSION`. `Err`: this directory must be read first.
    pub(super) fn compilers(&self, forest: &Forest) -> Result<Vec<(String, String)>, Digest> {
        let mut found = BTreeSet::new();
        for root in self.staged.iter().filter_map(|staged| staged.now.or(staged.then)) {
            let below = |root: &Digest, path: &[u8]| match forest.find(root, path) {
                Ok(Some(Node::Directory { digest })) => Ok(Some(digest)),
                Ok(_) => Ok(None),
                Err(missing) => Err(missing.0),
            };
            let Some(gcc) = below(&root, b"usr/lib/gcc")? else { continue };
            for (target, versions) in forest.get(&gcc).ok_or(gcc)?.directories() {
                for (version, _) in forest.get(&versions).ok_or(versions)?.directories() {
                    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
                    found.insert((text(target), text(version)));
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    /// The path below the element's root.
    pub(super) fn own<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        let own = self.own_root.as_deref()?;
        if own.is_empty() {
            let top = path.split(|byte| *byte == b'/').next().unwrap_or_default();
            return (!self.staged_at_root.iter().any(|name| name == top)).then_some(path);
        }
        path.strip_prefix(own)?.strip_prefix(b"/")
    }

    pub(super) fn own_root(&self) -> Option<&[u8]> {
        self.own_root.as_deref()
    }

    pub(super) fn sources(&self) -> Option<Digest> {
        self.sources
    }

    /// The artifacts as far as they are known, in staging order.
    pub(super) fn artifacts(&self) -> impl Iterator<Item = Digest> {
        self.staged.iter().filter_map(|staged| staged.now)
    }
}

/// Where compilers look by themselves, told by what was read from there.
pub(super) fn standard_directories(
    recorded: &[(Bytes, Digest)],
    compile: &CompileCommand,
    compilers: &[(String, String)],
) -> Vec<Bytes> {
    let mut compiler: Option<(String, String)> = match compilers {
        [only] => Some(only.clone()),
        _ => None,
    };
    let mut triplet = None;
    for (path, _) in recorded {
        let Ok(path) = std::str::from_utf8(path) else { continue };
        let mut segments = path.split('/');
        match (segments.next(), segments.next(), segments.next(), segments.next(), segments.next()) {
            (Some("usr"), Some("lib"), Some("gcc"), Some(target), Some(version)) => {
                compiler = Some((target.to_owned(), version.to_owned()));
            }
            (Some("usr"), Some("include"), Some(target), Some(_), _) if target.contains("-linux-") => {
                triplet = Some(target.to_owned());
            }
            _ => {}
        }
    }
    let triplet = triplet.or_else(|| compiler.as_ref().map(|(target, _)| target.clone()));
    let cxx = recorded.iter().find_map(|(path, _)| {
        let rest = std::str::from_utf8(path).ok()?.strip_prefix("usr/include/c++/")?;
        Some(rest.split('/').next()?.to_owned())
    });
    let mut directories = Vec::new();
    if let Some(version) = cxx.filter(|_| compile.language() != Some(Language::C)) {
        directories.push(format!("usr/include/c++/{version}"));
        directories.extend(triplet.iter().map(|triplet| format!("usr/include/{triplet}/c++/{version}")));
        directories.push(format!("usr/include/c++/{version}/backward"));
    }
    if let Some((target, version)) = compiler {
        directories.push(format!("usr/lib/gcc/{target}/{version}/include"));
    }
    directories.push("usr/local/include".to_owned());
    directories.extend(triplet.map(|triplet| format!("usr/include/{triplet}")));
    directories.push("usr/include".to_owned());
    directories.into_iter().map(Bytes::from).collect()
}
