//! `generate` and `instantiate` on a directory in casd's layout, with no service anywhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cas_client::FileStore;
use overlay::layout::{Stored, decode};
use reapi_proto::{Digest, DigestFunction};
use serde_json::Value;

use crate::support::{Program, World, actions, find, listing, with_records, world};

/// The directory after the first build, and its graph as a file.
struct Site {
    temporary: tempfile::TempDir,
    store: FileStore,
}

impl Site {
    async fn new(world: &World) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let store = world.directory(&temporary.path().join("casd")).await;
        let site = Self { temporary, store };
        site.write("after.json", &world.after);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    fn write(&self, name: &str, value: &Value) {
        std::fs::write(self.path(name), value.to_string()).unwrap();
    }

    fn server(&self) -> String {
        format!("--server=file:{}", self.store.root().display())
    }

    fn generate(&self) -> Program {
        Program::new(["generate", "--graph"]).arg(self.path("after.json")).arg(self.server())
    }

    /// The graph before the rebuild, with records, as `next.json`.
    async fn prepare(&self, world: &World) {
        let generated = self.generate().arg("--json").json().await;
        self.write("next.json", &with_records(world.before(&self.store).await, &generated));
    }

    fn instantiate(&self) -> Program {
        Program::new(["instantiate", "--graph"]).arg(self.path("next.json")).arg(self.server())
    }

    /// Runs `instantiate --json`, and checks that the directory is as it was.
    async fn predict(&self, arguments: &[&str]) -> Value {
        let before = listing(self.store.root());
        let report = arguments.iter().fold(self.instantiate().arg("--json"), |p, a| p.arg(a)).json().await;
        assert_eq!(listing(self.store.root()), before, "a dry run stores nothing");
        report
    }
}

fn members(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn digest(value: &Value) -> Digest {
    value.as_str().unwrap().parse().unwrap()
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[tokio::test]
async fn generate_records_every_element() {
    let world = world();
    let site = Site::new(world).await;
    let out = site.path("records/of this build");
    let report = site.generate().arg("--json").arg("--out").arg(&out).json().await;

    assert_eq!(members(&report), ["elements"].into());
    let elements = report["elements"].as_array().unwrap();
    let names: Vec<_> = elements.iter().map(|e| e["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["liba.bst", "libb.bst", "app.bst"]);
    for (element, built) in elements.iter().zip(&world.first.elements) {
        let expected = ["actions", "bytes", "name", "overlays", "skipped", "speculative_actions"];
        assert_eq!(members(element), expected.into());
        assert_eq!(element["actions"], built.actions.len());
        assert!(element["overlays"].as_u64().unwrap() > 0);
        assert_eq!(element["skipped"], Value::Array(Vec::new()));

        let record = digest(&element["speculative_actions"]);
        assert_eq!(element["bytes"], record.size_bytes());
        let file = read(&out.join(format!("{}.pb", built.name)));
        assert_eq!(DigestFunction::Sha256.digest(&file), record, "the file is the stored message");
        assert_eq!(site.store.read_blocking(&record).unwrap().unwrap(), file);
        let Stored::Compact(decoded) = decode(&file).unwrap() else { panic!("not in the compact layout") };
        let bases: Vec<Digest> = decoded.actions.iter().map(|a| a.base).collect();
        assert_eq!(bases, built.built.subactions);
        assert_eq!(decoded.weak_key.as_deref(), Some(built.weak_key.as_str()));
    }
}

#[tokio::test]
async fn generate_writes_the_reference_layout_on_request() {
    let world = world();
    let site = Site::new(world).await;
    let out = site.path("records");
    let report = site.generate().args(["--json", "--reference-layout", "--out"]).arg(&out).json().await;
    for (element, built) in report["elements"].as_array().unwrap().iter().zip(&world.first.elements) {
        let file = read(&out.join(format!("{}.pb", built.name)));
        assert_eq!(DigestFunction::Sha256.digest(&file), digest(&element["speculative_actions"]));
        let Stored::Reference(decoded) = decode(&file).unwrap() else { panic!("not in the reference layout") };
        let bases: Vec<Digest> = decoded.actions.iter().map(|a| a.base).collect();
        assert_eq!(bases, built.built.subactions);
        assert!(decoded.actions.iter().all(|a| !a.overlays.is_empty()));
    }
}

#[tokio::test]
async fn generate_records_the_elements_that_are_named_and_stores_nothing_else() {
    let site = Site::new(world()).await;
    let before: BTreeSet<_> = listing(site.store.root()).into_iter().collect();
    let report = site.generate().args(["--json", "libb.bst"]).json().await;
    let libb = &report["elements"].as_array().unwrap()[..];
    assert_eq!(libb.len(), 1);
    let after: BTreeSet<_> = listing(site.store.root()).into_iter().collect();
    let new: Vec<_> = after.difference(&before).collect();
    let hash = digest(&libb[0]["speculative_actions"]).to_hex();
    let (file, bytes) = (format!("cas/objects/{}/{}", &hash[..2], &hash[2..]), libb[0]["bytes"].as_u64().unwrap());
    assert_eq!(new, [&(file, bytes)]);

    let table = site.generate().done().await.stdout;
    for word in ["element", "overlays", "speculative actions", "liba.bst", "libb.bst", "app.bst"] {
        assert!(table.contains(word), "{table}");
    }
    let nothing = site.generate().args(["--mode", "none"]).done().await.stdout;
    assert!(nothing.starts_with("nothing to record: "), "{nothing}");
    site.generate().arg("nobody.bst").run().await.expect_failure(2, &["nobody.bst", "not an element of the graph"]);
}

#[tokio::test]
async fn modes_below_full_record_less() {
    let site = Site::new(world()).await;
    let mut overlays = Vec::new();
    for mode in ["none", "prime-only", "source-artifact", "intra-element", "full"] {
        let report = site.generate().args(["--json", "--mode", mode]).json().await;
        let counts = report["elements"].as_array().unwrap().iter().map(|e| e["overlays"].as_u64().unwrap());
        overlays.push(counts.sum::<u64>());
    }
    assert_eq!(overlays[..2], [0, 0]);
    assert!(0 < overlays[2] && overlays[2] < overlays[3] && overlays[3] < overlays[4], "{overlays:?}");
}

/// The compiles need sources alone; a link needs to know what the compiles before it make.
#[tokio::test]
async fn instantiate_predicts_what_can_be_known_without_results() {
    let world = world();
    let site = Site::new(world).await;
    site.prepare(world).await;
    let report = site.predict(&[]).await;

    assert_eq!(members(&report), ["elements", "totals"].into());
    for element in report["elements"].as_array().unwrap() {
        assert_eq!(members(element), ["actions", "name"].into());
        for action in element["actions"].as_array().unwrap() {
            assert_eq!(members(action), ["adapted", "base", "confidence", "guess", "outcome", "reason"].into());
            let outcome = action["outcome"].as_str().unwrap();
            assert_eq!(action["adapted"].is_null(), outcome != "adapted", "{action}");
            assert_eq!(action["reason"].is_null(), outcome != "deferred", "{action}");
        }
    }
    let truth = world.truth();
    let predicted = actions(&report);
    let (compiles, links): (Vec<_>, Vec<_>) = truth.iter().partition(|(output, _)| output.ends_with(".o"));
    assert_eq!((compiles.len(), links.len()), (13, 3));
    for (output, digest) in compiles {
        assert!(predicted.contains(digest), "{output} is not predicted: {report:#}");
    }
    let truth: BTreeSet<Digest> = truth.into_values().collect();
    assert!(predicted.is_subset(&truth), "{report:#}");
    let totals = &report["totals"];
    let count = |name: &str| totals[name].as_u64().unwrap();
    assert_eq!(count("actions"), 16);
    assert_eq!(count("unchanged") + count("adapted") + count("deferred"), 16, "{totals}");
    assert_eq!((count("dropped"), count("deferred")), (0, 16 - predicted.len() as u64));
}

#[tokio::test]
async fn with_results_in_the_action_cache_links_are_predicted_too() {
    let world = world();
    let site = Site::new(world).await;
    site.prepare(world).await;
    world.put_rebuilt(&site.store).await;
    let report = site.predict(&[]).await;
    let truth: BTreeSet<Digest> = world.truth().into_values().collect();
    assert_eq!(actions(&report), truth, "{report:#}");
    assert_eq!(report["totals"]["deferred"], 0);
}

#[tokio::test]
async fn instantiate_reads_the_reference_layout() {
    let world = world();
    let site = Site::new(world).await;
    let generated = site.generate().args(["--json", "--reference-layout"]).json().await;
    site.write("next.json", &with_records(world.before(&site.store).await, &generated));
    world.put_rebuilt(&site.store).await;
    let report = site.predict(&[]).await;
    let truth: BTreeSet<Digest> = world.truth().into_values().collect();
    let predicted = actions(&report);
    // Digests alone do not tell equal files apart, so not everything can be right.
    let right = predicted.intersection(&truth).count();
    assert!(right >= 12, "{right} of {}: {report:#}", truth.len());
}

#[tokio::test]
async fn instantiate_looks_at_the_named_elements_and_what_they_need() {
    let world = world();
    let site = Site::new(world).await;
    site.prepare(world).await;
    let report = site.predict(&["libb.bst"]).await;
    let names: Vec<_> = report["elements"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["liba.bst", "libb.bst"]);
    let ran = site.instantiate().arg("nobody.bst").run().await;
    ran.expect_failure(2, &["has no element nobody.bst", "hint: "]);
}

#[tokio::test]
async fn a_weak_look_up_refuses_the_record_of_another_key_and_says_so() {
    let world = world();
    let site = Site::new(world).await;
    site.prepare(world).await;
    let report = site.predict(&["--lookup", "weak"]).await;
    let liba = find(&report, "liba.bst");
    assert_eq!(liba["actions"], Value::Array(Vec::new()));
    assert_eq!(liba["reason"], "the record was made under another weak key");
    assert!(find(&report, "libb.bst")["reason"].is_null());

    let table = site.instantiate().args(["--lookup", "weak"]).done().await.stdout;
    assert!(table.contains("liba.bst: no record used: the record was made under another weak key"), "{table}");
}

#[tokio::test]
async fn an_element_without_a_record_is_named() {
    let world = world();
    let site = Site::new(world).await;
    site.write("next.json", &world.before(&site.store).await);
    let report = site.predict(&[]).await;
    for element in report["elements"].as_array().unwrap() {
        assert_eq!(element["reason"], "nothing is recorded for the element");
    }
    assert_eq!(report["totals"]["actions"], 0);
}

#[tokio::test]
async fn elements_that_will_not_be_built_are_left_alone_unless_they_are_named() {
    let world = world();
    let site = Site::new(world).await;
    let generated = site.generate().arg("--json").json().await;
    site.write("next.json", &with_records(world.after.clone(), &generated));
    let report = site.predict(&[]).await;
    for element in report["elements"].as_array().unwrap() {
        assert_eq!(members(element), ["actions", "current", "name", "reason"].into());
        assert_eq!((&element["current"], &element["actions"]), (&true.into(), &Value::Array(Vec::new())));
        assert_eq!(element["reason"], "the artifact is current, so nothing of it will be built");
    }
    assert_eq!((&report["totals"]["current"], &report["totals"]["actions"]), (&3.into(), &0.into()));
    let table = site.instantiate().done().await.stdout;
    assert!(table.contains("3 elements left alone: the artifact is current"), "{table}");
    assert!(!table.contains("liba.bst"), "{table}");

    let report = site.predict(&["libb.bst"]).await;
    assert_eq!(report["totals"]["current"], 1);
    assert_eq!(find(&report, "liba.bst")["current"], true);
    let libb = find(&report, "libb.bst");
    assert_eq!(members(libb), ["actions", "name"].into());
    let actions = libb["actions"].as_array().unwrap();
    assert!(!actions.is_empty() && actions.iter().all(|action| action["outcome"] == "unchanged"), "{report:#}");
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_refused() {
    let site = Site::new(world()).await;
    let generate = Program::new(["generate", "--server=file:/nowhere", "--graph"]).arg(site.path("after.json"));
    generate.run().await.expect_failure(2, &["file:/nowhere", "no such directory", "hint: "]);
    let generate = Program::new(["generate", "--graph"]).arg(site.path("after.json"));
    generate.run().await.expect_failure(2, &["neither --cas nor --server", "hint: "]);
}
