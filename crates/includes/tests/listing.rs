//! The reduced command lists what the whole one reads, and bad input is no failure.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "test code")]

mod support;

use std::collections::BTreeSet;
use std::process::Command;

use bytes::Bytes;
use includes::{CompileCommand, depfile, normalise};
use proptest::prelude::*;
use support::{files_read, gcc_is_here, in_root};

/// What the command itself says it read, by `-MD`.
fn files_compiled(line: &str, directory: &std::path::Path) -> BTreeSet<Bytes> {
    let mut arguments: Vec<&str> = line.split(' ').skip(1).collect();
    arguments.extend(["-MD", "-MF", "whole.d"]);
    let status = Command::new("gcc").args(&arguments).current_dir(directory).status().unwrap();
    assert!(status.success(), "{line}");
    let listing = depfile::parse(&std::fs::read(directory.join("whole.d")).unwrap()).unwrap();
    listing.iter().map(|path| normalise(path, &in_root(directory)).unwrap()).collect()
}

#[test]
fn the_listing_is_that_of_the_command() {
    if !gcc_is_here("the_listing_is_that_of_the_command") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().canonicalize().unwrap();
    std::fs::create_dir_all(directory.join("a dir")).unwrap();
    let write = |path: &str, text: &str| std::fs::write(directory.join(path), text).unwrap();
    write(
        "m.c",
        "#include <stdio.h>\n#ifdef __OPTIMIZE__\n#include \"o.h\"\n#endif\n#ifdef __PIC__\n#include \"pic.h\"\n#endif\n\
         #ifdef __AVX2__\n#include \"avx.h\"\n#endif\n#ifdef A\n#include \"x #$.h\"\n#endif\n\
         #ifdef _OPENMP\n#include \"omp_.h\"\n#endif\nint main(void) { return 0; }\n",
    );
    for header in ["o.h", "pic.h", "avx.h", "x #$.h", "a dir/x.h", "omp_.h"] {
        write(header, "");
    }
    for line in [
        "gcc -c m.c -o m.o",
        "gcc -O2 -fno-pic -c m.c -o m.o",
        "gcc -O2 -fPIC -mavx2 -DA -c m.c -o m.o",
        "gcc -Wp,-DA -c m.c -o m.o",
        "gcc -fopenmp -c m.c -o m.o",
        "gcc -D A -UA -g -Wall -Werror -pipe -S m.c -o m.s",
        "gcc -fsyntax-only -std=c99 m.c",
        "gcc -save-temps -c m.c",
        "gcc -fno-pie -no-pie -O1 m.c -o m -Wl,-O1 -lm",
        "gcc -ffreestanding -c m.c",
        "gcc -D A -E m.c -o m.i",
        "gcc -x c++ -DA -c m.c",
        "gcc -x assembler-with-cpp -DA -E m.c -o m.i",
    ] {
        let command = CompileCommand::parse(line.split(' ')).unwrap();
        assert!(command.doubts().is_empty(), "{line}");
        let before: BTreeSet<_> = std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name()).collect();
        let listed = files_read(&command, &directory).unwrap();
        let after: BTreeSet<_> = std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(before, after, "{line} writes nothing else");
        assert_eq!(listed, files_compiled(line, &directory), "{line}");
    }
}

proptest! {
    #[test]
    fn anything_is_a_command_line(
        words in proptest::collection::vec("(-[a-zA-Z]{0,3}|-I|-Wp,|-include|@|m\\.c|[a-z =,]{0,4}|-isystem|-x|--sysroot=)", 0..12)
    ) {
        let line = std::iter::once("gcc".to_owned()).chain(words);
        if let Some(command) = CompileCommand::parse(line) {
            prop_assert!(command.sources().len() > 0);
            let listing = command.listing("d");
            prop_assert!(listing.ends_with(&["-M".into(), "-MF".into(), "d".into()]));
        }
    }

    #[test]
    fn anything_is_a_listing_or_is_refused(text in proptest::collection::vec(
        proptest::sample::select(b"ab:\\ #$\n\r\t/.".to_vec()), 0..80)) {
        if let Ok(found) = depfile::parse(&text) {
            let distinct: BTreeSet<_> = found.iter().collect();
            prop_assert_eq!(distinct.len(), found.len());
        }
    }

    #[test]
    fn normal_paths_stay(path in "[a./]{0,12}", directory in "[b/]{0,6}") {
        if let Some(normal) = normalise(path.as_bytes(), directory.as_bytes()) {
            prop_assert_eq!(normalise(&normal, b""), Some(normal.clone()));
            prop_assert!(!normal.starts_with(b"/") && !normal.ends_with(b"/"));
        }
    }
}
