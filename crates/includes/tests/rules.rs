//! One table per rule of the question.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use includes::{CompileCommand, Directives, Found, Question, Verdict, World};

type Text = &'static str;
type Texts<'a> = &'a [(Text, Text)];

const LINE: Text = "gcc -DSET -Ia -iquote q -c m.c";
const UNKNOWN: Text = "?";

/// Files by path; contents are their own keys. The text `?` is one that is not known yet.
struct Tree {
    files: BTreeMap<Text, Text>,
    directives: BTreeMap<Text, Directives>,
}

impl World<Text> for Tree {
    fn now(&self, path: &[u8]) -> Found<Text> {
        match self.files.get(std::str::from_utf8(path).unwrap()) {
            None => Found::Absent,
            Some(&UNKNOWN) => Found::Unknown,
            Some(text) => Found::File(text),
        }
    }

    fn directives(&self, content: Text) -> Option<&Directives> {
        self.directives.get(content)
    }
}

/// Asks with the line and what changes of the files: `-` removes one. Gives the verdict in words.
fn ask_line(line: &str, then: Texts<'_>, change: Texts<'_>) -> String {
    let command = CompileCommand::parse(line.split(' ')).unwrap();
    let recorded: Vec<(Bytes, Text)> = then
        .iter()
        .filter(|(path, _)| !path.starts_with("unread/"))
        .map(|(path, text)| (Bytes::from(*path), *text))
        .collect();
    let mut files: BTreeMap<Text, Text> = then.iter().copied().collect();
    let mut appeared = Vec::new();
    for (path, text) in change {
        if *text == "-" {
            files.remove(path);
        } else if files.insert(path, text).is_none() {
            appeared.push(Bytes::from(*path));
        }
    }
    let mut tree = Tree { files, directives: BTreeMap::new() };
    let standard = [Bytes::from("usr/include")];
    let question = Question {
        command: &command,
        working_directory: b"",
        recorded: &recorded,
        standard: &standard,
        appeared: &appeared,
    };
    let texts =
        |paths: &[Bytes]| paths.iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect::<Vec<_>>().join(" ");
    for _ in 0..20 {
        return match question.ask(&tree) {
            Verdict::Lacks { contents } => {
                let scanned = contents.iter().map(|text| (*text, Directives::scan(text.as_bytes())));
                tree.directives.extend(scanned);
                continue;
            }
            Verdict::Same => "same".to_owned(),
            Verdict::Changed { added, removed } => format!("+ {} - {}", texts(&added), texts(&removed)),
            Verdict::Waits { paths } => format!("waits {}", texts(&paths)),
            Verdict::Broken { file, include } => format!("broken {}", texts(&[file, include])),
            Verdict::Unsure(doubt) => format!("unsure: {doubt}"),
        };
    }
    panic!("it lacks something for ever");
}

#[track_caller]
fn check(then: Texts<'_>, change: Texts<'_>, expected: &str) {
    assert_eq!(ask_line(LINE, then, change), expected, "{then:?} {change:?}");
}

const PLAIN: Texts<'static> = &[
    ("m.c", "#include \"x.h\"\n#include <y.h>\n"),
    ("x.h", "#ifndef X\n#define X\n#include <y.h>\n#define LIMIT 1\n#endif\n"),
    ("a/y.h", "#pragma once\nint y;\n"),
];

#[test]
fn code_and_comments_do_not_matter() {
    check(PLAIN, &[], "same");
    check(PLAIN, &[("a/y.h", "#pragma once\n// other\nlong y;\n")], "same");
    check(PLAIN, &[("m.c", "#ifdef DEBUG\nint d;\n#endif\n#include \"x.h\"\n#include <y.h>\n")], "same");
    check(PLAIN, &[("b/new.h", "")], "same");
}

#[test]
fn only_what_changed_is_looked_at() {
    let command = CompileCommand::parse(LINE.split(' ')).unwrap();
    let recorded = [(Bytes::from("m.c"), "#include <y.h>\n"), (Bytes::from("a/y.h"), "int y;")];
    let mut tree =
        Tree { files: BTreeMap::from([("m.c", "#include <y.h>\n"), ("a/y.h", "int z;")]), directives: BTreeMap::new() };
    let question =
        Question { command: &command, working_directory: b"", recorded: &recorded, standard: &[], appeared: &[] };
    let Verdict::Lacks { contents } = question.ask(&tree) else { panic!("nothing is known") };
    assert_eq!(contents.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from(["int y;", "int z;"]));
    for text in contents {
        tree.directives.insert(text, Directives::scan(text.as_bytes()));
    }
    assert_eq!(question.ask(&tree), Verdict::Same);
}

#[test]
fn a_macro_matters_if_an_include_depends_on_it() {
    let other = "#ifndef X\n#define X\n#include <y.h>\n#define LIMIT 2\n#define MORE\n#endif\n";
    check(PLAIN, &[("x.h", other)], "same");
    let limit: Texts<'_> =
        &[("m.c", "#include \"x.h\"\n#if LIMIT > 1\n#include \"z.h\"\n#endif\n"), ("x.h", "#define LIMIT 1\n")];
    check(limit, &[("x.h", "#define LIMIT 2\n")], "unsure: an include may depend on the macro LIMIT");
    check(limit, &[("x.h", "#define LIMIT 1\n#define OTHER\n")], "same");
    let by_way: Texts<'_> = &[
        ("m.c", "#include \"x.h\"\n#if A\n#include \"z.h\"\n#endif\n"),
        ("x.h", "#define A B\n#ifdef C\n#define B 1\n#endif\n"),
    ];
    check(
        by_way,
        &[("x.h", "#define C\n#define A B\n#ifdef C\n#define B 1\n#endif\n")],
        "unsure: an include may depend on the macro C",
    );
    let computed: Texts<'_> = &[("m.c", "#define NAME \"x.h\"\n#include NAME\n"), ("x.h", "")];
    check(
        computed,
        &[("m.c", "#define NAME \"y.h\"\n#include NAME\n")],
        "unsure: an include may depend on the macro NAME",
    );
    check(computed, &[("m.c", "#define NAME \"x.h\"\n#include NAME\n#define K 1\n")], "same");
}

#[test]
fn a_new_include_is_followed() {
    let with = |include: Text| -> Texts<'static> {
        Vec::leak(vec![("m.c", String::leak(format!("#include \"x.h\"\n#include <y.h>\n{include}\n")) as Text)])
    };
    let unread: Texts<'_> = Vec::leak(
        PLAIN
            .iter()
            .copied()
            .chain([
                ("unread/n.h", "#pragma once\n#include \"o.h\"\n#include <y.h>\n"),
                ("unread/o.h", "#define O\n"),
                ("unread/c.h", "#ifdef C\n#include \"o.h\"\n#endif\n"),
                (
                    "unread/p.h",
                    "#ifdef _WIN32\n#include <windows.h>\n#endif\n#ifdef __cplusplus\n#include <vector>\n#endif\n",
                ),
                ("unread/w.h", "#include \"later.h\"\n"),
                ("unread/later.h", UNKNOWN),
                ("unread/b.h", "#include \"nothing.h\"\n"),
            ])
            .collect(),
    );
    check(unread, with("#include \"unread/n.h\""), "+ unread/n.h unread/o.h - ");
    check(unread, with("#include <y.h>"), "same");
    check(unread, with("#include \"unread/c.h\""), "+ unread/c.h - ");
    check(
        unread,
        with("#ifdef __linux__\n#include \"unread/o.h\"\n#endif"),
        "unsure: read under a condition: unread/o.h",
    );
    check(unread, with("#ifdef SET\n#include \"unread/o.h\"\n#endif"), "+ unread/o.h - ");
    check(unread, with("#ifdef NOT_SET\n#include \"unread/o.h\"\n#endif"), "same");
    check(unread, with("#ifndef __cplusplus\n#include \"unread/o.h\"\n#endif"), "+ unread/o.h - ");
    check(unread, with("#if 0\n#include \"unread/o.h\"\n#endif"), "same");
    check(unread, with("#include \"unread/p.h\""), "+ unread/p.h - ");
    check(unread, with("#include \"unread/w.h\""), "waits unread/later.h");
    check(unread, with("#include \"unread/b.h\""), "broken unread/b.h nothing.h");
    check(unread, with("#include <nowhere.h>"), "broken m.c nowhere.h");
    check(unread, with("#include_next <y.h>"), "unsure: include that cannot be resolved in m.c");
    check(unread, with("#include \"../outside.h\""), "unsure: may be outside of the tree: ../outside.h");
}

#[test]
fn an_include_less_may_remove_files() {
    check(PLAIN, &[("m.c", "#include <y.h>\n")], "+  - x.h");
    check(PLAIN, &[("m.c", "#include \"x.h\"\n")], "same");
    check(PLAIN, &[("m.c", "int m;\n")], "+  - a/y.h x.h");
    let conditional: Texts<'_> = &[
        ("m.c", "#include \"x.h\"\n#include \"y.h\"\n"),
        ("x.h", "#ifdef _C\n#include \"y.h\"\n#endif\n"),
        ("y.h", ""),
    ];
    check(conditional, &[("m.c", "#include \"x.h\"\n")], "unsure: read under a condition: y.h");
    let unexplained: Texts<'_> = &[("m.c", "#include \"x.h\"\n"), ("x.h", ""), ("u.h", "")];
    check(unexplained, &[("m.c", "\n")], "unsure: read for no reason that is known: u.h");
    let predefinitions: Texts<'_> = &[("m.c", "#include \"x.h\"\n"), ("x.h", ""), ("usr/include/stdc-predef.h", "")];
    check(predefinitions, &[("m.c", "\n")], "+  - x.h");
}

#[test]
fn a_file_that_is_gone_is_looked_for_elsewhere() {
    check(PLAIN, &[("x.h", "-")], "broken m.c x.h");
    check(PLAIN, &[("x.h", "-"), ("m.c", "#include <y.h>\n")], "+  - x.h");
    let moved = "#ifndef X\n#define X\n#include <y.h>\n#define LIMIT 1\n#endif\n";
    check(PLAIN, &[("x.h", "-"), ("a/x.h", moved)], "+ a/x.h - x.h");
    check(PLAIN, &[("x.h", "-"), ("z.h", moved), ("m.c", "#include \"z.h\"\n#include <y.h>\n")], "+ z.h - x.h");
    check(PLAIN, &[("x.h", "-"), ("a/x.h", UNKNOWN)], "waits a/x.h");
    check(PLAIN, &[("m.c", "-")], "broken m.c m.c");
    check(PLAIN, &[("m.c", UNKNOWN)], "waits m.c");
}

#[test]
fn a_file_that_came_may_shadow_another() {
    check(PLAIN, &[("y.h", "int here;\n")], "same");
    let quoted: Texts<'_> = &[("m.c", "#include \"x.h\"\n"), ("a/x.h", "#include \"z.h\"\n"), ("a/z.h", "")];
    check(quoted, &[("q/x.h", "int q;\n")], "+ q/x.h - a/x.h a/z.h");
    check(quoted, &[("z.h", "int z;\n"), ("usr/include/x.h", "")], "same");
    check(quoted, &[("x.h", UNKNOWN)], "waits x.h");
    check(quoted, &[("a/x.h.gch", "")], "unsure: precompiled header: a/x.h.gch");
    let asks: Texts<'_> = &[("m.c", "#if __has_include(\"x.h\")\n#include \"x.h\"\n#endif\n")];
    check(asks, &[("x.h", "")], "unsure: existence of files asked for in m.c");
    check(asks, &[("y.h", "")], "same");
    // gcc does not complain of an include of nothing that was asked for before.
    let probed: Texts<'_> = &[("m.c", "#if __has_include(\"x.h\")\nint x;\n#endif\n#include \"x.h\"\n"), ("x.h", "")];
    check(probed, &[("x.h", "-")], "unsure: existence of files asked for in m.c");
}

#[test]
fn places_matter_where_conditions_do() {
    let order: Texts<'_> = &[
        ("m.c", "#include \"x.h\"\n#include \"y.h\"\n"),
        ("x.h", "#define A\n"),
        ("y.h", "#ifdef A\n#include \"z.h\"\n#endif\n"),
        ("z.h", ""),
    ];
    check(order, &[("m.c", "#include \"y.h\"\n#include \"x.h\"\n")], "unsure: an include may depend on the macro A");
    check(PLAIN, &[("m.c", "#include <y.h>\n#include \"x.h\"\n")], "same");
}

#[test]
fn the_command_line_includes_too() {
    let forced: Texts<'_> = &[("m.c", "\n"), ("f.h", "#include \"g.h\"\n"), ("g.h", "")];
    let line = "gcc -include f.h -Ia -c m.c";
    assert_eq!(ask_line(line, forced, &[("f.h", "\n")]), "+  - g.h");
    assert_eq!(ask_line(line, forced, &[("f.h", "-")]), "broken f.h f.h");
    assert_eq!(ask_line(line, forced, &[("f.h", "-"), ("a/f.h", "")]), "+ a/f.h - f.h g.h");
    assert_eq!(ask_line(line, forced, &[("m.c", "#include \"g.h\"\n")]), "same");
}

#[test]
fn what_the_command_leaves_open_is_left_open() {
    let then: Texts<'_> = &[("m.c", "#include \"x.h\"\n"), ("x.h", ""), ("flags", "-DA")];
    let change: Texts<'_> = &[("x.h", "int x;\n")];
    assert_eq!(ask_line("gcc -Bdir -c m.c", then, change), "same");
    assert_eq!(ask_line("gcc -Bdir -c m.c", then, &[("m.c", "")]), "unsure: argument not understood: -Bdir");
    assert_eq!(ask_line("gcc @flags -c m.c", then, &[("flags", "-DB")]), "unsure: argument not understood: @flags");
    let two: Texts<'_> = &[("m.c", "#include \"x.h\"\n"), ("n.c", ""), ("x.h", "")];
    assert_eq!(ask_line("gcc -c m.c n.c", two, &[("n.c", "#define N\n")]), "same");
    assert_eq!(ask_line("gcc -c m.c n.c", two, &[("m.c", "")]), "unsure: several sources in one command");
    assert_eq!(ask_line("gcc -c other.c", two, &[("m.c", "#define M\n")]), "unsure: source not recorded: other.c");
    // Without system headers in the record, a name that is not found may be one of theirs.
    let partial: Texts<'_> = &[("m.c", "#include <stdio.h>\n")];
    let more: Texts<'_> = &[("m.c", "#include <stdio.h>\n#include <stdlib.h>\n")];
    assert_eq!(ask_line(LINE, partial, more), "unsure: not all files are recorded, may be one of them: stdlib.h");
    let linked: Texts<'_> = &[("m.c", "\n"), ("b.o", "1")];
    assert_eq!(ask_line("gcc m.c b.o -o m", linked, &[("b.o", "2")]), "same");
}
