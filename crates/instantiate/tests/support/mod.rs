//! A project of three elements that a toy compiler builds, and its records.
//!
//! `dep.bst` installs headers, `lib.bst` compiles and archives a library
//! against them, `app.bst` compiles two files and links them with the library.

#![allow(dead_code, unreachable_pub, reason = "a module that each test binary uses in part")]

pub mod lying;
pub mod preprocessor;
pub mod seeded;
pub mod toy;
pub mod weather;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cas_client::{ActionCacheWriter, InMemory, OutputKind, outputs};
use instantiate::{ActionReport, Engine, Options, Report, Services};
use overlay::graph::{Element, Graph};
use overlay::{Dependency, Deriver, Forest, Mode, Observed, Observing, Record, layout};
use prost::Message;
use reapi_proto::raw::{Action, Command, Directory, Node, encode_directory};
use reapi_proto::v2::{self, ActionResult, platform};
use reapi_proto::{Digest, DigestFunction};

pub const SHA: DigestFunction = DigestFunction::Sha256;

/// Contents by path.
pub type Files = BTreeMap<String, String>;

/// What the project's files say.
#[derive(Clone, Debug)]
pub struct State {
    /// The tree that every action runs in, as a platform property.
    pub base: Files,
    pub dep_sources: Files,
    /// What `dep.bst` makes of its sources.
    pub dep_installed: Files,
    pub lib_sources: Files,
    pub app_sources: Files,
    /// Actions are marked `do_not_cache`.
    pub do_not_cache: bool,
}

pub fn files(pairs: &[(&str, &str)]) -> Files {
    pairs.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned())).collect()
}

impl Default for State {
    fn default() -> Self {
        let header = "int dep;\n";
        Self {
            base: files(&[("bin/cc", "compiler 1\n")]),
            dep_sources: files(&[("include/dep.h", header), ("README", "read\n")]),
            dep_installed: files(&[("usr/include/dep.h", header)]),
            lib_sources: files(&[("lib.c", "lib\n"), ("lib.h", "int lib;\n")]),
            app_sources: files(&[("main.c", "main\n"), ("src/util.c", "util\n")]),
            do_not_cache: false,
        }
    }
}

impl State {
    /// Another text in `dep.bst`'s header, installed as it is.
    pub fn with_header(mut self, text: &str) -> Self {
        self.dep_sources.insert("include/dep.h".to_owned(), text.to_owned());
        self.dep_installed.insert("usr/include/dep.h".to_owned(), text.to_owned());
        self
    }

    /// So many further files to compile.
    pub fn with_units(mut self, count: usize) -> Self {
        for i in 0..count {
            self.app_sources.insert(format!("src/z{i}.c"), format!("unit {i}\n"));
        }
        self
    }

    /// The header is changed on its way into the artifact.
    pub fn with_installed_header(mut self, text: &str) -> Self {
        self.dep_installed.insert("usr/include/dep.h".to_owned(), text.to_owned());
        self
    }
}

/// An element after its build.
#[derive(Clone, Debug)]
pub struct Built {
    pub sources: Digest,
    pub artifact: Digest,
    /// In the order in which they ran.
    pub actions: Vec<Digest>,
}

/// A store, and everything that was ever put into it.
pub struct World {
    pub store: InMemory,
    pub forest: Forest,
    pub made: BTreeMap<Digest, ActionResult>,
}

/// The names of the actions, in the order of the records.
pub const LIB: [&str; 2] = ["lib.o", "lib.a"];
pub const APP: [&str; 3] = ["main.o", "util.o", "app"];

impl Default for World {
    fn default() -> Self {
        Self { store: InMemory::new(), forest: Forest::new(), made: BTreeMap::new() }
    }
}

impl World {
    pub fn file(&self, content: &str) -> Node {
        Node::File { digest: self.store.put(content.to_owned()), executable: false }
    }

    /// Stores a tree; returns its root.
    pub fn tree(&mut self, nodes: &BTreeMap<String, Node>) -> Digest {
        let mut here: BTreeMap<Bytes, Node> = BTreeMap::new();
        let mut below: BTreeMap<String, BTreeMap<String, Node>> = BTreeMap::new();
        for (path, node) in nodes {
            match path.split_once('/') {
                None => drop(here.insert(path.clone().into(), node.clone())),
                Some((first, rest)) => {
                    below.entry(first.to_owned()).or_default().insert(rest.to_owned(), node.clone());
                }
            }
        }
        for (name, nodes) in below {
            here.insert(name.into(), Node::Directory { digest: self.tree(&nodes) });
        }
        let bytes = encode_directory(here).unwrap();
        self.store.put(bytes.clone());
        self.forest.add(SHA, Directory::parse(bytes).unwrap())
    }

    pub fn files(&mut self, files: &Files) -> Digest {
        let nodes = self.nodes("", files);
        self.tree(&nodes)
    }

    fn nodes(&self, prefix: &str, files: &Files) -> BTreeMap<String, Node> {
        files.iter().map(|(path, content)| (format!("{prefix}{path}"), self.file(content))).collect()
    }

    /// Runs one action in the element's directory; returns its digest and the node of its output.
    pub async fn run(
        &mut self,
        element: &str,
        state: &State,
        inputs: &BTreeMap<String, Node>,
        output: &str,
    ) -> (Digest, Node) {
        let base = self.files(&state.base);
        let property = platform::Property { name: "chrootRootDigest".to_owned(), value: base.to_string() };
        let platform = Some(v2::Platform { properties: vec![property] });
        #[allow(deprecated, reason = "the copy that recc keeps in the Command")]
        let command = v2::Command {
            arguments: vec!["make".to_owned(), output.to_owned()],
            output_paths: vec![output.to_owned()],
            working_directory: format!("buildstream/proj/{element}"),
            platform: platform.clone(),
            ..v2::Command::default()
        };
        let action = v2::Action {
            command_digest: Some(self.store.put_message(&command).into()),
            input_root_digest: Some(self.tree(inputs).into()),
            platform,
            do_not_cache: state.do_not_cache,
            ..v2::Action::default()
        };
        let action = self.store.put_message(&action);
        let result = toy::execute(&self.store, &action).unwrap();
        self.store.store_action_result(&action, &result).await.unwrap();
        let node = outputs(&result).unwrap().pop().map(|output| match output.kind {
            OutputKind::File { digest, is_executable } => Node::File { digest, executable: is_executable },
            other => panic!("{other:?}"),
        });
        self.made.insert(action, result);
        // A command that fails makes nothing, and the rest of the build is none.
        (action, node.unwrap_or_else(|| self.file("")))
    }

    /// Builds everything; returns the elements by name.
    pub async fn build(&mut self, state: &State) -> BTreeMap<&'static str, Built> {
        let base = self.files(&state.base);
        let dep = Built {
            sources: self.files(&state.dep_sources),
            artifact: self.files(&state.dep_installed),
            actions: Vec::new(),
        };
        let headers = self.nodes("", &state.dep_installed);

        let own = self.nodes("buildstream/proj/lib.bst/", &state.lib_sources);
        let mut inputs: BTreeMap<_, _> = own.clone().into_iter().chain(headers.clone()).collect();
        let (lib_o, object) = self.run("lib.bst", state, &inputs, "lib.o").await;
        inputs = BTreeMap::from([("buildstream/proj/lib.bst/lib.o".to_owned(), object)]);
        let (lib_a, archive) = self.run("lib.bst", state, &inputs, "lib.a").await;
        let installed = BTreeMap::from([
            ("usr/include/lib.h".to_owned(), own["buildstream/proj/lib.bst/lib.h"].clone()),
            ("usr/lib/lib.a".to_owned(), archive),
        ]);
        let lib = Built {
            sources: self.files(&state.lib_sources),
            artifact: self.tree(&installed),
            actions: vec![lib_o, lib_a],
        };

        let own = self.nodes("buildstream/proj/app.bst/", &state.app_sources);
        let mut actions = Vec::new();
        let mut objects = BTreeMap::new();
        for source in state.app_sources.keys().filter(|path| path.ends_with(".c")) {
            let object = source.rsplit('/').next().unwrap().replace(".c", ".o");
            let path = format!("buildstream/proj/app.bst/{source}");
            let mut inputs = headers.clone();
            inputs.insert(path.clone(), own[&path].clone());
            inputs.insert("usr/include/lib.h".to_owned(), installed["usr/include/lib.h"].clone());
            let (action, node) = self.run("app.bst", state, &inputs, &object).await;
            actions.push(action);
            objects.insert(format!("buildstream/proj/app.bst/{object}"), node);
        }
        objects.insert("usr/lib/lib.a".to_owned(), installed["usr/lib/lib.a"].clone());
        let (link, app) = self.run("app.bst", state, &objects, "app").await;
        actions.push(link);
        let app = Built {
            sources: self.files(&state.app_sources),
            artifact: self.tree(&BTreeMap::from([("usr/bin/app".to_owned(), app)])),
            actions,
        };
        let base = Built { sources: base, artifact: base, actions: Vec::new() };
        BTreeMap::from([("base.bst", base), ("dep.bst", dep), ("lib.bst", lib), ("app.bst", app)])
    }

    /// The records of a build.
    pub fn records(&self, built: &BTreeMap<&'static str, Built>) -> BTreeMap<&'static str, Arc<Record>> {
        let mut records: BTreeMap<&'static str, Arc<Record>> = BTreeMap::new();
        for (name, deps) in
            [("lib.bst", &["base.bst", "dep.bst"][..]), ("app.bst", &["base.bst", "dep.bst", "lib.bst"])]
        {
            let dependencies = deps.iter().map(|dep| Dependency {
                name: (*dep).to_owned(),
                sources: Some(built[dep].sources),
                artifact: Some(built[dep].artifact),
                record: records.get(dep).cloned(),
            });
            let element = &built[name];
            let observing = Observing {
                name: name.to_owned(),
                weak_key: Some(format!("weak-{name}")),
                configuration: None,
                sources: Some(element.sources),
                artifact: Some(element.artifact),
                own_root: format!("buildstream/proj/{name}").into(),
                platforms: Vec::new(),
            };
            let mut deriver = Deriver::new(Mode::Full, SHA, observing, dependencies.collect());
            for (i, action) in element.actions.iter().enumerate() {
                deriver.observe(&self.forest, &self.observed(action, i)).unwrap();
            }
            records.insert(name, Arc::new(deriver.finish(&self.forest, &overlay::Contents::default())));
        }
        records
    }

    fn observed(&self, action: &Digest, turn: usize) -> Observed {
        let parsed = Action::parse(self.store.peek(action).unwrap()).unwrap();
        let command = Command::parse(self.store.peek(&parsed.command_digest()).unwrap()).unwrap();
        let made = outputs(&self.made[action]).unwrap();
        let nodes = made.into_iter().map(|output| match output.kind {
            OutputKind::File { digest, is_executable } => {
                (Bytes::from(output.path), Node::File { digest, executable: is_executable })
            }
            other => panic!("{other:?}"),
        });
        Observed {
            base: *action,
            action: parsed,
            command,
            outputs: nodes.collect(),
            duration: Some(Duration::from_millis(100 * (1 + turn as u64))),
            output_bytes: None,
        }
    }

    pub fn put_record(&self, record: &Record) -> Digest {
        self.store.put(layout::encode(record))
    }

    /// The file of a node.
    pub fn content(&self, digest: &Digest) -> String {
        String::from_utf8_lossy(&self.store.peek(digest).unwrap()).into_owned()
    }
}

/// A project that was built and recorded, and has changed since.
pub struct Scene {
    pub world: World,
    pub toy: toy::Toy,
    /// As recorded.
    pub old: BTreeMap<&'static str, Built>,
    /// As the build will be; built elsewhere, so that the engine has to find it.
    pub new: BTreeMap<&'static str, Built>,
    pub elements: Vec<Element>,
}

impl Scene {
    /// Everything that differs is to be rebuilt; all sources are at hand.
    pub async fn new(old: State, new: State) -> Self {
        let mut world = World::default();
        let built = world.build(&old).await;
        let records = world.records(&built);
        let mut elsewhere = World::default();
        let expected = elsewhere.build(&new).await;
        for sources in [&new.base, &new.dep_sources, &new.lib_sources, &new.app_sources] {
            world.files(sources);
        }
        let mut elements = Vec::new();
        let mut stale = false;
        for (name, deps) in [
            ("base.bst", &[][..]),
            ("dep.bst", &["base.bst"]),
            ("lib.bst", &["dep.bst"]),
            ("app.bst", &["lib.bst", "dep.bst"]),
        ] {
            stale |= expected[name].sources != built[name].sources || expected[name].artifact != built[name].artifact;
            // The base is imported: its artifact is what its sources are.
            let current = !stale || name == "base.bst";
            elements.push(Element {
                weak_key: Some(format!("weak-{name}")),
                sources: Some(expected[name].sources),
                artifact: current.then_some(expected[name].artifact),
                cached: Some(current),
                build_deps: Some(deps.iter().map(|dep| (*dep).to_owned()).collect()),
                speculative_actions: records.get(name).map(|record| world.put_record(record)),
                ..Element::new(name)
            });
        }
        let toy = toy::Toy::new(world.store.clone());
        Self { world, toy, old: built, new: expected, elements }
    }

    /// The header of `dep.bst` has another text now.
    pub async fn header_changed() -> Self {
        Self::new(State::default(), State::default().with_header("int changed;\n")).await
    }

    pub fn element(&mut self, name: &str) -> &mut Element {
        self.elements.iter_mut().find(|element| element.name == name).unwrap()
    }

    pub fn graph(&self) -> Arc<Graph> {
        Arc::new(Graph::new(SHA, self.elements.clone()).unwrap())
    }

    pub fn services(&self) -> Services {
        let store = Arc::new(self.world.store.clone());
        Services { blobs: store.clone(), cache: store, execution: Some(Arc::new(self.toy.clone())) }
    }

    pub fn engine(&self) -> Engine {
        Engine::new(self.services(), self.graph())
    }

    /// An engine that takes all elements for such as have to be primed, whether or not they are current.
    pub fn engine_for_all(&self) -> Engine {
        self.engine().with_elements(self.elements.iter().map(|element| element.name.clone()))
    }

    pub fn dry_engine(&self) -> Engine {
        let services = Services { execution: None, ..self.services() };
        Engine::new(services, self.graph())
    }

    pub async fn prime(&self) -> Report {
        self.engine().run_static().await.unwrap()
    }

    /// Primes all elements, whether or not they are current.
    pub async fn prime_all(&self) -> Report {
        self.engine_for_all().run_static().await.unwrap()
    }

    pub async fn prime_with(&self, options: Options) -> Report {
        self.engine().with_options(options).run_static().await.unwrap()
    }

    /// The actions that the new build runs and the old one did not, sorted.
    pub fn expected(&self) -> Vec<Digest> {
        let old: Vec<Digest> = self.old.values().flat_map(|built| built.actions.clone()).collect();
        let mut new: Vec<Digest> = self.new.values().flat_map(|built| built.actions.clone()).collect();
        new.retain(|action| !old.contains(action));
        new.sort_unstable();
        new
    }
}

/// The report on an action, by the name of its output.
pub fn action<'r>(report: &'r Report, output: &str) -> &'r ActionReport {
    let (element, position) = match LIB.iter().position(|name| *name == output) {
        Some(position) => ("lib.bst", position),
        None => ("app.bst", APP.iter().position(|name| *name == output).unwrap()),
    };
    &report.elements.iter().find(|e| e.name == element).unwrap().actions[position]
}

/// Lets everything else go on until `condition` holds.
pub async fn until(condition: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("what was waited for did not happen");
}

/// Reads a message from the store.
pub fn message<M: Message + Default>(store: &InMemory, digest: &Digest) -> M {
    M::decode(store.peek(digest).unwrap()).unwrap()
}
