//! Who refers to what: a record's references, reversed.

use crate::model::{ActionId, Below, InputId, LevelId, Record};
use crate::path::index;

/// A list for each row of a table, all of them end to end.
#[derive(Debug, Default)]
pub(super) struct Lists<T> {
    ends: Vec<u32>,
    items: Vec<T>,
}

impl<T: Copy> Lists<T> {
    /// The lists of `rows` rows. `each` names every row with one of its items; it is called twice, for the
    /// same pairs in the same order.
    pub(super) fn of(rows: usize, each: impl Fn(&mut dyn FnMut(usize, T))) -> Self {
        let mut starts = vec![0_u32; rows + 1];
        let mut first = None;
        each(&mut |row, item| {
            starts[row + 1] += 1;
            first.get_or_insert(item);
        });
        for row in 0..rows {
            starts[row + 1] += starts[row];
        }
        let Some(first) = first else { return Self { ends: vec![0; rows], items: Vec::new() } };
        let mut items = vec![first; starts[rows] as usize];
        each(&mut |row, item| {
            items[starts[row] as usize] = item;
            starts[row] += 1;
        });
        // Every start has moved to the end of its list.
        starts.pop();
        Self { ends: starts, items }
    }

    pub(super) fn get(&self, row: usize) -> &[T] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.items[start as usize..self.ends[row] as usize]
    }
}

/// The inputs of each origin.
pub(super) fn origin_inputs(record: &Record) -> Lists<InputId> {
    Lists::of(record.origins.len(), |pair| {
        for (row, input) in record.inputs.iter().enumerate() {
            for origin in &input.origins {
                pair(origin.index(), InputId(index(row)));
            }
        }
    })
}

/// The ways from an input up to actions.
#[derive(Debug)]
pub(super) struct Uses {
    pub(super) input_levels: Lists<LevelId>,
    pub(super) level_parents: Lists<LevelId>,
    pub(super) root_actions: Lists<ActionId>,
    /// By platform property or condition.
    pub(super) property_actions: Lists<ActionId>,
}

impl Uses {
    pub(super) fn of(record: &Record) -> Self {
        let (inputs, levels) = (record.inputs.len(), record.levels.len());
        let rows = || (0..index(levels)).map(LevelId).zip(record.levels.iter());
        Self {
            input_levels: Lists::of(inputs, |pair| {
                for (row, entries) in rows() {
                    for (_, below) in entries {
                        if let Below::Input(input) = below {
                            pair(input.index(), row);
                        }
                    }
                }
            }),
            level_parents: Lists::of(levels, |pair| {
                for (row, entries) in rows() {
                    for (_, below) in entries {
                        if let Below::Level(level) = below {
                            pair(level.index(), row);
                        }
                    }
                }
            }),
            root_actions: Lists::of(levels, |pair| {
                for id in record.action_ids() {
                    if let Some(level) = record.action(id).root {
                        pair(level.index(), id);
                    }
                }
            }),
            property_actions: property_actions(record),
        }
    }
}

/// The actions that an input is a platform property or a condition of.
pub(super) fn property_actions(record: &Record) -> Lists<ActionId> {
    Lists::of(record.inputs.len(), |pair| {
        for id in record.action_ids() {
            let action = record.action(id);
            for property in &action.properties {
                pair(property.input.index(), id);
            }
            for condition in &action.conditions {
                pair(condition.index(), id);
            }
        }
    })
}
