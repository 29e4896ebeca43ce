//! Random trees, random changes: what is certain must be what gcc says.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "test code")]

mod support;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use fastrand::Rng;
use includes::{CompileCommand, Question, Verdict};
use support::{Disk, files_read, gcc_is_here, in_root, standard_directories};

const DIRECTORIES: [&str; 4] = ["", "a/", "b/", "sys/"];
const SYSTEM: [&str; 5] = ["stddef.h", "stdio.h", "stdlib.h", "string.h", "limits.h"];
const HEADERS: usize = 7;

/// How much of the preprocessor the texts use.
#[derive(Clone, Copy, PartialEq)]
enum Style {
    /// No conditions but guards.
    Plain,
    Conditions,
}

/// Text by path. A text is a list of pieces, each of one or more lines.
type Tree = BTreeMap<String, Vec<String>>;

struct Maker {
    rng: Rng,
    style: Style,
}

impl Maker {
    fn tree(&mut self) -> Tree {
        let mut tree = Tree::new();
        for number in 0..HEADERS {
            // Each name is found from everywhere, and often in several places.
            let everywhere = if self.rng.bool() { "a/" } else { "sys/" };
            for directory in DIRECTORIES {
                if directory == everywhere || self.rng.u8(..10) < 2 {
                    tree.insert(format!("{directory}h{number}.h"), self.text(number));
                }
            }
        }
        let mut main = self.pieces(0, 5);
        main.push("int main(void) { return 0; }".to_owned());
        tree.insert("main.c".to_owned(), main);
        tree
    }

    fn text(&mut self, number: usize) -> Vec<String> {
        let most = self.rng.usize(..4);
        let mut pieces = self.pieces(number + 1, most);
        let id = self.rng.u32(..1000);
        match self.rng.u8(..10) {
            0..6 => {
                pieces.insert(0, format!("#ifndef H{number}_{id}\n#define H{number}_{id}"));
                pieces.push("#endif".to_owned());
            }
            6..8 => pieces.insert(0, format!("#pragma once // {id}")),
            _ => {}
        }
        pieces
    }

    fn pieces(&mut self, from: usize, most: usize) -> Vec<String> {
        (0..most).map(|_| self.piece(from)).collect()
    }

    /// Mostly an include, of headers with higher numbers, so that nothing includes itself.
    fn piece(&mut self, from: usize) -> String {
        match self.rng.u8(..10) {
            0 if self.style == Style::Conditions && self.rng.bool() => {
                format!("#if __has_include(\"h{}.h\")\nint code;\n#endif", self.rng.usize(..HEADERS))
            }
            0 => "int code; /* #include \"no.h\" */".to_owned(),
            1 | 2 => self.define(),
            3 | 4 if self.style == Style::Conditions => {
                let (condition, include) = (self.condition(), self.include(from));
                let other = if self.rng.bool() { self.include(from) } else { self.define() };
                match self.rng.u8(..3) {
                    0 => format!("{condition}\n{include}\n#endif"),
                    1 => format!("{condition}\n{other}\n#endif"),
                    _ => format!("{condition}\n{include}\n#else\n{other}\n#endif"),
                }
            }
            _ => self.include(from),
        }
    }

    fn condition(&mut self) -> String {
        let (m, n) = (self.rng.u8(..4), self.rng.u8(..4));
        match self.rng.u8(..6) {
            0 => "#if 0".to_owned(),
            1 => format!("#if defined(M{m}) && M{n} > 1"),
            2 => format!("#ifndef M{m}"),
            3 => format!("#if M{m}"),
            4 => format!("#if __has_include(\"h{m}.h\")"),
            _ => format!("#ifdef M{m}"),
        }
    }

    fn define(&mut self) -> String {
        let (m, n) = (self.rng.u8(..4), self.rng.u8(..4));
        match self.rng.u8(..4) {
            0 => format!("#undef M{m}"),
            1 => format!("#define M{m} M{n}"),
            _ => format!("#define M{m} {n}"),
        }
    }

    fn include(&mut self, from: usize) -> String {
        if from >= HEADERS || self.rng.u8(..12) == 0 {
            // All but the first have conditions in them.
            let most = if self.style == Style::Plain { 1 } else { SYSTEM.len() };
            return format!("#include <{}>", SYSTEM[self.rng.usize(..most)]);
        }
        let number = self.rng.usize(from..HEADERS);
        match self.rng.u8(..8) {
            0..=4 => format!("#include \"h{number}.h\""),
            5 if self.rng.u8(..4) == 0 => format!("#include \"../b/h{number}.h\""),
            _ => format!("#include <h{number}.h>"),
        }
    }

    fn number_of(path: &str) -> usize {
        path.rsplit('/').next().and_then(|name| name.strip_prefix('h')?.strip_suffix(".h")?.parse().ok()).unwrap_or(0)
    }

    /// One change of the kind that people make.
    fn change(&mut self, tree: &mut Tree, read: &[String]) {
        let mut paths: Vec<String> = tree.keys().cloned().collect();
        if self.rng.u8(..5) > 0 {
            paths.retain(|path| read.contains(path));
        }
        let path = paths[self.rng.usize(..paths.len())].clone();
        let from = if path == "main.c" { 0 } else { Self::number_of(&path) + 1 };
        let text = tree.get_mut(&path).unwrap();
        let guarded = text.first().is_some_and(|first| first.starts_with("#ifndef H"));
        let inside = usize::from(guarded)..=text.len() - usize::from(guarded);
        let somewhere = self.rng.usize(inside);
        let includes: Vec<usize> = (0..text.len()).filter(|i| text[*i].starts_with("#include")).collect();
        match self.rng.u8(..12) {
            0 => text.insert(somewhere, "int more; // #include <no.h>".to_owned()),
            1 | 2 => text.insert(somewhere, self.include(from)),
            3 => text.insert(somewhere, self.piece(from)),
            4 | 5 if !includes.is_empty() => drop(text.remove(includes[self.rng.usize(..includes.len())])),
            6 if includes.len() > 1 => text.swap(includes[0], includes[includes.len() - 1]),
            7 => match text.iter_mut().find(|piece| piece.starts_with("#define M")) {
                Some(piece) => *piece = self.define(),
                None => text.insert(somewhere, self.define()),
            },
            8 if path != "main.c" => {
                // Renamed, along with its includes; the name sorts behind all others.
                let text = tree.remove(&path).unwrap();
                let name = path.rsplit('/').next().unwrap().to_owned();
                for text in tree.values_mut() {
                    text.iter_mut().for_each(|piece| *piece = piece.replace(&name, &format!("r{name}")));
                }
                tree.insert(path.replace(&name, &format!("r{name}")), text);
            }
            9 if path != "main.c" => {
                let text = tree.remove(&path).unwrap();
                let directory = DIRECTORIES[self.rng.usize(..4)];
                tree.insert(format!("{directory}{}", path.rsplit('/').next().unwrap()), text);
            }
            10 if path != "main.c" => drop(tree.remove(&path)),
            _ => {
                let number = self.rng.usize(..HEADERS);
                let directory = DIRECTORIES[self.rng.usize(..4)];
                let text = self.text(number);
                tree.entry(format!("{directory}h{number}.h")).or_insert(text);
            }
        }
    }
}

fn write(tree: &Tree, directory: &Path) {
    for path in DIRECTORIES {
        let path = directory.join(path);
        std::fs::create_dir_all(&path).unwrap();
        for entry in std::fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
    for (path, text) in tree {
        std::fs::write(directory.join(path), text.join("\n") + "\n").unwrap();
    }
}

fn ask(question: &Question<'_, usize>, disk: &mut Disk) -> Verdict<usize> {
    for _ in 0..200 {
        match question.ask(disk) {
            Verdict::Lacks { contents } => disk.load(&contents),
            Verdict::Waits { paths } => disk.learn(&paths),
            verdict => return verdict,
        }
    }
    panic!("it never ends");
}

#[derive(Default, Debug)]
struct Count {
    same: usize,
    changed: usize,
    broken: usize,
    fails_anyway: usize,
    unsure: BTreeMap<String, usize>,
}

impl Count {
    fn share_unsure(&self) -> f64 {
        let unsure: usize = self.unsure.values().sum();
        let all = self.same + self.changed + self.broken + unsure;
        f64::from(u32::try_from(unsure).unwrap()) / f64::from(u32::try_from(all).unwrap())
    }
}

/// `DIFFERENTIAL_CASES` asks for more trees than the few hundred of every day.
fn run(style: Style, first: u64) -> Count {
    let cases = std::env::var("DIFFERENTIAL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400);
    let seeds = first..first + cases;
    let mut count = Count::default();
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().canonicalize().unwrap();
    let standard = standard_directories("c");
    let mut disk = Disk::default();
    for seed in seeds {
        let mut maker = Maker { rng: Rng::with_seed(seed), style };
        let line = match maker.rng.u8(..6) {
            0 => "gcc -Ia -iquote b -isystem sys -include h3.h -c main.c",
            1 => "gcc -DM0=2 -Isys -Ia -iquote b -isystem sys -c main.c -o main.o",
            2 => "gcc -DM1 -Ia -I b -idirafter sys main.c",
            _ => "gcc -Ia -iquote b -isystem sys -c main.c",
        };
        let command = CompileCommand::parse(line.split(' ')).unwrap();
        let mut tree = maker.tree();
        write(&tree, &directory);
        let Some(then) = files_read(&command, &directory) else { continue };
        let recorded: Vec<_> = then.iter().map(|path| (path.clone(), disk.content(path).unwrap())).collect();
        let before = tree.clone();
        let root = in_root(&directory);
        let inside = |path: &Bytes| path.strip_prefix(&root[..])?.strip_prefix(b"/").map(<[u8]>::to_vec);
        let read: Vec<_> = then.iter().filter_map(inside).map(|path| String::from_utf8(path).unwrap()).collect();
        for _ in 0..maker.rng.usize(1..3) {
            maker.change(&mut tree, &read);
        }
        write(&tree, &directory);
        disk.forget();
        let now = files_read(&command, &directory);
        let appeared: Vec<Bytes> = (tree.keys().filter(|path| !before.contains_key(*path)))
            .map(|path| Bytes::from([&root[..], b"/", path.as_bytes()].concat()))
            .collect();
        let question = Question {
            command: &command,
            working_directory: &root,
            recorded: &recorded,
            standard: &standard,
            appeared: &appeared,
        };
        let verdict = ask(&question, &mut disk);
        let wrong = |predicted: &BTreeSet<Bytes>| {
            let now = now.as_ref();
            let missed = now.map(|now| now.difference(predicted).collect::<Vec<_>>());
            let extra = now.map(|now| predicted.difference(now).collect::<Vec<_>>());
            panic!("seed {seed}, {line}: {verdict:?}\nmissed {missed:?}\nextra {extra:?}\n{before:#?}\n{tree:#?}")
        };
        let predicted = match &verdict {
            Verdict::Same => {
                count.same += 1;
                then.clone()
            }
            Verdict::Changed { added, removed } => {
                count.changed += 1;
                let still = then.iter().filter(|path| !removed.contains(path));
                still.chain(added).cloned().collect()
            }
            Verdict::Broken { .. } => {
                count.broken += 1;
                assert_eq!(now, None, "seed {seed}: {verdict:?}\n{before:#?}\n{tree:#?}");
                continue;
            }
            Verdict::Unsure(doubt) => {
                let kind = format!("{doubt:?}").split('(').next().unwrap().to_owned();
                *count.unsure.entry(kind).or_default() += 1;
                continue;
            }
            Verdict::Lacks { .. } | Verdict::Waits { .. } => panic!("{verdict:?}"),
        };
        match &now {
            // An active conditional include of nothing: trusted not to be.
            None if style == Style::Conditions => count.fails_anyway += 1,
            None => wrong(&predicted),
            Some(now) if *now != predicted => wrong(&predicted),
            Some(_) => {}
        }
    }
    eprintln!("{count:?}, unsure {:.1} %", count.share_unsure() * 100.0);
    count
}

#[test]
fn without_conditions_it_is_right_and_mostly_certain() {
    if gcc_is_here("without_conditions_it_is_right_and_mostly_certain") {
        let count = run(Style::Plain, 0);
        assert!(count.same > 20 && count.changed > 20 && count.broken > 5, "{count:?}");
        assert!(count.share_unsure() < 0.1, "{count:?}");
    }
}

#[test]
fn with_conditions_it_is_right_where_it_is_certain() {
    if gcc_is_here("with_conditions_it_is_right_where_it_is_certain") {
        let count = run(Style::Conditions, 1_000_000);
        assert!(count.same > 20 && count.changed > 20, "{count:?}");
        assert!(count.fails_anyway * 20 < count.same + count.changed, "{count:?}");
    }
}

/// Changes that people make every day, around system headers with all their conditions.
#[test]
fn everyday_changes_are_certain() {
    if !gcc_is_here("everyday_changes_are_certain") {
        return;
    }
    let (main, util) =
        ("#include \"util.h\"\n#include <stdio.h>\n#include <stdlib.h>\n", "#pragma once\n#include <string.h>\n");
    let cpp = "#include \"util.h\"\n#include <vector>\n#include <string>\n#include <map>\n";
    let same = [
        ("util.h", "#pragma once\n#include <string.h>\n#include <stdio.h>\n"),
        ("util.h", "#pragma once\n#define LIMIT 3\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n#include <string.h>\n"),
        ("util.h", "#pragma once\n#include <string.h>\n#ifdef __linux__\nint linux;\n#endif\n"),
    ];
    for (source, language, text) in [("main.c", "c", main), ("main.cc", "c++", cpp)] {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().canonicalize().unwrap();
        let write = |path: &str, text: &str| std::fs::write(directory.join(path), text).unwrap();
        write(source, text);
        write("util.h", util);
        let command = CompileCommand::parse(["gcc", "-O2", "-c", source]).unwrap();
        // Without a C++ compiler there is no C++ to test.
        let Some(then) = files_read(&command, &directory) else { continue };
        let mut disk = Disk::default();
        let recorded: Vec<_> = then.iter().map(|path| (path.clone(), disk.content(path).unwrap())).collect();
        let swapped = text.lines().rev().collect::<Vec<_>>().join("\n");
        let twice = [text, "#include <string.h>\n"].concat();
        for (path, text) in same.into_iter().chain([(source, &swapped[..]), (source, &twice[..])]) {
            let before = std::fs::read_to_string(directory.join(path)).unwrap();
            write(path, text);
            disk.forget();
            let question = Question {
                command: &command,
                working_directory: &in_root(&directory),
                recorded: &recorded,
                standard: &standard_directories(language),
                appeared: &[],
            };
            let verdict = ask(&question, &mut disk);
            assert_eq!(files_read(&command, &directory).as_ref(), Some(&then), "{source} {text:?}");
            assert_eq!(verdict, Verdict::Same, "{source} {text:?}");
            write(path, &before);
        }
    }
}
