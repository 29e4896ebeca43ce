//! What inputs are now, as compactly as looking at all of them many times over asks for.

use reapi_proto::raw::Node;
use rustc_hash::FxHashMap;

use crate::model::InputId;

pub(super) const CHANGED: u8 = 1;
pub(super) const UNKNOWN: u8 = 2;
pub(super) const GUESS: u8 = 4;
pub(super) const LOST: u8 = 8;
pub(super) const ANYTHING: u8 = CHANGED | UNKNOWN | GUESS | LOST;

/// What an input is now, after its origins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum InputState {
    Unknown,
    Lost,
    Same { guess: bool },
    Changed { node: Option<Node>, guess: bool },
}

/// How the state of an input has changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Difference {
    /// A guess has come true, or what was certain is a guess now. What is made of the input stays.
    Certainty,
    /// It is something else, or known for the first time, or not any more.
    Value,
}

impl Difference {
    /// One of a set of them.
    pub(super) const fn bit(self) -> u8 {
        match self {
            Self::Certainty => 1,
            Self::Value => 2,
        }
    }
}

/// The states of all inputs: a byte for each, and the nodes of the few that have changed.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    flags: Vec<u8>,
    /// What stands where something has changed; `None` for nothing.
    now: FxHashMap<InputId, Option<Node>>,
}

impl Inputs {
    /// All unknown.
    pub(super) fn new(len: usize) -> Self {
        Self { flags: vec![UNKNOWN; len], now: FxHashMap::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.flags.len()
    }

    pub(super) fn flags(&self, id: InputId) -> u8 {
        self.flags[id.index()]
    }

    /// What stands there now, if that is not what was recorded.
    pub(super) fn changed(&self, id: InputId) -> Option<Option<&Node>> {
        if self.flags(id) & CHANGED == 0 {
            return None;
        }
        self.now.get(&id).map(Option::as_ref)
    }

    /// Says how the input was in another state before, if it was.
    pub(super) fn set(&mut self, id: InputId, state: InputState) -> Option<Difference> {
        let guess = |guess| if guess { GUESS } else { 0 };
        let (flags, node) = match state {
            InputState::Unknown => (UNKNOWN, None),
            InputState::Lost => (LOST, None),
            InputState::Same { guess: g } => (guess(g), None),
            InputState::Changed { node, guess: g } => (CHANGED | guess(g), Some(node)),
        };
        let old = std::mem::replace(&mut self.flags[id.index()], flags);
        let same_node = match node {
            Some(node) => {
                let before = self.now.insert(id, node);
                before.as_ref() == self.now.get(&id)
            }
            None => old & CHANGED == 0 || self.now.remove(&id).is_none(),
        };
        match () {
            () if !same_node || (old ^ flags) & !GUESS != 0 => Some(Difference::Value),
            () if old != flags => Some(Difference::Certainty),
            () => None,
        }
    }
}
