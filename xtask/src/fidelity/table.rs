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
    /// Of those, what a record can tell.
    predictable: u64,
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
        let out_of_reach = count("random").unwrap_or_default() + count("unreachable").unwrap_or_default();
        self.predictable += count("executed").unwrap_or_default().saturating_sub(out_of_reach);
        self.predicted += count("predicted").unwrap_or_default();
        self.early += count("early").unwrap_or_default();
        self.wasted += count("wasted").unwrap_or_default();
    }

    fn line(&self, name: &str) -> String {
        let percent = |part: u64| (part * 100).checked_div(self.executed).unwrap_or(100);
        let unmeasured = match self.unmeasured {
            0 => String::new(),
            some => format!("; {some} not measured"),
        };
        format!(
            "{name}: {} kinds{unmeasured}; early {} ({} %); of {} predictable {}; predicted {} of {} ({} %), wasted {}\n",
            self.kinds,
            self.early,
            percent(self.early),
            self.predictable,
            self.predicted,
            self.predicted,
            self.executed,
            percent(self.predicted),
            self.wasted,
        )
    }
}

/// A line per kind, and one per project and in total.
pub(super) fn of(rows: &[Value]) -> String {
    let mut text = format!(
        "{:<30} {:<10} {:>8} {:>9} {:>5} {:>6} {:>6}  why not\n",
        "kind of change", "project", "executed", "predicted", "early", "wasted", "spared"
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
            "{kind:<30} {project:<10} {:>8} {:>9} {:>5} {:>6} {:>6}  {}",
            count("executed"),
            count("predicted"),
            count("early"),
            count("wasted"),
            count("spared"),
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
                   "unreachable": 1, "reasons": {"new action": 1}, "failures": []}),
            json!({"kind": "b", "project": "x", "executed": 0, "predicted": 0, "early": 0, "wasted": 2, "failures": []}),
            json!({"kind": "c", "project": "y", "failures": ["it was not come to"]}),
        ];
        let text = of(&rows);
        assert!(text.contains("1 new action"), "{text}");
        let x = "x: 2 kinds; early 1 (25 %); of 3 predictable 3; predicted 3 of 4 (75 %), wasted 2\n";
        assert!(text.contains(x), "{text}");
        let y = "y: 1 kinds; 1 not measured; early 0 (100 %); of 0 predictable 0; predicted 0 of 0 (100 %), wasted 0\n";
        assert!(text.contains(y), "{text}");
        let end =
            "total: 3 kinds; 1 not measured; early 1 (25 %); of 3 predictable 3; predicted 3 of 4 (75 %), wasted 2\n";
        assert!(text.ends_with(end), "{text}");
        assert_eq!(rows.iter().map(failed).collect::<Vec<_>>(), [false, false, true]);
    }
}
