//! The engine: one task that reacts to events and to answers of services.
//!
//! State changes happen between awaits, in plain functions; everything that
//! waits for a service is a task in [`task::Tasks`], of which there is at most
//! one of each kind (executions apart), so that whatever becomes due in the
//! meantime goes together in the next one.

mod asking;
mod confirmations;
mod derivations;
mod events;
mod facts;
mod finish;
mod inspection;
mod learning;
mod order;
mod outputs;
mod products;
mod runs;
mod submit;
mod tables;
mod task;
mod trees;
mod weighing;
mod window;
mod workshop;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use overlay::graph::Graph;
use overlay::{Demand, TreeKind};
use reapi_proto::DigestFunction;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::event::Event;
use crate::lookup::{GraphRecords, Loaded, RecordIndex, Unused, Wanted, load_needed};
use crate::observer::{Observer, Progress};
use crate::options::Options;
use crate::report::{Report, Totals};
use crate::services::Services;
use asking::Ask;
use facts::TreeLookup;
use inspection::Inspector;
use learning::Learning;
use products::Products;
use runs::Runs;
use submit::Submissions;
use tables::{Act, ActId, RowId, State, Tables};
use task::{Done, Tasks};
use window::Window;
use workshop::Workshop;

/// What is taken in at most before something is done about it.
const AT_ONCE: usize = 4096;

/// Why an engine cannot start. Nothing that happens later is an error.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SetupError {
    /// [`Options::jobs`] is 0.
    #[error("the number of jobs is 0; at least 1 is needed to execute anything")]
    NoJobs,
    /// The store cannot hold what the graph names.
    #[error("the graph has {graph} digests, the store has {store} digests")]
    DigestFunction {
        /// The graph's.
        graph: DigestFunction,
        /// The store's.
        store: DigestFunction,
    },
    /// An element was asked for that the graph does not have.
    #[error("the graph has no element {0:?}")]
    UnknownElement(String),
}

/// Primes an action cache with adapted versions of recorded actions.
///
/// Made with [`new`](Self::new), adjusted with the `with_` methods, and used
/// up by [`run`](Self::run).
pub struct Engine {
    services: Services,
    graph: Arc<Graph>,
    options: Options,
    records: Arc<dyn RecordIndex>,
    observer: Option<Arc<dyn Observer>>,
    elements: Option<Vec<String>>,
    dependencies: bool,
}

impl Engine {
    /// An engine for all elements of `graph` that will be built, with default options and the records that the
    /// graph names. Of elements that are [current](overlay::graph::Element::is_current), not even records are read,
    /// unless what others take from them is known only from there.
    #[must_use]
    pub fn new(services: Services, graph: Arc<Graph>) -> Self {
        Self {
            services,
            graph,
            options: Options::default(),
            records: Arc::new(GraphRecords),
            observer: None,
            elements: None,
            dependencies: false,
        }
    }

    /// Works with these options.
    #[must_use]
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Takes records from this index.
    #[must_use]
    pub fn with_records(mut self, records: Arc<dyn RecordIndex>) -> Self {
        self.records = records;
        self
    }

    /// Reports progress to this observer.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Primes the actions of these elements only, even if they are current.
    /// The rest of the graph still tells what their inputs are.
    #[must_use]
    pub fn with_elements(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.elements = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Primes also the actions of everything that the [chosen](Self::with_elements) elements build against,
    /// directly or not, and that will be built. Makes no difference where none are chosen.
    #[must_use]
    pub fn with_dependencies(mut self) -> Self {
        self.dependencies = true;
        self
    }

    /// Runs on what the graph says, without any event.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_static(self) -> Result<Report, SetupError> {
        let (_, events) = unbounded_channel();
        self.run(events).await
    }

    /// Runs until `events` is closed and nothing is under way that could lead
    /// to more, or until [`Event::Cancel`].
    ///
    /// Dropping the future stops everything at once; executions that were
    /// requested by then go on at the service.
    ///
    /// # Errors
    /// [`SetupError`], before anything is done. Whatever goes wrong later is in the report.
    pub async fn run(self, mut events: UnboundedReceiver<Event>) -> Result<Report, SetupError> {
        let Self { services, graph, options, records, observer, elements, dependencies } = self;
        let elements = wanted(&graph, elements, dependencies)?;
        check(&services, &graph, &options)?;
        let mut early = Vec::new();
        let mut open = true;
        let loaded = {
            let loading = load_needed(&*services.blobs, &*records, &graph, &elements, options.lookup);
            let mut loading = std::pin::pin!(loading);
            loop {
                tokio::select! {
                    biased;
                    event = events.recv(), if open => match event {
                        Some(Event::Cancel) => {
                            early.push(Event::Cancel);
                            break cancelled(&elements);
                        }
                        Some(event) => early.push(event),
                        None => open = false,
                    },
                    loaded = &mut loading => break loaded,
                }
            }
        };
        let mut priming = Box::new(Priming::new(services, options, observer, &graph, &elements, &loaded));
        priming.begin(&graph);
        for event in early {
            priming.take_event(event);
        }
        priming.go_on(&mut events, open).await;
        Ok(priming.finish(&elements, loaded))
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { services, graph, options, records, observer: _, elements, dependencies } = self;
        f.debug_struct("Engine")
            .field("services", services)
            .field("graph", &graph.len())
            .field("options", options)
            .field("records", records)
            .field("elements", elements)
            .field("dependencies", dependencies)
            .finish_non_exhaustive()
    }
}

/// The elements asked for, in topological order.
fn wanted(graph: &Graph, names: Option<Vec<String>>, below: bool) -> Result<Vec<Wanted<'_>>, SetupError> {
    let Some(names) = names else {
        return Ok(graph.elements().map(|element| Wanted { element, named: false }).collect());
    };
    if let Some(unknown) = names.iter().find(|name| graph.get(name).is_none()) {
        return Err(SetupError::UnknownElement(unknown.clone()));
    }
    let mut chosen: FxHashMap<&str, bool> = FxHashMap::default();
    if below {
        let closures = names.iter().flat_map(|name| graph.closure(name));
        chosen.extend(closures.map(|element| (element.name.as_str(), false)));
    }
    chosen.extend(names.iter().map(|name| (name.as_str(), true)));
    let wanted = graph.elements().filter_map(|element| {
        let named = *chosen.get(element.name.as_str())?;
        Some(Wanted { element, named })
    });
    Ok(wanted.collect())
}

fn check(services: &Services, graph: &Graph, options: &Options) -> Result<(), SetupError> {
    if options.jobs == 0 {
        return Err(SetupError::NoJobs);
    }
    let (graph, store) = (graph.digest_function(), services.blobs.digest_function());
    if graph != store {
        return Err(SetupError::DigestFunction { graph, store });
    }
    Ok(())
}

fn cancelled(elements: &[Wanted<'_>]) -> Vec<Result<Loaded, Unused>> {
    elements.iter().map(|_| Err(Unused::Skip(events::cancelled()))).collect()
}

/// A run of the engine.
struct Priming {
    services: Services,
    options: Options,
    observer: Option<Arc<dyn Observer>>,
    tables: Tables,
    /// Records with facts that nobody has looked at.
    dirty: Vec<RowId>,
    /// Actions to be judged again.
    touched: Vec<ActId>,
    /// Paths to be looked up in current trees.
    lookups: Vec<TreeLookup>,
    looking_up: bool,
    /// What has to be made anew of changed inputs.
    demands: Vec<(RowId, Demand)>,
    deriving: bool,
    workshop: Workshop,
    inspector: Inspector,
    asks: FxHashMap<ActId, Ask>,
    learning: Learning,
    /// What passed between the build's beginning with an element and its commands, for the last one that it reached.
    setting_up: Duration,
    made: Products,
    runs: Runs,
    submissions: Submissions,
    window: Window,
    tasks: Tasks,
    progress: Progress,
    /// What the observer was told last.
    shown: Option<Progress>,
    totals: Totals,
    cancelled: bool,
}

impl Priming {
    fn new(
        services: Services,
        options: Options,
        observer: Option<Arc<dyn Observer>>,
        graph: &Graph,
        elements: &[Wanted<'_>],
        loaded: &[Result<Loaded, Unused>],
    ) -> Self {
        let names = elements.iter().map(|wanted| wanted.element.name.as_str());
        let records = names.zip(loaded).filter_map(|(name, loaded)| Some((name, loaded.as_ref().ok()?)));
        let tables = Tables::new(graph, records);
        let actions = tables.acts.len() as u64;
        let jobs = options.jobs;
        Self {
            services,
            options,
            observer,
            dirty: tables.row_ids().collect(),
            touched: tables.act_ids().collect(),
            tables,
            lookups: Vec::new(),
            looking_up: false,
            demands: Vec::new(),
            deriving: false,
            workshop: Workshop::default(),
            inspector: Inspector::default(),
            asks: FxHashMap::default(),
            learning: Learning::default(),
            setting_up: order::ELEMENT,
            made: Products::default(),
            runs: Runs::default(),
            submissions: Submissions::default(),
            window: Window::new(jobs),
            tasks: Tasks::default(),
            progress: Progress { actions, waiting: actions, ..Progress::default() },
            shown: None,
            totals: Totals::default(),
            cancelled: false,
        }
    }

    /// Takes in what the graph says.
    fn begin(&mut self, graph: &Graph) {
        self.tables.row_ids().for_each(|row| self.judge_anew(row));
        for element in graph.elements() {
            let owner = self.tables.owner(&element.name);
            if let Some(root) = element.sources {
                self.learn_root(owner, TreeKind::Sources, root);
            }
            if let Some(root) = element.artifact.filter(|_| element.is_current()) {
                self.learn_root(owner, TreeKind::Artifact, root);
            }
        }
    }

    async fn go_on(&mut self, events: &mut UnboundedReceiver<Event>, mut open: bool) {
        loop {
            let more = self.work();
            if (self.cancelled || !open) && !more && self.tasks.is_empty() {
                break;
            }
            let listening = open && !self.cancelled;
            let Tasks { futures, executions } = &mut self.tasks;
            tokio::select! {
                biased;
                event = events.recv(), if listening => match event {
                    Some(event) => self.take_event(event),
                    None => open = false,
                },
                Some(done) = futures.next(), if !futures.is_empty() => self.take(done),
                Some(news) = executions.next(), if !executions.is_empty() => self.take_news(news),
                () = tokio::task::yield_now(), if more => {}
                // The last executions had nothing more to say.
                else => {}
            }
            self.take_what_else_happened(events, listening);
        }
    }

    /// What happens at the same time is judged together, so that it shares round trips.
    fn take_what_else_happened(&mut self, events: &mut UnboundedReceiver<Event>, listening: bool) {
        for _ in 0..AT_ONCE {
            if listening && let Ok(event) = events.try_recv() {
                self.take_event(event);
            } else if let Some(Some(done)) = self.tasks.futures.next().now_or_never() {
                self.take(done);
            } else if let Some(Some(news)) = self.tasks.executions.next().now_or_never() {
                self.take_news(news);
            } else {
                break;
            }
        }
    }

    /// Does what can be done without waiting. Says whether there is more of it.
    fn work(&mut self) -> bool {
        if !self.cancelled {
            self.settle();
            self.adapt_some();
            self.settle();
            self.start_lookups();
            self.start_derivations();
            self.start_inspection();
            self.start_learning();
            self.start_batch();
            self.start_checks();
            self.start_upload();
            self.start_executions();
        }
        if let Some(observer) = &self.observer
            && self.shown != Some(self.progress)
        {
            observer.progress(&self.progress);
            self.shown = Some(self.progress);
        }
        !self.cancelled && (self.workshop.has_work() || !self.dirty.is_empty() || !self.touched.is_empty())
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Facts(found) => self.looked_up(found),
            Done::Derived(made) => self.derived(made),
            Done::Inspected(read) => self.inspected(read),
            Done::Candidates(candidates) => self.take_candidates(candidates),
            Done::Requested(requests) => self.take_requests(requests),
            Done::Studied(studied) => self.studied(studied),
            Done::Listed(listed) => self.take_listing(listed),
            Done::Prepared(fetched) => self.prepared(fetched),
            Done::Bases { runs, bases } => self.read_bases(runs, bases),
            Done::Checked { runs, answers } => self.checked(runs, answers),
            Done::Verified { runs, answers } => self.verified(runs, answers),
            Done::Uploaded { runs, products, outcome } => self.uploaded(runs, products, outcome),
            Done::Restored { run, outcome } => self.restored(run, outcome),
            Done::Outputs { run, outputs } => self.take_outputs(run, outputs),
            Done::Cancelled | Done::Rested => {}
        }
    }

    /// The one place where an action's state changes.
    fn set_state(&mut self, id: ActId, state: State) {
        let count = |progress: &mut Progress, state: &State, by: i64| {
            let counter = match state {
                State::Waiting => &mut progress.waiting,
                State::Preparing => &mut progress.preparing,
                State::Unchanged => &mut progress.unchanged,
                State::Adapted => &mut progress.adapted,
                State::Dropped(_) => &mut progress.dropped,
            };
            *counter = counter.saturating_add_signed(by);
        };
        let Act { row, state: current, .. } = &mut self.tables[id];
        let row = *row;
        let drops = matches!(current, State::Dropped(_)) || matches!(state, State::Dropped(_));
        count(&mut self.progress, current, -1);
        count(&mut self.progress, &state, 1);
        *current = state;
        if drops {
            self.judge_anew(row);
        }
    }
}
