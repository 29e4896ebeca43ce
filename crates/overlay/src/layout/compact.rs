//! The compact layout: a record as tables of numbers.

use std::time::Duration;

use reapi_proto::raw::Node;
use reapi_proto::{Digest, DigestFunction, bst_sa};
use rustc_hash::FxHashMap;

use super::LayoutError;
use crate::model::{
    ArtifactOverlay, Below, Derivation, DerivationId, ElementId, Input, InputId, LevelId, Levels, Making, Origin,
    OriginId, PropertyInput, Record, RecordedAction, RecordedElement,
};
use crate::path::{NameId, PathId, Paths, index};
use crate::recorded::{NodeKind, Recorded, Stamp};

/// What is added to the kind of an input that is stored as a stamp.
const STAMPED: u32 = 4;

/// An archive of archives of what is made locally is far below this.
const MAX_DERIVATION_DEPTH: usize = 16;

/// The tables of a record, without the digests of its actions: those are the first rows of the base actions.
pub(super) fn encode(record: &Record) -> bst_sa::Record {
    let mut table = bst_sa::Record {
        digest_function: record.digest_function.wire_value(),
        weak_key: record.weak_key.clone().unwrap_or_default(),
        configuration: record.configuration.clone().unwrap_or_default(),
        by_digest: record.by_digest,
        own_root: record.own_root.map_or(0, |path| path.0 + 1),
        elements: record.elements.iter().map(encode_element).collect(),
        names: record.paths.stored_names().to_vec(),
        ..Default::default()
    };
    for (parent, name) in record.paths.stored_rows() {
        table.path_parents.push(parent.0);
        table.path_names.push(name.0);
    }
    let mut names = Names { known: FxHashMap::default(), table: Vec::new(), first: index(record.paths.name_count()) };
    encode_origins(record, &mut table);
    encode_inputs(record, &mut table, &mut names);
    encode_derivations(record, &mut table);
    for (row, level) in record.levels.iter().enumerate() {
        table.level_entry_counts.push(index(level.len()));
        for (name, below) in level {
            table.level_entry_names.push(name.0);
            table.level_entries.push(match below {
                Below::Input(input) => input.0 << 1,
                Below::Level(child) => ((index(row) - child.0) << 1) | 1,
            });
        }
    }
    for action in &record.actions {
        table.action_elements.push(action.element.0);
        table.action_roots.push(action.root.map_or(0, |level| level.0 + 1));
        let milliseconds = action.duration.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX - 1));
        table.action_durations.push(milliseconds.map_or(0, |ms| ms.saturating_add(1)));
        table.action_output_bytes.push(action.output_bytes.map_or(0, |b| b.saturating_add(1)));
        table.action_property_counts.push(index(action.properties.len()));
        for property in &action.properties {
            table.property_names.push(property.name.0);
            table.property_inputs.push(property.input.0);
        }
        table.action_condition_counts.push(index(action.conditions.len()));
        table.action_conditions.extend(action.conditions.iter().map(|id| id.0));
    }
    for overlay in &record.artifact_overlays {
        table.artifact_paths.push(overlay.path.0);
        table.artifact_origins.push(overlay.origin.0);
    }
    table.names.append(&mut names.table);
    table
}

/// Symlink targets share the table of names; new ones go behind it.
struct Names {
    known: FxHashMap<bytes::Bytes, u32>,
    table: Vec<bytes::Bytes>,
    first: u32,
}

fn encode_element(element: &RecordedElement) -> bst_sa::Element {
    let hash = |digest: Option<Digest>| digest.map(|d| bytes::Bytes::copy_from_slice(d.hash())).unwrap_or_default();
    let size = |digest: Option<Digest>| digest.map_or(0, |d| d.size_bytes());
    bst_sa::Element {
        name: element.name.clone(),
        sources_hash: hash(element.sources),
        sources_size: size(element.sources),
        artifact_hash: hash(element.artifact),
        artifact_size: size(element.artifact),
    }
}

fn encode_origins(record: &Record, table: &mut bst_sa::Record) {
    let mut bases: FxHashMap<Digest, u32> = FxHashMap::default();
    let mut hashes = Vec::new();
    for (row, action) in record.actions.iter().enumerate() {
        bases.entry(action.base).or_insert(index(row));
    }
    for origin in &record.origins {
        table.origin_kinds.push(match origin {
            Origin::Source { .. } => 0,
            Origin::Artifact { .. } => 1,
            Origin::Action { .. } => 2,
            Origin::Derived(_) => 3,
        });
        table.origin_elements.push(origin.element().0);
        table.origin_paths.push(origin.path().0);
        if let Origin::Derived(derivation) = origin {
            table.origin_derivations.push(derivation.0);
        }
        if let Origin::Action { base, .. } = origin {
            let next = index(record.actions.len() + table.base_sizes.len());
            let row = *bases.entry(*base).or_insert(next);
            if row == next {
                hashes.extend_from_slice(base.hash());
                table.base_sizes.push(base.size_bytes());
            }
            table.origin_bases.push(row);
        }
    }
    table.base_hashes = hashes.into();
}

fn encode_inputs(record: &Record, table: &mut bst_sa::Record, names: &mut Names) {
    let (mut hashes, mut stamps) = (Vec::new(), Vec::new());
    let whole = record.needed_in_full();
    for (input, whole) in record.inputs.iter().zip(whole) {
        let kind = match input.recorded.kind() {
            NodeKind::File => 0,
            NodeKind::Executable => 1,
            NodeKind::Directory => 2,
            NodeKind::Symlink => 3,
        };
        let recorded = if whole { input.recorded.clone() } else { input.recorded.shortened() };
        table.input_kinds.push(match recorded {
            Recorded::Whole(Node::File { digest, .. } | Node::Directory { digest }) => {
                hashes.extend_from_slice(digest.hash());
                table.input_sizes.push(digest.size_bytes());
                kind
            }
            Recorded::Whole(Node::Symlink { target }) => {
                let row = record.paths.find_name(&target).map(|name| name.0).unwrap_or_else(|| {
                    *names.known.entry(target.clone()).or_insert_with(|| {
                        names.table.push(target);
                        names.first + index(names.table.len()) - 1
                    })
                });
                table.input_targets.push(row);
                kind
            }
            Recorded::Stamp(stamp) => {
                stamps.extend_from_slice(stamp.hash());
                kind + STAMPED
            }
        });
        table.input_origin_counts.push(index(input.origins.len()));
        table.input_origins.extend(input.origins.iter().map(|id| id.0));
    }
    table.input_hashes = hashes.into();
    table.input_stamps = stamps.into();
}

fn encode_derivations(record: &Record, table: &mut bst_sa::Record) {
    for Derivation { making, of } in &record.derivations {
        table.derivation_kinds.push(match making {
            Making::Merge => 0,
            Making::Archive(_) => 1,
            Making::Locally => 2,
        });
        table.derivation_input_counts.push(index(of.len()));
        table.derivation_inputs.extend(of.iter().map(|id| id.0));
        if let Making::Archive(names) = making {
            table.derivation_names.extend(names.iter().map(|name| name.0));
        }
    }
}

/// The record of these actions and tables.
pub(super) fn decode(actions: Vec<Digest>, table: &bst_sa::Record) -> Result<Record, LayoutError> {
    let function = DigestFunction::from_wire(table.digest_function)
        .ok_or_else(|| inconsistent(format!("unknown digest function {}", table.digest_function)))?;
    if let Some(base) = actions.iter().find(|base| base.function() != function) {
        return Err(inconsistent(format!("action {base} is not named by {function}")));
    }
    let own = actions.len();
    let bases = decode_bases(table, function, actions)?;
    let elements = decode_elements(table, function)?;
    let paths = decode_paths(table)?;
    let limits = Limits {
        elements: elements.len(),
        names: paths.name_count(),
        paths: paths.path_count(),
        origins: table.origin_kinds.len(),
        inputs: table.input_kinds.len(),
        derivations: table.derivation_kinds.len(),
    };
    let origins = decode_origins(table, &bases, &limits)?;
    let inputs = decode_inputs(table, function, &paths, &origins, &limits)?;
    let derivations = decode_derivations(table, &origins, &inputs, &limits)?;
    let levels = decode_levels(table, &paths, &limits)?;
    let actions = decode_actions(table, &bases[..own], &inputs, levels.len(), &limits)?;
    let mut artifact_overlays = Vec::with_capacity(table.artifact_paths.len());
    same_length("artifact_origins", table.artifact_origins.len(), "artifact_paths", table.artifact_paths.len())?;
    for (path, origin) in table.artifact_paths.iter().zip(&table.artifact_origins) {
        artifact_overlays.push(ArtifactOverlay {
            path: PathId(row("artifact_paths", *path, limits.paths)?),
            origin: OriginId(row("artifact_origins", *origin, limits.origins)?),
        });
    }
    Ok(Record {
        digest_function: function,
        weak_key: Some(table.weak_key.clone()).filter(|key| !key.is_empty()),
        configuration: Some(table.configuration.clone()).filter(|key| !key.is_empty()),
        by_digest: table.by_digest,
        own_root: match table.own_root.checked_sub(1) {
            Some(path) => Some(PathId(row("own_root", path, paths.path_count())?)),
            None => None,
        },
        elements,
        paths,
        origins,
        inputs,
        derivations,
        levels,
        actions,
        artifact_overlays,
    })
}

/// Lengths of the tables that rows may refer to.
struct Limits {
    elements: usize,
    names: usize,
    paths: usize,
    origins: usize,
    inputs: usize,
    derivations: usize,
}

pub(super) fn inconsistent(reason: impl Into<String>) -> LayoutError {
    LayoutError::Inconsistent(reason.into())
}

fn row(column: &str, value: u32, len: usize) -> Result<u32, LayoutError> {
    if (value as usize) < len {
        Ok(value)
    } else {
        Err(inconsistent(format!("{column} refers to row {value} of {len}")))
    }
}

fn same_length(column: &str, len: usize, other: &str, expected: usize) -> Result<(), LayoutError> {
    if len == expected { Ok(()) } else { Err(inconsistent(format!("{column} has {len} rows, {other} has {expected}"))) }
}

/// Splits the next `count` values off a column that holds all rows' lists end to end.
fn take<'a, T>(column: &str, rest: &mut &'a [T], count: u32) -> Result<&'a [T], LayoutError> {
    let count = count as usize;
    if count > rest.len() {
        return Err(inconsistent(format!("{column} ends too early")));
    }
    let (taken, left) = rest.split_at(count);
    *rest = left;
    Ok(taken)
}

pub(super) fn spent<T>(column: &str, rest: &[T]) -> Result<(), LayoutError> {
    if rest.is_empty() { Ok(()) } else { Err(inconsistent(format!("{column} has {} values too many", rest.len()))) }
}

/// Digests whose hashes stand end to end in one column and their sizes in another.
struct Digests<'a> {
    column: &'static str,
    function: DigestFunction,
    hashes: &'a [u8],
    sizes: &'a [u64],
}

impl Digests<'_> {
    fn next(&mut self) -> Result<Digest, LayoutError> {
        let hash = take(self.column, &mut self.hashes, index(self.function.hash_bytes()))?;
        let size = take(self.column, &mut self.sizes, 1)?[0];
        digest(self.column, self.function, hash, size)
    }

    fn end(self) -> Result<(), LayoutError> {
        spent(self.column, self.hashes)?;
        spent(self.column, self.sizes)
    }
}

fn digest(what: &str, function: DigestFunction, hash: &[u8], size: u64) -> Result<Digest, LayoutError> {
    Digest::from_raw(function, hash, size).map_err(|reason| LayoutError::Digest { what: what.to_owned(), reason })
}

fn decode_elements(table: &bst_sa::Record, function: DigestFunction) -> Result<Vec<RecordedElement>, LayoutError> {
    let root = |hash: &[u8], size| {
        if hash.is_empty() { Ok(None) } else { digest("elements", function, hash, size).map(Some) }
    };
    let mut elements = Vec::with_capacity(table.elements.len());
    for element in &table.elements {
        elements.push(RecordedElement {
            name: element.name.clone(),
            sources: root(&element.sources_hash, element.sources_size)?,
            artifact: root(&element.artifact_hash, element.artifact_size)?,
        });
    }
    if elements.is_empty() { Err(inconsistent("elements is empty")) } else { Ok(elements) }
}

fn decode_paths(table: &bst_sa::Record) -> Result<Paths, LayoutError> {
    same_length("path_names", table.path_names.len(), "path_parents", table.path_parents.len())?;
    let mut paths = Paths::with_names(&table.names).ok_or_else(|| inconsistent("names has an entry twice"))?;
    let are_segments = are_segments(&paths);
    for (i, (parent, name)) in table.path_parents.iter().zip(&table.path_names).enumerate() {
        let parent = PathId(row("path_parents", *parent, i + 1)?);
        let name = NameId(row("path_names", *name, paths.name_count())?);
        // The path of an output is relative to the working directory and may lead upwards.
        if !are_segments[name.0 as usize] && paths.name(name) != &b".."[..] {
            check_segment(paths.name(name))?;
        }
        if paths.child(parent, name).0 != index(i + 1) {
            return Err(inconsistent(format!("path {} stands there twice", i + 1)));
        }
    }
    Ok(paths)
}

/// Of each name whether it can be a segment of a path.
fn are_segments(paths: &Paths) -> Vec<bool> {
    (0..index(paths.name_count())).map(|name| is_segment(paths.name(NameId(name)))).collect()
}

fn is_segment(name: &[u8]) -> bool {
    !(name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0))
}

fn check_segment(name: &[u8]) -> Result<(), LayoutError> {
    if !is_segment(name) {
        let shown: String = String::from_utf8_lossy(name).chars().take(80).collect();
        return Err(inconsistent(format!("{shown:?} is not a path segment")));
    }
    Ok(())
}

fn decode_bases(
    table: &bst_sa::Record,
    function: DigestFunction,
    mut bases: Vec<Digest>,
) -> Result<Vec<Digest>, LayoutError> {
    let mut others = Digests { column: "base_hashes", function, hashes: &table.base_hashes, sizes: &table.base_sizes };
    for _ in &table.base_sizes {
        bases.push(others.next()?);
    }
    others.end()?;
    Ok(bases)
}

fn decode_origins(table: &bst_sa::Record, bases: &[Digest], limits: &Limits) -> Result<Vec<Origin>, LayoutError> {
    same_length("origin_elements", table.origin_elements.len(), "origin_kinds", limits.origins)?;
    same_length("origin_paths", table.origin_paths.len(), "origin_kinds", limits.origins)?;
    let mut rest = table.origin_bases.as_slice();
    let mut derivations = table.origin_derivations.as_slice();
    let mut origins = Vec::with_capacity(limits.origins);
    for ((kind, element), path) in table.origin_kinds.iter().zip(&table.origin_elements).zip(&table.origin_paths) {
        let element = ElementId(row("origin_elements", *element, limits.elements)?);
        let path = PathId(row("origin_paths", *path, limits.paths)?);
        origins.push(match kind {
            0 => Origin::Source { element, path },
            1 => Origin::Artifact { element, path },
            2 => {
                let base = take("origin_bases", &mut rest, 1)?[0];
                Origin::Action { element, base: bases[row("origin_bases", base, bases.len())? as usize], path }
            }
            3 => {
                let derivation = take("origin_derivations", &mut derivations, 1)?[0];
                Origin::Derived(DerivationId(row("origin_derivations", derivation, limits.derivations)?))
            }
            other => return Err(inconsistent(format!("unknown kind of origin {other}"))),
        });
    }
    spent("origin_bases", rest)?;
    spent("origin_derivations", derivations)?;
    Ok(origins)
}

fn decode_inputs(
    table: &bst_sa::Record,
    function: DigestFunction,
    paths: &Paths,
    origins: &[Origin],
    limits: &Limits,
) -> Result<Vec<Input>, LayoutError> {
    same_length("input_origin_counts", table.input_origin_counts.len(), "input_kinds", limits.inputs)?;
    let mut digests =
        Digests { column: "input_hashes", function, hashes: &table.input_hashes, sizes: &table.input_sizes };
    let mut stamps = &table.input_stamps[..];
    let mut targets = table.input_targets.as_slice();
    let mut rest = table.input_origins.as_slice();
    let mut inputs = Vec::with_capacity(limits.inputs);
    for (kind, count) in table.input_kinds.iter().zip(&table.input_origin_counts) {
        let mut stamp = |kind| {
            let (hash, rest) = stamps.split_first_chunk().ok_or_else(|| inconsistent("input_stamps ends too early"))?;
            stamps = rest;
            Ok(Recorded::Stamp(Stamp::new(kind, *hash)))
        };
        let recorded = match kind {
            0 | 1 => Node::File { digest: digests.next()?, executable: *kind == 1 }.into(),
            2 => Node::Directory { digest: digests.next()? }.into(),
            3 => {
                let name = take("input_targets", &mut targets, 1)?[0];
                Node::Symlink { target: paths.name(NameId(row("input_targets", name, limits.names)?)).clone() }.into()
            }
            4 => stamp(NodeKind::File)?,
            5 => stamp(NodeKind::Executable)?,
            6 => stamp(NodeKind::Directory)?,
            other => return Err(inconsistent(format!("unknown kind of input {other}"))),
        };
        if *count == 0 {
            return Err(inconsistent("an input has no origin"));
        }
        let ids = take("input_origins", &mut rest, *count)?;
        let ids = ids.iter().map(|id| row("input_origins", *id, origins.len()).map(OriginId));
        inputs.push(Input { recorded, origins: ids.collect::<Result<_, _>>()? });
    }
    digests.end()?;
    spent("input_stamps", stamps)?;
    spent("input_targets", targets)?;
    spent("input_origins", rest)?;
    Ok(inputs)
}

fn decode_derivations(
    table: &bst_sa::Record,
    origins: &[Origin],
    inputs: &[Input],
    limits: &Limits,
) -> Result<Vec<Derivation>, LayoutError> {
    let counts = &table.derivation_input_counts;
    same_length("derivation_input_counts", counts.len(), "derivation_kinds", limits.derivations)?;
    let mut names = table.derivation_names.as_slice();
    let mut rest = table.derivation_inputs.as_slice();
    let mut derivations = Vec::with_capacity(limits.derivations);
    let mut depths: Vec<usize> = Vec::with_capacity(limits.derivations);
    for (own, (kind, count)) in table.derivation_kinds.iter().zip(counts).enumerate() {
        let mut of = Vec::new();
        let mut depth = 0;
        for input in take("derivation_inputs", &mut rest, *count)? {
            let input = InputId(row("derivation_inputs", *input, inputs.len())?);
            for origin in &inputs[input.index()].origins {
                let Origin::Derived(below) = origins[origin.index()] else { continue };
                let Some(below) = depths.get(below.index()) else {
                    return Err(inconsistent(format!("derivation {own} refers to itself or a later one")));
                };
                depth = depth.max(below + 1);
            }
            of.push(input);
        }
        if depth > MAX_DERIVATION_DEPTH {
            return Err(inconsistent(format!("derivation {own} is {depth} levels of derivations deep")));
        }
        depths.push(depth);
        let making = match kind {
            0 => Making::Merge,
            1 => {
                let members = take("derivation_names", &mut names, *count)?.iter();
                let members = members.map(|name| row("derivation_names", *name, limits.names).map(NameId));
                Making::Archive(members.collect::<Result<_, _>>()?)
            }
            2 => Making::Locally,
            other => return Err(inconsistent(format!("unknown kind of derivation {other}"))),
        };
        derivations.push(Derivation { making, of });
    }
    spent("derivation_inputs", rest)?;
    spent("derivation_names", names)?;
    Ok(derivations)
}

fn decode_levels(table: &bst_sa::Record, paths: &Paths, limits: &Limits) -> Result<Levels, LayoutError> {
    same_length("level_entries", table.level_entries.len(), "level_entry_names", table.level_entry_names.len())?;
    let mut names = table.level_entry_names.as_slice();
    let mut targets = table.level_entries.as_slice();
    let mut levels = Levels::with_capacity(table.level_entry_counts.len(), table.level_entries.len());
    // There are hundreds of entries for each name: what is to be known of names is found out once.
    let (ranks, are_segments) = (paths.name_ranks(), are_segments(paths));
    let mut entries: Vec<(NameId, Below)> = Vec::new();
    for count in &table.level_entry_counts {
        let own = levels.len();
        entries.clear();
        let mut least = 0;
        let names = take("level_entry_names", &mut names, *count)?;
        for (name, target) in names.iter().zip(take("level_entries", &mut targets, *count)?) {
            let name = NameId(row("level_entry_names", *name, limits.names)?);
            if !are_segments[name.0 as usize] {
                check_segment(paths.name(name))?;
            }
            let rank = ranks[name.0 as usize];
            if rank < least {
                return Err(inconsistent(format!("the names of level {own} are not sorted")));
            }
            least = rank + 1;
            let below = if target & 1 == 0 {
                Below::Input(InputId(row("level_entries", target >> 1, limits.inputs)?))
            } else {
                let back = (target >> 1) as usize;
                let child = own.checked_sub(back).filter(|_| back > 0);
                let child = child.ok_or_else(|| inconsistent(format!("level {own} refers {back} levels back")))?;
                Below::Level(LevelId(index(child)))
            };
            entries.push((name, below));
        }
        levels.push(entries.iter().copied());
    }
    spent("level_entries", targets)?;
    Ok(levels)
}

fn decode_actions(
    table: &bst_sa::Record,
    bases: &[Digest],
    inputs: &[Input],
    levels: usize,
    limits: &Limits,
) -> Result<Vec<RecordedAction>, LayoutError> {
    for (column, len) in [
        ("action_elements", table.action_elements.len()),
        ("action_roots", table.action_roots.len()),
        ("action_durations", table.action_durations.len()),
        ("action_output_bytes", table.action_output_bytes.len()),
        ("action_property_counts", table.action_property_counts.len()),
    ] {
        same_length(column, len, "actions", bases.len())?;
    }
    // Absent in messages of before there were conditions.
    let no_conditions = table.action_condition_counts.is_empty();
    if !no_conditions {
        same_length("action_condition_counts", table.action_condition_counts.len(), "actions", bases.len())?;
    }
    let mut conditions = table.action_conditions.as_slice();
    same_length("property_inputs", table.property_inputs.len(), "property_names", table.property_names.len())?;
    let mut names = table.property_names.as_slice();
    let mut values = table.property_inputs.as_slice();
    let mut actions = Vec::with_capacity(bases.len());
    for (i, base) in bases.iter().enumerate() {
        let count = table.action_property_counts[i];
        let mut properties = Vec::new();
        for (name, input) in
            take("property_names", &mut names, count)?.iter().zip(take("property_inputs", &mut values, count)?)
        {
            let input = InputId(row("property_inputs", *input, inputs.len())?);
            if !matches!(inputs[input.index()].recorded, Recorded::Whole(Node::Directory { .. })) {
                return Err(inconsistent(format!("a property of action {i} is not a directory")));
            }
            properties.push(PropertyInput { name: NameId(row("property_names", *name, limits.names)?), input });
        }
        let count = if no_conditions { 0 } else { table.action_condition_counts[i] };
        let rows = take("action_conditions", &mut conditions, count)?.iter();
        let rows = rows.map(|id| row("action_conditions", *id, inputs.len()).map(InputId));
        let conditions_of = rows.collect::<Result<_, _>>()?;
        let root = match table.action_roots[i].checked_sub(1) {
            Some(level) => Some(LevelId(row("action_roots", level, levels)?)),
            None => None,
        };
        actions.push(RecordedAction {
            element: ElementId(row("action_elements", table.action_elements[i], limits.elements)?),
            base: *base,
            root,
            properties,
            conditions: conditions_of,
            duration: table.action_durations[i].checked_sub(1).map(Duration::from_millis),
            output_bytes: table.action_output_bytes[i].checked_sub(1),
        });
    }
    spent("property_names", names)?;
    spent("action_conditions", conditions)?;
    Ok(actions)
}
