//! The sample project in `tests/project`, and what it lacks.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::setup::{Stack, remove_tree};
use crate::{Failure, Outcome};

/// The test program whose tests are the scenarios on it.
pub(super) const TEST: &str = "project";

/// Copies the project without what [`complete`] adds.
pub(super) fn copy(from: &Path, to: &Path) -> Outcome {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if !entry.file_type()?.is_dir() {
            fs::copy(&from, &to)?;
        } else if !ADDED.iter().any(|added| from.ends_with(added)) {
            copy(&from, &to)?;
        }
    }
    Ok(())
}

const ROOT: &str = "files/root";
const BUSYBOX: &str = "files/busybox";
const TOOL: &str = "files/tool";
const ADDED: [&str; 3] = [ROOT, BUSYBOX, TOOL];

/// Adds what is not in the repository: file systems for sandboxes, and the static `tool`.
pub(super) fn complete(project: &Path, stack: &Stack, tool: &Path) -> Outcome {
    link(&stack.sandbox_root, &project.join(ROOT))?;
    link(&stack.busybox, &project.join(BUSYBOX))?;
    let folder = project.join(TOOL);
    remove_tree(&folder)?;
    fs::create_dir_all(folder.join("usr/bin"))?;
    fs::copy(tool, folder.join("usr/bin/bst-sa"))?;
    Ok(())
}

/// Copies a tree by hard links: in a second, and without taking its size again.
fn link(from: &Path, to: &Path) -> Outcome {
    remove_tree(to)?;
    let copied = Command::new("cp").args(["--archive", "--link", "--"]).arg(from).arg(to).status()?;
    if copied.success() {
        return Ok(());
    }
    remove_tree(to)?;
    let copied = Command::new("cp").args(["--archive", "--"]).arg(from).arg(to).status()?;
    if copied.success() { Ok(()) } else { Err(Failure::new(format!("cannot copy {}", from.display()))) }
}

/// What to type next.
pub(super) fn say_how(project: &Path, stack: &Stack, tool: &Path) {
    let tools = tool.parent().unwrap_or(tool);
    println!("The sample project is complete. Build it, change a header, and build it again:\n");
    println!("  export PATH={}:{}:$PATH", stack.bin.display(), tools.display());
    println!("  cd {}", project.display());
    println!("  bst-sa build app.bst");
    println!("  sed -i 's/42/43/' files/dep/usr/include/dep.h");
    println!("  bst-sa build app.bst");
}
