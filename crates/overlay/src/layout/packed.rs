//! Tables made small: every number is told by those before it, and the whole is deflated.
//!
//! Rows are numbered in order of first use, so that a reference is most often one more than the one before it, and
//! what a name of a level leads to is most often one of the few things that the same name has led to before. Hashes
//! stay as they are: nothing makes them smaller.

use std::collections::hash_map::Entry;
use std::mem::take;

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;
use prost::Message;
use reapi_proto::bst_sa;
use rustc_hash::FxHashMap;

use super::LayoutError;
use super::compact::{inconsistent, spent};

/// The level of deflate. The large workload's tables have 1.4 MB, of which it leaves 340 kB; the fastest level would
/// leave 450 kB, for two fifths of the instructions.
const DEFLATE: u8 = 3;

/// Deflate without any attempt to make things smaller.
const STORE: u8 = 0;

/// How much larger than the stored bytes the tables may be: those of workloads are four times as large.
const MAX_RATIO: usize = 32;

/// So large may the tables be in any case.
const ALWAYS_BYTES: usize = 64 << 10;

/// So large may they never be: their rows take some ten times as much.
const MAX_BYTES: usize = 256 << 20;

/// An entry that leads to the next of `level_inputs`; also what marks an entry that leads to an input in the tables.
const NEW_INPUT: u32 = 0;

/// An entry that leads to the next of `level_levels`; also what marks an entry that leads to a level in the tables.
const NEW_LEVEL: u32 = 1;

/// An entry that leads to the first thing that its name has led to.
const FIRST_KNOWN: u32 = 2;

fn limit(packed: usize) -> usize {
    packed.saturating_mul(MAX_RATIO).saturating_add(ALWAYS_BYTES).min(MAX_BYTES)
}

/// The message that stands for tables: they themselves are inside.
pub(super) fn pack(mut table: bst_sa::Record) -> bst_sa::Record {
    let mut envelope = bst_sa::Record {
        base_hashes: take(&mut table.base_hashes),
        input_hashes: take(&mut table.input_hashes),
        input_stamps: take(&mut table.input_stamps),
        ..Default::default()
    };
    pack_levels(&mut table);
    for column in ascending(&mut table) {
        let mut before = 0;
        for value in column {
            let difference = value.wrapping_sub(before).cast_signed();
            before = *value;
            *value = ((difference << 1) ^ (difference >> 31)).cast_unsigned();
        }
    }
    let bytes = table.encode_to_vec();
    let mut packed = compress_to_vec(&bytes, DEFLATE);
    if bytes.len() > limit(packed.len()) {
        packed = compress_to_vec(&bytes, STORE);
    }
    envelope.packed = packed.into();
    envelope
}

/// The tables that were [packed](pack).
pub(super) fn unpack(envelope: bst_sa::Record) -> Result<bst_sa::Record, LayoutError> {
    let bytes = decompress_to_vec_with_limit(&envelope.packed, limit(envelope.packed.len()))
        .map_err(|error| LayoutError::Malformed(format!("its tables: {error}")))?;
    let mut table =
        bst_sa::Record::decode(&bytes[..]).map_err(|e| LayoutError::Malformed(format!("its tables: {e}")))?;
    table.base_hashes = envelope.base_hashes;
    table.input_hashes = envelope.input_hashes;
    table.input_stamps = envelope.input_stamps;
    for column in ascending(&mut table) {
        let mut before = 0_u32;
        for value in column {
            let difference = (*value >> 1) ^ 0_u32.wrapping_sub(*value & 1);
            before = before.wrapping_add(difference);
            *value = before;
        }
    }
    unpack_levels(&mut table)?;
    Ok(table)
}

/// The columns whose values hardly differ from the one before, and are stored as that difference: even for what is
/// larger, odd for what is smaller.
fn ascending(table: &mut bst_sa::Record) -> [&mut Vec<u32>; 9] {
    [
        &mut table.path_parents,
        &mut table.origin_paths,
        &mut table.origin_bases,
        &mut table.input_origins,
        &mut table.level_inputs,
        &mut table.action_roots,
        &mut table.artifact_paths,
        &mut table.artifact_origins,
        &mut table.derivation_inputs,
    ]
}

/// Replaces what entries of levels lead to by its place among the things that their names have led to, from
/// [`FIRST_KNOWN`]. What a name leads to for the first time is [`NEW_INPUT`] or [`NEW_LEVEL`] and stands in a column of its own.
fn pack_levels(table: &mut bst_sa::Record) {
    let mut places: FxHashMap<(u32, u32), u32> = FxHashMap::default();
    let mut next: FxHashMap<u32, u32> = FxHashMap::default();
    let mut entries = table.level_entry_names.iter().zip(&mut table.level_entries);
    for (own, count) in (0..).zip(&table.level_entry_counts) {
        for (name, entry) in entries.by_ref().take(*count as usize) {
            let distance = *entry >> 1;
            let (column, code, target) = match *entry & 1 {
                NEW_INPUT => (&mut table.level_inputs, NEW_INPUT, *entry),
                _ => (&mut table.level_levels, NEW_LEVEL, ((own - distance) << 1) | NEW_LEVEL),
            };
            *entry = match places.entry((*name, target)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    let next = next.entry(*name).or_insert(FIRST_KNOWN);
                    new.insert(*next);
                    *next += 1;
                    column.push(distance);
                    code
                }
            };
        }
    }
}

fn unpack_levels(table: &mut bst_sa::Record) -> Result<(), LayoutError> {
    let mut known: Vec<Vec<u32>> = vec![Vec::new(); table.names.len() + 1];
    let (mut inputs, mut levels) = (table.level_inputs.iter(), table.level_levels.iter());
    let mut entries = table.level_entry_names.iter().zip(&mut table.level_entries);
    for (own, count) in (0_u32..).zip(&table.level_entry_counts) {
        for (name, entry) in entries.by_ref().take(*count as usize) {
            let known = known.get_mut(*name as usize);
            let known = known.ok_or_else(|| inconsistent(format!("level_entry_names refers to row {name}")))?;
            let target = match *entry {
                NEW_INPUT => inputs.next().map(|input| input << 1),
                NEW_LEVEL => levels.next().map(|distance| (own.wrapping_sub(*distance) << 1) | NEW_LEVEL),
                place => known.get((place - FIRST_KNOWN) as usize).copied(),
            };
            let target = target.ok_or_else(|| inconsistent(format!("an entry of level {own} leads nowhere")))?;
            if *entry < FIRST_KNOWN {
                known.push(target);
            }
            *entry = match target & 1 {
                NEW_INPUT => target,
                _ => (own.wrapping_sub(target >> 1) << 1) | NEW_LEVEL,
            };
        }
    }
    spent("level_inputs", inputs.as_slice())?;
    spent("level_levels", levels.as_slice())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Levels of any shape, each entry leading to an input or to an earlier level, and values in other columns.
    fn tables() -> impl Strategy<Value = bst_sa::Record> {
        let entry = (0..9_u32, any::<bool>(), 0..40_u32);
        let levels = vec(vec(entry, 0..6), 0..30);
        (levels, vec(any::<u32>(), 0..20), vec(any::<u8>(), 0..100)).prop_map(|(levels, values, hashes)| {
            let mut table = bst_sa::Record { names: vec![bytes::Bytes::new(); 8], ..Default::default() };
            for (own, entries) in (0..).zip(levels) {
                table.level_entry_counts.push(u32::try_from(entries.len()).unwrap());
                for (name, to_level, to) in entries {
                    table.level_entry_names.push(name);
                    table.level_entries.push(if to_level && own > 0 { (to % own + 1) << 1 | 1 } else { to << 1 });
                }
            }
            table.origin_paths = values.clone();
            table.action_roots = values.clone();
            table.path_names = values;
            table.input_stamps = hashes.clone().into();
            table.base_hashes = hashes.into();
            table
        })
    }

    proptest! {
        #[test]
        fn unpacking_gives_back_what_was_packed(table in tables()) {
            let mut unpacked = unpack(pack(table.clone())).unwrap();
            unpacked.level_inputs.clear();
            unpacked.level_levels.clear();
            prop_assert_eq!(unpacked, table);
        }

        #[test]
        fn no_bytes_panic(packed in vec(any::<u8>(), 0..300), deflated: bool) {
            let packed = if deflated { compress_to_vec(&packed, DEFLATE) } else { packed };
            let _ = unpack(bst_sa::Record { packed: packed.into(), ..Default::default() });
        }

        #[test]
        fn no_tables_panic(
            counts in vec(0..9_u32, 0..20), names in vec(0..9_u32, 0..60), entries in vec(0..9_u32, 0..60),
            inputs in vec(any::<u32>(), 0..60), levels in vec(any::<u32>(), 0..60),
        ) {
            let table = bst_sa::Record {
                names: vec![bytes::Bytes::new(); 8],
                level_entry_counts: counts,
                level_entry_names: names,
                level_entries: entries,
                level_inputs: inputs,
                level_levels: levels,
                ..Default::default()
            };
            let _ = unpack_levels(&mut table.clone());
            let packed = compress_to_vec(&table.encode_to_vec(), DEFLATE).into();
            let _ = unpack(bst_sa::Record { packed, ..Default::default() });
        }
    }

    #[test]
    fn tables_out_of_proportion_are_refused_and_not_written() {
        let table = bst_sa::Record { action_durations: vec![0; 4 << 20], ..Default::default() };
        let bomb = compress_to_vec(&table.encode_to_vec(), DEFLATE);
        assert!(bomb.len() < 50_000);
        let refused = unpack(bst_sa::Record { packed: bomb.into(), ..Default::default() });
        assert!(matches!(refused, Err(LayoutError::Malformed(_))), "{refused:?}");
        assert_eq!(unpack(pack(table.clone())), Ok(table));
    }
}
