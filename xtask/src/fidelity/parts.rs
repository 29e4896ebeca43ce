//! What the projects in `tests/fidelity` lack: a root file system for their sandboxes, and a released library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::integration::process::{Interrupts, run_logged, tied};
use crate::integration::setup::{FETCH_LIMIT, Part, SUITE, build_root, remove_tree};
use crate::integration::{Home, mirror};
use crate::{Failure, Outcome};

const PACKAGES: &str = "gcc,g++,libc6-dev,make,cmake,buildbox";

/// Changes whenever the list below does, so that the root is made anew.
const TRIMMED: u32 = 1;
/// What no build here reads, by paths whose last name may end in `*`: the root is staged often.
const UNUSED: &[&str] = &[
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/zoneinfo",
    "usr/share/bash-completion",
    "usr/share/common-licenses",
    "usr/share/cmake-*/Help",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/perl-base",
    "usr/lib/x86_64-linux-gnu/libasan.so*",
    "usr/lib/x86_64-linux-gnu/libhwasan.so*",
    "usr/lib/x86_64-linux-gnu/liblsan.so*",
    "usr/lib/x86_64-linux-gnu/libprotoc.so*",
    "usr/lib/x86_64-linux-gnu/libtsan.so*",
    "usr/lib/x86_64-linux-gnu/libubsan.so*",
    "usr/libexec/gcc/x86_64-linux-gnu/*/lto1",
    "usr/bin/*lto-dump*",
    "usr/bin/cpack",
    "usr/bin/ctest",
    "usr/bin/buildbox-casd",
    "usr/bin/buildbox-worker",
    "usr/bin/casupload",
    "usr/bin/rexplorer",
    "usr/bin/trexe",
    "var/cache",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/log",
];

/// The release of Debian whose sources do not change any more.
const SOURCE_SUITE: &str = "bookworm";
const LIBRARY: &str = "popt=1.19+dfsg-1";
const LIBRARY_TAR: &str = "popt_1.19+dfsg.orig.tar.xz";
const LIBRARY_SHA256: &str = "4cd0cd2963d0c4078f65949599d97135c15ee6c09cf3a36a9a1b2753025bb06b";
/// Where it goes in the corpus.
const LIBRARY_PLACE: &str = "autotools/files/popt";

/// Fetches what the projects lack, unless it is there.
pub(crate) fn fetch(home: &Home, interrupts: &Interrupts) -> Outcome {
    let root = root(home);
    let part = Part { name: "fidelity-root", dir: &root, recipe: format!("{SUITE}: {PACKAGES}; trimmed {TRIMMED}") };
    part.ensure(|log| pack_root(&root, log, interrupts), &home.logs)?;
    let library = library(home);
    let part = Part { name: "fidelity-popt", dir: &library, recipe: format!("{LIBRARY} {LIBRARY_SHA256}") };
    part.ensure(|log| fetch_library(&library, log, interrupts), &home.logs)
}

fn root(home: &Home) -> PathBuf {
    home.path.join("fidelity-root")
}

fn library(home: &Home) -> PathBuf {
    home.path.join("fidelity-popt")
}

/// Copies the projects, and adds what they lack.
pub(super) fn complete(corpus: &Path, projects: &Path, home: &Home, interrupts: &Interrupts) -> Outcome {
    fetch(home, interrupts)?;
    let (root, library) = (root(home), library(home));
    copy(corpus, projects)?;
    let tar = root.join("root.tar");
    let base = format!(
        "kind: import\ndescription: A root file system with compilers, make, cmake and recc.\nsources:\n- kind: tar\n  \
         url: file://{}\n  base-dir: ''\n  ref: {}\n",
        tar.display(),
        sha256(&tar)?
    );
    for entry in fs::read_dir(projects)? {
        let project = entry?.path();
        if project.is_dir() {
            fs::write(project.join("elements/base.bst"), &base)?;
        }
    }
    copy(&library, &projects.join(LIBRARY_PLACE))
}

fn copy(from: &Path, to: &Path) -> Outcome {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    let copied = Command::new("cp").args(["--archive", "--"]).arg(from).arg(to).status()?;
    if copied.success() { Ok(()) } else { Err(Failure::new(format!("cannot copy {}", from.display()))) }
}

/// Makes a root file system and leaves an archive of what is needed of it.
fn pack_root(folder: &Path, log: &Path, interrupts: &Interrupts) -> Outcome {
    let whole = folder.with_extension("whole");
    remove_tree(&whole)?;
    build_root(&whole, PACKAGES, log, interrupts)?;
    for pattern in UNUSED {
        for path in matching(&whole, pattern)? {
            if path.is_dir() && !path.is_symlink() { remove_tree(&path)? } else { fs::remove_file(&path)? }
        }
    }
    fs::create_dir_all(folder)?;
    let mut pack = tied("KILL", "tar");
    pack.args(["--create", "--sort=name", "--mtime=@0", "--file"]).arg(folder.join("root.tar"));
    pack.arg("--directory").arg(&whole).arg(".");
    run_logged("tar", pack, log, FETCH_LIMIT, interrupts)?;
    remove_tree(&whole)
}

/// The paths below `root` that a pattern names: in a name, `*` stands for any characters.
fn matching(root: &Path, pattern: &str) -> Result<Vec<PathBuf>, Failure> {
    let mut found = vec![root.to_owned()];
    for part in pattern.split('/') {
        let mut next = Vec::new();
        for folder in found.iter().filter(|folder| folder.is_dir()) {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_name().to_str().is_some_and(|name| matches(part, name)) {
                    next.push(entry.path());
                }
            }
        }
        found = next;
    }
    Ok(found)
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name
            .strip_prefix(before)
            .is_some_and(|rest| (0..=rest.len()).any(|at| rest.get(at..).is_some_and(|rest| matches(after, rest)))),
    }
}

/// Fetches the sources of the library with apt, by a configuration of their own: nothing changes on this machine.
fn fetch_library(folder: &Path, log: &Path, interrupts: &Interrupts) -> Outcome {
    let download = folder.with_extension("download");
    remove_tree(&download)?;
    fs::create_dir_all(download.join("lists/partial"))?;
    fs::create_dir_all(download.join("cache/archives/partial"))?;
    let list = download.join("sources.list");
    fs::write(&list, format!("deb-src [trusted=yes] {} {SOURCE_SUITE} main\n", mirror::of_this_machine()?))?;
    let apt = |arguments: &[&str]| {
        let mut command = tied("KILL", "apt-get");
        let option = |name: &str, value: &Path| format!("{name}={}", value.display());
        command.arg("-o").arg(option("Dir::State::lists", &download.join("lists")));
        command.arg("-o").arg(option("Dir::Cache", &download.join("cache")));
        command.arg("-o").arg(option("Dir::Etc::sourcelist", &list));
        command.args(["-o", "Dir::Etc::sourceparts=-", "-o", "APT::Sandbox::User=root"]).args(arguments);
        command.current_dir(&download);
        run_logged(&format!("apt-get {}", arguments.join(" ")), command, log, FETCH_LIMIT, interrupts)
    };
    apt(&["update"])?;
    apt(&["source", "--download-only", LIBRARY])?;
    let tar = download.join(LIBRARY_TAR);
    let found = sha256(&tar)?;
    if found != LIBRARY_SHA256 {
        return Err(Failure::new(format!("{LIBRARY_TAR} has the digest {found}, not {LIBRARY_SHA256}")));
    }
    fs::create_dir_all(folder)?;
    let mut unpack = tied("KILL", "tar");
    unpack.args(["--extract", "--no-same-owner", "--strip-components=1", "--file"]).arg(&tar);
    unpack.arg("--directory").arg(folder);
    run_logged("tar", unpack, log, FETCH_LIMIT, interrupts)?;
    remove_tree(&download)
}

fn sha256(file: &Path) -> Result<String, Failure> {
    let output = Command::new("sha256sum").arg("--").arg(file).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.split(' ').next() {
        Some(digest) if output.status.success() => Ok(digest.trim_start_matches('\\').to_owned()),
        _ => Err(Failure::new(format!("no digest of {}", file.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        assert!(
            matches("lib*.so*", "libasan.so.8")
                && matches("*", "16")
                && matches("a", "a")
                && matches("*dump*", "lto-dump-16")
        );
        assert!(!matches("lib*.so*", "libasan.a") && !matches("a", "ab") && !matches("*dump", "dumps"));
    }
}
