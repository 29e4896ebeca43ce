//! A toy project of three elements and means to look at its records.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cas_client::{ActionCacheWriter, InMemory};
use overlay::graph::{Element, Graph};
use overlay::layout::{self, Stored};
use overlay::{Below, Input, Mode, Record};
use prost::Message;
use reapi_proto::raw::{Node, encode_directory};
use reapi_proto::v2::{
    Action, ActionResult, Command, ExecutedActionMetadata, OutputDirectory, OutputFile, Platform, Tree,
};
use reapi_proto::{Digest, DigestFunction, v2};

use crate::{ElementReport, ExplicitList, GenerateReport, Generator};

/// Files of a tree, by path.
pub(crate) type Files<'a> = &'a [(&'a str, &'a str)];

/// An in-memory store that is filled with toys.
#[derive(Clone, Default)]
pub(crate) struct Toys {
    pub(crate) store: InMemory,
}

/// Something to run.
#[derive(Clone, Default)]
pub(crate) struct Run<'a> {
    pub(crate) working_directory: &'a str,
    pub(crate) inputs: Vec<(String, Node)>,
    pub(crate) platform: &'a [(&'a str, String)],
    /// What it makes, by path relative to the working directory; `None` if there is no result.
    pub(crate) outputs: Option<Files<'a>>,
    pub(crate) do_not_cache: bool,
}

impl Toys {
    pub(crate) fn file(&self, content: &str) -> Node {
        Node::File { digest: self.store.put(content.to_owned()), executable: false }
    }

    pub(crate) fn files(&self, files: Files<'_>) -> Vec<(String, Node)> {
        files.iter().map(|(path, content)| ((*path).to_owned(), self.file(content))).collect()
    }

    /// Stores a directory tree.
    pub(crate) fn tree(&self, files: Files<'_>) -> Digest {
        self.tree_of(&self.files(files))
    }

    pub(crate) fn tree_of(&self, entries: &[(String, Node)]) -> Digest {
        let mut here: BTreeMap<Bytes, Node> = BTreeMap::new();
        let mut below: BTreeMap<&str, Vec<(String, Node)>> = BTreeMap::new();
        for (path, node) in entries {
            match path.split_once('/') {
                Some((name, rest)) => below.entry(name).or_default().push((rest.to_owned(), node.clone())),
                None => {
                    here.insert(Bytes::copy_from_slice(path.as_bytes()), node.clone());
                }
            }
        }
        for (name, entries) in below {
            let digest = self.tree_of(&entries);
            here.insert(Bytes::copy_from_slice(name.as_bytes()), Node::Directory { digest });
        }
        self.store.put(encode_directory(here).unwrap())
    }

    /// Stores an action and its result.
    pub(crate) async fn run(&self, run: &Run<'_>) -> Digest {
        let property =
            |(name, value): &(&str, String)| v2::platform::Property { name: (*name).into(), value: value.clone() };
        let platform = Some(Platform { properties: run.platform.iter().map(property).collect() });
        #[allow(deprecated, reason = "clients of API 2.1 and before set it, and so does recc")]
        let command = Command {
            arguments: vec!["cc".into()],
            working_directory: run.working_directory.into(),
            platform: platform.clone(),
            ..Command::default()
        };
        let action = Action {
            command_digest: Some(self.store.put_message(&command).into()),
            input_root_digest: Some(self.tree_of(&run.inputs).into()),
            platform,
            do_not_cache: run.do_not_cache,
            ..Action::default()
        };
        let action = self.store.put_message(&action);
        if let Some(outputs) = run.outputs {
            self.result(action, outputs, Vec::new()).await;
        }
        action
    }

    /// Stores the result of an action, which took a second and a half.
    pub(crate) async fn result(&self, action: Digest, files: Files<'_>, output_directories: Vec<OutputDirectory>) {
        let output_files = files.iter().map(|(path, content)| OutputFile {
            path: (*path).into(),
            digest: Some(self.store.put((*content).to_owned()).into()),
            ..OutputFile::default()
        });
        let stamp = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
        let result = ActionResult {
            output_files: output_files.collect(),
            output_directories,
            execution_metadata: Some(ExecutedActionMetadata {
                execution_start_timestamp: stamp(10, 900_000_000),
                execution_completed_timestamp: stamp(12, 400_000_000),
                ..ExecutedActionMetadata::default()
            }),
            ..ActionResult::default()
        };
        self.store.store_action_result(&action, &result).await.unwrap();
    }

    /// An output directory, described by a Tree message.
    pub(crate) fn output_directory(&self, path: &str, files: Files<'_>) -> OutputDirectory {
        let directory = |files: Files<'_>| {
            let entries = self.files(files).into_iter().map(|(name, node)| (Bytes::from(name), node));
            v2::Directory::decode(encode_directory(entries).unwrap()).unwrap()
        };
        let tree = Tree { root: Some(directory(files)), children: Vec::new() };
        OutputDirectory {
            path: path.into(),
            tree_digest: Some(self.store.put_message(&tree).into()),
            ..Default::default()
        }
    }

    pub(crate) fn generator(&self) -> Generator {
        Generator::new(Arc::new(self.store.clone()), Arc::new(self.store.clone()), Arc::new(ExplicitList))
    }

    pub(crate) async fn generate(&self, mode: Mode, graph: &Graph, names: &[&str]) -> GenerateReport {
        let report = self.generator().with_mode(mode).generate(graph, names).await.unwrap();
        assert!(report.stopped.is_none(), "{:?}", report.stopped);
        report
    }

    /// The stored record of an element.
    pub(crate) fn record(&self, report: &ElementReport) -> Record {
        let digest = report.speculative_actions.unwrap();
        let bytes = self.store.peek(&digest).unwrap();
        assert_eq!(report.bytes, bytes.len() as u64);
        let Stored::Compact(record) = layout::decode(&bytes).unwrap() else { panic!("not the compact layout") };
        assert_eq!(layout::encode(&record), bytes);
        assert_eq!((report.actions + report.copies, report.overlays), (record.actions.len(), record.overlay_count()));
        *record
    }
}

pub(crate) fn graph(elements: Vec<Element>) -> Graph {
    Graph::new(DigestFunction::Sha256, elements).unwrap()
}

pub(crate) fn report<'a>(report: &'a GenerateReport, name: &str) -> &'a ElementReport {
    report.elements.iter().find(|element| element.name == name).unwrap()
}

/// What an action's input tree has at `path`, if it has origins.
pub(crate) fn input<'a>(record: &'a Record, action: &Digest, path: &str) -> Option<&'a Input> {
    let action = record.actions.iter().find(|a| a.base == *action).unwrap();
    let mut below = Below::Level(action.root?);
    for segment in path.split('/') {
        let Below::Level(level) = below else { return None };
        let entries = record.level(level);
        below = entries.iter().find(|(name, _)| record.paths.name(*name) == segment.as_bytes())?.1;
    }
    match below {
        Below::Input(input) => Some(record.input(input)),
        Below::Level(_) => None,
    }
}

/// The origins of what an action's input tree has at `path`, in words, the authoritative one first.
pub(crate) fn origins(record: &Record, action: &Digest, path: &str) -> Vec<String> {
    let Some(input) = input(record, action, path) else { return Vec::new() };
    input.origins.iter().map(|id| record.describe(record.origin(*id))).collect()
}

/// An ACTION origin in words.
/// The origin of what neither sources nor actions explain.
pub(crate) const LOCAL: &str = "what the element's build makes without an action";

pub(crate) fn output(path: &str, action: &Digest, element: &str) -> String {
    format!("output {path} of action {} of {element}", &action.to_hex()[..12])
}

/// `base.bst` (an import with a compiler and a system header), `lib.bst`
/// (two headers, one of them generated, and a shared library) and `app.bst`.
pub(crate) struct Project {
    pub(crate) toys: Toys,
    pub(crate) graph: Graph,
    pub(crate) base: Digest,
    pub(crate) lib_compile: Digest,
    pub(crate) lib_link: Digest,
    pub(crate) app_main: Digest,
    pub(crate) app_util: Digest,
    pub(crate) app_link: Digest,
}

pub(crate) const LIB: &str = "buildstream/demo/lib.bst";
pub(crate) const APP: &str = "buildstream/demo/app.bst";

pub(crate) const BASE_FILES: Files<'_> = &[("usr/bin/cc", "compiler"), ("usr/include/std.h", "std")];
pub(crate) const LIB_SOURCES: Files<'_> = &[("lib.c", "lib"), ("include/lib.h", "lib header"), ("empty.h", "")];
pub(crate) const LIB_ARTIFACT: Files<'_> = &[
    ("usr/include/lib.h", "lib header"),
    ("usr/include/gen.h", "generated"),
    ("usr/include/empty.h", ""),
    ("usr/lib/lib.so", "shared"),
];
/// Two modules with the same header beside the code that uses it.
pub(crate) const APP_SOURCES: Files<'_> = &[
    ("main.c", "main"),
    ("a/util.c", "util"),
    ("a/stub.h", "stub"),
    ("b/stub.h", "stub"),
    ("config.h", "as in the sources"),
];

impl Project {
    pub(crate) async fn new() -> Self {
        let toys = Toys::default();
        let base = toys.tree(BASE_FILES);
        let below = |root: &str, files: Files<'_>| -> Vec<(String, Node)> {
            files.iter().map(|(path, content)| (format!("{root}/{path}"), toys.file(content))).collect()
        };
        let staged = |files: Files<'_>| toys.files(files);
        let platform: &[(&str, String)] = &[("chrootRootDigest", base.to_string()), ("OSFamily", "linux".into())];

        let lib_compile = toys
            .run(&Run {
                working_directory: LIB,
                inputs: [
                    below(LIB, &[("lib.c", "lib"), ("include/lib.h", "lib header")]),
                    staged(&[("usr/include/std.h", "std")]),
                ]
                .concat(),
                platform,
                outputs: Some(&[("lib.o", "lib object")]),
                ..Run::default()
            })
            .await;
        let lib_link = toys
            .run(&Run {
                working_directory: LIB,
                inputs: below(LIB, &[("lib.o", "lib object")]),
                platform,
                outputs: Some(&[(".libs/lib.so", "shared")]),
                ..Run::default()
            })
            .await;
        let app_main = toys
            .run(&Run {
                working_directory: APP,
                inputs: [
                    below(APP, &[("main.c", "main"), ("a/stub.h", "stub"), ("b/stub.h", "stub")]),
                    below(APP, &[("config.h", "as configured")]),
                    staged(&[("usr/include/std.h", "std"), ("usr/include/lib.h", "lib header")]),
                    staged(&[("usr/include/gen.h", "generated"), ("usr/include/empty.h", "")]),
                ]
                .concat(),
                platform,
                outputs: Some(&[("main.o", "main object")]),
                ..Run::default()
            })
            .await;
        let app_util = toys
            .run(&Run {
                working_directory: &format!("{APP}/a"),
                inputs: below(APP, &[("a/util.c", "util"), ("a/stub.h", "stub")]),
                platform,
                outputs: Some(&[("util.o", "util object"), ("../pic/util.o", "util object")]),
                ..Run::default()
            })
            .await;
        let app_link = toys
            .run(&Run {
                working_directory: APP,
                inputs: [
                    below(
                        APP,
                        &[("main.o", "main object"), ("a/util.o", "util object"), ("pic/util.o", "util object")],
                    ),
                    staged(&[("usr/lib/lib.so", "shared")]),
                ]
                .concat(),
                platform,
                outputs: Some(&[("app", "program")]),
                ..Run::default()
            })
            .await;

        let element = |name: &str, build_deps: &[&str], subactions: Option<Vec<Digest>>| Element {
            project: Some("demo".into()),
            weak_key: Some(format!("weak {name}")),
            build_deps: Some(build_deps.iter().map(|&d| d.into()).collect()),
            subactions,
            ..Element::new(name)
        };
        let artifact = toys.tree(&[("usr/bin/app", "program")]);
        let graph = graph(vec![
            Element {
                sources: Some(toys.tree(APP_SOURCES)),
                artifact: Some(artifact),
                ..element("app.bst", &["base.bst", "lib.bst"], Some(vec![app_main, app_util, app_link]))
            },
            Element {
                sources: Some(toys.tree(LIB_SOURCES)),
                artifact: Some(toys.tree(LIB_ARTIFACT)),
                ..element("lib.bst", &["base.bst"], Some(vec![lib_compile, lib_link]))
            },
            Element { sources: Some(base), artifact: Some(base), ..element("base.bst", &[], None) },
        ]);
        Self { toys, graph, base, lib_compile, lib_link, app_main, app_util, app_link }
    }

    /// The graph with an element changed.
    pub(crate) fn graph_with(&self, name: &str, change: impl FnOnce(&mut Element)) -> Graph {
        let mut elements: Vec<Element> = self.graph.elements().cloned().collect();
        change(elements.iter_mut().find(|element| element.name == name).unwrap());
        graph(elements)
    }

    pub(crate) async fn generate(&self, mode: Mode, names: &[&str]) -> GenerateReport {
        self.toys.generate(mode, &self.graph, names).await
    }
}
