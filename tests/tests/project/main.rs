//! The sample project (`tests/project`) on the released BuildStream, casd and
//! recc: what `cargo xtask integration` runs, one test per scenario.
//!
//! Reads what the variables in [`world`] say; without them the tests say
//! loudly that they are skipped, which the scenarios take for a failure. What
//! recc asked for, and what came of it, is read from casd's own log: the
//! summary of the tool is held against it, not believed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of a test fail like a test")]
#![allow(clippy::print_stdout, reason = "figures are read from the output")]

mod beside;
mod daemon;
mod faults;
mod grid;
mod on_the_grid;
mod world;

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use daemon::Casd;
use serde_json::Value;
use world::{World, figure};

const DEP_H: &str = "files/dep/usr/include/dep.h";
const UTIL_C: &str = "files/app/util.c";
/// Pairs of builds whose times are compared.
const OVERHEAD_RUNS: usize = 5;

#[test]
fn generation() {
    let Some(world) = World::new() else { return };
    let build = world.build("app.bst", &[]);
    let asked = world.asked();
    figure("executed in a first build", 3, asked.executed);
    figure("executed, by the summary", 3, build.of("app.bst", "executed"));
    figure("actions in the stored record", 3, world.recorded("app.bst"));
    figure("what the program says", "the answer is 42, twice is 84", world.run("app.bst", "usr/bin/app"));
}

#[test]
fn chain() {
    let Some(world) = World::new() else { return };
    world.build("top.bst", &[]);
    let story = world.checkout("top.bst").join("chain/story-of-three");
    figure("what three elements wrote", "base middle top", words(&fs::read_to_string(story).unwrap()));
    let build = world.build("count.bst", &[]);
    figure("executed by words, through bst-sa exec", 1, build.of("words.bst", "executed"));
    figure("executed by count, through bst-sa exec", 1, build.of("count.bst", "executed"));
    let count = world.checkout("count.bst").join("words/count");
    figure("words that were counted", 3, fs::read_to_string(count).unwrap().trim());

    world.edit("files/words/second", "three", "three four");
    let primed = world.prime("count.bst");
    figure("executed by priming after a change", 2, &primed["totals"]["executed"]);
    let build = world.build("count.bst", &[]);
    figure("executed by words in the build", 0, build.of("words.bst", "executed"));
    figure("executed by count in the build", 0, build.of("count.bst", "executed"));
    let count = world.checkout("count.bst").join("words/count");
    figure("words after a change", 4, fs::read_to_string(count).unwrap().trim());
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn own_source() {
    let Some(world) = World::new() else { return };
    let first = world.build("app.bst", &[]);
    let artifact = world.key("app.bst");

    // Nothing but this element is built: whether priming beside the build is ahead of it is the machine's affair.
    world.edit(UTIL_C, "number + number", "3 * number");
    let primed = world.prime("app.bst");
    figure("executed by priming: util.c and the link", 2, &primed["totals"]["executed"]);
    let second = world.build("app.bst", &[]);
    let asked = world.asked();
    figure("hits after a change of util.c", 3, asked.hits);
    figure("executed after a change of util.c", 0, asked.executed);
    figure("wasted", 0, second.of("app.bst", "wasted"));
    figure("a new artifact", true, world.key("app.bst") != artifact);
    figure("a new record", true, second.record("app.bst") != first.record("app.bst"));
    figure("actions in it", 3, world.recorded("app.bst"));

    world.edit(UTIL_C, "3 * number", "4 * number");
    let third = world.build("app.bst", &["--lookup", "weak"]);
    figure("executed with --lookup weak", 2, world.asked().executed);
    figure("primed with --lookup weak", 0, third.of("app.bst", "primed_hits"));

    // What the sources gain is found by reading them.
    world.edit(UTIL_C, "#include \"common.h\"", "#include \"common.h\"\n#include \"extra.h\"");
    world.edit(UTIL_C, "4 * number", "4 * number + EXTRA");
    world.add("files/app/extra.h", "#define EXTRA 1\n");
    let primed = world.prime("app.bst");
    figure("executed by priming after a new header", 2, &primed["totals"]["executed"]);
    let fourth = world.build("app.bst", &[]);
    figure("executed after a new header", 0, world.asked().executed);
    let explained = world.explain("app.bst");
    figure("explained: predicted", 3, &explained["totals"]["predicted"]);
    figure("explained: wasted", fourth.of("app.bst", "wasted"), &explained["totals"]["wasted"]);

    // Other commands are for nobody to guess.
    world.edit("elements/app.bst", "-c util.c", "-DEXTRA_FLAG -c util.c");
    world.build("app.bst", &[]);
    figure("executed after a new flag", 1, world.asked().executed);
    let explained = world.explain("app.bst");
    figure("explained: wasted after a new flag", 0, &explained["totals"]["wasted"]);
    let actions = explained["elements"][0]["actions"].as_array().unwrap();
    let reasons = actions.iter().filter(|action| action["prediction"] == "none").map(|action| &action["reason"]);
    let said = reasons.clone().all(|reason| reason.as_str().is_some_and(|reason| !reason.is_empty()));
    figure("explained: what was not predicted", true, reasons.count() > 0);
    figure("explained: why not", true, said);
    world.edit("elements/app.bst", "-DEXTRA_FLAG -c util.c", "-c util.c");

    // The first state again: it is cached, nothing is built, and the newest logs tell of other states.
    fs::remove_file(world.path("project/files/app/extra.h")).unwrap();
    world.edit(UTIL_C, "\n#include \"extra.h\"", "");
    world.edit(UTIL_C, "4 * number + EXTRA", "number + number");
    figure("back in the first state: its artifact", &artifact, world.key("app.bst"));
    figure("back in the first state: the record that is generated", first.record("app.bst"), world.generate("app.bst"));
}

#[test]
fn priming() {
    let Some(world) = World::new() else { return };
    world.build("app.bst", &[]);
    for (round, (old, new)) in [("42", "43"), ("43", "44")].into_iter().enumerate() {
        world.edit(DEP_H, old, new);
        let build = world.build("app.bst", &[]);
        let asked = world.asked();
        figure(&format!("hits after change {} of dep.h", round + 1), 3, asked.hits);
        figure(&format!("executed after change {} of dep.h", round + 1), 0, asked.executed);
        figure("of these primed", 2, build.of("app.bst", "primed_hits"));
        figure("wasted", 0, build.of("app.bst", "wasted"));
        // Nothing of older states stays in it.
        figure("actions in the new record", 3, world.recorded("app.bst"));
    }
    figure("what the program says", "the answer is 44, twice is 88", world.run("app.bst", "usr/bin/app"));
}

#[test]
fn chaining() {
    let Some(world) = World::new() else { return };
    world.build("app-chained.bst", &[]);
    world.edit(DEP_H, "42", "43");
    let start = SystemTime::now();
    let build = world.build("app-chained.bst", &[]);
    let asked = world.asked();
    figure("hits in app-chained", 3, asked.hits);
    figure("executed in app-chained", 0, asked.executed);
    figure("of the hits primed: a compile and the link", 2, build.of("app-chained.bst", "primed_hits"));
    let slow = world.built_at("slow-dep.bst");
    let early = world.results_since(start).into_iter().filter(|stored| *stored < slow).count();
    figure("results stored while slow-dep was being built", 2, early);
    figure("what the program says", "43 7 1", world.run("app-chained.bst", "usr/bin/app-chained"));
}

/// What `bst-sa build` costs where there is nothing to do, beside what `bst build` costs.
#[test]
fn overhead() {
    let Some(world) = World::new() else { return };
    // BuildStream hashes a directory whenever it loads the project, an archive once.
    cost_of_an_unchanged_build(&world, "a directory");
    world.archive_base();
    cost_of_an_unchanged_build(&world, "an archive");

    // Who is not asked for long is asked again in time.
    world.edit(DEP_H, "42", "43");
    let build = world.build("app.bst", &[]);
    figure("why nothing was primed", &Value::Null, &build.json["unprimed"]);
    figure("actions in the new record", 3, world.recorded("app.bst"));
    figure("what the program says", "the answer is 43, twice is 86", world.run("app.bst", "usr/bin/app"));
    world.must_bst(&["artifact", "delete", "app.bst"]);
    let build = world.build("app.bst", &[]);
    figure("recorded anew after the artifact was deleted", 3, world.recorded("app.bst"));
    figure("why nothing was primed then", &Value::Null, &build.json["unprimed"]);
}

fn cost_of_an_unchanged_build(world: &World, base: &str) {
    world.build("app.bst", &[]);
    let (mut alone, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..OVERHEAD_RUNS {
        let started = Instant::now();
        assert_eq!(world.bst_status(&["build", "app.bst"]), 0);
        alone.push(started.elapsed());
        let started = Instant::now();
        let running = world.start_build_with("app.bst", &[], &[]);
        let build = world.finish_build(running);
        ours.push(started.elapsed());
        assert_eq!(build.json["unprimed"], "nothing has changed since the last build");
    }
    // The least of several is what other work on the machine disturbs least.
    let (alone, ours) = (alone.into_iter().min().unwrap(), ours.into_iter().min().unwrap());
    println!("unchanged, the base is {base}: bst {alone:.2?}, bst-sa {ours:.2?}");
    let allowed = alone.mul_f64(1.03) + Duration::from_secs(1);
    figure(&format!("unchanged, the base is {base}: 3 % and a second more at most"), true, ours <= allowed);
}

/// Takes minutes; only where it is asked for by name.
#[test]
fn beside() {
    let Some(world) = World::new() else { return };
    beside::run(&world);
}

#[test]
fn remote_pull() {
    let Some(first) = World::new() else { return };
    let server = Casd::on_tcp(&first);
    first.configure(&server.as_artifact_server());
    let build = first.build("app-chained.bst", &[]);
    figure("records pushed by the first machine", 1, &build.json["totals"]["pushed"]);
    let old = first.key("app-chained.bst");

    let Some(second) = World::new() else { return };
    second.configure(&server.as_artifact_server());
    second.edit(DEP_H, "42", "43");
    let build = second.build("app-chained.bst", &[]);
    let asked = second.asked();
    figure("hits on the second machine", 3, asked.hits);
    figure("executed there", 0, asked.executed);
    figure("of the hits primed", 3, build.of("app-chained.bst", "primed_hits"));
    figure("the first machine's artifact is there", false, second.has_artifact("app-chained.bst", &old));
    figure("what the program says", "43 7 1", second.run("app-chained.bst", "usr/bin/app-chained"));
}

#[test]
fn nothing_breaks() {
    let Some(world) = World::new() else { return };
    let first = world.build("app.bst", &[]).record("app.bst");
    let second = faults::daemon_killed(&world).record("app.bst");
    faults::corrupt_records(&world, &[first, second]);
    faults::missing_bases(&world);
    faults::interrupted(&world);
    faults::unknown_version(&world);
    faults::unusable_cache(&world);
}

#[test]
fn grid() {
    let Some(world) = World::new() else { return };
    on_the_grid::run(&world);
}
