//! What exactly was tried: the versions of everything that takes part.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::setup::Stack;
use crate::{Failure, Outcome};

pub(super) fn print(stack: &Stack) -> Outcome {
    let gcc = package_version(&stack.sandbox_root, "gcc")?;
    let recc = package_version(&stack.sandbox_root, "buildbox")?;
    let program = |name: &str| first_line(Command::new(stack.buildbox.join(name)).arg("--version"));
    println!("buildbox-casd  {}", last_word(&program("buildbox-casd")?));
    println!("buildbox-run   {}", last_word(&program("buildbox-run")?));
    println!("buildbox-fuse  {}", last_word(&program("buildbox-fuse")?));
    println!("bst            {}", first_line(Command::new(stack.bin.join("bst")).arg("--version"))?);
    println!("gcc in root    {gcc}");
    println!("recc in root   {recc}");
    println!("bwrap          {}", first_line(Command::new("bwrap").arg("--version"))?);
    println!("kernel         {}", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim());
    println!("rustc          {}", first_line(Command::new("rustc").arg("--version"))?);
    Ok(())
}

fn first_line(command: &mut Command) -> Result<String, Failure> {
    let output = command.output().map_err(|e| Failure::new(format!("{command:?}: {e}")))?;
    // Some of these programs print their version as an error message.
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text);
    match text.lines().next() {
        Some(line) if output.status.success() => Ok(line.trim().to_owned()),
        _ => Err(Failure::new(format!("{command:?}: {}: {}", output.status, text.trim()))),
    }
}

fn last_word(line: &str) -> &str {
    line.split(' ').next_back().unwrap_or(line)
}

/// The version of a Debian package that is installed below `root`.
fn package_version(root: &Path, package: &str) -> Result<String, Failure> {
    let status = fs::read_to_string(root.join("var/lib/dpkg/status"))?;
    let missing = || Failure::new(format!("the sandbox root has no package {package}"));
    version_in(&status, package).map(str::to_owned).ok_or_else(missing)
}

fn version_in<'a>(status: &'a str, package: &str) -> Option<&'a str> {
    let field = |stanza: &'a str, name: &str| stanza.lines().find_map(|line| line.strip_prefix(name));
    let stanza = status.split("\n\n").find(|stanza| field(stanza, "Package: ") == Some(package))?;
    field(stanza, "Version: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_found_by_its_whole_name() {
        let status = "Package: gcc-16\nVersion: 16.1\n\nPackage: gcc\nStatus: x\nVersion: 4:16\n";
        assert_eq!(version_in(status, "gcc"), Some("4:16"));
        assert_eq!(version_in(status, "make"), None);
    }
}
