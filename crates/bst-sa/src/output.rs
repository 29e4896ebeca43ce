//! Results on stdout: tables for eyes, JSON for machines.

use std::io::{self, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;

use crate::failure::Failure;

/// Prints one JSON document and a newline.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::new("the result cannot be written as JSON").because(&e))?;
    print(&text)
}

/// Prints text and a newline. A reader that has gone away is not an error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout().lock(), "{}", harmless(text)) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| Failure::new("the result cannot be printed").because(&e)),
    }
}

/// Text for a terminal: names in messages that others stored must not command it.
pub(crate) fn harmless(text: &str) -> String {
    text.replace(|c: char| c.is_control() && !"\n\t".contains(c), "\u{fffd}")
}

/// A table with these column heads; columns from `numbers` on are right-aligned.
pub(crate) fn table(heads: &[&str], numbers: usize) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(heads.to_vec());
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A count of bytes for people, with three digits at most.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut unit = 0;
    let mut tenths = count.saturating_mul(10);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    if unit == 0 || tenths >= 1000 {
        format!("{} {}", tenths / 10, UNITS[unit])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, harmless};

    #[test]
    fn control_characters_are_not_printed() {
        assert_eq!(harmless("a\tb\nc\u{1b}[2Jd\re\u{9b}"), "a\tb\nc\u{fffd}[2Jd\u{fffd}e\u{fffd}");
    }

    #[test]
    fn sizes_are_short() {
        let check = |count, expected: &str| assert_eq!(bytes(count), expected);
        check(0, "0 B");
        check(999, "999 B");
        check(1000, "1.0 kB");
        check(123_456, "123 kB");
        check(1_234_567, "1.2 MB");
        check(u64::MAX, "1844674 TB");
    }
}
