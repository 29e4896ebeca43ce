use super::*;

fn parse(line: &str) -> Option<CompileCommand> {
    CompileCommand::parse(line.split_whitespace())
}

fn words(words: &[Bytes]) -> Vec<&str> {
    words.iter().map(|word| std::str::from_utf8(word).unwrap()).collect()
}

fn doubts(line: &str) -> usize {
    parse(line).unwrap().doubts().len()
}

#[test]
fn compiles_are_told_from_everything_else() {
    for line in [
        "gcc -c a.c",
        "/usr/bin/x86_64-linux-gnu-gcc-14 -c a.c -o a.o",
        "clang++-18.1 a.cpp",
        "ccache g++ -c a.cc",
        "/opt/recc /usr/bin/cc -c a.m",
        "cc -c a.S",
        "cc -x c -c a.txt",
        "cc a.c b.o -lm",
    ] {
        assert!(parse(line).is_some(), "{line}");
    }
    for line in [
        "",
        "ar rcs a.a a.o",
        "gcc-ar rcs a.c",
        "gcc a.o b.o -o a",
        "gcc -c a.s",
        "gcc -c a.h",
        "gcc -x c -",
        "gcc -x c-header -c a.c",
        "ld a.c",
        "ccache",
        "gcc -c -o a.c",
    ] {
        assert!(parse(line).is_none(), "{line}");
    }
}

#[test]
fn languages_are_known() {
    let check = |line: &str, expected| assert_eq!(parse(line).unwrap().language(), expected, "{line}");
    check("gcc -c a.c", Some(Language::C));
    check("g++ -c a.c", Some(Language::Cpp));
    check("gcc -c a.cc b.C", Some(Language::Cpp));
    check("gcc -c a.cc b.c", None);
    check("gcc -x c++ -c a.c", Some(Language::Cpp));
    check("gcc -x c++ a.h -x none b.cc", Some(Language::Cpp));
    check("gcc -c a.S", Some(Language::Assembler));
    check("gcc -c a.mm", Some(Language::ObjCpp));
}

#[test]
fn the_search_path_is_read_in_both_forms() {
    let line = "gcc -Ia -I b --include-directory=c -iquote q -iquoter -isystem s -isystemt -idirafter z \
                -include f.h -imacros m.h -include g.h -c a.c";
    let command = parse(line).unwrap();
    assert_eq!(words(command.include_directories()), ["a", "b", "c"]);
    assert_eq!(words(command.quote_directories()), ["q", "r"]);
    assert_eq!(words(command.system_directories()), ["s", "t"]);
    assert_eq!(words(command.after_directories()), ["z"]);
    let forced: Vec<_> = command.forced().iter().map(|forced| forced.name.clone()).collect();
    assert_eq!(words(&forced), ["m.h", "f.h", "g.h"]);
    assert!(command.searches_standard() && !command.links() && command.doubts().is_empty());
    assert!(!parse("gcc -nostdinc a.c").unwrap().searches_standard());
    assert!(parse("gcc -nostdinc a.c").unwrap().links());
}

#[test]
fn what_is_not_understood_is_a_doubt() {
    for line in [
        "gcc @args -c a.c",
        "gcc -I- -c a.c",
        "gcc -Bdir -c a.c",
        "gcc -B dir -c a.c",
        "gcc --sysroot=/sdk -c a.c",
        "gcc -isysroot /sdk -c a.c",
        "gcc -I=/inc -c a.c",
        "gcc -fplugin=x.so -c a.c",
        "gcc -fmodules-ts -c a.c",
        "gcc -specs=x -c a.c",
        "gcc -Wp,-Idir -c a.c",
        "gcc -Xpreprocessor -DA -c a.c",
        "gcc -c a.c -I",
    ] {
        assert_eq!(doubts(line), 1, "{line}");
    }
    for line in ["gcc --sysroot=/ -E a.c", "gcc -Wp,-MD,x.d -Wp,-D_FORTIFY_SOURCE=2 -c a.c", "gcc -frandom-x -c a.c"] {
        assert_eq!(doubts(line), 0, "{line}");
    }
}

#[test]
fn the_listing_keeps_what_preprocessing_needs() {
    let check = |line: &str, expected: &str| {
        let listing = parse(line).unwrap().listing("d");
        assert_eq!(words(&listing).join(" "), format!("{expected} -M -MF d"), "{line}");
    };
    check("gcc -c a.c -o a.o", "gcc a.c");
    check("ccache gcc -O2 -DA=1 -D B -UC -MD -MF x.d -MT a.o -MP -c -o a.o a.c", "gcc -O2 -DA=1 -D B -UC a.c");
    check(
        "gcc -std=c11 -fPIC -msse2 -Ia -isystem s a.c b.o -Ldir -lm -Wl,-x -o a",
        "gcc -std=c11 -fPIC -msse2 -Ia -isystem s a.c",
    );
    check("gcc -Wp,-MD,x.d,-DA -save-temps -Wp,-MMD,y -S a.c", "gcc -Wp,-DA a.c");
    check("gcc -include x.h -dM -E -P a.c", "gcc -include x.h a.c");
    check("gcc -x c a.txt -L dir -l m", "gcc -x c a.txt");
    let two = parse("gcc -c a.c b.c").unwrap();
    assert_eq!(words(&two.listing_of(1, "d")).join(" "), "gcc b.c -M -MF d");
}

#[test]
fn what_no_compile_is_conceived_of_is_none() {
    let conceivable = |line: &str| CompileCommand::is_conceivable(line.split_whitespace());
    for line in ["ar rcs a.a a.c", "gcc a.o b.o -o a", "ld a.c", "", "ccache", "gcc -c a.s", "gcc-ar rcs a.c"] {
        assert!(!conceivable(line), "{line}");
    }
    // All arguments have to be understood to know better.
    assert!(conceivable("gcc -c -o a.c"));
}

proptest::proptest! {
    #[test]
    fn every_compile_is_conceivable(line in proptest::collection::vec(proptest::sample::select(WORDS), 0..8)) {
        let compiles = CompileCommand::parse(line.iter()).is_some();
        proptest::prop_assert!(!compiles || CompileCommand::is_conceivable(line.iter()));
    }
}

const WORDS: &[&str] = &[
    "gcc",
    "x-g++-14",
    "ccache",
    "recc",
    "ar",
    "-c",
    "-o",
    "-x",
    "-xc",
    "c",
    "c++",
    "none",
    "-MF",
    "-I",
    "a.c",
    "a.o",
    "b.CPP",
    "d/a.mm",
    "a.h",
    "-",
    "@list",
    "-DX=a.c",
    "--language=c",
    "-Wp,-MD,a.d",
    "-Xpreprocessor",
    "-include",
];
