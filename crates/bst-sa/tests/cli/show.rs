//! `bst-sa show`: both layouts, every way in, every way out.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Program, find, with_records, world};

/// A directory with records in it and as files.
struct Recorded {
    temporary: TempDir,
    server: String,
    generated: Value,
}

impl Recorded {
    async fn new(layout: &[&str]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path();
        let store = world().directory(&path.join("casd")).await;
        std::fs::write(path.join("after.json"), world().after.to_string()).unwrap();
        let server = format!("--server=file:{}", store.root().display());
        let generate = Program::new(["generate", "--json", "--graph"]).arg(path.join("after.json")).arg(&server);
        let generated = generate.args(layout).arg("--out").arg(path.join("records")).json().await;
        let graph = with_records(world().after.clone(), &generated);
        std::fs::write(path.join("graph.json"), graph.to_string()).unwrap();
        Self { temporary, server, generated }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    fn file(&self) -> Program {
        Program::new(["show", "--file"]).arg(self.path("records/libb.bst.pb"))
    }

    fn digest(&self) -> &str {
        find(&self.generated, "libb.bst")["speculative_actions"].as_str().unwrap()
    }
}

fn overlays(action: &Value) -> &Vec<Value> {
    action["overlays"].as_array().unwrap()
}

#[tokio::test]
async fn the_compact_layout_is_shown_by_name() {
    let recorded = Recorded::new(&[]).await;
    let shown = recorded.file().arg("--json").json().await;
    assert_eq!((&shown["layout"], &shown["element"]), (&"compact".into(), &"libb.bst".into()));
    let built = world().first.element("libb.bst").unwrap();
    assert_eq!(shown["weak_key"], built.weak_key.as_str());
    assert_eq!(shown["bytes"], find(&recorded.generated, "libb.bst")["bytes"]);
    let actions = shown["actions"].as_array().unwrap();
    let bases: Vec<_> = actions.iter().map(|a| a["base"].as_str().unwrap().to_owned()).collect();
    assert_eq!(bases, built.built.subactions.iter().map(ToString::to_string).collect::<Vec<_>>());
    // The objects that the link takes were made by the compiles before it, the library by another element.
    let link = overlays(actions.last().unwrap());
    let first = |overlay: &Value| overlay["origins"][0].clone();
    let objects = link.iter().map(first).filter(|o| o["type"] == "ACTION" && o["element"] == "").count();
    assert_eq!(objects, bases.len() - 1, "{link:#?}");
    assert!(link.iter().map(first).any(|o| o["type"] == "ARTIFACT" && o["element"] == "liba.bst"), "{link:#?}");
    assert!(actions.iter().all(|a| a["milliseconds"].is_u64() && a["output_bytes"].as_u64() > Some(0)), "{actions:#?}");
    assert!(!shown["artifact_overlays"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn the_reference_layout_is_shown_as_it_is() {
    let recorded = Recorded::new(&["--reference-layout"]).await;
    let shown = recorded.file().arg("--json").json().await;
    assert_eq!((&shown["layout"], &shown["element"]), (&"reference".into(), &Value::Null));
    let actions = shown["actions"].as_array().unwrap();
    assert_eq!(actions.len(), world().first.element("libb.bst").unwrap().actions.len());
    let types = ["SOURCE", "ARTIFACT", "ACTION"].map(|kind| {
        let origins = actions.iter().flat_map(overlays).flat_map(|o| o["origins"].as_array().unwrap());
        origins.filter(|o| o["type"] == kind).count()
    });
    assert!(types.iter().all(|count| *count > 0), "{types:?}");
}

#[tokio::test]
async fn all_ways_in_show_the_same() {
    let recorded = Recorded::new(&[]).await;
    let file = recorded.file().done().await.stdout;
    let digest = Program::new(["show", "--digest", recorded.digest(), &recorded.server]);
    assert_eq!(digest.done().await.stdout, file);
    let element = Program::new(["show", "libb.bst", &recorded.server, "--graph"]).arg(recorded.path("graph.json"));
    assert_eq!(element.done().await.stdout, file);
    let size = find(&recorded.generated, "libb.bst")["actions"].as_u64().unwrap();
    assert!(file.starts_with(&format!("libb.bst: {size} actions, ")), "{file}");
    assert!(file.contains("in the compact layout"), "{file}");
    assert!(file.contains("files of its artifact have a known origin"), "{file}");
}

#[tokio::test]
async fn graphs_are_for_graphviz() {
    for layout in [&[][..], &["--reference-layout"]] {
        let recorded = Recorded::new(layout).await;
        let dot = recorded.file().arg("--dot").done().await.stdout;
        assert!(dot.starts_with("digraph speculative_actions {\n") && dot.ends_with("}\n"), "{dot}");
        for action in &world().first.element("libb.bst").unwrap().built.subactions {
            assert!(dot.contains(&format!("{:?} [label=", action.to_string())), "{dot}");
        }
        assert!(dot.contains("\"own source\" -> ") && dot.contains("[shape=folder]"), "{dot}");
        assert_eq!(dot.matches('"').count() % 2, 0, "{dot}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let recorded = Recorded::new(&[]).await;
    let show = |arguments: &[&str]| Program::new(["show", &recorded.server]).args(arguments).run();
    let path = |name| recorded.path(name).to_str().unwrap().to_owned();

    let absent = path("absent.pb");
    show(&["--file", &absent]).await.expect_failure(1, &[&absent, "because: No such file"]);
    let absent = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855/7";
    show(&["--digest", absent]).await.expect_failure(1, &[absent, "not found", "not in the store", "hint: "]);
    let huge = format!("{}/{}", &absent[..64], i64::MAX);
    show(&["--digest", &huge]).await.expect_failure(1, &[&huge, "the limit"]);
    show(&["--digest", "abc"]).await.expect_failure(2, &["--digest abc", "HASH/SIZE"]);
    let (graph, after) = (path("graph.json"), path("after.json"));
    show(&["nobody.bst", "--graph", &graph]).await.expect_failure(2, &["nobody.bst", &graph, "hint: "]);
    show(&["app.bst", "--graph", &after]).await.expect_failure(1, &["app.bst", &after, "bst-sa generate"]);
}

#[tokio::test]
async fn a_digest_says_its_own_function() {
    let recorded = Recorded::new(&[]).await;
    let digest = reapi_proto::DigestFunction::Sha512.digest(b"x").to_string();
    let ran = Program::new(["show", "--digest", &digest, &recorded.server]).run().await;
    ran.expect_failure(2, &["SHA256 digests only", "SHA512"]);
}
