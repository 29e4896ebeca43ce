//! Placing actions of several elements.

use cas_client::InMemory;
use proptest::prelude::*;
use reapi_proto::DigestFunction;

use super::super::ExplicitList;
use super::*;
use crate::SkipReason;
use crate::tests::toy::{Files, Run, Toys};

fn score(matching: usize, known: usize) -> Score {
    Score { matching, known }
}

#[track_caller]
fn check_decision(directory: Directory, listed: &[usize], scores: &[(usize, Score)], expected: &Decision) {
    assert_eq!(decide(&Facts { directory, listed, scores: scores.to_vec() }), *expected);
}

#[test]
fn the_working_directory_comes_first() {
    use Directory::{Foreign, Named};
    let content = [(3, score(9, 9))];
    check_decision(Named(vec![1]), &[2], &content, &Decision::Rows(vec![1], Grounds::WorkingDirectory));
    check_decision(Foreign, &[2], &content, &Decision::Elsewhere);
    // One project in the graph twice.
    let twice = || Named(vec![1, 4]);
    check_decision(twice(), &[2, 4], &content, &Decision::Rows(vec![4], Grounds::Listing));
    check_decision(
        twice(),
        &[2],
        &[(1, score(1, 2)), (3, score(9, 9)), (4, score(2, 2))],
        &Decision::Rows(vec![4], Grounds::Content),
    );
    check_decision(twice(), &[], &content, &Decision::Rows(vec![1, 4], Grounds::WorkingDirectory));
}

#[test]
fn then_what_is_listed_and_then_the_content() {
    use Directory::Silent;
    check_decision(Silent, &[2, 5], &[(3, score(9, 9))], &Decision::Rows(vec![2, 5], Grounds::Listing));
    check_decision(Silent, &[], &[(1, score(1, 1)), (3, score(2, 3))], &Decision::Rows(vec![3], Grounds::Content));
    // Equally many files; more of its paths: an older state of it.
    check_decision(Silent, &[], &[(1, score(1, 1)), (3, score(1, 2))], &Decision::Rows(vec![3], Grounds::Content));
    check_decision(Silent, &[], &[(1, score(2, 2)), (3, score(2, 2))], &Decision::Rows(vec![1, 3], Grounds::Content));
    check_decision(Silent, &[], &[(1, score(2, 3)), (3, score(2, 3))], &Decision::Ambiguous);
    check_decision(Silent, &[], &[(1, score(0, 3))], &Decision::Unexplained);
    check_decision(Silent, &[], &[], &Decision::Unexplained);
}

/// Elements by name (`PROJECT/NAME`) and sources.
struct Scene {
    toys: Toys,
    attributor: Attributor,
}

impl Scene {
    fn new(elements: &[(&str, &str, Files<'_>)]) -> Self {
        let toys = Toys::default();
        let elements = elements.iter().map(|(project, name, sources)| Element {
            project: (!project.is_empty()).then(|| (*project).to_owned()),
            sources: Some(toys.tree(sources)),
            ..Element::new(*name)
        });
        let graph = Graph::new(DigestFunction::Sha256, elements.collect()).unwrap();
        let store: Arc<InMemory> = Arc::new(toys.store.clone());
        let attributor = Attributor::new(Arc::new(graph), store.clone()).with_action_cache(store);
        Self { toys, attributor }
    }

    async fn action(&self, working_directory: &str, inputs: Files<'_>, outputs: Files<'_>) -> Digest {
        let inputs = self.toys.files(inputs);
        self.toys.run(&Run { working_directory, inputs, outputs: Some(outputs), ..Run::default() }).await
    }

    async fn place(&mut self, action: Digest) -> Placement {
        let placed = self.attributor.place(&[action, action]).await.unwrap();
        let [(answered, placement)] = &placed[..] else { panic!("one answer for each action") };
        assert_eq!(*answered, action);
        placement.clone()
    }
}

fn elements(names: &[&str], grounds: Grounds) -> Placement {
    Placement::Elements(names.iter().map(|name| (*name).to_owned()).collect(), grounds)
}

#[tokio::test]
async fn working_directories_name_elements() {
    let mut scene = Scene::new(&[
        ("demo", "app.bst", &[]),
        ("demo", "sub/app.bst", &[("a.c", "a")]),
        ("other", "junction.bst:app.bst", &[]),
        ("", "tool.bst", &[]),
    ]);
    let by_directory = |names: &[&str]| elements(names, Grounds::WorkingDirectory);
    for (directory, expected) in [
        ("buildstream/demo/app.bst", by_directory(&["app.bst"])),
        ("buildstream/demo/app.bst/_b/util", by_directory(&["app.bst"])),
        ("./buildstream//demo/sub/app.bst/", by_directory(&["sub/app.bst"])),
        ("buildstream/other/app.bst/x", by_directory(&["junction.bst:app.bst"])),
        ("buildstream/any/tool.bst", by_directory(&["tool.bst"])),
        ("buildstream/third/app.bst", Placement::Elsewhere),
        ("buildstream/demo/lib.bst", Placement::Elsewhere),
        ("buildstream/demo", Placement::Unexplained),
        ("build", Placement::Unexplained),
        ("", Placement::Unexplained),
    ] {
        let action = scene.action(directory, &[], &[]).await;
        assert_eq!(scene.place(action).await, expected, "{directory}");
    }
}

#[tokio::test]
async fn rewritten_paths_are_placed_by_content_and_links_by_what_was_placed() {
    let common: &str = "common header";
    let mut scene = Scene::new(&[
        ("demo", "app.bst", &[("main.c", "app main"), ("inc/common.h", common), ("zconf.h", "as shipped")]),
        ("demo", "lib.bst", &[("lib.c", "lib"), ("inc/common.h", common)]),
    ]);
    let app = elements(&["app.bst"], Grounds::Content);
    let compile = scene
        .action("", &[("main.c", "app main"), ("inc/common.h", common), ("usr/include/x.h", "x")], &[("main.o", "o")])
        .await;
    let link = scene.action("", &[("main.o", "o"), ("lib64/ld.so", "ld")], &[("app", "program")]).await;
    let check = scene.action("", &[("app", "program")], &[]).await;
    // In one call, since that is one log.
    let placed = scene.attributor.place(&[compile, link, check]).await.unwrap();
    assert_eq!(placed, [compile, link, check].map(|action| (action, app.clone())));

    let edited = scene.action("", &[("main.c", "app main"), ("zconf.h", "edited")], &[]).await;
    assert_eq!(scene.place(edited).await, app);
    let shared = scene.action("", &[("inc/common.h", common), ("generated.c", "g")], &[]).await;
    assert_eq!(scene.place(shared).await, elements(&["app.bst", "lib.bst"], Grounds::Content));
    let conftest = scene.action("", &[("conftest.c", "check")], &[]).await;
    assert_eq!(scene.place(conftest).await, Placement::Unexplained);
}

/// The C library's files are sources of the element that imports them.
#[tokio::test]
async fn staged_files_say_nothing() {
    let library: Files<'_> = &[("usr/lib/crt1.o", "start"), ("usr/lib/libc.so", "libc"), ("lib64/ld.so", "loader")];
    let toys = Toys::default();
    let sources = Some(toys.tree(&[("main.c", "main"), ("usr/lib/extra.o", "extra")]));
    let import =
        Element { sources: Some(toys.tree(library)), artifact: Some(toys.tree(library)), ..Element::new("base.bst") };
    let app = Element { sources, ..Element::new("app.bst") };
    // Installs files that it has at their final paths, and something else.
    let layout = Element {
        sources: Some(toys.tree(&[("usr/lib/extra.o", "extra")])),
        artifact: Some(toys.tree(&[("usr/lib/extra.o", "extra"), ("made", "here")])),
        ..Element::new("layout.bst")
    };
    let graph = Arc::new(Graph::new(DigestFunction::Sha256, vec![import, layout, app]).unwrap());
    let store: Arc<InMemory> = Arc::new(toys.store.clone());
    let mut scene = Scene { toys, attributor: Attributor::new(graph, store.clone()).with_action_cache(store) };
    let app = elements(&["app.bst"], Grounds::Content);
    let compile = scene.action("", &[&[("main.c", "main")], library].concat(), &[("main.o", "object")]).await;
    assert_eq!(scene.place(compile).await, app);
    let linked = [&[("main.o", "object"), ("usr/lib/extra.o", "extra")], library].concat();
    let link = scene.action("", &linked, &[]).await;
    assert_eq!(scene.place(link).await, app);
    let nothing_own = scene.action("", library, &[]).await;
    assert_eq!(scene.place(nothing_own).await, Placement::Unexplained);
}

#[tokio::test]
async fn a_build_root_of_another_name_is_found() {
    let mut scene = Scene::new(&[("demo", "app.bst", &[("src/main.c", "app main")])]);
    let action = scene.action("build/here/src", &[("build/here/src/main.c", "app main")], &[]).await;
    assert_eq!(scene.place(action).await, elements(&["app.bst"], Grounds::Content));
}

#[tokio::test]
async fn listings_come_before_content() {
    let mut scene = Scene::new(&[("demo", "app.bst", &[("main.c", "main")]), ("demo", "lib.bst", &[])]);
    let action = scene.action("", &[("main.c", "main")], &[]).await;
    let mut elements_of_graph: Vec<Element> = scene.attributor.graph().elements().cloned().collect();
    elements_of_graph[1].subactions = Some(vec![action]);
    let graph = Arc::new(Graph::new(DigestFunction::Sha256, elements_of_graph).unwrap());
    scene.attributor = Attributor::new(graph, Arc::new(scene.toys.store.clone()));
    assert_eq!(scene.place(action).await, elements(&["app.bst"], Grounds::Content));
    assert!(scene.attributor.learn(&ExplicitList).await.is_empty());
    assert_eq!(scene.place(action).await, elements(&["lib.bst"], Grounds::Listing));
}

#[tokio::test]
async fn what_cannot_be_looked_at_is_said() {
    let mut scene = Scene::new(&[("demo", "app.bst", &[("main.c", "main")])]);
    let gone = DigestFunction::Sha256.digest(b"not uploaded yet");
    assert_eq!(scene.place(gone).await, Placement::Unusable(SkipReason::ActionMissing));
    let foreign = DigestFunction::Sha512.digest(b"x");
    assert!(matches!(scene.place(foreign).await, Placement::Unusable(SkipReason::Unusable { .. })));
    let text = scene.toys.store.put("no action");
    assert!(matches!(scene.place(text).await, Placement::Unusable(SkipReason::Unusable { .. })));
    // Without its trees it is still somebody's, if the working directory says so.
    let treeless = scene.action("", &[("main.c", "main")], &[]).await;
    let known = scene.action("buildstream/demo/app.bst", &[("main.c", "main")], &[]).await;
    for digest in scene.toys.store.digests() {
        let blob = scene.toys.store.peek(&digest).unwrap();
        if digest != treeless && digest != known && reapi_proto::raw::Directory::parse(blob).is_ok() {
            scene.toys.store.forget(&digest);
        }
    }
    assert_eq!(scene.place(treeless).await, Placement::Unexplained);
    assert_eq!(scene.place(known).await, elements(&["app.bst"], Grounds::WorkingDirectory));
}

proptest! {
    #[test]
    fn no_working_directory_panics(bytes: Vec<u8>, tail in "(buildstream|demo|app\\.bst|\\.|/|x){0,8}") {
        let scene = Scene::new(&[("demo", "app.bst", &[]), ("demo", "app.bst/x", &[])]);
        scene.attributor.directory(&bytes);
        let directory = [b"buildstream/", tail.as_bytes(), &bytes].concat();
        scene.attributor.directory(&directory);
    }

    #[test]
    fn evidence_never_leads_outside_of_itself(
        named in prop::collection::vec(0_usize..5, 2..4),
        listed in prop::collection::vec(0_usize..5, 0..3),
        scores in prop::collection::vec((0_usize..5, 0_usize..3, 0_usize..3), 0..4),
        silent: bool,
    ) {
        let scores = scores.into_iter().map(|(row, matching, more)| (row, score(matching, matching + more)));
        let scores: Vec<_> = scores.collect();
        let directory = if silent { Directory::Silent } else { Directory::Named(named.clone()) };
        match decide(&Facts { directory, listed: &listed, scores: scores.clone() }) {
            Decision::Rows(rows, grounds) => {
                prop_assert!(!rows.is_empty());
                for row in rows {
                    prop_assert!(silent || named.contains(&row));
                    let supported = match grounds {
                        Grounds::WorkingDirectory => !silent,
                        Grounds::Listing => listed.contains(&row),
                        Grounds::Content => scores.iter().any(|(r, s)| *r == row && s.matching > 0),
                    };
                    prop_assert!(supported);
                }
            }
            Decision::Ambiguous | Decision::Unexplained => prop_assert!(silent && listed.is_empty()),
            Decision::Elsewhere => prop_assert!(false, "nothing was foreign"),
        }
    }
}

#[tokio::test]
async fn what_is_placed_stays_while_the_elements_do() {
    let mut scene = Scene::new(&[("demo", "app.bst", &[("main.c", "main")])]);
    let action = scene.action("buildstream/demo/app.bst", &[("buildstream/demo/app.bst/main.c", "main")], &[]).await;
    let placed = scene.place(action).await;
    assert_eq!(placed, Placement::Elements(vec!["app.bst".to_owned()], Grounds::WorkingDirectory));

    let elements =
        |name: &str| vec![Element { project: Some("demo".into()), cached: Some(true), ..Element::new(name) }];
    let graph = |name: &str| Arc::new(Graph::new(DigestFunction::Sha256, elements(name)).unwrap());
    // Messages that are gone by now were read before.
    scene.attributor.blobs = Arc::new(InMemory::new());
    scene.attributor.set_graph(graph("app.bst"));
    assert_eq!(scene.place(action).await, placed);
    assert_eq!(scene.attributor.graph().get("app.bst").unwrap().cached, Some(true));
    scene.attributor.set_graph(graph("other.bst"));
    assert!(matches!(scene.place(action).await, Placement::Unusable(_)));
}
