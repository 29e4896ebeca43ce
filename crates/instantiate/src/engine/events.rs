//! What the build does meanwhile.

use std::time::Duration;

use overlay::TreeKind;
use reapi_proto::Digest;
use tokio::time::Instant;

use super::Priming;
use super::runs::{Run, Stage};
use super::tables::{ActId, OwnerId, State};
use super::task::Tasks;
use crate::event::Event;
use crate::options::WhenReached;
use crate::skip::{Skip, SkipKind};

pub(super) fn cancelled() -> Skip {
    Skip::new(SkipKind::Cancelled, "priming was cancelled")
}

impl Priming {
    pub(super) fn take_event(&mut self, event: Event) {
        match event {
            _ if self.cancelled => {}
            Event::SourcesAvailable { element, root } => self.tree_available(&element, TreeKind::Sources, root),
            Event::ArtifactAvailable { element, root } => self.tree_available(&element, TreeKind::Artifact, root),
            Event::BuildStarted { element } => self.build_started(&element),
            Event::BuildReached { element } => self.build_reached(&element),
            Event::Requested { action } => self.requested(action),
            Event::Cancel => self.cancel(),
        }
    }

    fn tree_available(&mut self, element: &str, kind: TreeKind, root: Digest) {
        if root.function() != self.services.blobs.digest_function() {
            tracing::warn!(element, %root, "an event with a digest of another function than the store's is ignored");
            return;
        }
        let owner = self.tables.owner(element);
        self.learn_root(owner, kind, root);
    }

    fn build_started(&mut self, element: &str) {
        let owner = self.tables.owner(element);
        self.tables[owner].started.get_or_insert_with(Instant::now);
    }

    fn build_reached(&mut self, element: &str) {
        let owner = self.tables.owner(element);
        let known = std::mem::replace(&mut self.tables[owner].reached, true);
        if !known {
            self.foresee(owner);
        }
        if known || self.options.when_reached == WhenReached::GoOn {
            return;
        }
        for id in self.tables[owner].acts.clone() {
            self.give_way(id);
        }
    }

    /// What follows for the elements above from the build's having reached one.
    fn foresee(&mut self, owner: OwnerId) {
        if let Some(started) = self.tables[owner].started {
            self.setting_up = started.elapsed();
        }
        let left = self.tables[owner].acts.iter().filter(|id| !self.run_of(**id).is_some_and(Run::is_over));
        let left: Duration = left.filter_map(|id| self.tables[*id].duration).sum();
        // The build has as many processors as priming.
        let at_once = u32::try_from(self.options.jobs).unwrap_or(u32::MAX).max(1);
        self.tables[owner].done = Instant::now().checked_add(left / at_once);
    }

    /// When the build will run the commands of an element, if that is not far away: it is set up, or everything below
    /// it is being built.
    pub(super) fn expected(&self, owner: OwnerId) -> Option<Instant> {
        let owner = &self.tables[owner];
        let below = || {
            let mut done = None;
            for below in &owner.build_deps {
                let below = &self.tables[*below];
                if below.artifact.is_none() && !below.acts.is_empty() {
                    done = done.max(Some(below.done?));
                }
            }
            done
        };
        owner.started.or_else(below)?.checked_add(self.setting_up)
    }

    /// Leaves an action to the build, unless it executes already.
    pub(super) fn give_way(&mut self, id: ActId) {
        let goes_on = self
            .run_of(id)
            .is_some_and(|run| run.is_over() || run.running.as_ref().is_some_and(|running| !running.is_queued()));
        let element = &self.tables[self.tables[id].owner].name;
        let skip = || Skip::new(SkipKind::BuildReached, format!("the build reaches {element} first"));
        match &self.tables[id].state {
            State::Waiting | State::Preparing => self.give_up(id, skip()),
            State::Adapted if !goes_on => self.give_up(id, skip()),
            State::Unchanged if !goes_on => self.unsubscribe(id),
            State::Adapted | State::Unchanged | State::Dropped(_) => {}
        }
    }

    fn run_of(&self, id: ActId) -> Option<&Run> {
        self.tables[id].run.map(|run| &self.runs[run])
    }

    fn cancel(&mut self) {
        self.cancelled = true;
        // Whatever is being read, written or looked up is of no use any more.
        self.tasks = Tasks { executions: std::mem::take(&mut self.tasks.executions), ..Tasks::default() };
        for id in self.tables.act_ids() {
            let over = self.run_of(id).is_some_and(Run::is_over);
            match &self.tables[id].state {
                State::Waiting | State::Preparing => self.give_up(id, cancelled()),
                State::Adapted if !over => self.give_up(id, cancelled()),
                State::Unchanged if !over => self.unsubscribe(id),
                State::Adapted | State::Unchanged | State::Dropped(_) => {}
            }
        }
        for run in self.runs.ids() {
            if self.runs[run].stage == Stage::Running {
                self.withdraw(run);
            }
        }
    }
}
