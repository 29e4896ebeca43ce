//! Rows for origins and inputs.

use reapi_proto::raw::Node;

use super::{Deriver, Mode};
use crate::model::{Derivation, DerivationId, ElementId, Input, InputId, Origin, OriginId, Record};
use crate::path::{PathId, index};

impl Deriver {
    pub(super) fn origin_id(&mut self, origin: Origin) -> OriginId {
        let Self { origin_ids, record, .. } = self;
        *origin_ids.entry(origin).or_insert_with(|| {
            record.origins.push(origin);
            OriginId(index(record.origins.len() - 1))
        })
    }

    /// The row of what stands at `path`; its origins are put in order.
    pub(super) fn input_id(&mut self, path: PathId, recorded: Node, mut origins: Vec<OriginId>) -> InputId {
        let Self { input_ids, record, .. } = self;
        *input_ids.entry((path, recorded.clone())).or_insert_with(|| {
            sort_origins(&record.origins, &mut origins);
            record.inputs.push(Input { recorded: recorded.into(), origins });
            InputId(index(record.inputs.len() - 1))
        })
    }

    /// The row of something that stands in no input tree.
    pub(super) fn new_input(&mut self, recorded: Node, origin: OriginId) -> InputId {
        self.record.inputs.push(Input { recorded: recorded.into(), origins: vec![origin] });
        InputId(index(self.record.inputs.len() - 1))
    }

    /// The origin of what is made so.
    pub(super) fn derived(&mut self, derivation: Derivation) -> OriginId {
        self.record.derivations.push(derivation);
        self.origin_id(Origin::Derived(DerivationId(index(self.record.derivations.len() - 1))))
    }

    /// The same origin in this record's rows; `None` where the mode does not record such origins.
    pub(super) fn adopt(&mut self, from: &Record, owner: ElementId, origin: &Origin) -> Option<OriginId> {
        let element = match origin.element() {
            ElementId::SELF => owner,
            other => self.element_id(&from.element(other).name),
        };
        let path = self.record.paths.intern(&from.paths.bytes(origin.path()));
        let adopted = match origin {
            Origin::Source { .. } => Origin::Source { element, path },
            Origin::Artifact { .. } => Origin::Artifact { element, path },
            Origin::Action { .. } if self.mode < Mode::Full => return None,
            Origin::Action { base, .. } => Origin::Action { element, base: *base, path },
            // What it is made of would have to come along; the artifact says it in time.
            Origin::Derived(_) => return None,
        };
        Some(self.origin_id(adopted))
    }
}

/// The authoritative origin first, the others by rank; equal ones once.
pub(crate) fn sort_origins(table: &[Origin], origins: &mut Vec<OriginId>) {
    origins.sort_by_key(|id| (table[id.index()].rank(), *id));
    origins.dedup();
    if let Some(best) = (0..origins.len()).min_by_key(|&i| table[origins[i].index()].authority()) {
        origins[..=best].rotate_right(1);
    }
}
