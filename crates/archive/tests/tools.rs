//! Held to the real `ar`, `ranlib` and compilers of this machine.
//!
//! A tool that is not installed is named on standard error, and what needs it is left out.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "test code")]

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use archive::{Archive, ArchiveError, Recipe};
use tempfile::TempDir;

const C: &str = "
int common_a; int data = 1; const int constant = 3; __thread int local_to_thread;
static int hidden_from_all(void) { return 3; }
extern int elsewhere; __attribute__((weak)) extern int perhaps(void);
__attribute__((weak)) int weak(void) { return hidden_from_all(); }
__attribute__((visibility(\"hidden\"))) int hidden(void) { return 1; }
int plain(void) { return elsewhere + perhaps(); }
static int chosen(void) { return 1; }
int (*choose(void))(void) { return chosen; }
int late(void) __attribute__((ifunc(\"choose\")));
__asm__(\".globl absolute\\n.set absolute, 42\\n.symver plain,plain@VERS_1\\n\");
";
const CXX: &str = "
template <class T> struct Box { static T zero; Box(T t); T get(T t) { return t + zero; } };
template <class T> T Box<T>::zero = 4;
template <class T> Box<T>::Box(T t) { zero = t; }
inline int counted() { static int count; return ++count; }
int use() { Box<int> box(1); return box.get(3) + counted(); }
namespace deep { int common_b; struct S { virtual ~S(); }; S::~S() {} }
";
const NOTHING: &str = "static int unused;";

/// A folder with objects, and the tools run in it.
struct Workshop(TempDir);

fn run(folder: &Path, program: &str, arguments: &[&str]) -> bool {
    match Command::new(program).args(arguments).current_dir(folder).env_remove("SOURCE_DATE_EPOCH").output() {
        Ok(output) => {
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {arguments:?}: {complaint}");
            true
        }
        Err(error) => {
            eprintln!("NOT TESTED: {program} cannot be run: {error}");
            false
        }
    }
}

impl Workshop {
    /// `None` if there is no compiler or no `ar`.
    fn new() -> Option<Self> {
        let workshop = Self(tempfile::tempdir().unwrap());
        for (name, text) in [("c.c", C), ("x.cc", CXX), ("nothing.c", NOTHING)] {
            workshop.put(name, text);
        }
        workshop.run("ar", &["--version"]).then_some(())?;
        workshop.compile("v1", &["-O0"])?;
        workshop.compile("v2", &["-O2", "-g", "-DMORE"])?;
        Some(workshop)
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.0.path().join(name), content).unwrap();
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        run(self.0.path(), program, arguments)
    }

    /// The same file names in each folder, with different contents.
    fn compile(&self, folder: &str, flags: &[&str]) -> Option<()> {
        let sub = self.0.path().join(folder);
        fs::create_dir_all(sub.join("again")).unwrap();
        let compile = |program: &str, source: &str, output: &str, more: &[&str]| {
            let arguments = [&["-c", source, "-o", output], flags, more].concat();
            run(&sub, program, &arguments).then_some(())
        };
        compile("gcc", "../c.c", "common.o", &["-fcommon"])?;
        compile("gcc", "../c.c", "fifteen_chars.o", &["-fno-common"])?;
        compile("gcc", "../c.c", "a_name_of_16ch.o", &["-fPIC"])?;
        compile("gcc", "../nothing.c", "nothing.o", &[])?;
        compile("g++", "../x.cc", "a_name_that_is_too_long_for_a_header.o", &["-std=c++17"])?;
        compile("gcc", "../nothing.c", "again/common.o", &[])?;
        compile("g++", "../x.cc", "again/a_name_that_is_too_long_for_a_header.o", &[])?;
        // Without asm and ifunc, which link-time optimisation does not know.
        let plain = C.lines().filter(|line| !line.contains("asm")).collect::<Vec<_>>().join("\n");
        self.put("lto.c", plain);
        compile("gcc", "../lto.c", "lto.o", &["-flto", "-fno-fat-lto-objects"])?;
        compile("gcc", "../lto.c", "fat.o", &["-flto", "-ffat-lto-objects", "-fcommon"])?;
        compile("g++", "../x.cc", "lto_cxx.o", &["-flto", "-fno-fat-lto-objects"])?;
        fs::write(sub.join("odd.txt"), format!("{flags:?} ").trim_end().repeat(3)).unwrap();
        fs::write(sub.join("empty"), "").unwrap();
        Some(())
    }

    /// Runs `steps` (program, options, then members) in `folder` and takes the archive that is made.
    fn archive(&self, folder: &str, steps: &[(&str, &str, &[&str])]) -> Vec<u8> {
        let sub = self.0.path().join(folder);
        let _ = fs::remove_file(sub.join("lib.a"));
        for (program, options, members) in steps {
            let options: Vec<&str> = if options.is_empty() { Vec::new() } else { vec![options] };
            assert!(run(&sub, program, &[&options[..], &["lib.a"], members].concat()));
        }
        fs::read(sub.join("lib.a")).unwrap()
    }

    /// The recipe of what `steps` make of one set of objects gives what they make of the other.
    fn check(&self, name: &str, steps: &[(&str, &str, &[&str])]) {
        let [first, second] = ["v1", "v2"].map(|folder| self.archive(folder, steps));
        let recipe = Recipe::of(&first).unwrap().unwrap_or_else(|| panic!("{name}: no recipe"));
        let members: Vec<_> =
            Archive::parse(&first).unwrap().members().map(|(n, d)| (n.to_vec(), d.to_vec())).collect();
        let members: Vec<_> = members.iter().map(|(name, data)| (&name[..], &data[..])).collect();
        assert_eq!(recipe.replay(&members).unwrap(), first, "{name}: {recipe:?}");
        let others = Archive::parse(&second).unwrap();
        let others: Vec<_> = others.members().collect();
        assert!(recipe.replay(&others).unwrap() == second, "{name}: {recipe:?} does not replay");
    }
}

/// Sets of members that every writer is tried with.
const SETS: [(&str, &[&str]); 10] = [
    ("none", &[]),
    ("one", &["common.o"]),
    ("no symbols", &["nothing.o"]),
    ("no symbols among others", &["nothing.o", "common.o", "empty", "nothing.o"]),
    ("no objects", &["odd.txt", "empty"]),
    ("odd sizes", &["odd.txt", "common.o", "odd.txt", "fifteen_chars.o"]),
    (
        "short and long names",
        &["fifteen_chars.o", "a_name_of_16ch.o", "a_name_that_is_too_long_for_a_header.o", "common.o"],
    ),
    ("an odd table of long names", &["a_name_of_16ch.o", "common.o"]),
    (
        "duplicates",
        &[
            "common.o",
            "again/common.o",
            "a_name_that_is_too_long_for_a_header.o",
            "again/a_name_that_is_too_long_for_a_header.o",
        ],
    ),
    ("link-time optimisation", &["lto.o", "common.o", "fat.o", "lto_cxx.o"]),
];

#[test]
fn what_gnu_ar_writes_is_replayed() {
    let Some(workshop) = Workshop::new() else { return };
    for (name, members) in SETS {
        for options in ["cr", "rcs", "crD", "rcS", "cq", "qcs", "rcu", "rcsD"] {
            workshop.check(&format!("ar {options}, {name}"), &[("ar", options, members)]);
        }
        workshop.check(&format!("ranlib, {name}"), &[("ar", "rcS", members), ("ranlib", "", &[])]);
    }
}

#[test]
fn what_compilers_wrap_is_replayed() {
    let Some(workshop) = Workshop::new() else { return };
    if !workshop.run("gcc-ar", &["--version"]) {
        return;
    }
    for (name, members) in SETS {
        workshop.check(&format!("gcc-ar, {name}"), &[("gcc-ar", "rc", members), ("gcc-ranlib", "", &[])]);
    }
}

#[test]
fn what_llvm_ar_writes_is_replayed() {
    let Some(workshop) = Workshop::new() else { return };
    if !workshop.run("llvm-ar", &["--version"]) {
        return;
    }
    for (name, members) in SETS {
        for options in ["cr", "rcs", "rcS"] {
            workshop.check(&format!("llvm-ar {options}, {name}"), &[("llvm-ar", options, members)]);
        }
        workshop.check(&format!("llvm-ranlib, {name}"), &[("llvm-ar", "rcS", members), ("llvm-ranlib", "", &[])]);
    }
}

#[test]
fn an_updated_archive_is_replayed() {
    let Some(workshop) = Workshop::new() else { return };
    let long = "a_name_that_is_too_long_for_a_header.o";
    let first: &[&str] = &["nothing.o", long, "common.o"];
    workshop.check("ar r over an old one", &[("ar", "rc", first), ("ar", "r", &["again/common.o", "odd.txt"])]);
    workshop.check("ar r with a new long name", &[("ar", "rc", first), ("ar", "r", &["a_name_of_16ch.o"])]);
    workshop.check("ar d", &[("ar", "rc", first), ("ar", "d", &[long])]);
    workshop.check("ar d to the last", &[("ar", "rc", first), ("ar", "d", first)]);
    workshop.check("ar s", &[("ar", "rcS", first), ("ar", "s", &[])]);
    workshop.check("ar m", &[("ar", "rc", first), ("ar", "m", &["nothing.o"])]);
    workshop.check("ar rS over one with symbols", &[("ar", "rc", first), ("ar", "rS", &["fifteen_chars.o"])]);
    workshop.check("other tools", &[("ar", "rc", first), ("strip", "-g", &[])]);
}

#[test]
fn real_times_and_owners_have_no_recipe() {
    let Some(workshop) = Workshop::new() else { return };
    let archive = workshop.archive("v1", &[("ar", "crU", &["common.o", "odd.txt"])]);
    assert_eq!(Recipe::of(&archive), Ok(None));
    assert_eq!(Archive::parse(&archive).unwrap().members().len(), 2);
}

#[test]
fn thin_archives_are_refused() {
    let Some(workshop) = Workshop::new() else { return };
    let archive = workshop.archive("v1", &[("ar", "crT", &["common.o"])]);
    assert_eq!(Archive::parse(&archive).unwrap_err(), ArchiveError::Thin);
    assert_eq!(Recipe::of(&archive), Err(ArchiveError::Thin));
}

#[test]
fn libraries_of_this_machine_have_recipes() {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib/aarch64-linux-gnu"];
    let paths = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let mut seen = 0;
    for path in paths.map(|entry| entry.path()).filter(|path| path.extension() == Some(OsStr::new("a"))) {
        let bytes = fs::read(&path).unwrap();
        // A linker script may be called like a library.
        if !bytes.starts_with(b"!<arch>\n") {
            continue;
        }
        seen += 1;
        if Recipe::of(&bytes).unwrap().is_none() {
            eprintln!("no recipe for {}", path.display());
        }
    }
    eprintln!("{seen} static libraries of this machine were tried");
    if seen == 0 {
        eprintln!("NOT TESTED: there are no static libraries on this machine");
    }
}
