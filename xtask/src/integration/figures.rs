//! What a test program reports to the task that runs it.
//!
//! A line `figure: NAME | EXPECTED | FOUND` anywhere in its output. EXPECTED is
//! the very text of FOUND, or `>= N`.

use crate::Failure;

/// One number (or word) that a scenario is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) expected: String,
    pub(super) found: String,
}

impl Figure {
    pub(super) fn ok(&self) -> bool {
        let number = |text: &str| text.trim().parse::<f64>().ok();
        match self.expected.strip_prefix(">=").map(number) {
            Some(least) => least.zip(number(&self.found)).is_some_and(|(least, found)| found >= least),
            None => self.expected == self.found,
        }
    }
}

/// The figures in the output of a test program.
pub(super) fn read(output: &str) -> Result<Vec<Figure>, Failure> {
    // The harness prints the test's name without a line end in front of the first line.
    let lines = output.lines().filter_map(|line| Some(line.split_once("figure: ")?.1));
    lines
        .map(|line| {
            let mut parts = line.split(" | ").map(|part| part.trim().to_owned());
            match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(name), Some(expected), Some(found), None) => Ok(Figure { name, expected, found }),
                _ => Err(Failure::new(format!("not a figure: {line:?}"))),
            }
        })
        .collect()
}

/// How many tests of a libtest program passed. An error unless some did, none
/// failed, and none said that it skipped itself.
pub(super) fn passed_tests(output: &str) -> Result<usize, Failure> {
    if let Some(line) = output.lines().find(|line| line.contains("SKIPPED")) {
        return Err(Failure::new(format!("a test skipped itself: {line}")));
    }
    let results: Vec<&str> = output.lines().filter_map(|line| line.strip_prefix("test result: ")).collect();
    let mut passed = 0;
    for result in &results {
        let count = result.strip_prefix("ok. ").and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
        passed += count.ok_or_else(|| Failure::new(format!("test result: {result}")))?;
    }
    if passed == 0 { Err(Failure::new("no test ran")) } else { Ok(passed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_among_other_output() {
        let found = read("x\ntest a ... figure: hits | 3 | 3\nfigure: runs | 0 | 1\n").unwrap();
        assert_eq!(
            found.iter().map(|f| (f.name.as_str(), f.ok())).collect::<Vec<_>>(),
            [("hits", true), ("runs", false)]
        );
        assert!(read("figure: hits 3").is_err());
    }

    #[test]
    fn a_lower_bound_is_a_number() {
        let ok = |found: &str| Figure { name: "x".into(), expected: ">= 3".into(), found: found.into() }.ok();
        assert!(ok("3") && ok("10"));
        assert!(!ok("2") && !ok("") && !ok(">= 3"));
    }

    #[test]
    fn silence_is_not_success() {
        assert_eq!(passed_tests("test result: ok. 2 passed; 0 failed").unwrap(), 2);
        assert!(passed_tests("").is_err());
        assert!(passed_tests("test result: ok. 0 passed; 0 failed").is_err());
        assert!(passed_tests("test result: FAILED. 1 passed; 1 failed").is_err());
        assert!(passed_tests("SKIPPED: no server\ntest result: ok. 1 passed").is_err());
    }
}
