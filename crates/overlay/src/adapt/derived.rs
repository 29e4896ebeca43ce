//! What is made of other inputs without an action, between two builds.

use std::collections::BTreeSet;
use std::sync::Arc;

use reapi_proto::raw::Node;
use rustc_hash::FxHashMap;

use super::inputs::{CHANGED, Difference, GUESS, LOST, UNKNOWN};
use super::{Adaptation, Now};
use crate::model::{ActionId, DerivationId, InputId, Making, Origin, OriginId, Record};

/// Something that is made of changed inputs, and has to be made anew before
/// actions that use it can be adapted: see [`Adaptation::take_demands`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Demand {
    /// How it is made, and what of.
    pub derivation: DerivationId,
    /// What stands now where the derivation's inputs stood, in their order.
    pub of: Vec<Node>,
}

/// What is made of other inputs, row by row of the derivations.
#[derive(Debug)]
pub(super) struct Derived {
    /// The derivations that an input is part of.
    pub(super) uses: FxHashMap<InputId, Vec<DerivationId>>,
    /// The origin that stands for each.
    origins: Vec<Option<OriginId>>,
    /// Whether any part is known from an origin that is not its authority.
    pub(super) guess: Vec<bool>,
    /// What was demanded last, and what came of it.
    answers: Vec<Option<(Vec<Node>, Now)>>,
    demands: Vec<Demand>,
}

impl Derived {
    pub(super) fn of(record: &Record) -> Self {
        let mut uses: FxHashMap<InputId, Vec<DerivationId>> = FxHashMap::default();
        for (row, derivation) in record.derivations.iter().enumerate() {
            for input in &derivation.of {
                uses.entry(*input).or_default().push(DerivationId(crate::path::index(row)));
            }
        }
        let rows = record.derivations.len();
        let mut origins = vec![None; rows];
        for (id, origin) in record.origin_ids() {
            if let Origin::Derived(derivation) = origin {
                origins[derivation.index()] = Some(id);
            }
        }
        Self { uses, origins, guess: vec![false; rows], answers: vec![None; rows], demands: Vec::new() }
    }
}

impl Adaptation {
    /// What has to be made anew, since the last call. To be answered with
    /// [`answer`](Self::answer); a later demand for the same derivation replaces an earlier one.
    pub fn take_demands(&mut self) -> Vec<Demand> {
        std::mem::take(&mut self.derived.demands)
    }

    /// What a demand came to: [`Now::Is`] what was made, or [`Now::Lost`].
    /// Returns what [`settle`](Self::settle) does. An answer to a demand that
    /// was replaced since is ignored.
    pub fn answer(&mut self, demand: &Demand, now: Now) -> Vec<ActionId> {
        let row = demand.derivation.index();
        match &mut self.derived.answers[row] {
            Some((of, answer)) if *of == demand.of => *answer = now,
            _ => return Vec::new(),
        }
        let changed = self.derive(BTreeSet::from([demand.derivation]));
        self.spread(&changed)
    }

    /// What has changed of what is made locally there.
    pub(super) fn changed_part(&self, origin: OriginId) -> Option<OriginId> {
        let Origin::Derived(id) = self.record.origin(origin) else { return None };
        let of = &self.record.derivation(*id).of;
        if let Some(part) = of.iter().find(|input| self.inputs.flags(**input) & CHANGED != 0) {
            return self.authority(*part);
        }
        let lost = of.iter().find(|input| self.inputs.flags(**input) & LOST != 0)?;
        let origin = self.authority(*lost)?;
        self.changed_part(origin).or(Some(origin))
    }

    /// Judges derivations, and what is made of them in turn: parts have
    /// earlier rows. Returns the inputs that are not as before.
    pub(super) fn derive(&mut self, mut pending: BTreeSet<DerivationId>) -> Vec<(InputId, Difference)> {
        let mut changed = Vec::new();
        while let Some(id) = pending.pop_first() {
            let Some(origin) = self.derived.origins[id.index()] else { continue };
            let (now, guess) = self.judge_derivation(id);
            let same_guess = std::mem::replace(&mut self.derived.guess[id.index()], guess) == guess;
            if std::mem::replace(&mut self.origins[origin.index()], now.clone()) == now && same_guess {
                continue;
            }
            let inputs = self.origin_inputs.get(origin.index()).to_vec();
            for (input, difference) in self.judge_inputs(inputs) {
                pending.extend(self.derived.uses.get(&input).into_iter().flatten());
                changed.push((input, difference));
            }
        }
        changed
    }

    fn judge_derivation(&mut self, id: DerivationId) -> (Now, bool) {
        let record = Arc::clone(&self.record);
        let derivation = record.derivation(id);
        let flags = derivation.of.iter().fold(0, |flags, input| flags | self.inputs.flags(*input));
        let guess = flags & GUESS != 0;
        if flags & LOST != 0 {
            return (Now::Lost, guess);
        }
        // One part that has changed decides, whatever becomes of the others.
        if flags & CHANGED != 0 && derivation.making == Making::Locally {
            return (Now::Lost, guess);
        }
        if flags & UNKNOWN != 0 {
            return (Now::Unknown, guess);
        }
        if flags & CHANGED == 0 {
            return (Now::AsRecorded, guess);
        }
        let mut of = Vec::with_capacity(derivation.of.len());
        for input in &derivation.of {
            match self.inputs.changed(*input) {
                Some(Some(node)) => of.push(node.clone()),
                Some(None) => return (Now::Lost, guess),
                None => match record.input(*input).recorded.whole() {
                    Some(node) => of.push(node.clone()),
                    None => return (Now::Lost, guess),
                },
            }
        }
        if let Some((known, answer)) = &self.derived.answers[id.index()]
            && *known == of
        {
            return (answer.clone(), guess);
        }
        self.derived.answers[id.index()] = Some((of.clone(), Now::Unknown));
        self.derived.demands.retain(|demand| demand.derivation != id);
        self.derived.demands.push(Demand { derivation: id, of });
        (Now::Unknown, guess)
    }
}
