//! What is expected: what was measured before. A line per kind, so that what changes is seen.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::Outcome;

const HEAD: &str = "\
# What was measured, and must not get worse: at least so many predicted actions, at most so many wasted ones. These
# are not what is wanted: that is all but what a kind says is out of reach, and nothing wasted. Raise them with
# `cargo xtask fidelity --bless`.
";

/// By project, then by kind.
type Floors = BTreeMap<String, BTreeMap<String, String>>;

/// Takes over what was measured; other kinds keep what they have.
pub(super) fn write(file: &Path, rows: &[Value]) -> Outcome {
    let mut floors = parse(&fs::read_to_string(file).unwrap_or_default());
    for row in rows {
        let (Some(project), Some(kind)) = (row["project"].as_str(), row["kind"].as_str()) else { continue };
        let (Some(predicted), Some(wasted)) = (row["predicted"].as_u64(), row["wasted"].as_u64()) else { continue };
        let floor = match wasted {
            0 => format!("{{ predicted = {predicted} }}"),
            _ => format!("{{ predicted = {predicted}, wasted = {wasted} }}"),
        };
        floors.entry(project.to_owned()).or_default().insert(kind.to_owned(), floor);
    }
    fs::write(file, text(&floors))?;
    Ok(())
}

fn parse(text: &str) -> Floors {
    let mut floors = Floors::new();
    let mut project = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut project);
        } else if let Some((kind, floor)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            floors.entry(project.clone()).or_default().insert(kind.to_owned(), floor.to_owned());
        }
    }
    floors
}

fn text(floors: &Floors) -> String {
    let mut text = HEAD.to_owned();
    for (project, kinds) in floors {
        text.push_str(&format!("\n[{project}]\n"));
        for (kind, floor) in kinds {
            text.push_str(&format!("{kind} = {floor}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_not_measured_keeps_its_floor() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("expected.toml");
        let row = |kind: &str, predicted: u64, wasted: u64| json!({"project": "p", "kind": kind, "predicted": predicted, "wasted": wasted});
        write(&file, &[row("a", 1, 0), row("b", 2, 1)]).unwrap();
        write(&file, &[row("b", 3, 0), json!({"project": "p", "kind": "a", "failures": ["x"]})]).unwrap();
        let expected = format!("{HEAD}\n[p]\na = {{ predicted = 1 }}\nb = {{ predicted = 3 }}\n");
        assert_eq!(fs::read_to_string(file).unwrap(), expected);
    }
}
