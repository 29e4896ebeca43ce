//! The build: an orchestrator that builds an element when everything below it is built, as BuildStream does, and
//! inside of it a build system that asks for one action after the other, as make with recc does.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use futures_buffered::FuturesUnordered;
use futures_util::StreamExt;
use instantiate::Event;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::sleep;

use crate::Conditions;
use crate::project::{Job, Project};
use crate::service::Service;
use crate::store::{BlobId, Store};

/// The priority of what a build asks for.
const PRIORITY: i32 = 0;

/// What the build met with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Requests {
    /// Actions whose results were in the action cache.
    pub hits: usize,
    /// Actions that the build had to have executed, or to wait for while they were.
    pub misses: usize,
}

/// A build that goes on.
pub(crate) struct Build<'a> {
    project: &'a Project,
    conditions: &'a Conditions,
    service: Service,
    store: Arc<Store>,
    /// Who is told of it; nobody reads what it stores either where there is nobody.
    events: Option<UnboundedSender<Event>>,
    /// Elements whose actions and trees are stored.
    stored: RefCell<Vec<bool>>,
    hits: Cell<usize>,
    misses: Cell<usize>,
}

impl<'a> Build<'a> {
    pub(crate) fn new(
        project: &'a Project,
        conditions: &'a Conditions,
        service: Service,
        store: Arc<Store>,
        events: Option<UnboundedSender<Event>>,
    ) -> Self {
        let stored = RefCell::new(vec![false; project.shape.elements.len()]);
        Self { project, conditions, service, store, events, stored, hits: Cell::new(0), misses: Cell::new(0) }
    }

    /// Builds everything that has to be rebuilt. Sources are fetched beside it; an element waits for its own.
    pub(crate) async fn run(&self) -> Requests {
        let elements = &self.project.shape.elements;
        let mut lacking: Vec<usize> = Vec::with_capacity(elements.len());
        let mut above: Vec<Vec<usize>> = vec![Vec::new(); elements.len()];
        let mut ready = BinaryHeap::new();
        let mut left = 0;
        for (row, element) in elements.iter().enumerate() {
            let rebuilt = element.dependencies.iter().filter(|below| self.project.rows[**below].rebuilt);
            let rebuilt: Vec<usize> = rebuilt.copied().collect();
            lacking.push(rebuilt.len());
            rebuilt.iter().for_each(|below| above[*below].push(row));
            if self.project.rows[row].rebuilt {
                left += 1;
                if rebuilt.is_empty() {
                    ready.push(Reverse(row));
                }
            }
        }
        self.fetch().await;
        let mut under_way = FuturesUnordered::new();
        while left > 0 {
            while under_way.len() < self.conditions.builders
                && let Some(Reverse(row)) = ready.pop()
            {
                under_way.push(self.element(row));
            }
            let Some(row) = under_way.next().await else { break };
            left -= 1;
            for dependent in &above[row] {
                lacking[*dependent] -= 1;
                if lacking[*dependent] == 0 {
                    ready.push(Reverse(*dependent));
                }
            }
        }
        Requests { hits: self.hits.get(), misses: self.misses.get() }
    }

    fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(events) = &self.events {
            // An engine that has come to its end listens no more.
            let _ = events.send(event());
        }
    }

    /// Changed sources are fetched first, all at once.
    async fn fetch(&self) {
        sleep(self.conditions.latency).await;
        for (row, element) in self.project.shape.elements.iter().enumerate().filter(|(_, element)| element.changed) {
            let root = self.project.rows[row].sources;
            self.tell(|| Event::SourcesAvailable { element: element.name.clone(), root });
        }
    }

    async fn element(&self, row: usize) -> usize {
        let element = &self.project.shape.elements[row];
        sleep(self.conditions.element_overhead).await;
        self.tell(|| Event::BuildReached { element: element.name.clone() });
        self.actions(row).await;
        if self.events.is_some() {
            self.store.put(self.project.rows[row].directories.iter().copied());
        }
        // The artifact is put together, then announced.
        sleep(self.conditions.latency).await;
        let root = self.project.rows[row].artifact;
        self.tell(|| Event::ArtifactAvailable { element: element.name.clone(), root });
        row
    }

    /// The build system: as many actions at once as it may, each once those whose outputs it takes are done.
    async fn actions(&self, row: usize) {
        let actions = &self.project.shape.elements[row].actions;
        let mut lacking: Vec<usize> = actions.iter().map(|action| action.own.len()).collect();
        // What each makes, and who takes it.
        let users = actions.iter().enumerate();
        let mut users: Vec<(usize, usize)> =
            users.flat_map(|(turn, action)| action.own.iter().map(move |made| (*made, turn))).collect();
        users.sort_unstable();
        let mut ready: BinaryHeap<Reverse<usize>> =
            (0..actions.len()).filter(|turn| lacking[*turn] == 0).map(Reverse).collect();
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < self.conditions.max_jobs
                && let Some(Reverse(turn)) = ready.pop()
            {
                under_way.push(self.action(row, turn));
            }
            let Some(turn) = under_way.next().await else { break };
            let first = users.partition_point(|(made, _)| *made < turn);
            for (_, user) in users[first..].iter().take_while(|(made, _)| *made == turn) {
                lacking[*user] -= 1;
                if lacking[*user] == 0 {
                    ready.push(Reverse(*user));
                }
            }
        }
    }

    /// One call of recc: finds out what is to be sent, asks the action cache, executes, takes the output.
    async fn action(&self, row: usize, turn: usize) -> usize {
        let latency = self.conditions.latency;
        let job = self.project.job(row, turn);
        let Job { action, blob, .. } = self.project.jobs.all[job as usize];
        let mut before = self.conditions.action_overhead;
        if self.events.is_some() {
            if !before.is_zero() {
                sleep(std::mem::take(&mut before)).await;
            }
            self.tell(|| Event::Requested { action });
        }
        sleep(before + latency).await;
        let mut after = latency;
        if self.service.has_result(job) {
            self.hits.set(self.hits.get() + 1);
        } else {
            self.misses.set(self.misses.get() + 1);
            // What is missing is asked for, then uploaded; half a round trip later the request arrives.
            sleep(latency * 2 + latency / 2).await;
            self.store_inputs(row, blob);
            self.service.submit(job, PRIORITY).done().await;
            after += latency / 2;
        }
        sleep(after).await;
        turn
    }

    /// Whoever has stored an action has stored what it takes before.
    fn store_inputs(&self, row: usize, action: BlobId) {
        if self.events.is_none() || self.store.contains(action) {
            return;
        }
        if !std::mem::replace(&mut self.stored.borrow_mut()[row], true) {
            self.store.put(self.project.rows[row].inputs.iter().copied());
        }
    }
}
