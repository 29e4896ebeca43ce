//! What may go wrong beside a build. After each fault the build must be what it is without us.

use std::fs;
use std::path::PathBuf;

use super::DEP_H;
use super::daemon::Casd;
use super::world::{Build, World, figure};

/// The casd that primes is killed as soon as it executes something.
pub(crate) fn daemon_killed(world: &World) -> Build {
    let mut casd = Casd::on_cache(world);
    world.edit(DEP_H, "42", "43");
    let server = format!("unix:{}", casd.socket().display());
    let running = world.start_build("app.bst", &["--server", &server]);
    casd.wait_for_log("Execute request");
    casd.kill();
    let build = world.finish_build(running);
    check(world, "casd killed while priming", &build, "43");
    build
}

/// The records in storage are garbage: the last one, and the one before, which would take its place.
pub(crate) fn corrupt_records(world: &World, records: &[String]) {
    for record in records {
        let blob = world.blob(record);
        fs::remove_file(&blob).unwrap();
        fs::write(&blob, "garbage").unwrap();
    }
    world.edit(DEP_H, "43", "44");
    let build = world.build("app.bst", &[]);
    check(world, "corrupt records", &build, "44");
    figure("corrupt records: primed", 0, build.of("app.bst", "primed_hits"));
    let said = build.text("app.bst", "no_record");
    figure("corrupt records: it is said", true, said.contains("record"));
}

/// The recorded actions are gone from storage.
pub(crate) fn missing_bases(world: &World) {
    for action in world.recorded_actions("app.bst") {
        fs::remove_file(world.blob(&action)).unwrap();
    }
    world.edit(DEP_H, "44", "45");
    let build = world.build("app.bst", &[]);
    check(world, "missing base actions", &build, "45");
    let skipped = build.skipped("app.bst");
    figure("missing base actions: skipped for that reason", true, skipped.contains(&"base-missing".to_owned()));
}

/// The build is interrupted while commands run: nothing is left, and the next build is whole.
pub(crate) fn interrupted(world: &World) {
    world.edit(DEP_H, "45", "46");
    let mut running = world.start_build("app-chained.bst", &[]);
    // slow-dep takes its time there.
    running.wait_for("build:slow-dep.bst");
    running.interrupt();
    let build = world.finish_any_build(running);
    figure("interrupted: the build has failed", true, build.status != 0);
    figure("interrupted: processes that are left", "none", world.processes());
    let build = world.build("app.bst", &[]);
    check(world, "after an interrupt", &build, "46");
}

/// BuildStream says that it is a version from the future.
pub(crate) fn unknown_version(world: &World) {
    let folder = world.path("future");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("sitecustomize.py"), "import buildstream\nbuildstream.__version__ = '2.99.0'\n").unwrap();
    world.edit(DEP_H, "46", "47");
    let running = world.start_build_with("app.bst", &[], &[("PYTHONPATH", folder.to_str().unwrap())]);
    let build = world.finish_build(running);
    check(world, "an unknown version of BuildStream", &build, "47");
    figure("an unknown version of BuildStream: it is said", true, build.stderr.contains("2.99.0"));
}

/// Nothing can be written where BuildStream keeps everything.
pub(crate) fn unusable_cache(world: &World) {
    let file: PathBuf = world.path("no-directory");
    fs::write(&file, "").unwrap();
    world.configure_cache(&file.join("cache"));
    let alone = world.bst_status(&["build", "app.bst"]);
    let running = world.start_build("app.bst", &[]);
    let build = world.finish_any_build(running);
    figure("a cache that cannot be written: status as of bst alone", alone, build.status);
    figure("a cache that cannot be written: it is said", true, build.stderr.contains("without priming"));
}

fn check(world: &World, fault: &str, build: &Build, answer: &str) {
    figure(&format!("{fault}: status of the build"), 0, build.status);
    let twice = answer.parse::<i32>().unwrap() * 2;
    let expected = format!("the answer is {answer}, twice is {twice}");
    figure(&format!("{fault}: what the program says"), expected, world.run("app.bst", "usr/bin/app"));
}
