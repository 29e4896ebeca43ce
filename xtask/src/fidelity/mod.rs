//! `cargo xtask fidelity`: how exactly does the tool predict?
//!
//! Completes the projects in `tests/fidelity`, has the test target `fidelity`
//! measure every kind of change on them, and prints what came out. What
//! rebuilds do without us is kept below `target/integration/fidelity/`; logs
//! are in `target/integration/logs/fidelity/`.

mod parts;
mod table;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::integration::build;
use crate::integration::process::{Interrupts, Process, tied};
use crate::integration::{Home, setup};
use crate::{Failure, Outcome, Wanted, root};

pub(crate) use parts::fetch;

/// The test target that measures.
const TEST: &str = "fidelity";
/// For all measurements. What is not come to by then is named, and has failed.
const LIMIT: Duration = Duration::from_secs(29 * 60);
/// For the end of a measurement that was told that its time is over.
const GRACE: Duration = Duration::from_secs(60);

pub(crate) fn run(wanted: &Wanted) -> Outcome {
    let corpus = root().join("tests/fidelity");
    let home = Home::enter()?;
    let logs = home.logs.join(TEST);
    fs::create_dir_all(&logs)?;
    let runs = home.runs()?;
    let interrupts = Interrupts::catch()?;
    let stack = setup::buildstream(&home.path, &home.logs, &interrupts)?;
    let projects = runs.join("projects");
    parts::complete(&corpus, &projects, &home, &interrupts)?;
    let programs = build::build(&[TEST], &home.logs, &interrupts)?;

    let out = runs.join("measured.json");
    let mut command = tied("KILL", programs.find(TEST)?);
    command.args(["--nocapture", "--test-threads=1", "--exact", TEST]);
    command.env("BST_SA_FIDELITY_CORPUS", &corpus).env("BST_SA_FIDELITY_PROJECTS", &projects);
    command.env("BST_SA_FIDELITY_CHOSEN_PROJECTS", wanted.projects.join(","));
    command.env("BST_SA_FIDELITY_CHOSEN_KINDS", wanted.kinds.join(","));
    command.env("BST_SA_FIDELITY_EXTENT", if wanted.quick { "quick" } else { "all" });
    command.env("BST_SA_FIDELITY_SECONDS", LIMIT.as_secs().to_string());
    command.env("BST_SA_FIDELITY_KEPT", home.path.join(TEST)).env("BST_SA_FIDELITY_OUT", &out);
    command.env("BST_SA_TEST_RUNS", &runs).env("BST_SA_TEST_LOGS", &logs);
    command.env("BST_SA_TEST_BST", stack.bin.join("bst")).env("BST_SA_TEST_BIN", programs.tool()?);
    command.env("RUST_BACKTRACE", "0").stdout(File::create(logs.join("test.log"))?);
    let start = Instant::now();
    let ended = Process::start("the measurement", command, &interrupts)?.finish(LIMIT + GRACE);
    end_servers_of(&runs)?;
    eprintln!("fidelity: measured for {:.0} s", start.elapsed().as_secs_f64());

    let measured = read(&out)?;
    let rows = measured["kinds"].as_array().map_or(&[][..], Vec::as_slice);
    if let Some(file) = &wanted.json {
        fs::write(file, serde_json::to_string_pretty(&measured).map_err(|e| Failure::new(e.to_string()))?)?;
    }
    print!("{}", table::of(rows));
    let failed: Vec<&str> =
        rows.iter().filter(|row| table::failed(row)).filter_map(|row| row["kind"].as_str()).collect();
    if !failed.is_empty() {
        return Err(Failure::new(format!("failed: {}; logs are in {}", failed.join(", "), logs.display())));
    }
    match ended {
        Ok(status) if status.success() && !rows.is_empty() => Ok(()),
        Ok(status) => Err(Failure::new(format!("the measurement: {status}, see {}", logs.join("test.log").display()))),
        Err(failure) => Err(failure),
    }
}

/// Ends what a `bst` that was killed has left behind: servers whose caches are in our folder.
fn end_servers_of(runs: &Path) -> Outcome {
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        // Processes come and go, and not all that is there is one.
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let words: Vec<&Path> = line.split(|byte| *byte == 0).map(|word| Path::new(OsStr::from_bytes(word))).collect();
        let is_server = words.first().is_some_and(|program| program.ends_with("buildbox-casd"));
        if let Some(pid) = Pid::from_raw(pid)
            && is_server
            && words.iter().any(|word| word.starts_with(runs))
        {
            // Gone in the meantime, or gone by this.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<Value, Failure> {
    let text = fs::read_to_string(file).map_err(|e| Failure::new(format!("nothing was measured: {e}")))?;
    serde_json::from_str(&text).map_err(|e| Failure::new(e.to_string()))
}
