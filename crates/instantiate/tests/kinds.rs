//! Kinds of change: what a rebuild would execute is predicted digest for
//! digest, except for what nobody could know, and nothing else is executed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests may fail like tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use cas_client::{ActionCacheWriter, OutputKind, outputs};
use instantiate::{Engine, Event, Options, Services};
use overlay::graph::{Element, Graph};
use overlay::{Content, Contents, Dependency, Deriver, Merge, Mode, Observed, Observing, Platform, layout};
use reapi_proto::Digest;
use reapi_proto::raw::{Action, Command, Node};
use reapi_proto::v2::{self, platform};
use support::preprocessor::{join, reads};
use support::{Files, SHA, World, files, toy};
use tokio::sync::mpsc::unbounded_channel;

const ROOT: &str = "buildstream/proj/app.bst";

/// A project: `dep.bst` and `base.bst` are imports, `extra.bst` is part of the
/// platform beside the base, and `app.bst` is built: it compiles each source,
/// puts those in `lib/` into an archive, and links all of it. It generates
/// `version.h` from `version.txt`.
#[derive(Clone)]
struct Project {
    /// What the platform is made of, in staging order.
    platform: &'static [&'static str],
    base: Files,
    extra: Files,
    dep: Files,
    own: Files,
    flags: Vec<&'static str>,
    key: &'static str,
}

impl Default for Project {
    fn default() -> Self {
        Self {
            platform: &["base.bst", "extra.bst"],
            base: files(&[("usr/bin/cc", "compiler 1\n"), ("usr/include/std.h", "std\n")]),
            extra: files(&[("usr/share/release", "1\n")]),
            dep: files(&[
                ("usr/include/dep.h", "#include <std.h>\nint dep;\n"),
                ("usr/include/same1.h", "same\n"),
                ("usr/include/same2.h", "same\n"),
                ("usr/include/other.h", "other\n"),
                ("usr/include/option.h", "#define PLAIN\n"),
                ("usr/include/fancy.h", "fancy\n"),
            ]),
            own: files(&[
                ("Makefile", "all:\n"),
                ("README", "read\n"),
                ("version.txt", "1\n"),
                ("inc/own.h", "#include <dep.h>\nown\n"),
                ("forced.h", "forced\n"),
                ("main.c", "#include \"own.h\"\nmain\n"),
                ("plain.c", "plain\n"),
                ("pair.c", "#include <same1.h>\n#include <same2.h>\n"),
                ("vers.c", "#include \"version.h\"\nversion\n"),
                ("cond.c", "#include <option.h>\n#ifdef FANCY\n#include <fancy.h>\n#endif\n"),
                ("lib/part.c", "#include <dep.h>\npart\n"),
                ("lib/rest.c", "rest\n"),
            ]),
            flags: vec!["-O1", "-Iinc", "-include", "forced.h"],
            key: "weak",
        }
    }
}

/// What a build of a project ran: by output, in order.
struct Built {
    actions: Vec<(String, Digest)>,
    trees: BTreeMap<&'static str, Digest>,
    platform: Digest,
    contents: Contents,
}

impl Project {
    fn edit(mut self, of: fn(&mut Self) -> &mut Files, path: &str, text: &str) -> Self {
        of(&mut self).insert(path.to_owned(), text.to_owned());
        self
    }

    fn own(self, path: &str, text: &str) -> Self {
        self.edit(|project| &mut project.own, path, text)
    }

    fn dep(self, path: &str, text: &str) -> Self {
        self.edit(|project| &mut project.dep, path, text)
    }

    fn without(mut self, path: &str) -> Self {
        assert!(self.own.remove(path).is_some() || self.dep.remove(path).is_some(), "{path}");
        self
    }

    /// Stores the trees, and the union that the platform is.
    fn trees(&self, world: &mut World) -> (BTreeMap<&'static str, Digest>, Digest) {
        let trees: BTreeMap<&'static str, Digest> = BTreeMap::from([
            ("base.bst", world.files(&self.base)),
            ("extra.bst", world.files(&self.extra)),
            ("dep.bst", world.files(&self.dep)),
            ("app.bst", world.files(&self.own)),
        ]);
        let parts = self.platform.iter().map(|name| trees[name]);
        let merged = Merge::new(SHA, parts).finish(&world.forest).unwrap();
        for blob in &merged.directories {
            world.store.put(blob.data().clone());
        }
        (trees, merged.root)
    }

    async fn build(&self, world: &mut World) -> Built {
        let (trees, platform) = self.trees(world);
        let mut visible: BTreeMap<String, String> = BTreeMap::new();
        for staged in [&self.base, &self.extra, &self.dep] {
            visible.extend(staged.clone());
        }
        visible.extend(self.own.iter().map(|(path, text)| (join(ROOT, path), text.clone())));
        let version = format!("#define VERSION {}", self.own["version.txt"]);
        visible.insert(join(ROOT, "version.h"), version);
        let (mut actions, mut objects, mut members) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut contents = Contents::default();
        for source in self.own.keys().filter(|path| path.ends_with(".c")) {
            let object = source.replace(".c", ".o");
            let mut arguments = vec!["cc"];
            arguments.extend(&self.flags);
            arguments.extend(["-c", source, "-o", &object]);
            let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
            let Some(read) = reads(&visible, &arguments, ROOT) else { panic!("{source} does not compile") };
            let inputs = read.iter().map(|path| (path.clone(), world.file(&visible[path]))).collect();
            let (action, node) = self.run(world, platform, arguments, &inputs, &object).await;
            actions.push((object.clone(), action));
            let Node::File { digest, .. } = &node else { panic!("{node:?}") };
            if let Some(name) = object.strip_prefix("lib/") {
                members.push((name.as_bytes().to_vec(), *digest));
            } else {
                objects.insert(join(ROOT, &object), node);
            }
        }
        let archive = world.store.put(ar(world, &members));
        contents.insert(archive, Content::Archive(members));
        let mut arguments = vec!["cc".to_owned()];
        arguments.extend(objects.keys().map(|path| path[ROOT.len() + 1..].to_owned()));
        arguments.extend(["lib/all.a", "-o", "app"].map(str::to_owned));
        objects.insert(join(ROOT, "lib/all.a"), Node::File { digest: archive, executable: false });
        let (action, _) = self.run(world, platform, arguments, &objects, "app").await;
        actions.push(("app".to_owned(), action));
        Built { actions, trees, platform, contents }
    }

    async fn run(
        &self,
        world: &mut World,
        platform: Digest,
        arguments: Vec<String>,
        inputs: &BTreeMap<String, Node>,
        output: &str,
    ) -> (Digest, Node) {
        let property = platform::Property { name: "chrootRootDigest".to_owned(), value: platform.to_string() };
        let platform = Some(v2::Platform { properties: vec![property] });
        #[allow(deprecated, reason = "the copy that recc keeps in the Command")]
        let command = v2::Command {
            arguments,
            output_paths: vec![output.to_owned()],
            working_directory: ROOT.to_owned(),
            platform: platform.clone(),
            ..v2::Command::default()
        };
        let action = v2::Action {
            command_digest: Some(world.store.put_message(&command).into()),
            input_root_digest: Some(world.tree(inputs).into()),
            platform,
            ..v2::Action::default()
        };
        let action = world.store.put_message(&action);
        let result = toy::execute(&world.store, &action).unwrap();
        world.store.store_action_result(&action, &result).await.unwrap();
        let OutputKind::File { digest, is_executable } = outputs(&result).unwrap().remove(0).kind else { panic!() };
        world.made.insert(action, result);
        (action, Node::File { digest, executable: is_executable })
    }
}

/// An archive without a table of symbols, as `ar` writes it of files that are no objects.
fn ar(world: &World, members: &[(Vec<u8>, Digest)]) -> Bytes {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, digest) in members {
        let data = world.store.peek(digest).unwrap();
        let name = format!("{}/", String::from_utf8_lossy(name));
        archive.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 644, data.len()).bytes());
        archive.extend_from_slice(&data);
        archive.extend(std::iter::repeat_n(b'\n', data.len() % 2));
    }
    archive.into()
}

/// A project that was built and recorded, and has changed since; everything that `app.bst` is built on is there.
struct Scene {
    world: World,
    toy: toy::Toy,
    graph: Arc<Graph>,
    /// What the rebuild executes, by output.
    expected: BTreeMap<String, Digest>,
    /// Everything that the rebuild asks for.
    asked: BTreeSet<Digest>,
    /// In the order in which it asks.
    order: Vec<(String, Digest)>,
}

impl Scene {
    async fn new(old: &Project, new: &Project) -> Self {
        let mut world = World::default();
        let built = old.build(&mut world).await;
        let record = record(&world, &built, old);
        let mut elsewhere = World::default();
        let rebuilt = new.build(&mut elsewhere).await;
        // The platform of the rebuild is nowhere until the build makes it.
        for tree in [&new.base, &new.extra, &new.dep, &new.own] {
            world.files(tree);
        }
        let element = |name: &str, artifact: bool| Element {
            sources: Some(rebuilt.trees[name]),
            artifact: artifact.then_some(rebuilt.trees[name]),
            cached: Some(artifact),
            ..Element::new(name)
        };
        let staged: Vec<String> = ["base.bst", "extra.bst", "dep.bst"].map(str::to_owned).to_vec();
        let app = Element {
            weak_key: Some(new.key.to_owned()),
            build_deps: Some(staged.clone()),
            configuration: Some(new.flags.join(" ")),
            platforms: Some(vec![new.platform.iter().map(|name| (*name).to_owned()).collect()]),
            staged: Some(staged),
            speculative_actions: Some(world.store.put(layout::encode(&record))),
            ..element("app.bst", false)
        };
        let elements = vec![element("base.bst", true), element("extra.bst", true), element("dep.bst", true), app];
        let before: BTreeSet<Digest> = built.actions.iter().map(|(_, action)| *action).collect();
        let expected = rebuilt.actions.iter().filter(|(_, action)| !before.contains(action)).cloned().collect();
        let asked = rebuilt.actions.iter().map(|(_, action)| *action).collect();
        let toy = toy::Toy::new(world.store.clone());
        let order = rebuilt.actions;
        copy_actions(&elsewhere, &world, &order);
        Self { world, toy, graph: Arc::new(Graph::new(SHA, elements).unwrap()), expected, asked, order }
    }

    fn engine(&self) -> Engine {
        let store = Arc::new(self.world.store.clone());
        let services = Services { blobs: store.clone(), cache: store, execution: Some(Arc::new(self.toy.clone())) };
        Engine::new(services, Arc::clone(&self.graph))
    }

    /// What was executed, listings apart.
    fn executed(&self) -> BTreeSet<Digest> {
        let is_listing = |action: &Digest| {
            let action: v2::Action = support::message(&self.world.store, action);
            let command: v2::Command =
                support::message(&self.world.store, &Digest::try_from(&action.command_digest).unwrap());
            command.arguments.iter().any(|argument| argument == "-M")
        };
        self.toy.submitted().into_iter().filter(|action| !is_listing(action)).collect()
    }

    /// The outputs of what the rebuild would execute and was not primed.
    #[track_caller]
    fn unpredicted(&self) -> Vec<&str> {
        let executed = self.executed();
        let wasted: Vec<_> = executed.iter().filter(|action| !self.asked.contains(action)).collect();
        assert!(wasted.is_empty(), "{} wasted", wasted.len());
        let left = self.expected.iter().filter(|(_, action)| !executed.contains(action));
        left.map(|(output, _)| output.as_str()).collect()
    }
}

/// What a client stores before it asks: the messages and trees of its actions, not their results.
fn copy_actions(from: &World, to: &World, actions: &[(String, Digest)]) {
    for (_, digest) in actions {
        let action: v2::Action = support::message(&from.store, digest);
        to.store.put(from.store.peek(digest).unwrap());
        to.store.put(from.store.peek(&Digest::try_from(&action.command_digest).unwrap()).unwrap());
        let mut pending = vec![Digest::try_from(&action.input_root_digest).unwrap()];
        while let Some(root) = pending.pop() {
            to.store.put(from.store.peek(&root).unwrap());
            let directory: v2::Directory = support::message(&from.store, &root);
            pending.extend(directory.directories.iter().map(|child| Digest::try_from(&child.digest).unwrap()));
        }
    }
}

fn record(world: &World, built: &Built, project: &Project) -> overlay::Record {
    let dependency = |name: &str| Dependency {
        name: name.to_owned(),
        sources: Some(built.trees[name]),
        artifact: Some(built.trees[name]),
        record: None,
    };
    let of = project.platform.iter().map(|name| ((*name).to_owned(), built.trees[name])).collect();
    let observing = Observing {
        name: "app.bst".to_owned(),
        weak_key: Some(project.key.to_owned()),
        configuration: Some(project.flags.join(" ")),
        sources: Some(built.trees["app.bst"]),
        artifact: None,
        own_root: ROOT.into(),
        platforms: vec![Platform { root: built.platform, of }],
    };
    let dependencies = ["base.bst", "extra.bst", "dep.bst"].map(dependency).to_vec();
    let mut deriver = Deriver::new(Mode::Full, SHA, observing, dependencies);
    for (_, base) in &built.actions {
        let action = Action::parse(world.store.peek(base).unwrap()).unwrap();
        let command = Command::parse(world.store.peek(&action.command_digest()).unwrap()).unwrap();
        let made = outputs(&world.made[base]).unwrap().into_iter().map(|output| match output.kind {
            OutputKind::File { digest, is_executable } => {
                (Bytes::from(output.path), Node::File { digest, executable: is_executable })
            }
            other => panic!("{other:?}"),
        });
        let outputs = made.collect();
        let observed = Observed { base: *base, action, command, outputs, duration: None, output_bytes: None };
        deriver.observe(&world.forest, &observed).unwrap();
    }
    deriver.search(&world.forest);
    deriver.finish(&world.forest, &built.contents)
}

/// Primes and checks what was left to the rebuild. Returns how many compilers were asked.
async fn check(kind: &str, change: impl FnOnce(Project) -> Project, left: &[&str], listings: u64) {
    let scene = Scene::new(&Project::default(), &change(Project::default())).await;
    let report = scene.engine().run_static().await.unwrap();
    assert_eq!(scene.unpredicted(), left, "{kind}: {report:#?}");
    assert_eq!(report.totals.listings, listings, "{kind}: questions to the compiler");
}

#[tokio::test]
async fn members_of_an_archive_come_as_early_as_what_is_linked_directly() {
    let project = Project::default();
    let scene = Scene::new(&project, &project).await;
    for (_, action) in &scene.order {
        assert!(scene.world.store.forget_action_result(action));
    }
    scene.engine().with_options(Options { jobs: 1, ..Options::default() }).run_static().await.unwrap();
    // All durations are unknown, so what is equally far from the end comes in recorded order, and the link last.
    let order: Vec<Digest> = scene.order.iter().map(|(_, action)| *action).collect();
    assert!(scene.order[1].0.starts_with("lib/"), "{:?}", scene.order);
    assert_eq!(scene.toy.submitted(), order);
}

#[tokio::test]
async fn contents_change() {
    check("nothing", |p| p, &[], 0).await;
    check("documentation", |p| p.own("README", "x\n"), &[], 0).await;
    check("own source", |p| p.own("plain.c", "other\n"), &[], 0).await;
    check("comment", |p| p.own("plain.c", "// why\nplain\n"), &[], 0).await;
    check("header of a dependency", |p| p.dep("usr/include/dep.h", "#include <std.h>\nlong dep;\n"), &[], 0).await;
    check("one of two equal headers", |p| p.dep("usr/include/same2.h", "differs\n"), &[], 0).await;
    check("own header", |p| p.own("inc/own.h", "#include <dep.h>\nother\n"), &[], 0).await;
    check("forced header", |p| p.own("forced.h", "other\n"), &[], 0).await;
    check("member of an archive", |p| p.own("lib/rest.c", "other\n"), &[], 0).await;
}

#[tokio::test]
async fn the_platform_changes() {
    let change = |p: Project| p.edit(|p| &mut p.extra, "usr/share/release", "2\n");
    check("another part of the platform", change, &[], 0).await;
    let change = |p: Project| p.edit(|p| &mut p.base, "usr/bin/cc", "compiler 2\n");
    check("the compiler", change, &[], 0).await;
    let change = |p: Project| p.edit(|p| &mut p.base, "usr/include/std.h", "std 2\n");
    check("a header of the platform", change, &[], 0).await;
    let of = |platform, p| Project { platform, key: "other", ..p };
    check("the platform's order", |p| of(&["extra.bst", "base.bst"], p), &[], 0).await;
    check("a part more", |p| of(&["base.bst", "extra.bst", "dep.bst"], p), &[], 0).await;
    check("a part less", |p| of(&["base.bst"], p), &[], 0).await;
}

#[tokio::test]
async fn the_set_of_inputs_changes() {
    check("an include more", |p| p.own("plain.c", "#include <other.h>\nplain\n"), &[], 0).await;
    check("an include less", |p| p.own("main.c", "main\n"), &[], 0).await;
    let change = |p: Project| p.dep("usr/include/new.h", "new\n").own("plain.c", "#include <new.h>\nplain\n");
    check("a new header", change, &[], 0).await;
    let change = |p: Project| p.own("inc/more.h", "more\n").own("inc/own.h", "#include <dep.h>\n#include \"more.h\"\n");
    check("a new header of its own", change, &[], 0).await;
    let change =
        |p: Project| p.without("inc/own.h").own("inc/renamed.h", "x\n").own("main.c", "#include \"renamed.h\"\n");
    check("a renamed header", change, &[], 0).await;
    check("a header that shadows another", |p| p.own("inc/dep.h", "#include <std.h>\nmine\n"), &[], 0).await;
    let change = |p: Project| p.dep("usr/include/option.h", "#define FANCY\n");
    check("a condition that comes true", change, &[], 1).await;
    let change = |p: Project| p.dep("usr/include/option.h", "#define PLAIN 2\n");
    check("a value that no condition mentions", change, &[], 0).await;
}

#[tokio::test]
async fn what_nobody_can_know_is_not_guessed() {
    check("a generated header", |p| p.own("version.txt", "2\n"), &["app", "vers.o"], 0).await;
    let with_flags = |flags: &[&'static str], p: Project| Project { flags: flags.to_vec(), ..p };
    let all = ["cond.o", "lib/part.o", "lib/rest.o", "main.o", "pair.o", "plain.o", "vers.o"];
    let flags = ["-O2", "-Iinc", "-include", "forced.h"];
    check("flags", |p| with_flags(&flags, p.own("Makefile", "all: -O2\n")), &all[..], 0).await;
    let change = |p: Project| with_flags(&flags, Project { key: "other", ..p });
    check("the environment", change, &all[..], 0).await;
    check("a new source", |p| p.own("z.c", "z\n").own("Makefile", "z\n"), &["app", "z.o"], 0).await;
    check("a new source by pattern", |p| p.own("z.c", "z\n").own("plain.c", "x\n"), &["app", "z.o"], 0).await;
    check("a source less", |p| p.without("plain.c"), &["app"], 0).await;
}

/// A build that asks for one action after the other while the engine listens.
async fn learn(change: impl FnOnce(Project) -> Project, first: usize, late: bool) -> (Scene, instantiate::Report) {
    let scene = Scene::new(&Project::default(), &change(Project::default())).await;
    let (events, receiver) = unbounded_channel();
    let build = async {
        if late {
            // The engine has judged everything by then.
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
        }
        events.send(Event::BuildReached { element: "app.bst".to_owned() }).unwrap();
        for (_, action) in &scene.order[..first] {
            events.send(Event::Requested { action: *action }).unwrap();
        }
        drop(events);
    };
    let (report, ()) = tokio::join!(scene.engine().run(receiver), build);
    (scene, report.unwrap())
}

#[tokio::test]
async fn flags_are_learned_from_the_first_action() {
    let change = |p: Project| {
        let flags = vec!["-O2", "-g", "-Iinc", "-include", "forced.h"];
        Project { flags, ..p.own("Makefile", "all: -O2\n") }
    };
    let (scene, report) = learn(change, 1, true).await;
    // The toy makes the same objects whatever the flags, so the link is asked for as it was.
    // The Makefile may have to do with version.h, which the first action does not take.
    assert_eq!(scene.unpredicted(), [&scene.order[0].0, "vers.o"], "{report:#?}");
    assert_eq!(report.totals.learned, 1);
}

#[tokio::test]
async fn another_environment_is_learned_where_the_sources_are_the_same() {
    let change = |p: Project| Project { flags: vec!["-O3", "-Iinc", "-include", "forced.h"], key: "other", ..p };
    for late in [false, true] {
        let (scene, report) = learn(change, 1, late).await;
        assert_eq!(scene.unpredicted(), [&scene.order[0].0], "{late}: {report:#?}");
    }
}

#[tokio::test]
async fn what_was_not_changed_is_learned_too() {
    let change = |p: Project| p.own("Makefile", "all: # nothing\n").dep("usr/include/dep.h", "#include <std.h>\nx\n");
    let (scene, report) = learn(change, 1, true).await;
    assert_eq!(scene.order[0].0, "cond.o");
    // Of links nothing is known before one is asked for.
    assert_eq!(scene.unpredicted(), ["app"], "{report:#?}");
}

#[tokio::test]
async fn two_steps_that_disagree_teach_nothing() {
    let flags = vec!["-O2", "-Iinc", "-include", "forced.h"];
    let mut scene =
        Scene::new(&Project::default(), &Project { flags, ..Project::default().own("Makefile", "x\n") }).await;
    let other =
        Project { flags: vec!["-O3", "-Iinc", "-include", "forced.h"], ..Project::default().own("Makefile", "x\n") };
    let mut elsewhere = World::default();
    let another = other.build(&mut elsewhere).await;
    copy_actions(&elsewhere, &scene.world, &another.actions);
    scene.order[1] = another.actions[1].clone();
    let (events, receiver) = unbounded_channel();
    events.send(Event::BuildReached { element: "app.bst".to_owned() }).unwrap();
    for (_, action) in &scene.order[..2] {
        events.send(Event::Requested { action: *action }).unwrap();
    }
    drop(events);
    let report = scene.engine().run(receiver).await.unwrap();
    assert_eq!(scene.executed(), BTreeSet::new());
    assert_eq!(report.totals.adapted, 0, "{report:#?}");
}

#[tokio::test]
async fn what_a_configure_script_compiles_comes_first() {
    let with_probe = |compiler: &str| {
        let p = Project::default().edit(|p| &mut p.base, "usr/bin/cc", compiler);
        p.own("zz/conftest.c", "probe\n")
    };
    let scene = Scene::new(&with_probe("compiler 1\n"), &with_probe("compiler 2\n")).await;
    scene.engine().run_static().await.unwrap();
    assert_eq!(scene.unpredicted(), [] as [&str; 0]);
    assert_eq!(scene.toy.submitted()[0], scene.expected["zz/conftest.o"]);
}
