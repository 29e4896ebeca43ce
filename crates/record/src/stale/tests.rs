//! Builds of one element, some of them older than what it has now.

use std::collections::BTreeMap;

use reapi_proto::{DigestFunction, v2};

use super::*;
use crate::tests::toy::Toys;

const OWN: &str = "buildstream/demo/app.bst";

/// Actions in the order in which they ran, and what the element has now.
#[derive(Default)]
struct Scene {
    toys: Toys,
    ran: Vec<Run>,
}

struct Run {
    action: Digest,
    build: Build,
    last: usize,
    input_root: Digest,
    command: Command,
    outputs: Vec<(Bytes, Node)>,
}

impl Run {
    fn with_input_root(&self, input_root: Digest) -> Ran<'_> {
        let Self { action, build, last, command, outputs, .. } = self;
        Ran { action: *action, build: *build, last: *last, input_root, command, outputs }
    }
}

impl Scene {
    /// Adds `cc ARGUMENTS` with inputs by path below the element's root (or, with a leading slash, staged)
    /// and one output at a path below that root. All files as path and content.
    fn run(&mut self, arguments: &str, inputs: &[(&str, &str)], output: (&str, &str)) -> usize {
        self.run_in(Build::Last, arguments, inputs, output)
    }

    fn run_in(&mut self, build: Build, arguments: &str, inputs: &[(&str, &str)], output: (&str, &str)) -> usize {
        let placed: Vec<(String, Node)> = (inputs.iter())
            .map(|(path, content)| {
                let path = path.strip_prefix('/').map_or_else(|| format!("{OWN}/{path}"), str::to_owned);
                (path, self.toys.file(content))
            })
            .collect();
        let message = v2::Command {
            arguments: ["cc"].into_iter().chain(arguments.split_whitespace()).map(str::to_owned).collect(),
            output_paths: vec![output.0.into()],
            working_directory: OWN.into(),
            ..v2::Command::default()
        };
        let command = self.toys.store.put_message(&message);
        let command = Command::parse(self.toys.store.peek(&command).unwrap()).unwrap();
        let input_root = self.toys.tree_of(&placed);
        let position = self.ran.len();
        let action = self.toys.store.put(format!("action {position}"));
        let outputs = vec![(Bytes::copy_from_slice(output.0.as_bytes()), self.toys.file(output.1))];
        self.ran.push(Run { action, build, last: position, input_root, command, outputs });
        position
    }

    /// An action that ran before runs once more.
    fn again(&mut self, position: usize) {
        self.ran[position].last = self.ran.len() + 100;
    }

    fn forest(&self) -> Forest {
        let mut forest = Forest::new();
        for digest in self.toys.store.digests() {
            if let Ok(directory) = Directory::parse(self.toys.store.peek(&digest).unwrap()) {
                forest.insert(digest, directory);
            }
        }
        forest
    }

    /// The stale actions: position, the path that shows it, and the position of what took its place.
    fn stale(&self, sources: Option<&[(&str, &str)]>, artifacts: &[&[(&str, &str)]]) -> Stales {
        let sources = sources.map(|files| self.toys.tree(files));
        let artifacts = artifacts.iter().map(|files| self.toys.tree(files)).collect();
        let forest = self.forest();
        let current = Current { forest: &forest, own_root: OWN.as_bytes(), sources, artifacts };
        let actions: Vec<Ran<'_>> = self.ran.iter().map(|run| run.with_input_root(run.input_root)).collect();
        let position = |action: Digest| self.ran.iter().position(|run| run.action == action).unwrap();
        (stale(&current, &actions).into_iter().enumerate())
            .filter_map(|(i, verdict)| verdict.map(|s| (i, (s.path, s.superseded_by.map(position)))))
            .collect()
    }
}

type Stales = BTreeMap<usize, (String, Option<usize>)>;

fn own(path: &str) -> String {
    format!("{OWN}/{path}")
}

#[test]
fn a_build_from_scratch_has_nothing_stale() {
    let mut scene = Scene::default();
    scene.run("main.c", &[("main.c", "main"), ("gen.h", "generated"), ("/usr/include/std.h", "std")], ("main.o", "o"));
    scene.run("main.o", &[("main.o", "o"), ("local.o", "made by no action")], ("app", "program"));
    assert_eq!(scene.stale(Some(&[("main.c", "main")]), &[&[("usr/include/std.h", "std")]]), Stales::new());
}

/// BuildStream builds a workspace on top of its last buildtree: of the first
/// build's three actions one still counts.
#[test]
fn what_an_incremental_build_replaced_is_stale_and_what_it_kept_is_not() {
    let mut scene = Scene::default();
    let util = scene.run("util.c", &[("util.c", "old"), ("common.h", "c")], ("util.o", "old object"));
    let main = scene.run("main.c", &[("main.c", "main"), ("common.h", "c")], ("main.o", "object"));
    let link = scene.run("-o app", &[("util.o", "old object"), ("main.o", "object")], ("app", "old program"));
    let new_util = scene.run("util.c", &[("util.c", "new"), ("common.h", "c")], ("util.o", "new object"));
    let new_link = scene.run("-o app", &[("util.o", "new object"), ("main.o", "object")], ("app", "new program"));
    let found = scene.stale(Some(&[("util.c", "new"), ("main.c", "main"), ("common.h", "c")]), &[]);
    let expected = [(util, (own("util.c"), Some(new_util))), (link, (own("util.o"), Some(new_link)))];
    assert_eq!(found, expected.into());
    assert!(!found.contains_key(&main));
}

#[test]
fn a_comment_replaces_the_compile_and_keeps_the_link() {
    let mut scene = Scene::default();
    let old = scene.run("a.c", &[("a.c", "old")], ("a.o", "object"));
    scene.run("-o app", &[("a.o", "object")], ("app", "program"));
    let new = scene.run("a.c", &[("a.c", "commented")], ("a.o", "object"));
    let found = scene.stale(Some(&[("a.c", "commented")]), &[]);
    assert_eq!(found, [(old, (own("a.c"), Some(new)))].into());
}

#[test]
fn a_changed_dependency_makes_stale_too() {
    let mut scene = Scene::default();
    let old = scene.run("a.c", &[("a.c", "a"), ("/usr/include/dep.h", "41")], ("a.o", "old"));
    let new = scene.run("a.c", &[("a.c", "a"), ("/usr/include/dep.h", "42")], ("a.o", "new"));
    let found = scene.stale(Some(&[("a.c", "a")]), &[&[("usr/include/dep.h", "42")]]);
    assert_eq!(found, [(old, ("usr/include/dep.h".to_owned(), Some(new)))].into());
}

/// Configure edits `zconf.h` in place: the path is a source's, the content is not.
#[test]
fn a_source_that_the_build_writes_over_is_no_sign_of_age() {
    let sources: &[(&str, &str)] = &[("zconf.h", "as shipped"), ("a.c", "a"), ("b.c", "b")];
    let mut scene = Scene::default();
    scene.run("check.c", &[("check.c", "generated"), ("zconf.h", "as shipped")], ("check.o", "check"));
    scene.run("a.c", &[("a.c", "a"), ("zconf.h", "edited")], ("a.o", "a"));
    scene.run("b.c", &[("b.c", "b"), ("zconf.h", "edited")], ("b.o", "b"));
    assert_eq!(scene.stale(Some(sources), &[]), Stales::new());

    // Nor does it hide age.
    let mut scene = Scene::default();
    let old = scene.run("a.c", &[("a.c", "old"), ("zconf.h", "edited")], ("a.o", "old object"));
    let new = scene.run("a.c", &[("a.c", "a"), ("zconf.h", "edited")], ("a.o", "object"));
    assert_eq!(scene.stale(Some(sources), &[]), [(old, (own("a.c"), Some(new)))].into());
}

/// A file is compiled with the header as shipped, then again with the edited one.
#[test]
fn an_edit_in_the_middle_of_a_build_leaves_both_actions() {
    let mut scene = Scene::default();
    scene.run("a.c", &[("a.c", "a"), ("zconf.h", "as shipped")], ("a.o", "first"));
    scene.run("a.c", &[("a.c", "a"), ("zconf.h", "edited")], ("a.o", "second"));
    assert_eq!(scene.stale(Some(&[("a.c", "a"), ("zconf.h", "as shipped")]), &[]), Stales::new());
}

/// autoconf compiles dozens of programs of one name.
#[test]
fn many_checks_of_one_name_are_all_kept() {
    let mut scene = Scene::default();
    for i in 0..5 {
        scene.run("conftest.c", &[("conftest.c", &format!("check {i}"))], ("conftest.o", &format!("object {i}")));
        scene.run("-o conftest", &[("conftest.o", &format!("object {i}"))], ("conftest", &format!("program {i}")));
    }
    assert_eq!(scene.stale(Some(&[("configure", "script")]), &[]), Stales::new());
}

#[test]
fn a_change_that_was_taken_back_leaves_the_first_action() {
    let sources: &[(&str, &str)] = &[("a.c", "first")];
    let mut scene = Scene::default();
    let first = scene.run("a.c", &[("a.c", "first")], ("a.o", "first object"));
    let second = scene.run("a.c", &[("a.c", "second")], ("a.o", "second object"));
    assert_eq!(scene.stale(Some(sources), &[]), Stales::new(), "nothing newer is any better");
    scene.again(first);
    assert_eq!(scene.stale(Some(sources), &[]), [(second, (own("a.c"), Some(first)))].into());
}

#[test]
fn other_arguments_or_outputs_are_other_actions() {
    let mut scene = Scene::default();
    scene.run("-O1 a.c", &[("a.c", "old")], ("a.o", "1"));
    scene.run("-O2 a.c", &[("a.c", "new")], ("a.o", "2"));
    scene.run("-O2 a.c", &[("a.c", "newer")], ("b.o", "2"));
    assert_eq!(scene.stale(Some(&[("a.c", "new")]), &[]), Stales::new());
}

#[test]
fn what_is_not_known_makes_nothing_stale() {
    let mut scene = Scene::default();
    scene.run("a.c", &[("a.c", "old"), ("/usr/include/dep.h", "41")], ("a.o", "old"));
    scene.run("a.c", &[("a.c", "new"), ("/usr/include/dep.h", "42")], ("a.o", "new"));
    assert_eq!(scene.stale(None, &[]), Stales::new());

    let gone = DigestFunction::Sha256.digest(b"gone");
    let forest = scene.forest();
    let current = Current { forest: &forest, own_root: OWN.as_bytes(), sources: Some(gone), artifacts: vec![gone] };
    let run = &scene.ran[0];
    let found = stale(&current, &[run.with_input_root(run.input_root), run.with_input_root(gone)]);
    assert_eq!(found, [None, None]);
}

#[test]
fn an_earlier_build_is_held_to_more() {
    use Build::{Earlier, Last};
    let sources: &[(&str, &str)] = &[("kept.c", "kept"), ("new.c", "new"), ("flags.c", "flags")];
    let artifact: &[(&str, &str)] = &[("usr/include/dep.h", "42")];
    let mut scene = Scene::default();
    let kept = scene.run_in(Earlier, "kept.c", &[("kept.c", "kept"), ("/usr/include/dep.h", "42")], ("kept.o", "k"));
    let gone = scene.run_in(Earlier, "gone.c", &[("gone.c", "gone")], ("gone.o", "g"));
    let changed = scene.run_in(Earlier, "new.c", &[("new.c", "old")], ("new.o", "o"));
    let staged = scene.run_in(Earlier, "x.c", &[("kept.c", "kept"), ("/usr/include/dep.h", "41")], ("x.o", "x"));
    let flags = scene.run_in(Earlier, "-O1 flags.c", &[("flags.c", "flags")], ("flags.o", "f"));
    let link = scene.run_in(Earlier, "-o lib", &[("kept.o", "k")], ("lib.so", "l"));
    let old_link = scene.run_in(Earlier, "-o app", &[("kept.o", "k"), ("gone.o", "g")], ("old", "program"));
    let new_flags = scene.run_in(Last, "-O2 flags.c", &[("flags.c", "flags")], ("flags.o", "f2"));
    let found = scene.stale(Some(sources), &[artifact]);
    let expected = [
        (gone, (own("gone.c"), None)),
        (changed, (own("new.c"), None)),
        (staged, ("usr/include/dep.h".to_owned(), None)),
        (flags, (own("flags.o"), Some(new_flags))),
        (old_link, (own("gone.o"), None)),
    ];
    assert_eq!(found, expected.into());
    assert!(!found.contains_key(&kept) && !found.contains_key(&link));
}

/// The last build compiled one file and linked: it found the other objects, which an earlier one had made.
#[test]
fn what_an_incremental_build_stands_on_is_in_use() {
    use Build::{Earlier, Last};
    let generated: &[(&str, &str)] = &[("a.c", "a"), ("config.h", "generated")];
    let mut scene = Scene::default();
    let check = scene.run_in(Earlier, "conftest.c", &[("conftest.c", "check")], ("conftest.o", "check object"));
    scene.run_in(Earlier, "a.c", generated, ("a.o", "a object"));
    let gone = scene.run_in(Earlier, "gone.c", &[("gone.c", "gone")], ("gone.o", "gone object"));
    let old = scene.run_in(Earlier, "b.c", &[("b.c", "old")], ("b.o", "old object"));
    scene.run_in(Earlier, "-r x.o", &[("a.o", "a object"), ("local.o", "local")], ("x.o", "x object"));
    let old_inputs = [("x.o", "x object"), ("b.o", "old object"), ("gone.o", "gone object")];
    let old_link = scene.run_in(Earlier, "-o app", &old_inputs, ("app", "old program"));
    let new = scene.run_in(Last, "b.c", &[("b.c", "new")], ("b.o", "new object"));
    let link = scene.run_in(Last, "-o app", &[("x.o", "x object"), ("b.o", "new object")], ("app", "program"));
    let found = scene.stale(Some(&[("a.c", "a"), ("b.c", "new")]), &[]);
    let expected = [
        (check, (own("conftest.c"), None)),
        (gone, (own("gone.c"), None)),
        (old, (own("b.o"), Some(new))),
        (old_link, (own("app"), Some(link))),
    ];
    assert_eq!(found, expected.into());
}
