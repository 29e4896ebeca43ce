//! `cargo xtask ci`: everything that a change must pass, in the order in which it fails soonest.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Failure, Outcome, cargo, codegen, root, tidy};

struct Step {
    name: &'static str,
    run: fn() -> Outcome,
}

const STEPS: &[Step] = &[
    Step { name: "fmt", run: || run(&["fmt", "--all", "--check"]) },
    Step { name: "codegen --check", run: || codegen::run(codegen::Mode::Check) },
    Step { name: "tidy", run: tidy::run },
    Step { name: "clippy", run: clippy },
    Step { name: "doc", run: doc },
    Step { name: "test", run: || run(&["test", "--workspace"]) },
    Step { name: "package --list", run: package_lists },
];

pub(crate) fn run_all() -> Outcome {
    let mut times = Vec::new();
    let mut failed = None;
    for step in STEPS {
        eprintln!("ci: {}", step.name);
        let start = Instant::now();
        let outcome = (step.run)();
        times.push((step.name, start.elapsed(), if outcome.is_ok() { "ok" } else { "FAILED" }));
        if let Err(failure) = outcome {
            failed = Some(Failure::new(format!("ci: step `{}` failed: {failure}", step.name)));
            break;
        }
    }
    print_table(&times);
    failed.map_or(Ok(()), Err)
}

fn print_table(times: &[(&str, Duration, &str)]) {
    println!("{:<18}{:>9}  outcome", "step", "seconds");
    for (name, time, outcome) in times {
        println!("{name:<18}{:>9.1}  {outcome}", time.as_secs_f64());
    }
    for step in &STEPS[times.len()..] {
        println!("{:<18}{:>9}  not run", step.name, "");
    }
}

fn clippy() -> Outcome {
    run(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"])
}

fn doc() -> Outcome {
    let mut command = cargo(&root());
    command.args(["doc", "--no-deps", "--workspace"]).env("RUSTDOCFLAGS", "-D warnings");
    finish(command)
}

/// What a published library crate would contain; fails where its manifest could not be published.
fn package_lists() -> Outcome {
    let output = cargo(&root()).args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|e| Failure::new(e.to_string()))?;
    let libraries = publishable_libraries(&metadata);
    if libraries.is_empty() {
        return Err(Failure::new("no library crate is publishable"));
    }
    for name in libraries {
        let output = cargo(&root()).args(["package", "--list", "--allow-dirty", "-p", &name]).output()?;
        if !output.status.success() {
            return Err(Failure::new(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim())));
        }
        eprintln!("{name}: {} files", String::from_utf8_lossy(&output.stdout).lines().count());
    }
    Ok(())
}

fn publishable_libraries(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let is_library = |package: &&Value| {
        let targets = package["targets"].as_array().map_or(&[][..], Vec::as_slice);
        // `publish = false` is an empty list of registries here.
        package["publish"].is_null() && targets.iter().any(|target| target["kind"][0] == "lib")
    };
    packages.iter().filter(is_library).filter_map(|package| package["name"].as_str()).map(str::to_owned).collect()
}

fn run(args: &[&str]) -> Outcome {
    let mut command = cargo(&root());
    command.args(args);
    finish(command)
}

fn finish(mut command: Command) -> Outcome {
    let status = command.status()?;
    if status.success() {
        return Ok(());
    }
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    Err(Failure::new(format!("cargo {}: {status}", args.join(" "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_libraries_that_may_be_published_are_listed() {
        let metadata = serde_json::json!({"packages": [
            {"name": "library", "publish": null, "targets": [{"kind": ["lib"]}]},
            {"name": "program", "publish": null, "targets": [{"kind": ["bin"]}]},
            {"name": "private", "publish": [], "targets": [{"kind": ["lib"]}]},
        ]});
        assert_eq!(publishable_libraries(&metadata), ["library"]);
    }
}
