//! One place for versions: the root manifest.

use std::collections::BTreeSet;

use super::Findings;
use super::tree::Tree;

const ROOT: &str = "Cargo.toml";

pub(super) fn dependencies_are_inherited(tree: &Tree) -> Findings {
    Ok(member_dependencies(tree)
        .filter(|(_, _, line)| !line.contains("workspace = true"))
        .map(|(name, number, line)| {
            format!("{name}:{number}: `{line}` must be `{{ workspace = true, … }}` with the version in {ROOT}")
        })
        .collect())
}

pub(super) fn dependencies_are_used(tree: &Tree) -> Findings {
    let used: BTreeSet<&str> = member_dependencies(tree).filter_map(|(_, _, line)| key(line)).collect();
    let declared = sections(tree.text(ROOT).unwrap_or_default())
        .filter(|(section, _, _)| *section == "workspace.dependencies")
        .filter_map(|(_, number, line)| Some((number, key(line)?)));
    Ok(declared
        .filter(|(_, name)| !used.contains(name))
        .map(|(number, name)| format!("{ROOT}:{number}: no member depends on {name}"))
        .collect())
}

pub(super) fn package_fields_are_inherited(tree: &Tree) -> Findings {
    let wanted = [
        ("package", "version.workspace = true"),
        ("package", "edition.workspace = true"),
        ("package", "rust-version.workspace = true"),
        ("package", "license.workspace = true"),
        ("lints", "workspace = true"),
    ];
    let mut findings = Vec::new();
    for (name, text) in members(tree) {
        for (section, line) in wanted {
            if !sections(text).any(|(in_section, _, found)| in_section == section && found == line) {
                findings.push(format!("{name}: [{section}] must say `{line}`"));
            }
        }
    }
    Ok(findings)
}

fn members(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.files().filter(|(name, _)| name.ends_with("/Cargo.toml"))
}

/// Path, line number and text of every dependency line of every member.
fn member_dependencies(tree: &Tree) -> impl Iterator<Item = (&str, usize, &str)> {
    members(tree).flat_map(|(name, text)| {
        let lines = sections(text).filter(|(section, _, _)| section.ends_with("dependencies"));
        lines.map(move |(_, number, line)| (name, number, line))
    })
}

/// Section, number and text of every line that says something.
fn sections(text: &str) -> impl Iterator<Item = (&str, usize, &str)> {
    let mut section = "";
    text.lines().enumerate().filter_map(move |(i, line)| {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
            return None;
        }
        (!line.is_empty() && !line.starts_with('#')).then_some((section, i + 1, line))
    })
}

fn key(line: &str) -> Option<&str> {
    line.split(['=', '.']).next().map(str::trim).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGE: &str = "[package]\nversion.workspace = true\nedition.workspace = true\n\
                           rust-version.workspace = true\nlicense.workspace = true\n[lints]\nworkspace = true\n";

    fn tree(root: &str, member: &str) -> Tree {
        Tree::of(&[(ROOT, root), ("crates/a/Cargo.toml", member)])
    }

    #[test]
    fn a_version_in_a_member_is_found() {
        let check = |line: &str| {
            let member = format!("[features]\nx = []\n[dev-dependencies]\n# comment\n{line}\n");
            dependencies_are_inherited(&tree("", &member)).unwrap().len()
        };
        assert_eq!(check("x = { workspace = true, features = [\"y\"] }"), 0);
        assert_eq!(check("x.workspace = true"), 0);
        assert_eq!(check("x = \"1\""), 1);
    }

    #[test]
    fn a_dependency_that_nobody_uses_is_found() {
        let root = "[workspace.dependencies]\nx = \"1\"\n";
        let check = |member: &str| dependencies_are_used(&tree(root, member)).unwrap().len();
        assert_eq!(check("[dependencies]\nx = { workspace = true }\n"), 0);
        assert_eq!(check("[dependencies]\nx.workspace = true\n"), 0);
        assert_eq!(check("[features]\nx = []\n"), 1);
    }

    #[test]
    fn a_package_with_its_own_edition_is_found() {
        assert!(package_fields_are_inherited(&tree("", PACKAGE)).unwrap().is_empty());
        let own = PACKAGE.replace("edition.workspace = true", "edition = \"2021\"");
        assert_eq!(package_fields_are_inherited(&tree("", &own)).unwrap().len(), 1);
    }
}
