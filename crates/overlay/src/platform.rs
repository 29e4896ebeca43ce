//! Platforms that are made of other elements now.

use reapi_proto::raw::Node;

use crate::model::{
    Derivation, DerivationId, ElementId, Input, InputId, Making, Origin, OriginId, Record, RecordedElement,
};
use crate::path::{PathId, index};

impl Record {
    /// The record with its platform properties taken to be unions of these
    /// elements' artifacts, each list in staging order; `None` where they are that already.
    ///
    /// A property whose elements are among the lists stays. Of several lists,
    /// the one that has most elements in common with the recorded ones takes their place.
    #[must_use]
    pub fn with_platforms(&self, platforms: &[Vec<&str>]) -> Option<Self> {
        let mut properties: Vec<InputId> = self.actions.iter().flat_map(|a| &a.properties).map(|p| p.input).collect();
        properties.sort_unstable();
        properties.dedup();
        let mut changed: Option<Self> = None;
        for input in properties {
            let Some(recorded) = self.platform_of(input) else { continue };
            if recorded.is_empty() || platforms.contains(&recorded) {
                continue;
            }
            let common = |now: &&Vec<&str>| now.iter().filter(|name| recorded.contains(name)).count();
            let Some(now) = platforms.iter().filter(|now| common(now) > 0).max_by_key(common) else { continue };
            changed.get_or_insert_with(|| self.clone()).regroup(input, now);
        }
        changed
    }

    /// The elements whose artifacts a property is the union of.
    fn platform_of(&self, input: InputId) -> Option<Vec<&str>> {
        let part = |input: &InputId| match self.origin(*self.input(*input).origins.first()?) {
            Origin::Artifact { element, path: PathId::ROOT } => Some(self.element(*element).name.as_str()),
            _ => None,
        };
        match self.origin(*self.input(input).origins.first()?) {
            Origin::Derived(id) if self.derivation(*id).making == Making::Merge => {
                self.derivation(*id).of.iter().map(part).collect()
            }
            _ => part(&input).map(|name| vec![name]),
        }
    }

    fn regroup(&mut self, input: InputId, names: &[&str]) {
        let parts: Vec<OriginId> = names.iter().map(|name| self.whole_artifact(name)).collect();
        let origin = match parts.as_slice() {
            [only] => *only,
            _ => {
                // Nothing of it is as it was: the union has to be made, whatever became of its parts.
                let empty = Node::Directory { digest: self.digest_function.empty() };
                let of = parts.into_iter().map(|origin| {
                    self.inputs.push(Input { recorded: empty.clone().into(), origins: vec![origin] });
                    InputId(index(self.inputs.len() - 1))
                });
                let of = of.collect();
                self.derivations.push(Derivation { making: Making::Merge, of });
                self.origins.push(Origin::Derived(DerivationId(index(self.derivations.len() - 1))));
                OriginId(index(self.origins.len() - 1))
            }
        };
        self.inputs[input.index()].origins = vec![origin];
    }

    /// The origin that is an element's whole artifact, which from now on is not taken to be as recorded.
    fn whole_artifact(&mut self, name: &str) -> OriginId {
        let known = self.elements.iter().position(|element| element.name == name);
        let row = known.unwrap_or_else(|| {
            self.elements.push(RecordedElement { name: name.to_owned(), sources: None, artifact: None });
            self.elements.len() - 1
        });
        self.elements[row].artifact = None;
        let wanted = Origin::Artifact { element: ElementId(index(row)), path: PathId::ROOT };
        let known = self.origins.iter().position(|origin| *origin == wanted);
        let row = known.unwrap_or_else(|| {
            self.origins.push(wanted);
            self.origins.len() - 1
        });
        OriginId(index(row))
    }
}
