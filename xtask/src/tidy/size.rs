//! How long a source file may be.

use super::Findings;
use super::tree::Tree;

/// Lines outside of tests. About 300 is comfortable; beyond this a file holds more than one concept.
const LIMIT: usize = 800;

pub(super) fn files_are_short(tree: &Tree) -> Findings {
    let sources = tree.files().filter(|(name, _)| {
        name.ends_with(".rs")
            && name.contains("/src/")
            && !name.contains("/generated/")
            && !name.ends_with("/tests.rs")
            && !name.contains("/tests/")
    });
    Ok(sources
        .filter_map(|(name, text)| {
            let lines = lines_outside_tests(text);
            (lines > LIMIT).then(|| {
                format!("{name} has {lines} lines outside of its tests, the limit is {LIMIT}: split it by concept")
            })
        })
        .collect())
}

/// Lines up to the test module, which stands last in a file.
fn lines_outside_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests"));
    tests.unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_outside_tests_count() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "x\n".repeat(900));
        let fits = "x\n".repeat(LIMIT) + &tests;
        let long = "x\n".repeat(LIMIT + 1) + &tests;
        let check = |name: &str, text: &str| files_are_short(&Tree::of(&[(name, text)])).unwrap().len();
        assert_eq!(check("crates/a/src/b.rs", &fits), 0);
        assert_eq!(check("crates/a/src/b.rs", &long), 1);
        assert_eq!(check("crates/a/src/generated/b.rs", &long), 0);
        assert_eq!(check("crates/a/src/b/tests.rs", &long), 0);
        assert_eq!(check("crates/a/README.md", &long), 0);
    }
}
