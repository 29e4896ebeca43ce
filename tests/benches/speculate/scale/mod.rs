//! What a run costs in projects of many elements: where nothing changed, where little did, as projects grow, and
//! through services.

mod project;
pub(crate) mod services;

use std::sync::Arc;
use std::time::Duration;

use ::instantiate::{Engine, Outcome, Report, Services};
use cas_client::Stats;
use overlay::graph::Graph;
use testbed::workload::Results;
use tokio::runtime::Runtime;

use crate::figures::{Kind, figure};
use crate::measure::{best, ratio};
use crate::{Effort, count};
use project::{Change, Dimensions, Keep, Project};

/// 1,000 elements of 200 actions.
const DISTRIBUTION: Dimensions = Dimensions { elements: 1000, seeing: 49, blind: 150, apart: 0 };
/// 25 elements of 50 actions: what growth starts with.
const START: Dimensions = Dimensions { elements: 25, seeing: 49, blind: 0, apart: 0 };
/// How many times as large it becomes.
const GROWTH: [usize; 4] = [1, 2, 4, 8];

/// How often the best of several runs is taken: most of these are short, and others use the machine.
const REPETITIONS: usize = 4;

/// A run, repeated, without execution.
struct Measured {
    time: Duration,
    stats: Stats,
    lookups: u64,
    report: Report,
}

impl Measured {
    /// Calls that somebody has to wait for, however many of them go on at once.
    fn calls(&self) -> u64 {
        let Stats { find_missing, read_blobs, write_blobs, .. } = &self.stats;
        find_missing.calls + read_blobs.calls + write_blobs.calls + self.lookups
    }

    fn describe(&self) -> String {
        let totals = &self.report.totals;
        format!(
            "{:.2?}, {} calls ({} reads of {} blobs with {} bytes, {} results); {} current, {} of {} actions adapted",
            self.time,
            self.calls(),
            self.stats.read_blobs.calls,
            self.stats.read_blobs.blobs,
            self.stats.read_blobs.bytes,
            self.lookups,
            totals.current,
            totals.adapted,
            totals.actions,
        )
    }
}

/// Measures everything.
pub(crate) fn run(runtime: &Runtime, effort: Effort) {
    nothing_changed(runtime, effort);
    growth(runtime, effort);
    blind_actions(runtime, effort);
    services::run(runtime, effort);
}

fn nothing_changed(runtime: &Runtime, effort: Effort) {
    let Dimensions { elements, .. } = DISTRIBUTION;
    println!("{elements} elements, {} actions", DISTRIBUTION.actions());
    let project = Project::new(DISTRIBUTION, Change::Nothing, Keep::Records);
    let none = measure(runtime, &project, false);
    assert_eq!(none.report.totals.current, elements as u64);
    println!("  nothing changed: {}", none.describe());
    if effort == Effort::Everything {
        figure(Kind::Timed, "200,000 actions, nothing changed, seconds", none.time.as_secs_f64(), 1.0);
    }
    let calls = number(none.calls()) / count(elements);
    figure(Kind::Counted, "200,000 actions, nothing changed, round trips per element", calls, 1.0);
    let all = measure(runtime, &project, true);
    assert_eq!(all.report.totals.unchanged, DISTRIBUTION.actions() as u64);
    println!("  nothing changed, all records held against it: {}", all.describe());
    drop(project);

    let project = Project::new(DISTRIBUTION, Change::Top(10), Keep::Everything);
    let few = measure(runtime, &project, false);
    println!("  a file in each of 10 elements at the top: {}", few.describe());
}

fn growth(runtime: &Runtime, effort: Effort) {
    println!("one header at the bottom of {} elements, {} actions, and as these grow", START.elements, START.actions());
    let mut first: Option<Measured> = None;
    for factor in GROWTH {
        let dimensions = Dimensions { elements: START.elements * factor, ..START };
        let project = Project::new(dimensions, Change::Header, Keep::Everything);
        let measured = measure(runtime, &project, false);
        println!("  ×{factor}: {}", measured.describe());
        let Some(first) = &first else {
            first = Some(measured);
            continue;
        };
        let size = count(factor);
        let grown = |now: u64, then: u64| number(now) / number(then) / size;
        let (now, then) = (&measured.stats.read_blobs, &first.stats.read_blobs);
        let time = ratio(measured.time, first.time) / size;
        println!(
            "    growth ÷ size: time {time:.2}, calls {:.2}, blobs {:.2}, bytes {:.2}",
            grown(measured.calls(), first.calls()),
            grown(now.blobs, then.blobs),
            grown(now.bytes, then.bytes),
        );
        if factor == GROWTH[GROWTH.len() - 1] {
            let name = |what: &str| format!("×{factor} elements, one header, {what} ÷ size");
            if effort == Effort::Everything {
                figure(Kind::Timed, &name("time"), time, 1.5);
            }
            figure(Kind::Counted, &name("calls"), grown(measured.calls(), first.calls()), 1.1);
            figure(Kind::Counted, &name("blobs read"), grown(now.blobs, then.blobs), 1.1);
            figure(Kind::Counted, &name("bytes read"), grown(now.bytes, then.bytes), 1.1);
        }
    }
}

/// Ten times as many actions, of which the new ones do not see the change.
fn blind_actions(runtime: &Runtime, effort: Effort) {
    let few = Dimensions { elements: 20, seeing: 20, blind: 0, apart: 0 };
    let cases = [
        ("in elements that are current", Dimensions { apart: 180, ..few }),
        // 21 actions with the link, so 189 more.
        ("in elements that will be built", Dimensions { blind: 189, ..few }),
    ];
    let base = Project::new(few, Change::Header, Keep::Everything);
    let base = measure(runtime, &base, false);
    println!("{} actions: {}", few.actions(), base.describe());
    for (place, dimensions) in cases {
        assert_eq!(dimensions.actions(), 10 * few.actions());
        let project = Project::new(dimensions, Change::Header, Keep::Everything);
        let measured = measure(runtime, &project, false);
        println!("  and 9 times as many that do not see the change, {place}: {}", measured.describe());
        let name = |what: &str| format!("×10 actions, the others {place}, {what}");
        if effort == Effort::Everything {
            figure(Kind::Timed, &name("time"), ratio(measured.time, base.time), 1.5);
        }
        figure(Kind::Counted, &name("calls"), number(measured.calls()) / number(base.calls()), 1.5);
        let blobs = |measured: &Measured| number(measured.stats.read_blobs.blobs);
        figure(Kind::Counted, &name("blobs read"), blobs(&measured) / blobs(&base), 1.5);
        let bytes = |measured: &Measured| number(measured.stats.read_blobs.bytes);
        figure(Kind::Counted, &name("bytes read"), bytes(&measured) / bytes(&base), 1.5);
    }
}

fn number(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// Dry runs from the graph's JSON to the report, of all elements by name or as the graph has them. Panics unless
/// every prediction is right.
fn measure(runtime: &Runtime, project: &Project, named: bool) -> Measured {
    let results = Arc::new(Results::new(&project.results));
    let run = || {
        let graph = Arc::new(Graph::from_json(project.graph.as_bytes()).unwrap_or_else(|error| panic!("{error}")));
        let services = Services::dry_run(Arc::new(project.store.clone()), Arc::clone(&results) as _);
        let mut engine = Engine::new(services, Arc::clone(&graph));
        if named {
            engine = engine.with_elements(graph.elements().map(|element| element.name.clone()));
        }
        runtime.block_on(engine.run_static()).unwrap_or_else(|error| panic!("{error}"))
    };
    project.store.take_stats();
    let report = run();
    let stats = project.store.take_stats();
    check(project, &report);
    // In a thread of its own, as allocators keep apart what threads allocate: a run does not begin among what is left
    // of making the project.
    let repeated = || std::iter::repeat_with(|| best(|| drop(run()))).take(REPETITIONS).min();
    let time = std::thread::scope(|scope| scope.spawn(repeated).join());
    let time = time.ok().flatten().unwrap_or_else(|| panic!("a run did not come to its end"));
    Measured { time, stats, lookups: report.totals.lookups, report }
}

/// Every action of what will be built must have become exactly what the next build runs.
fn check(project: &Project, report: &Report) {
    let mut right = 0;
    for element in &report.elements {
        let Some(expected) = project.expected.get(&element.name) else { continue };
        assert_eq!(element.actions.len(), expected.len(), "{}: {:?}", element.name, element.record);
        for (action, (base, next)) in element.actions.iter().zip(expected) {
            assert_eq!(action.base, *base);
            let outcome = if base == next { Outcome::Unchanged } else { Outcome::Adapted };
            let now = action.adapted.unwrap_or(action.base);
            assert!(action.outcome == outcome && now == *next, "{}: {next} expected, {action:?} found", element.name);
            right += 1;
        }
    }
    assert_eq!(right, project.expected.values().map(Vec::len).sum::<usize>());
}
