//! The measurements, for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

pub(super) fn failed(row: &Value) -> bool {
    row["failures"].as_array().is_none_or(|failures| !failures.is_empty())
}

#[derive(Default)]
struct Sums {
    kinds: u64,
    executed: u64,
    predicted: u64,
    early: u64,
    wasted: u64,
    unmeasured: u64,
}

impl Sums {
    fn add(&mut self, row: &Value) {
        let count = |name: &str| row[name].as_u64();
        self.kinds += 1;
        self.unmeasured += u64::from(count("executed").is_none());
        self.executed += count("executed").unwrap_or_default();
        self.predicted += count("predicted").unwrap_or_default();
        self.early += count("early").unwrap_or_default();
        self.wasted += count("wasted").unwrap_or_default();
    }

    fn line(&self, name: &str) -> String {
        let percent = |part: u64| if self.executed == 0 { 100 } else { part * 100 / self.executed };
        let unmeasured = match self.unmeasured {
            0 => String::new(),
            some => format!("; {some} not measured"),
        };
        format!(
            "{name}: predicted {} of {} ({} %), wasted {}; early {} ({} %); {} kinds{unmeasured}\n",
            self.predicted,
            self.executed,
            percent(self.predicted),
            self.wasted,
            self.early,
            percent(self.early),
            self.kinds,
        )
    }
}

/// A line per kind, and one per project and in total.
pub(super) fn of(rows: &[Value]) -> String {
    let mut text = format!(
        "{:<30} {:<10} {:>8} {:>9} {:>5} {:>6}  why not\n",
        "kind of change", "project", "executed", "predicted", "early", "wasted"
    );
    let mut projects: BTreeMap<&str, Sums> = BTreeMap::new();
    let mut total = Sums::default();
    let mut all_reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for row in rows {
        let (kind, project) = (row["kind"].as_str().unwrap_or("?"), row["project"].as_str().unwrap_or("?"));
        projects.entry(project).or_default().add(row);
        total.add(row);
        let count = |name: &str| row[name].as_u64().map_or("-".to_owned(), |count| count.to_string());
        let reasons = row["reasons"].as_object().into_iter().flatten();
        let mut notes = Vec::new();
        for (reason, number) in reasons {
            let number = number.as_u64().unwrap_or_default();
            *all_reasons.entry(reason).or_default() += number;
            notes.push(format!("{number} {reason}"));
        }
        let failures = row["failures"].as_array().into_iter().flatten().filter_map(Value::as_str);
        notes.extend(failures.map(|failure| format!("FAILED: {failure}")));
        let _ = writeln!(
            text,
            "{kind:<30} {project:<10} {:>8} {:>9} {:>5} {:>6}  {}",
            count("executed"),
            count("predicted"),
            count("early"),
            count("wasted"),
            notes.join("; ")
        );
    }
    text.push('\n');
    let mut reasons: Vec<_> = all_reasons.into_iter().collect();
    reasons.sort_by_key(|(reason, number)| (std::cmp::Reverse(*number), *reason));
    for (reason, number) in reasons {
        let _ = writeln!(text, "{number:>5} {reason}");
    }
    text.push('\n');
    for (name, sums) in &projects {
        text.push_str(&sums.line(name));
    }
    text.push_str(&total.line("total"));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_counts_and_so_does_what_was_not_measured() {
        let rows = [
            json!({"kind": "a", "project": "x", "executed": 4, "predicted": 3, "early": 1, "wasted": 0,
                   "reasons": {"new action": 1}, "failures": []}),
            json!({"kind": "b", "project": "x", "executed": 0, "predicted": 0, "early": 0, "wasted": 2, "failures": []}),
            json!({"kind": "c", "project": "y", "failures": ["it was not come to"]}),
        ];
        let text = of(&rows);
        assert!(text.contains("1 new action"), "{text}");
        assert!(text.contains("x: predicted 3 of 4 (75 %), wasted 2; early 1 (25 %); 2 kinds\n"), "{text}");
        assert!(
            text.contains("y: predicted 0 of 0 (100 %), wasted 0; early 0 (100 %); 1 kinds; 1 not measured"),
            "{text}"
        );
        assert!(text.ends_with("total: predicted 3 of 4 (75 %), wasted 2; early 1 (25 %); 3 kinds; 1 not measured\n"));
        assert_eq!(rows.iter().map(failed).collect::<Vec<_>>(), [false, false, true]);
    }
}
