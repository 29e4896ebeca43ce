//! A project on a cluster: what priming gains there, and what it does when the cluster fails.

use std::fs;
use std::time::{Duration, Instant};

use super::DEP_H;
use super::grid::{Elements, Grid, Push};
use super::world::{Build, World, figure, figure_at_least};

const APP: &str = "app-ab.bst";
/// Its elements that compile: three compiles and a link each.
const COMPILING: [&str; 3] = ["lib-a.bst", "lib-b.bst", APP];
const ACTIONS: usize = 12;

/// How many pairs of rebuilds are timed: none, or an odd number.
const PAIRS: &str = "BST_SA_TEST_PAIRS";

pub(crate) fn run(world: &World) {
    let start = Instant::now();
    let step = |what: &str| println!("after {:.1} s: {what}", start.elapsed().as_secs_f64());
    let mut grid = Grid::start(world);
    for _ in 0..2 {
        grid.start_worker();
    }
    step("the grid is up");
    // What every machine has: the base image.
    world.archive_base();
    let base = World::with(world, world);
    base.configure(&grid.configuration(Elements::OnTheGrid, Push::Yes));
    base.must_bst(&["build", "base.bst"]);
    step("the base is there");

    let mut states = States { world, answer: 42 };
    let first = machine(world, &base, &grid, Push::Yes);
    let build = first.build(APP, &[]);
    let asked = grid.asked();
    figure("first build: nested executions", ACTIONS, asked.executed);
    figure("first build: by the summary", ACTIONS, total(&build, "executed"));
    figure("first build: records pushed", COMPILING.len(), &build.json["totals"]["pushed"]);
    drop(first);
    step("the first build is done");

    // Everything is primed, on a machine that has built nothing; then it builds.
    let answer = states.next();
    let second = machine(world, &base, &grid, Push::Yes);
    let report = second.prime(APP);
    figure("primed on a machine with a cold cache: executed", ACTIONS, &report["totals"]["executed"]);
    let build = second.build(APP, &[]);
    let asked = grid.asked();
    figure("built there: nested executions", 0, asked.executed);
    figure("built there: nested hits", ACTIONS, asked.hits);
    figure("built there: executed, by the summary", 0, total(&build, "executed"));
    figure("built there: what the program says", says(answer), second.run(APP, "usr/bin/app-ab"));
    drop(second);
    step("the loop is closed");

    faults(&mut grid, &mut states, &base);
    step("the faults are done");

    pairs(&mut grid, &mut states, &base);
    step("the pairs are done");
}

/// Rebuilds with and without priming, in turn, each on a machine of its own.
/// How far priming is ahead is a matter of time, as it begins with the build.
fn pairs(grid: &mut Grid, states: &mut States<'_>, base: &World) {
    let world = states.world;
    // What was asked for until now.
    grid.asked();
    let rounds: usize = std::env::var(PAIRS).unwrap().parse().unwrap();
    if rounds == 0 {
        println!("no pairs are timed: name the scenario for that, `cargo xtask integration grid`");
        return;
    }
    let (mut unprimed, mut primed, mut executed) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        states.next();
        let without = machine(world, base, grid, Push::No);
        let start = Instant::now();
        without.must_bst(&["build", APP]);
        unprimed.push(start.elapsed());
        figure(&format!("pair {round}: nested executions, unprimed"), ACTIONS, grid.asked().executed);

        states.next();
        let with = machine(world, base, grid, Push::Yes);
        let start = Instant::now();
        let build = with.build(APP, &[]);
        primed.push(start.elapsed());
        executed.push(grid.asked().executed);
        println!(
            "pair {round}: {:.1} s unprimed, {:.1} s primed, {} found that were primed, {} executed",
            unprimed[round - 1].as_secs_f64(),
            primed[round - 1].as_secs_f64(),
            total(&build, "primed_hits"),
            executed[round - 1],
        );
    }
    executed.sort_unstable();
    println!("nested executions beside priming, of {ACTIONS}: {executed:?}");
    let found = ACTIONS - executed[rounds / 2];
    figure_at_least("median of nested hits beside priming", ACTIONS as f64 / 2.0, found as f64);
    let seconds = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64()
    };
    let (unprimed, primed) = (seconds(&mut unprimed), seconds(&mut primed));
    println!("median wall time of a rebuild: {unprimed:.1} s unprimed, {primed:.1} s primed");
    // A machine that is busy otherwise shows little; what it shows is printed.
    figure_at_least("median wall time, unprimed / primed", 0.0, unprimed / primed);
}

/// A machine with the base image and nothing else in its cache.
fn machine(world: &World, base: &World, grid: &Grid, push: Push) -> World {
    let machine = World::with(world, base);
    machine.configure(&grid.configuration(Elements::OnTheGrid, push));
    machine
}

/// Whatever happens to the cluster, what is built is what is built on this machine alone.
fn faults(grid: &mut Grid, states: &mut States<'_>, base: &World) {
    let world = states.world;
    let mut built: Vec<(&str, u32, String)> = Vec::new();

    // A worker is killed while it runs an action.
    let answer = states.next();
    let machine_1 = machine(world, base, grid, Push::Yes);
    let before = grid.begun_each();
    let count = grid.begun();
    let mut running = machine_1.start_build(APP, &[]);
    running.wait("a nested action runs", || grid.begun() > count);
    grid.kill_busiest(&before);
    let build = machine_1.finish_build(running);
    report("a worker is killed", &build);
    built.push(("a worker is killed", answer, machine_1.artifact_digest(APP)));
    figure("a worker is killed: what the program says", says(answer), machine_1.run(APP, "usr/bin/app-ab"));
    drop(machine_1);

    // The server is restarted while priming.
    grid.start_worker();
    let answer = states.next();
    let machine_2 = machine(world, base, grid, Push::Yes);
    let count = grid.begun();
    let mut running = machine_2.start_prime(APP);
    running.wait("a nested action runs", || grid.begun() > count);
    restart(grid);
    let primed = machine_2.finish_any_build(running);
    println!("primed across a restart: {}", primed.json["totals"]);
    let count = |name: &str| primed.json["totals"][name].as_u64().unwrap();
    let settled = count("executed") + count("cached") + count("dropped");
    figure("the server is restarted: actions that priming accounts for", ACTIONS, settled);
    let build = machine_2.build(APP, &[]);
    report("the server is restarted", &build);
    built.push(("the server is restarted", answer, machine_2.artifact_digest(APP)));
    figure("the server is restarted: what the program says", says(answer), machine_2.run(APP, "usr/bin/app-ab"));
    drop(machine_2);

    // The server is restarted while elements are built there.
    let answer = states.next();
    let machine_3 = machine(world, base, grid, Push::Yes);
    let count = grid.begun();
    let mut running = machine_3.start_build(APP, &[]);
    running.wait("a nested action runs", || grid.begun() > count);
    restart(grid);
    let mut build = machine_3.finish_any_build(running);
    println!("restarted under a build: status {}, primed {}", build.status, build.json["totals"]);
    let at_once = build.status == 0;
    if !at_once {
        // What `bst` and recc make of a server that goes away is theirs; what was done until then is found again.
        build = machine_3.build(APP, &[]);
    }
    report("the server is restarted under the build", &build);
    built.push(("the server is restarted under the build", answer, machine_3.artifact_digest(APP)));
    figure(
        "the server is restarted under the build: what the program says",
        says(answer),
        machine_3.run(APP, "usr/bin/app-ab"),
    );
    drop(machine_3);

    // Nobody works: what is primed waits for ever. Elements are built here, with the cluster's action cache.
    grid.stop_workers();
    let answer = states.next();
    let machine_4 = machine(world, base, grid, Push::Yes);
    machine_4.configure(&grid.configuration(Elements::Here, Push::Yes));
    let options = grid.options();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let build = machine_4.build(APP, &options);
    report("no workers", &build);
    figure("no workers: executed by the build", ACTIONS, total(&build, "executed"));
    figure("no workers: primed", 0, total(&build, "primed_hits"));
    let skipped: Vec<String> = COMPILING.iter().flat_map(|element| build.skipped(element)).collect();
    // With a cluster, priming does not give way to the build, so it waits until the build has ended.
    figure("no workers: what became of priming", vec!["cancelled"; COMPILING.len()].join(" "), skipped.join(" "));
    built.push(("no workers", answer, machine_4.artifact_digest(APP)));
    drop(machine_4);

    for _ in 0..2 {
        grid.start_worker();
    }
    // The same states, built without us and without the cluster.
    let alone = World::with(world, base);
    alone.configure("");
    for (fault, answer, digest) in built {
        states.set(answer, &alone);
        alone.must_bst(&["build", APP]);
        figure(&format!("{fault}: the artifact is that of bst alone"), alone.artifact_digest(APP), digest);
    }
}

/// Ends the server as a crash does, and starts it again.
fn restart(grid: &mut Grid) {
    grid.kill_server();
    grid.start_server();
    // Those whose sessions have expired in the meantime end; something starts them again, on a real one.
    grid.stop_workers();
    for _ in 0..2 {
        grid.start_worker();
    }
}

/// What priming said of a build beside which something failed.
fn report(fault: &str, build: &Build) {
    figure(&format!("{fault}: status of the build"), 0, build.status);
    for element in COMPILING {
        println!("{fault}: {element}: {:?}", build.skipped(element));
    }
}

fn total(build: &Build, count: &str) -> usize {
    usize::try_from(COMPILING.iter().map(|element| build.of(element, count)).sum::<u64>()).unwrap()
}

fn says(answer: u32) -> String {
    format!("{answer} {} {}", 6 * answer, 9 * answer)
}

/// States of the project: each differs in a header that everything includes.
struct States<'a> {
    world: &'a World,
    answer: u32,
}

impl States<'_> {
    /// A state that was never built.
    fn next(&mut self) -> u32 {
        let next = self.answer + 1;
        self.world.edit(DEP_H, &define(self.answer), &define(next));
        self.answer = next;
        next
    }

    /// Puts a machine's project into one of the states.
    fn set(&self, answer: u32, machine: &World) {
        let text = fs::read_to_string(self.world.path("project").join(DEP_H)).unwrap();
        let path = machine.path("project").join(DEP_H);
        fs::remove_file(&path).unwrap();
        fs::write(path, text.replace(&define(self.answer), &define(answer))).unwrap();
    }
}

fn define(answer: u32) -> String {
    format!("#define ANSWER {answer}\n")
}
