//! Prose that must stay true.

use super::Findings;
use super::tree::Tree;

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const README: &str = "README.md";

/// A crate header says what the crate does and what it does not: that takes some lines.
const HEADER_LINES: usize = 4;
const HEADER_CHARS: usize = 200;

/// The commands that a reader meets first: the main job, then the tests.
const FIRST_COMMANDS: [&str; 2] = ["cargo run --release -p bst-sa -- demo", "cargo test --workspace"];

pub(super) fn crates_say_what_they_are(tree: &Tree) -> Findings {
    let mut findings = Vec::new();
    for folder in tree.crates() {
        let candidates = ["lib.rs", "main.rs"].map(|file| format!("crates/{folder}/src/{file}"));
        let Some((name, text)) = candidates.iter().find_map(|name| Some((name, tree.text(name)?))) else {
            findings.push(format!("crates/{folder} has neither src/lib.rs nor src/main.rs"));
            continue;
        };
        let header: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
        let lines = header.iter().filter(|line| !line.is_empty()).count();
        let chars: usize = header.iter().map(|line| line.chars().count()).sum();
        if lines < HEADER_LINES || chars < HEADER_CHARS {
            findings.push(format!(
                "{name} must begin with a `//!` header of at least {HEADER_LINES} lines and {HEADER_CHARS} characters \
                 that says what the crate does and does not; it has {lines} and {chars}"
            ));
        }
    }
    Ok(findings)
}

pub(super) fn code_map_is_complete(tree: &Tree) -> Findings {
    let Some(text) = tree.text(ARCHITECTURE) else { return Ok(vec![format!("{ARCHITECTURE} is missing")]) };
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    let members = tree.crates().chain(["xtask", "tests"]);
    Ok(members
        .filter(|folder| !rows.iter().any(|row| row.starts_with(&format!("| `{folder}`"))))
        .map(|folder| format!("{ARCHITECTURE}: the code map has no row that begins with `{folder}`"))
        .collect())
}

pub(super) fn named_paths_exist(tree: &Tree) -> Findings {
    let mut findings = Vec::new();
    for name in [ARCHITECTURE, README] {
        for (i, line) in tree.text(name).unwrap_or_default().lines().enumerate() {
            for path in quoted(line).filter(|quoted| is_repository_path(quoted)) {
                if !tree.has(path) {
                    findings.push(format!("{name}:{}: `{path}` does not exist", i + 1));
                }
            }
        }
    }
    Ok(findings)
}

/// The pieces of a line between single backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn is_repository_path(text: &str) -> bool {
    let first = text.split('/').next().unwrap_or_default();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    plain && text.contains('/') && ["crates", "tests", "xtask", "docs", ".ci", ".cargo"].contains(&first)
}

pub(super) fn readme_commands(tree: &Tree) -> Findings {
    let Some(text) = tree.text(README) else { return Ok(vec![format!("{README} is missing")]) };
    let found: Vec<&str> = code_lines(text).take(FIRST_COMMANDS.len()).collect();
    if found == FIRST_COMMANDS {
        return Ok(Vec::new());
    }
    Ok(vec![format!("{README}: the first two command lines must be {FIRST_COMMANDS:?}, they are {found:?}")])
}

/// The lines inside code fences, without comments.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines().filter(move |line| {
        let fence = line.starts_with("```");
        inside ^= fence;
        inside && !fence && !line.is_empty() && !line.starts_with('#')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_header_is_found() {
        let line = format!("//! {}\n", "words ".repeat(12));
        let check = |text: &str| crates_say_what_they_are(&with_crate(text)).unwrap().len();
        assert_eq!(check(&line.repeat(4)), 0);
        assert_eq!(check(&line.repeat(3)), 1);
        assert_eq!(check("//! a\n//! b\n//! c\n//! d\n//! e\n"), 1);
        assert_eq!(check(&format!("use x;\n{}", line.repeat(5))), 1);
        assert_eq!(crates_say_what_they_are(&Tree::of(&[("crates/a/Cargo.toml", "")])).unwrap().len(), 1);
    }

    fn with_crate(text: &str) -> Tree {
        Tree::of(&[("crates/a/Cargo.toml", ""), ("crates/a/src/lib.rs", text)])
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        let check = |map: &str| {
            code_map_is_complete(&Tree::of(&[("crates/a/Cargo.toml", ""), (ARCHITECTURE, map)])).unwrap().len()
        };
        assert_eq!(check("| `a` (`b-a`) | x |\n| `xtask` | x |\n| `tests` | x |\n"), 0);
        assert_eq!(check("| `aa` | x |\n| `xtask` | x |\n| `tests` | x |\n"), 1);
    }

    #[test]
    fn a_path_that_is_gone_is_found() {
        let check = |line: &str| named_paths_exist(&Tree::of(&[("crates/a/x.rs", ""), (README, line)])).unwrap().len();
        assert_eq!(check("see `crates/a/x.rs`, `crates/a/` and `file:DIR/x`"), 0);
        assert_eq!(check("see `crates/a/y.rs`"), 1);
        assert_eq!(check("see `crates/b` and `xtask/src`"), 2);
    }

    #[test]
    fn other_first_commands_are_found() {
        let [job, test] = FIRST_COMMANDS;
        let check = |text: &str| readme_commands(&Tree::of(&[(README, text)])).unwrap().len();
        assert_eq!(check(&format!("# x\n```sh\n{job}\n```\nand\n```sh\n# passes the tests\n{test}\nmore\n```\n")), 0);
        assert_eq!(check(&format!("```sh\n{test}\n{job}\n```\n")), 1);
        assert_eq!(check("no commands"), 1);
    }
}
