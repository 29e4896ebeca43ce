//! Recorded actions adapted to another state of the project are the actions
//! that a build of that state makes, digest for digest, and back again.

mod support;

use std::sync::Arc;

use overlay::layout::{self, ReferenceRecord, Stored};
use overlay::{Adaptation, Now, OriginId, Record, RecordedElement, Standing};
use proptest::prelude::*;
use prost::Message as _;
use reapi_proto::Digest;
use reapi_proto::buildstream::SpeculativeActions;
use rustc_hash::FxHashMap;
use support::world::{Built, Shape, World, adapt_all, all_paths, shape, world};

const DEPS: usize = 2;

fn builds(a: &World, b: &World, shape: &Shape) -> (Built, Built) {
    let paths = all_paths(DEPS);
    (a.build(shape, &paths), b.build(shape, &paths))
}

/// The digests of a build, in the order of the record's actions: an action
/// that ran twice is recorded once.
fn expected(old: &Built, new: &Built) -> Vec<Digest> {
    let mut seen = Vec::new();
    let pairs = old.actions.iter().zip(&new.actions);
    let first = pairs.filter(|(old, _)| {
        let new = !seen.contains(&old.base);
        seen.push(old.base);
        new
    });
    first.map(|(_, new)| new.base).collect()
}

fn check(record: Record, old: &Built, new: &Built) -> Result<(), TestCaseError> {
    let facts = new.facts(&record);
    let adapted = adapt_all(record, old, new, facts);
    let expected: Vec<_> = expected(old, new).into_iter().map(Some).collect();
    prop_assert_eq!(adapted, expected);
    Ok(())
}

/// Inputs that vanish, appear or change kind between the states change the
/// *set* of inputs, which only a look at the includes can predict.
fn same_paths(a: &World, b: &mut World) {
    for (of_a, of_b) in [(&a.own, &mut b.own)].into_iter().chain(a.deps.iter().zip(&mut b.deps)) {
        of_b.retain(|path, _| of_a.contains_key(path));
    }
}

proptest! {
    #[test]
    fn adapting_equals_building(a in world(DEPS), mut b in world(DEPS), shape in shape()) {
        same_paths(&a, &mut b);
        let (a, b) = builds(&a, &b, &shape);
        check(a.record(&[0, 1]), &a, &b)?;
    }

    #[test]
    fn there_and_back_preserves_digests(a in world(DEPS), mut b in world(DEPS), shape in shape()) {
        same_paths(&a, &mut b);
        let mut a = a;
        same_paths(&b, &mut a);
        let (a, b) = builds(&a, &b, &shape);
        check(a.record(&[0, 1]), &a, &b)?;
        check(b.record(&[0, 1]), &b, &a)?;
    }

    #[test]
    fn an_unchanged_project_stays_as_it_is(a in world(DEPS), shape in shape()) {
        let (a, again) = builds(&a, &a, &shape);
        check(a.record(&[0, 1]), &a, &again)?;
    }

    #[test]
    fn order_does_not_matter(
        a in world(DEPS), mut b in world(DEPS), shape in shape(), seed in any::<prop::sample::Selector>(),
    ) {
        same_paths(&a, &mut b);
        let (a, b) = builds(&a, &b, &shape);
        let record = a.record(&[1, 0]);
        // The facts one by one in another order, each in a settlement of its own at the end.
        let mut facts = b.facts(&record);
        facts.sort_by_key(|(id, _)| *id);
        let picked = seed.select(0..=facts.len());
        facts.rotate_left(picked);
        facts.reverse();
        let adapted = adapt_all(record, &a, &b, facts);
        let expected: Vec<_> = expected(&a, &b).into_iter().map(Some).collect();
        prop_assert_eq!(adapted, expected);
    }

    /// Facts that come one by one, and are taken back, lead to where all of them at once do.
    #[test]
    fn what_follows_from_facts_does_not_depend_on_how_they_came(
        a in world(DEPS), mut b in world(DEPS), shape in shape(),
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0..6_u8), 20..80),
    ) {
        same_paths(&a, &mut b);
        let (a, b) = builds(&a, &b, &shape);
        let record = Arc::new(a.record(&[0, 1]));
        let facts: FxHashMap<OriginId, Now> = b.facts(&record).into_iter().collect();
        let origins: Vec<OriginId> = record.origin_ids().map(|(id, _)| id).collect();
        let mut told: FxHashMap<OriginId, Now> = FxHashMap::default();
        let mut one_by_one = Adaptation::new(Arc::clone(&record));
        for (which, what) in steps {
            let origin = origins[which.index(origins.len())];
            let now = match what {
                0 => Now::Unknown,
                1 => Now::AsRecorded,
                2 => Now::Lost,
                3 => Now::Gone,
                _ => facts.get(&origin).cloned().unwrap_or_default(),
            };
            told.insert(origin, now.clone());
            let before: Vec<_> = record.action_ids().map(|action| one_by_one.standing(action)).collect();
            let concerned = one_by_one.settle([(origin, now)]);
            let mut at_once = Adaptation::new(Arc::clone(&record));
            at_once.settle(told.clone());
            for (action, before) in record.action_ids().zip(before) {
                let standing = one_by_one.standing(action);
                prop_assert_eq!(&standing, &at_once.standing(action));
                prop_assert_eq!(one_by_one.changed_root(action), at_once.changed_root(action));
                let settled = |standing: &Standing| !matches!(standing, Standing::Waiting { .. });
                prop_assert!(settled(&standing) == settled(&before) || concerned.contains(&action));
            }
        }
    }

    #[test]
    fn the_compact_layout_keeps_everything(a in world(DEPS), mut b in world(DEPS), shape in shape()) {
        same_paths(&a, &mut b);
        let (a, b) = builds(&a, &b, &shape);
        let record = a.record(&[0, 1]);
        let bytes = layout::encode(&record);
        let Stored::Compact(decoded) = layout::decode(&bytes).unwrap() else { panic!("not compact") };
        prop_assert_eq!(&decoded.elements, &record.elements);
        prop_assert_eq!(&decoded.origins, &record.origins);
        prop_assert_eq!(decoded.inputs.len(), record.inputs.len());
        for (decoded, input) in decoded.inputs.iter().zip(&record.inputs) {
            prop_assert_eq!(&decoded.origins, &input.origins);
            prop_assert!([input.recorded.clone(), input.recorded.shortened()].contains(&decoded.recorded));
        }
        prop_assert!(record.inputs.iter().all(|input| input.recorded.whole().is_some_and(|n| input.recorded.is(n))));
        prop_assert_eq!(&decoded.levels, &record.levels);
        prop_assert_eq!(&decoded.actions, &record.actions);
        prop_assert_eq!(&decoded.artifact_overlays, &record.artifact_overlays);
        prop_assert_eq!(&decoded.weak_key, &record.weak_key);
        prop_assert_eq!(layout::encode(&decoded), bytes);
        check(*decoded, &a, &b)?;
    }

    #[test]
    fn the_reference_layout_is_read_and_written_alike(a in world(DEPS), shape in shape()) {
        let (a, again) = builds(&a, &a, &shape);
        let reference = ReferenceRecord::from_record(&a.record(&[0, 1]), &a.forest);
        let bytes = reference.encode();
        let Stored::Reference(decoded) = layout::decode(&bytes).unwrap() else { panic!("not the reference layout") };
        prop_assert_eq!(&decoded, &reference);
        prop_assert_eq!(decoded.encode(), bytes);
        // It knows no paths, but in an unchanged project that does not matter.
        let actions: FxHashMap<_, _> = a.actions.iter().map(|o| (o.base, o.action.clone())).collect();
        let element = RecordedElement { name: "app.bst".into(), sources: Some(a.own_sources), artifact: None };
        let upgraded = decoded.upgrade(element, &actions, &a.forest);
        prop_assert!(upgraded.skipped.is_empty());
        check(upgraded.record, &a, &again)?;
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = layout::decode(&bytes);
    }

    #[test]
    fn no_damaged_message_panics(
        a in world(DEPS), shape in shape(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), outside: bool,
    ) {
        let (a, again) = builds(&a, &a, &shape);
        let bytes = layout::encode(&a.record(&[0, 1]));
        let mut message = SpeculativeActions::decode(bytes).unwrap();
        let compact = message.compact.as_mut().unwrap();
        // Inside, too: nothing else comes as far as the tables.
        let mut tables = miniz_oxide::inflate::decompress_to_vec(&compact.packed).unwrap();
        for (at, value) in &damage {
            let at = at.index(tables.len());
            tables[at] = *value;
        }
        compact.packed = miniz_oxide::deflate::compress_to_vec(&tables, 1).into();
        let mut bytes = message.encode_to_vec();
        if outside {
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        if let Ok(Stored::Compact(record)) = layout::decode(&bytes) {
            let facts = again.facts(&record);
            let mut adaptation = Adaptation::new(Arc::new(*record));
            adaptation.settle(facts);
            for id in adaptation.record().clone().action_ids() {
                let _ = adaptation.standing(id);
                if let Some(observed) = a.actions.iter().find(|o| o.base == adaptation.record().action(id).base) {
                    let _ = adaptation.adapt(id, &observed.action, Some(&observed.command), &a.forest);
                }
            }
        }
    }
}
