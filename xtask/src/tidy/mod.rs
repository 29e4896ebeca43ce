//! `cargo xtask tidy`: what the compiler cannot check about this repository.
//!
//! Every rule is one function that reads the tracked files (or asks cargo) and
//! returns one line per violation. The same rules run as a test, so that
//! `cargo test --workspace` holds them too.

mod docs;
mod layers;
mod manifests;
mod size;
mod text;
mod tree;

use crate::codegen;
use crate::{Failure, Outcome, root};
use tree::Tree;

/// What a rule finds: one line per violation, empty when all is well.
type Findings = Result<Vec<String>, Failure>;

struct Rule {
    name: &'static str,
    check: fn(&Tree) -> Findings,
}

const RULES: &[Rule] = &[
    Rule { name: "layers", check: layers::forbidden_packages },
    Rule { name: "testbed", check: layers::testbed_is_for_tests },
    Rule { name: "file size", check: size::files_are_short },
    Rule { name: "crate headers", check: docs::crates_say_what_they_are },
    Rule { name: "code map", check: docs::code_map_is_complete },
    Rule { name: "named paths", check: docs::named_paths_exist },
    Rule { name: "readme commands", check: docs::readme_commands },
    Rule { name: "unfinished work", check: text::unfinished_work },
    Rule { name: "machine paths", check: text::machine_paths },
    Rule { name: "host names", check: text::registry_hosts },
    Rule { name: "sleeps", check: text::sleeps },
    Rule { name: "inherited dependencies", check: manifests::dependencies_are_inherited },
    Rule { name: "unused dependencies", check: manifests::dependencies_are_used },
    Rule { name: "inherited package fields", check: manifests::package_fields_are_inherited },
    Rule { name: "generated code", check: generated_code },
];

pub(crate) fn run() -> Outcome {
    let tree = Tree::tracked(&root())?;
    let mut findings = Vec::new();
    for rule in RULES {
        findings.extend((rule.check)(&tree)?.into_iter().map(|line| format!("{}: {line}", rule.name)));
    }
    if findings.is_empty() {
        eprintln!("tidy: {} rules hold over {} files", RULES.len(), tree.len());
        return Ok(());
    }
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    Err(Failure::new(format!("tidy: {} findings", findings.len())))
}

fn generated_code(_: &Tree) -> Findings {
    Ok(codegen::run(codegen::Mode::Check).err().map(|failure| failure.to_string()).into_iter().collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_repository_is_tidy() {
        if let Err(failure) = super::run() {
            panic!("{failure}; the lines above say which, and `cargo xtask tidy` repeats them");
        }
    }
}
