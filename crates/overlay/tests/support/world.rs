//! A small build, made the obvious way: sources, artifacts, compiles and a link.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use overlay::{
    Adaptation, Dependency, Deriver, Forest, Lookup, Mode, Now, Observed, Observing, Origin, Record, Standing, TreeKind,
};
use proptest::prelude::*;
use prost::Message;
use reapi_proto::raw::{Action, Command, Node};
use reapi_proto::{Digest, v2};
use rustc_hash::FxHashMap;

use super::{SHA, Tree, file};

/// Files by path; what stands at a path decides everything else.
pub type Files = BTreeMap<String, Node>;

/// The state of a project between two builds.
#[derive(Clone, Debug)]
pub struct World {
    /// Own sources.
    pub own: Files,
    /// Sources of each dependency; those under `include/` are installed.
    pub deps: Vec<Files>,
    /// What each dependency generates at build time.
    pub generated: Vec<Node>,
    /// The sandbox root's only file.
    pub base: Node,
}

/// Which inputs each compile has: a choice by path that holds in every state.
#[derive(Clone, Debug)]
pub struct Shape {
    pub compiles: Vec<Vec<prop::sample::Index>>,
}

pub struct Built {
    pub forest: Forest,
    pub own_sources: Digest,
    pub dep_sources: Vec<Digest>,
    pub artifacts: Vec<Digest>,
    pub base: Digest,
    /// In order: compiles, then the link.
    pub actions: Vec<Observed>,
}

const ROOT: &str = "buildstream/demo/app.bst";

fn tree(files: &Files) -> Tree {
    let mut tree = Tree::empty();
    for (path, node) in files {
        let path: Vec<Bytes> = path.split('/').map(|s| Bytes::copy_from_slice(s.as_bytes())).collect();
        tree.edit(&path, Some(node.clone()));
    }
    tree
}

impl World {
    fn artifact(&self, dep: usize) -> Files {
        let installed = self.deps[dep].iter().filter_map(|(path, node)| {
            Some((format!("usr/include/dep{dep}/{}", path.strip_prefix("include/")?), node.clone()))
        });
        let mut files: Files = installed.collect();
        files.insert(format!("usr/include/dep{dep}/generated.h"), self.generated[dep].clone());
        files
    }

    /// Builds everything from scratch. `paths` are the candidates that the
    /// shape chooses from: the same in every state.
    pub fn build(&self, shape: &Shape, paths: &[String]) -> Built {
        let mut forest = Forest::new();
        let own_sources = tree(&self.own).store(&mut forest);
        let dep_sources = self.deps.iter().map(|files| tree(files).store(&mut forest)).collect();
        let artifacts: Vec<Digest> =
            (0..self.deps.len()).map(|dep| tree(&self.artifact(dep)).store(&mut forest)).collect();
        let base = tree(&Files::from([("bin/cc".to_owned(), self.base.clone())])).store(&mut forest);
        let mut present: Files = self.own.iter().map(|(p, n)| (format!("{ROOT}/{p}"), n.clone())).collect();
        for dep in 0..self.deps.len() {
            present.extend(self.artifact(dep));
        }
        let mut actions = Vec::new();
        let mut link_inputs = Files::new();
        for (i, chosen) in shape.compiles.iter().enumerate() {
            let inputs: Files = chosen
                .iter()
                .map(|index| index.get(paths))
                .filter_map(|path| Some((path.clone(), present.get(path)?.clone())))
                .collect();
            let output = format!("obj/{i}.o");
            let action = observed(&mut forest, &inputs, &output, base);
            link_inputs.insert(format!("{ROOT}/{output}"), action.outputs[0].1.clone());
            actions.push(action);
        }
        let link = observed(&mut forest, &link_inputs, "app", base);
        actions.push(link);
        Built { forest, own_sources, dep_sources, artifacts, base, actions }
    }
}

#[allow(deprecated, reason = "recc writes the platform into the Command too")]
fn observed(forest: &mut Forest, inputs: &Files, output: &str, base: Digest) -> Observed {
    let input_root = tree(inputs).store(forest);
    let platform = v2::Platform {
        properties: vec![v2::platform::Property { name: "chrootRootDigest".into(), value: base.to_string() }],
    };
    let command = v2::Command {
        arguments: vec!["/bin/cc".into(), output.into()],
        output_paths: vec![output.into()],
        working_directory: ROOT.into(),
        platform: Some(platform.clone()),
        ..Default::default()
    };
    let command = Bytes::from(command.encode_to_vec());
    let action = v2::Action {
        command_digest: Some((&SHA.digest(&command)).into()),
        input_root_digest: Some((&input_root).into()),
        platform: Some(platform),
        ..Default::default()
    };
    let action = Bytes::from(action.encode_to_vec());
    // What a compiler makes depends on everything that it sees, and often
    // comes out the same: here in one case of two.
    let made = SHA.digest(&[input_root.hash(), base.hash()].concat()).hash()[0] & 1;
    Observed {
        base: SHA.digest(&action),
        action: Action::parse(action).unwrap(),
        command: Command::parse(command).unwrap(),
        outputs: vec![(Bytes::copy_from_slice(output.as_bytes()), file(&[b'o', made], false))],
        duration: None,
        output_bytes: None,
    }
}

impl Built {
    pub fn record(&self, dependencies_in: &[usize]) -> Record {
        let observing = Observing {
            name: "app.bst".into(),
            weak_key: Some("k".into()),
            configuration: None,
            sources: Some(self.own_sources),
            artifact: None,
            own_root: ROOT.into(),
            platforms: Vec::new(),
        };
        let mut dependencies = vec![Dependency {
            name: "base.bst".into(),
            sources: Some(self.base),
            artifact: Some(self.base),
            record: None,
        }];
        dependencies.extend(dependencies_in.iter().map(|dep| Dependency {
            name: format!("dep{dep}.bst"),
            sources: Some(self.dep_sources[*dep]),
            artifact: Some(self.artifacts[*dep]),
            record: None,
        }));
        let mut deriver = Deriver::new(Mode::Full, SHA, observing, dependencies);
        for action in &self.actions {
            deriver.observe(&self.forest, action).unwrap();
        }
        deriver.finish(&self.forest, &overlay::Contents::default())
    }

    fn root(&self, element: &str, kind: TreeKind) -> Option<Digest> {
        match (element, kind) {
            ("app.bst", TreeKind::Sources) => Some(self.own_sources),
            ("app.bst", TreeKind::Artifact) => None,
            ("base.bst", _) => Some(self.base),
            (dep, kind) => {
                let i: usize = dep.strip_prefix("dep")?.strip_suffix(".bst")?.parse().ok()?;
                Some(if kind == TreeKind::Sources { self.dep_sources[i] } else { self.artifacts[i] })
            }
        }
    }

    /// Everything that can be known about this state, but for action results.
    pub fn facts(&self, record: &Record) -> Vec<(overlay::OriginId, Now)> {
        let mut trees: FxHashMap<(overlay::ElementId, TreeKind), Vec<overlay::OriginId>> = FxHashMap::default();
        for (id, origin) in record.origin_ids() {
            if let Some(kind) = origin.tree_kind() {
                trees.entry((origin.element(), kind)).or_default().push(id);
            }
        }
        let mut facts = Vec::new();
        for ((element, kind), origins) in trees {
            let Some(root) = self.root(&record.element(element).name, kind) else { continue };
            let mut lookup = Lookup::new(record, root, origins);
            while !lookup.is_done() {
                assert!(lookup.needs(&self.forest).is_empty());
                lookup.advance(&self.forest);
            }
            facts.extend(lookup.into_found());
        }
        facts
    }
}

/// Adapts every recorded action of `old` to the state `new`, feeding results
/// of adapted actions back as they become known. `None`: never became ready.
pub fn adapt_all(
    record: Record,
    old: &Built,
    new: &Built,
    facts: Vec<(overlay::OriginId, Now)>,
) -> Vec<Option<Digest>> {
    let record = Arc::new(record);
    let mut adaptation = Adaptation::new(Arc::clone(&record));
    adaptation.settle(facts);
    let base_actions: FxHashMap<Digest, &Observed> = old.actions.iter().map(|a| (a.base, a)).collect();
    let results: FxHashMap<Digest, &Observed> = new.actions.iter().map(|a| (a.base, a)).collect();
    let mut adapted: Vec<Option<Digest>> = vec![None; record.actions.len()];
    loop {
        let mut news = Vec::new();
        for id in record.action_ids() {
            let base = record.action(id).base;
            let Standing::Ready { changed, .. } = adaptation.standing(id) else { continue };
            let recorded = base_actions[&base];
            let digest = if changed {
                let command = adaptation.needs_command(id).then_some(&recorded.command);
                adaptation.adapt(id, &recorded.action, command, &old.forest).unwrap().action.digest()
            } else {
                base
            };
            if adapted[id.index()] == Some(digest) {
                continue;
            }
            adapted[id.index()] = Some(digest);
            for (origin, which) in record.origin_ids() {
                if let Origin::Action { base: producer, path, .. } = which
                    && *producer == base
                    && let Some(result) = results.get(&digest)
                {
                    let output = result.outputs.iter().find(|(p, _)| *p == record.paths.bytes(*path));
                    news.push((origin, output.map_or(Now::Gone, |(_, node)| Now::Is(node.clone()))));
                }
            }
        }
        if news.is_empty() {
            return adapted;
        }
        adaptation.settle(news);
    }
}

/// File names that collide between elements and directories.
const PATHS: [&str; 6] = ["main.c", "include/a.h", "include/b.h", "include/sub/a.h", "lib/a.h", "include/c"];

fn node() -> impl Strategy<Value = Node> {
    prop_oneof![
        8 => (prop::sample::select(vec![&b""[..], b"1", b"2", b"3"]), prop::bool::weighted(0.2))
            .prop_map(|(content, executable)| file(content, executable)),
        1 => prop::sample::select(vec!["a.h", "b.h"])
            .prop_map(|t| Node::Symlink { target: Bytes::from_static(t.as_bytes()) }),
    ]
}

pub fn world(deps: usize) -> impl Strategy<Value = World> {
    let files = || {
        prop::collection::vec(prop::option::weighted(0.9, node()), PATHS.len()).prop_map(|nodes| {
            PATHS.iter().zip(nodes).filter_map(|(path, node)| Some(((*path).to_owned(), node?))).collect::<Files>()
        })
    };
    let generated = || prop::collection::vec(prop::sample::select(vec![file(b"g1", false), file(b"g2", false)]), deps);
    (
        files(),
        prop::collection::vec(files(), deps),
        generated(),
        prop::sample::select(vec![file(b"cc1", true), file(b"cc2", true)]),
    )
        .prop_map(|(own, deps, generated, base)| World { own, deps, generated, base })
}

pub fn shape() -> impl Strategy<Value = Shape> {
    prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 1..6), 1..5)
        .prop_map(|compiles| Shape { compiles })
}

/// Every path that an input may have.
pub fn all_paths(deps: usize) -> Vec<String> {
    let mut paths: Vec<String> = PATHS.iter().map(|p| format!("{ROOT}/{p}")).collect();
    for dep in 0..deps {
        paths
            .extend(PATHS.iter().filter_map(|p| Some(format!("usr/include/dep{dep}/{}", p.strip_prefix("include/")?))));
        paths.push(format!("usr/include/dep{dep}/generated.h"));
    }
    paths
}
