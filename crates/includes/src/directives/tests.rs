use proptest::prelude::*;

use super::*;

/// Every include with what the conditions around it mention.
fn check(text: &str, expected: &[(&str, &[&str])]) {
    let directives = Directives::scan(text.as_bytes());
    let found: Vec<(String, Vec<String>)> = (directives.includes().iter())
        .map(|include| {
            let name = match &include.operand {
                Operand::Quote(name) => format!("\"{}\"", String::from_utf8_lossy(name)),
                Operand::Angle(name) => format!("<{}>", String::from_utf8_lossy(name)),
                Operand::Computed(name) => String::from_utf8_lossy(name).into_owned(),
            };
            let words = directives.mentioned(include.place).map(|word| String::from_utf8_lossy(word).into_owned());
            (name, words.collect())
        })
        .collect();
    let expected: Vec<(String, Vec<String>)> = expected
        .iter()
        .map(|(name, words)| ((*name).to_owned(), words.iter().map(|word| (*word).to_owned()).collect()))
        .collect();
    assert_eq!(found, expected, "{text:?}");
}

fn same(a: &str, b: &str, expected: bool) {
    let equal = Directives::scan(a.as_bytes()) == Directives::scan(b.as_bytes());
    assert_eq!(equal, expected, "{a:?} and {b:?}");
}

#[test]
fn includes_are_found() {
    check(
        "#include <a.h>\n# import \"b.h\" // c\n#include_next <c.h>\n#include FT_H\n",
        &[("<a.h>", &[]), ("\"b.h\"", &[]), ("<c.h>", &[]), ("FT_H", &[])],
    );
    check("#include\n#include <a\n", &[("<a", &[])]);
    let forms = Directives::scan(b"#include <a>\n#include_next <a>\n#import <a>\n#embed <a>\n");
    let forms: Vec<Form> = forms.includes().iter().map(|include| include.form).collect();
    assert_eq!(forms, [Form::Include, Form::Next, Form::Import, Form::Embed]);
}

#[test]
fn conditions_are_known() {
    check("#ifdef A\n#include <a>\n#endif\n#include <b>\n", &[("<a>", &["A"]), ("<b>", &[])]);
    check(
        "#if A > 1\n#elif defined(B) && C\n#include <b>\n#else\n#include <c>\n#endif\n",
        &[("<b>", &["A", "B", "C"]), ("<c>", &["A", "B", "C"])],
    );
    check("#if A\n#ifndef B\n#include <b>\n#endif\n#endif\n", &[("<b>", &["B", "A"])]);
    check("#if 0\n#include <a>\n#else\n#include <b>\n#endif\n", &[("<b>", &[])]);
    check("#if 1\n#include <a>\n#elif A\n#include <b>\n#endif\n", &[("<a>", &[])]);
    check("#if 0\n#if A\n#include <a>\n#else\n#include <b>\n#endif\n#endif\n", &[]);
    check("#if A\n#elif 1\n#include <b>\n#else\n#include <c>\n#endif\n", &[("<b>", &["A"])]);
    check("#endif\n#else\n#include <a>\n", &[("<a>", &[])]);
    check("#ifdef A\n#elifdef B\n#include <b>\n#endif\n", &[("<b>", &["A", "B"])]);
}

#[test]
fn guards_are_no_conditions() {
    let check = |text: &str, guard: Option<&str>, once: bool, conditional: bool| {
        let directives = Directives::scan(text.as_bytes());
        assert_eq!(directives.guard().map(|g| &g[..]), guard.map(str::as_bytes), "{text:?}");
        assert_eq!(directives.reads_once(), once, "{text:?}");
        let under = directives.includes().iter().any(|include| !include.place.is_unconditional());
        assert_eq!(under, conditional, "{text:?}");
    };
    check("/* a */\n#ifndef G\n#define G\n#include <a>\n#endif // G\n", Some("G"), true, false);
    check("#if !defined(G)\n#define G 1\n#include <a>\n#endif\nint x;\n", Some("G"), true, false);
    check("#if !defined G\n#define G\n#ifdef A\n#include <a>\n#endif\n#endif\n", Some("G"), true, true);
    check("#pragma once\n#include <a>\n", None, true, false);
    check("#ifndef G\n#define G\n#endif\n#include <a>\n", None, false, false);
    check("#ifndef G\n#include <a>\n#endif\n", None, false, true);
    check("#ifndef G\n#define G\n#include <a>\n#undef G\n#endif\n", None, false, true);
    check("#ifndef G\n#define G\n#else\n#include <a>\n#endif\n", None, false, true);
    check("#ifndef G\n#define H\n#include <a>\n#endif\n", None, false, true);
}

#[test]
fn macros_are_known() {
    let directives = Directives::scan(b"#define A(x) x B\n#include <a>\n#undef A\n#ifdef C\n#define D\n#endif\n");
    let found: Vec<_> = directives.macros().iter().map(|m| (&m.name[..], m.includes_before)).collect();
    assert_eq!(found, [(&b"A"[..], 0), (&b"A"[..], 1), (&b"D"[..], 1)]);
    assert_eq!(directives.macros()[0].event, MacroEvent::Define(Bytes::from("(x) x B")));
    assert_eq!(directives.macros()[1].event, MacroEvent::Undefine);
    assert!(!directives.macros()[2].place.is_unconditional());
    let pushed = Directives::scan(b"#pragma push_macro(\"A\")\n");
    assert_eq!(pushed.macros()[0].name, "A");
}

#[test]
fn what_does_not_matter_is_not_told_apart() {
    same("#include <a>\nint x;\n", "// b\n\n#  include   <a> /* c */\n", true);
    same("#if defined ( A )&&B\n#include <a>\n#endif", "#if defined(A) && B\n#include <a>\n#endif", true);
    same("#ifdef A\n#include <a>\n#endif", "#if defined(A)\n#include <a>\n#endif", true);
    same("#include <a>\n", "#ifdef A\nint x;\n#endif\n#include <a>\n#pragma pack(1)\n#error x\n", true);
    same("#define A 1\n", "#define  A   1 // one\n", true);
    same("#if __has_include(<a>)\n#endif\n", "", false);
}

#[test]
fn what_matters_is_told_apart() {
    same("#include <a>\n", "#include \"a\"\n", false);
    same("#include <a>\n", "#ifdef A\n#include <a>\n#endif\n", false);
    same("#ifdef A\n#include <a>\n#endif", "#ifndef A\n#include <a>\n#endif", false);
    same("#define A 1\n", "#define A 2\n", false);
    same("#define A(x)\n", "#define A (x)\n", false);
    same("#define A\n#include <a>\n", "#include <a>\n#define A\n", false);
    same("#include <a>\n#include <b>\n", "#include <b>\n#include <a>\n", false);
    same("#pragma once\n", "", false);
}

#[test]
fn probes_are_found() {
    let probes = |text: &str| Directives::scan(text.as_bytes()).probes().collect::<Vec<_>>();
    let angle = |name: &str| Operand::Angle(Bytes::copy_from_slice(name.as_bytes()));
    assert_eq!(probes("#if __has_include(<a.h>)\n#include <a.h>\n#endif\n"), [angle("a.h")]);
    assert_eq!(probes("#if __has_include ( <a.h> ) && X\n#define A\n#endif\n"), [angle("a.h")]);
    assert_eq!(probes("#ifdef __has_include\n#include <a.h>\n#endif\n"), []);
    assert_eq!(probes("#if __has_include(<a.h>)\nint x;\n#endif\n"), []);
    let all =
        Directives::scan(b"#if 0\n#if __has_include(<b.h>)\n#endif\n#elif __has_include(<a.h>)\nint x;\n#endif\n");
    assert_eq!(all.all_probes().collect::<Vec<_>>(), [angle("a.h")]);
    assert!(matches!(probes("#define HAS(x) __has_include(x)\n")[..], [Operand::Computed(_)]));
}

/// Texts that are close to directives.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "#",
        "include",
        "<a>",
        "\"b\"",
        "\n",
        " ",
        "\\\n",
        "\\\r\n",
        "/*",
        "*/",
        "//",
        "'",
        "R\"x(",
        ")x\"",
        "if ",
        "ifndef G",
        "define G",
        "else",
        "endif",
        "elif ",
        "defined",
        "(",
        ")",
        "1",
        "0",
        "%:",
        "pragma once",
        "__has_include(",
        "é",
    ];
    let piece = prop_oneof![
        proptest::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
        proptest::sample::select(vec!["\n#include <a>\n", "\n#if A\n", "\n#endif\n", "\n#else\n", "\n#define A B\n"])
            .prop_map(|piece| piece.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn anything_is_a_text(text in text()) {
        let directives = Directives::scan(&text);
        for include in directives.includes() {
            let _ = directives.mentioned(include.place).count();
        }
        for m in directives.macros() {
            prop_assert!(m.includes_before <= directives.includes().len());
            let _ = directives.mentioned(m.place).count();
        }
        let _ = directives.probes().count();
        prop_assert_eq!(&directives, &Directives::scan(&text));
    }

    #[test]
    fn comments_change_nothing(text in text()) {
        let with = [b"/* x\n#include <y>\n*/", &text[..], b"\n\n"].concat();
        let trimmed = [&text[..], b"\n"].concat();
        prop_assert_eq!(Directives::scan(&trimmed), Directives::scan(&with));
    }
}
