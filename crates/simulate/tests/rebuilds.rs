//! What rebuilds take, on projects small enough to say it beforehand.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests may fail like tests")]

use std::time::Duration;

use proptest::prelude::*;
use simulate::{
    ActionShape, Conditions, Distribution, ElementShape, Mode, Outcome, Parameters, Project, Shape, SimulationError,
    simulate,
};

const MODES: [Mode; 3] = [Mode::None, Mode::Blocking, Mode::Primed];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A service next door and a build that costs nothing: what is left is how actions follow on each other.
fn idle(workers: usize) -> Conditions {
    Conditions {
        workers,
        latency: Duration::from_millis(1),
        element_overhead: Duration::ZERO,
        action_overhead: Duration::ZERO,
        ..Conditions::default()
    }
}

fn made(shape: Shape) -> Project {
    Project::new(shape).unwrap_or_else(|error| panic!("{error}"))
}

fn run(project: &Project, conditions: &Conditions, mode: Mode) -> Outcome {
    simulate(project, conditions, mode).unwrap_or_else(|error| panic!("{mode:?}: {error}"))
}

fn element(row: usize, dependencies: Vec<usize>, actions: Vec<ActionShape>) -> ElementShape {
    ElementShape { name: format!("{row}.bst"), dependencies, headers: 2, changed: row == 0, actions }
}

fn compile(duration: u64, headers: Vec<usize>) -> ActionShape {
    ActionShape { duration: seconds(duration), headers, ..ActionShape::default() }
}

/// Each element links what it compiled with the library of the one below.
fn chain(length: usize) -> Shape {
    let elements = (0..length).map(|row| {
        let below: Vec<usize> = row.checked_sub(1).into_iter().collect();
        let headers = if row == 0 {
            vec![]
        } else if row == 1 {
            vec![0]
        } else {
            vec![0, row - 1]
        };
        let link = ActionShape {
            duration: seconds(10),
            headers: Vec::new(),
            own: vec![0],
            others: below.iter().map(|below| (*below, 1)).collect(),
        };
        element(row, headers.clone(), vec![compile(100, headers), link])
    });
    Shape { elements: elements.collect() }
}

/// One changed element, and many on top of it that only compile.
fn wide(width: usize) -> Shape {
    let above = (1..=width).map(|row| element(row, vec![0], (0..4).map(|_| compile(10, vec![0])).collect()));
    Shape { elements: std::iter::once(element(0, vec![], vec![compile(10, vec![])])).chain(above).collect() }
}

/// Within so much of what is expected, which is also a lower bound.
#[track_caller]
fn check(outcome: &Outcome, expected: Duration, slack: Duration) {
    assert!(outcome.makespan >= expected && outcome.makespan <= expected + slack, "{expected:?}: {outcome:?}");
}

#[test]
fn a_chain_compiles_at_once_and_links_in_a_row() {
    let project = made(chain(10));
    let conditions = idle(100);
    let bounds = project.bounds();
    assert_eq!((bounds.critical_path, bounds.work, bounds.actions), (seconds(200), seconds(1100), 20));
    assert_eq!(bounds.with_workers(100), seconds(200));
    assert_eq!(bounds.with_workers(1), seconds(1100));
    check(&run(&project, &conditions, Mode::None), seconds(1100), seconds(1));
    check(&run(&project, &conditions, Mode::Blocking), seconds(200), seconds(1));
    let primed = run(&project, &conditions, Mode::Primed);
    check(&primed, seconds(200), seconds(1));
    assert_eq!(primed.executions, 20);
}

#[test]
fn a_wide_graph_needs_no_layer_below() {
    let project = made(wide(50));
    let conditions = idle(1000);
    check(&run(&project, &conditions, Mode::None), seconds(20), seconds(1));
    check(&run(&project, &conditions, Mode::Blocking), seconds(10), seconds(1));
    check(&run(&project, &conditions, Mode::Primed), seconds(10), seconds(1));
}

#[test]
fn one_worker_gains_nothing_and_loses_nothing() {
    for shape in [chain(5), wide(5)] {
        let project = made(shape);
        let work = project.bounds().work;
        for mode in MODES {
            check(&run(&project, &idle(1), mode), work, seconds(1));
        }
    }
}

#[test]
fn overheads_add_up_along_the_chain() {
    let project = made(chain(4));
    let conditions = Conditions { element_overhead: seconds(7), action_overhead: seconds(3), ..idle(100) };
    // Four elements, each with two actions in a row.
    check(&run(&project, &conditions, Mode::None), seconds(440 + 4 * 7 + 8 * 3), seconds(1));
}

#[test]
fn builders_and_max_jobs_bound_the_build() {
    let project = made(wide(8));
    let narrow = Conditions { builders: 2, max_jobs: 2, ..idle(1000) };
    // The one below; then 8 elements two by two, each with 4 actions two by two.
    check(&run(&project, &narrow, Mode::None), seconds(10 + 4 * 20), seconds(1));
    check(&run(&project, &narrow, Mode::Primed), seconds(10), seconds(1));
}

/// A build asks for so many actions at once: where there are as many workers, more of them change nothing.
#[test]
fn workers_that_nobody_asks_for_make_no_difference() {
    let project = made(wide(40));
    let rebuilt = |workers| {
        let conditions = Conditions { builders: 3, max_jobs: 4, ..idle(workers) };
        run(&project, &conditions, Mode::None)
    };
    assert_eq!(rebuilt(12), rebuilt(1200));
    assert!(rebuilt(1).makespan > rebuilt(12).makespan);
}

#[test]
fn what_did_not_change_is_not_executed() {
    let mut shape = wide(6);
    // These read no header that changed, and are rebuilt all the same.
    for element in &mut shape.elements[4..] {
        element.actions.iter_mut().for_each(|action| action.headers.clear());
    }
    let project = made(shape);
    assert_eq!(project.bounds().actions, 1 + 3 * 4);
    for mode in MODES {
        let outcome = run(&project, &idle(1000), mode);
        assert_eq!((outcome.executions, outcome.requests.hits + outcome.requests.misses), (13, 25), "{mode:?}");
    }
}

#[test]
fn nothing_changed_is_no_time() {
    let mut shape = chain(3);
    shape.elements[0].changed = false;
    let project = made(shape);
    for mode in MODES {
        assert!(run(&project, &idle(3), mode).makespan < seconds(1));
    }
}

/// What the build asks for is found without the engine; blocking priming has to find all of it.
#[test]
fn every_action_is_predicted_exactly() {
    let parameters = Parameters { elements: 30, actions: 12, depth: 6, changed: 4, ..Parameters::default() };
    let project = made(parameters.generate().unwrap());
    let blocking = run(&project, &idle(50), Mode::Blocking);
    assert_eq!((blocking.predicted, blocking.unpredicted), (360, 0));
    assert_eq!((blocking.requests.hits, blocking.requests.misses, blocking.executions), (360, 0, 360));
    let primed = run(&project, &idle(50), Mode::Primed);
    assert_eq!(primed.executions, 360, "nothing is executed twice");
}

#[test]
fn equal_seeds_give_equal_figures() {
    let outcomes = |seed| {
        let parameters = Parameters { elements: 12, actions: 8, depth: 4, seed, ..Parameters::default() };
        let project = made(parameters.generate().unwrap());
        let conditions = Conditions { workers: 7, ..Conditions::default() };
        MODES.map(|mode| run(&project, &conditions, mode))
    };
    assert_eq!(outcomes(3), outcomes(3));
    assert_ne!(outcomes(3), outcomes(4));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let project = made(wide(1));
    for conditions in [
        Conditions { workers: 0, ..idle(1) },
        Conditions { workers: usize::MAX, ..idle(1) },
        Conditions { builders: 0, ..idle(1) },
        Conditions { max_jobs: 0, ..idle(1) },
        Conditions { jobs: Some(0), ..idle(1) },
        Conditions { latency: Duration::MAX, ..idle(1) },
    ] {
        assert!(matches!(simulate(&project, &conditions, Mode::None), Err(SimulationError::Conditions(_))));
    }
    let mut backwards = chain(2);
    backwards.elements[0].dependencies.push(1);
    let mut circular = chain(2);
    circular.elements[1].actions[0].own.push(1);
    let mut twins = chain(2);
    twins.elements[1].name = "0.bst".to_owned();
    for shape in [Shape::default(), backwards, circular, twins] {
        assert!(matches!(Project::new(shape), Err(SimulationError::Shape(_))));
    }
}

/// The longest chain found by following every chain from its start, and the work, without tables of ends.
fn bound(shape: &Shape, workers: usize) -> Duration {
    fn behind(shape: &Shape, at: (usize, usize), known: &mut Vec<Vec<Option<Duration>>>) -> Duration {
        if let Some(known) = known[at.0][at.1] {
            return known;
        }
        let mut longest = Duration::ZERO;
        for (row, element) in shape.elements.iter().enumerate() {
            for (turn, action) in element.actions.iter().enumerate() {
                if (row == at.0 && action.own.contains(&at.1)) || action.others.contains(&at) {
                    longest = longest.max(behind(shape, (row, turn), known));
                }
            }
        }
        let length = shape.elements[at.0].actions[at.1].duration + longest;
        known[at.0][at.1] = Some(length);
        length
    }
    let mut known: Vec<Vec<Option<Duration>>> =
        shape.elements.iter().map(|element| vec![None; element.actions.len()]).collect();
    let mut longest = Duration::ZERO;
    let mut work = Duration::ZERO;
    for (row, element) in shape.elements.iter().enumerate() {
        for (turn, action) in element.actions.iter().enumerate() {
            longest = longest.max(behind(shape, (row, turn), &mut known));
            work += action.duration;
        }
    }
    longest.max(work / u32::try_from(workers).unwrap())
}

fn parameters() -> impl Strategy<Value = Parameters> {
    (1..12usize, 1..9usize, 2..5usize, 1..4usize, 1..6usize, any::<u64>(), 0..3usize).prop_map(
        |(elements, actions, depth, fan_out, tree_size, seed, distribution)| Parameters {
            elements,
            actions,
            depth: depth.min(elements),
            fan_out,
            tree_size,
            changed: 1,
            seed,
            duration: [
                Distribution::Constant(seconds(3)),
                Distribution::Uniform(Duration::from_millis(20), seconds(9)),
                Distribution::LogNormal { median: seconds(2), sigma: 1.0 },
            ][distribution],
            link: Distribution::Uniform(seconds(1), seconds(5)),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Nothing beats the bound, and no mode executes anything else than the build asks for.
    #[test]
    fn no_rebuild_is_faster_than_the_bound(parameters in parameters(), workers in 1..20usize, latency in 0..40u64) {
        let shape = parameters.generate().unwrap();
        let expected = bound(&shape, workers);
        let project = made(shape);
        let found = project.bounds().with_workers(workers);
        // Shares of the work are rounded to nanoseconds, one way or the other.
        prop_assert!(found.abs_diff(expected) < Duration::from_micros(1), "{:?} {:?}", found, expected);
        let conditions = Conditions { latency: Duration::from_millis(latency), ..idle(workers) };
        for mode in MODES {
            let outcome = run(&project, &conditions, mode);
            prop_assert!(outcome.makespan + Duration::from_micros(1) >= found, "{:?}: {:?} {:?}", mode, outcome, found);
            prop_assert_eq!(outcome.executions, project.bounds().actions);
        }
    }
}
