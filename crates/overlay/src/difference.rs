//! Where two actions differ.

use bytes::Bytes;
use reapi_proto::Digest;
use reapi_proto::raw::{Action, Command, Directory, Node};

use crate::forest::{Forest, MAX_DEPTH, Missing};

/// The first place in which two actions differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Difference {
    /// A field of the Command or the Action, in words that name its part
    /// (`argument 3`, `environment variable PATH`). `None`: not there.
    Field {
        /// Which one.
        name: String,
        /// What the first action has.
        first: Option<Bytes>,
        /// What the second one has.
        second: Option<Bytes>,
    },
    /// An input. `None`: nothing at that path.
    Input {
        /// The path in the input tree.
        path: Bytes,
        /// What the first action has there.
        first: Option<Node>,
        /// What the second one has there.
        second: Option<Node>,
    },
}

/// The first difference of two actions, given with their Commands; `None` where they are the same.
///
/// Looks at the Command, then at the other fields of the Action, then at the
/// inputs in the order of their paths; of the trees only what differs is
/// walked. A difference in fields that are not known here is one of `other fields`.
///
/// # Errors
/// [`Missing`] names a directory that the answer takes and that `forest`
/// lacks: get it, and ask again. That happens at most once per level and tree.
pub fn difference(
    first: (&Action, &Command),
    second: (&Action, &Command),
    forest: &Forest,
) -> Result<Option<Difference>, Missing> {
    let known = fields(first).into_iter().zip(fields(second)).find_map(|(a, b)| of_lists(a, b));
    if known.is_some() {
        return Ok(known);
    }
    let (first_action, second_action) = (first.0, second.0);
    let roots = (first_action.input_root_digest(), second_action.input_root_digest());
    if roots.0 != roots.1 {
        return inputs(&roots.0, &roots.1, forest, b"");
    }
    if first_action.bytes() == second_action.bytes() {
        return Ok(None);
    }
    let hidden = |action: &Action| Some(action.bytes().clone());
    Ok(Some(Difference::Field {
        name: "other fields".to_owned(),
        first: hidden(first_action),
        second: hidden(second_action),
    }))
}

/// Which of `candidates` is the same step of a build as `command`: it runs in
/// the same directory and makes the same outputs. Among several the one with
/// the same arguments, else the first. A command without outputs is like no other.
#[must_use]
pub fn same_step(command: &Command, candidates: &[&Command]) -> Option<usize> {
    let step = |command: &Command| {
        let mut outputs: Vec<Vec<u8>> = command.output_paths().map(<[u8]>::to_vec).collect();
        outputs.sort_unstable();
        (!outputs.is_empty()).then(|| (command.working_directory().to_vec(), outputs))
    };
    let wanted = step(command)?;
    let mut same = (0..candidates.len()).filter(|i| step(candidates[*i]).as_ref() == Some(&wanted)).peekable();
    let first = same.peek().copied();
    same.find(|i| candidates[*i].arguments().eq(command.arguments())).or(first)
}

/// Parts with a value each, under the name of the field. Two actions have the same fields in the same order.
type Parts = Vec<(String, Bytes)>;

fn fields((action, command): (&Action, &Command)) -> Vec<Parts> {
    let bytes = Bytes::copy_from_slice;
    let numbered = |name: &str, values: &mut dyn Iterator<Item = &[u8]>| -> Parts {
        values.enumerate().map(|(i, value)| (format!("{name} {i}"), bytes(value))).collect()
    };
    let named = |name: &str, values: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>| -> Parts {
        let part = |(key, value): (Vec<u8>, Vec<u8>)| {
            (format!("{name} {}", String::from_utf8_lossy(&key)), Bytes::from(value))
        };
        values.map(part).collect()
    };
    let property = |p: reapi_proto::raw::Property<'_>| (p.name.to_vec(), p.value.to_vec());
    let limit = action.timeout().map(|(seconds, nanos)| Bytes::from(format!("{seconds}.{nanos:09} s")));
    vec![
        vec![("working directory".to_owned(), bytes(command.working_directory()))],
        numbered("argument", &mut command.arguments()),
        named("environment variable", &mut command.environment().map(|(k, v)| (k.to_vec(), v.to_vec()))),
        numbered("output path", &mut command.output_paths()),
        named("platform property", &mut command.platform().map(property)),
        named("platform property of the Action", &mut action.platform().map(property)),
        limit.into_iter().map(|limit| ("timeout".to_owned(), limit)).collect(),
        vec![("do_not_cache".to_owned(), Bytes::from(action.do_not_cache().to_string()))],
    ]
}

fn of_lists(first: Parts, second: Parts) -> Option<Difference> {
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let (name, first, second) = match (first.next(), second.next()) {
            (None, None) => return None,
            (Some((name, first)), None) => (name, Some(first), None),
            (None, Some((name, second))) => (name, None, Some(second)),
            (Some(a), Some(b)) if a == b => continue,
            (Some((a, first)), Some((b, second))) if a == b => (a, Some(first), Some(second)),
            // Another one stands there: it is in addition, or what was expected is gone.
            (Some((name, first)), Some(_)) => (name, Some(first), None),
        };
        return Some(Difference::Field { name, first, second });
    }
}

fn inputs(first: &Digest, second: &Digest, forest: &Forest, path: &[u8]) -> Result<Option<Difference>, Missing> {
    let (first, second) = (directory(first, forest)?, directory(second, forest)?);
    let found = |name: &[u8], first, second| Difference::Input { path: join(path, name), first, second };
    let mut names: Vec<&[u8]> = first.entries().chain(second.entries()).map(|entry| entry.name).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        match (first.get(name), second.get(name)) {
            (a, b) if a == b => {}
            (Some(Node::Directory { digest: a }), Some(Node::Directory { digest: b })) => {
                if path.iter().filter(|byte| **byte == b'/').count() >= MAX_DEPTH {
                    return Ok(Some(found(name, first.get(name), second.get(name))));
                }
                if let Some(difference) = inputs(&a, &b, forest, &join(path, name))? {
                    return Ok(Some(difference));
                }
            }
            (first, second) => return Ok(Some(found(name, first, second))),
        }
    }
    // The bytes differ, the entries do not: properties, or an order that is not canonical.
    Ok(Some(Difference::Input { path: Bytes::copy_from_slice(path), first: None, second: None }))
}

fn directory<'f>(digest: &Digest, forest: &'f Forest) -> Result<&'f Directory, Missing> {
    forest.get(digest).ok_or(Missing(*digest))
}

fn join(path: &[u8], name: &[u8]) -> Bytes {
    let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
    Bytes::from([path, separator, name].concat())
}
