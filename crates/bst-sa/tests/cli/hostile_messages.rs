//! Stored messages that are wrong: a counted skip with a reason, in bounded memory, and nothing is uploaded.

use prost::Message;
use reapi_proto::buildstream::SpeculativeActions;
use reapi_proto::buildstream::speculative_actions::{Overlay, SpeculativeAction};
use reapi_proto::raw::Node;
use reapi_proto::{Digest, DigestFunction, bst_sa, v2};
use serde_json::{Value, json};

use crate::support::{ByHand, Program, directory_bytes, file_node, find, listing, message};

/// More than any of these needs, and less than what the messages describe.
const MEGABYTES: u64 = 300;

fn digest(text: &str) -> Digest {
    DigestFunction::Sha256.digest(text.as_bytes())
}

fn wire(text: &str) -> v2::Digest {
    digest(text).into()
}

fn file(name: &str) -> v2::FileNode {
    v2::FileNode { name: name.to_owned(), digest: Some(wire("leaf")), ..Default::default() }
}

fn truncated(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len() - 3].to_vec()
}

/// Directories that no canonical encoder makes, with what is to be said of each.
fn bad_directories() -> Vec<(v2::Directory, &'static str)> {
    let files = |names: &[&str]| v2::Directory { files: names.iter().map(|n| file(n)).collect(), ..Default::default() };
    let link = v2::SymlinkNode { name: "a".to_owned(), target: "b".to_owned(), ..Default::default() };
    let below = |digest| v2::DirectoryNode { name: "d".to_owned(), digest };
    let directories = |digest| v2::Directory { directories: vec![below(digest)], ..Default::default() };
    vec![
        (files(&[".."]), "\"..\""),
        (files(&["."]), "\".\""),
        (files(&[""]), "\"\""),
        (files(&["a/b"]), "\"a/b\""),
        (files(&["../../etc/passwd"]), "\"../../etc/passwd\""),
        (files(&["a\0b"]), "\"a\\0b\""),
        (files(&["a", "a"]), "\"a\""),
        (files(&["b", "a"]), "\"a\""),
        (v2::Directory { symlinks: vec![link], ..files(&["a"]) }, "\"a\""),
        (directories(None), "digest"),
        (directories(Some(v2::Digest { hash: "zz".to_owned(), size_bytes: 1 })), "digest"),
        (directories(Some(v2::Digest { size_bytes: -1, ..wire("x") })), "digest"),
        (directories(Some(v2::Digest { hash: wire("x").hash.to_uppercase(), size_bytes: 1 })), "digest"),
    ]
}

/// `generate` on an element that ran a usable action and then this one: the latter is skipped for this reason.
async fn check_generate(bench: &ByHand, bad: Digest, reasons: &[&str]) {
    let good = bench.action_on("int main;").await;
    let subactions = json!([good.to_string(), bad.to_string()]);
    let sources = bench.sources("int main;").await.to_string();
    let graph = bench.graph(json!({ "sources": sources, "subactions": subactions }));
    let report = bench.program("generate", &graph).with_memory(MEGABYTES).json().await;
    let element = find(&report, "e.bst");
    assert_eq!((&element["actions"], &element["overlays"]), (&1.into(), &1.into()), "{report:#}");
    let skipped = element["skipped"].as_array().unwrap();
    assert_eq!((skipped.len(), &skipped[0]["action"]), (1, &bad.to_string().into()), "{report:#}");
    let reason = skipped[0]["reason"].as_str().unwrap();
    for part in reasons {
        assert!(reason.contains(part), "{part:?} is not in {reason:?}");
    }
    let table = Program::new(["generate", "--graph"]).arg(&graph).arg(bench.server()).done().await.stdout;
    assert!(table.contains(&format!("e.bst: skipped {bad}: {reason}")), "{table}");
}

#[tokio::test]
async fn generate_skips_actions_that_are_none() {
    let bench = ByHand::new();
    let action = |command, root| v2::Action { command_digest: command, input_root_digest: root, ..Default::default() };
    let whole = message(&action(Some(wire("command")), Some(wire("root"))));
    let short = bench.put(truncated(&whole)).await;
    check_generate(&bench, short, &[&short.to_string(), "cannot be used"]).await;
    let garbage = bench.put([0xff; 40].to_vec()).await;
    check_generate(&bench, garbage, &["cannot be used"]).await;
    // A length that would be more than all memory.
    let long = bench.put(vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).await;
    check_generate(&bench, long, &["cannot be used"]).await;
    for command in [
        None,
        Some(v2::Digest { hash: "zz".to_owned(), size_bytes: 5 }),
        Some(v2::Digest { size_bytes: -5, ..wire("x") }),
        Some(v2::Digest { size_bytes: i64::MIN, ..wire("x") }),
    ] {
        let bad = bench.put(message(&action(command, Some(wire("root"))))).await;
        check_generate(&bench, bad, &["cannot be used", "command_digest"]).await;
    }
    let uncached = v2::Action { do_not_cache: true, ..action(Some(wire("command")), Some(wire("root"))) };
    let uncached = bench.put(message(&uncached)).await;
    check_generate(&bench, uncached, &["must not be cached"]).await;
}

#[tokio::test]
async fn generate_skips_actions_that_are_absent_or_damaged() {
    let bench = ByHand::new();
    check_generate(&bench, digest("absent"), &["the action is not in CAS"]).await;
    let huge = Digest::from_raw(DigestFunction::Sha256, &[7; 32], i64::MAX as u64).unwrap();
    check_generate(&bench, huge, &["larger than"]).await;

    let action = bench.action_on("damaged").await;
    let file = std::fs::read(bench.blob_file(&action)).unwrap();
    bench.damage(&action, "x");
    check_generate(&bench, action, &["corrupt data", &action.to_string(), "truncated to 1 bytes"]).await;
    bench.damage(&action, &"x".repeat(file.len()));
    check_generate(&bench, action, &["corrupt data", "contents do not match"]).await;
    bench.damage(&action, &"x".repeat(file.len() + 1));
    check_generate(&bench, action, &["corrupt data", "longer than"]).await;
}

#[tokio::test]
async fn generate_skips_actions_whose_command_is_unusable() {
    let bench = ByHand::new();
    let root = bench.sources("x").await;
    let on = |command: Digest| {
        let action = v2::Action {
            command_digest: Some(command.into()),
            input_root_digest: Some(root.into()),
            ..Default::default()
        };
        bench.put(message(&action))
    };
    let absent = digest("no command");
    check_generate(&bench, on(absent).await, &[&format!("command {absent} is not in CAS")]).await;
    let command = v2::Command { arguments: vec!["cc".to_owned()], ..Default::default() };
    let short = bench.put(truncated(&message(&command))).await;
    check_generate(&bench, on(short).await, &[&short.to_string(), "cannot be used"]).await;
    let damaged = bench.put(message(&command)).await;
    let action = on(damaged).await;
    bench.damage(&damaged, "x");
    check_generate(&bench, action, &[&damaged.to_string(), "corrupt data"]).await;
}

#[tokio::test]
async fn generate_skips_actions_whose_tree_is_unusable() {
    let bench = ByHand::new();
    for (directory, says) in bad_directories() {
        let root = bench.put(message(&directory)).await;
        let action = bench.action(root).await;
        check_generate(&bench, action, &[&root.to_string(), "not a canonical Directory", says]).await;
        // And not at the root.
        let above = bench.tree(&[("below", Node::Directory { digest: root })]).await;
        let action = bench.action(above).await;
        check_generate(&bench, action, &[&root.to_string(), says]).await;
    }
    let directory = directory_bytes(&[("a", file_node(digest("leaf")))]);
    let short = bench.put(truncated(&directory)).await;
    check_generate(&bench, bench.action(short).await, &[&short.to_string(), "not a canonical Directory"]).await;
    let lost = bench.put(directory).await;
    let action = bench.action(lost).await;
    bench.damage(&lost, "x");
    check_generate(&bench, action, &[&lost.to_string(), "corrupt data"]).await;
    bench.forget(&lost);
    check_generate(&bench, action, &[&format!("directory {lost} is not in CAS")]).await;
}

#[tokio::test]
async fn generate_skips_trees_beyond_all_measure() {
    let bench = ByHand::new();
    let bomb = bench.bomb(30).await;
    check_generate(&bench, bench.action(bomb).await, &[&bomb.to_string(), "paths", "limit"]).await;
    let mut deep = bench.tree(&[("leaf", file_node(digest("leaf")))]).await;
    for _ in 0..300 {
        deep = bench.tree(&[("d", Node::Directory { digest: deep })]).await;
    }
    check_generate(&bench, bench.action(deep).await, &["deeper than 256 levels"]).await;
    let huge = Digest::from_raw(DigestFunction::Sha256, &[7; 32], 1 << 50).unwrap();
    check_generate(&bench, bench.action(huge).await, &[&huge.to_string(), "larger than"]).await;
}

#[tokio::test]
async fn generate_survives_sources_and_artifacts_of_any_kind() {
    let bench = ByHand::new();
    let action = bench.action_on("int main;").await.to_string();
    let bad = bench.put(message(&bad_directories()[0].0)).await;
    for root in [bench.bomb(30).await, bad, bench.put("no directory").await, digest("absent")] {
        let element = json!({ "sources": root.to_string(), "artifact": root.to_string(), "subactions": [action] });
        let graph = bench.graph(element);
        let report = bench.program("generate", &graph).with_memory(MEGABYTES).json().await;
        let element = find(&report, "e.bst");
        let skipped = element["skipped"].as_array().unwrap().len() as u64;
        assert_eq!(element["actions"].as_u64().unwrap() + skipped, 1, "{report:#}");
        assert_eq!(element["overlays"], 0, "{report:#}");
    }
}

#[tokio::test]
async fn a_damaged_action_cache_costs_the_action_concerned() {
    let bench = ByHand::new();
    let usable = v2::ActionResult { exit_code: 0, stdout_raw: "done".into(), ..Default::default() };
    bench.put_result(&bench.action_on("int main;").await, message(&usable));
    let action = bench.action_on("int util;").await;
    for (result, says) in [("no result", "no ActionResult"), ("\u{a}\u{5}x", "no ActionResult")] {
        bench.put_result(&action, result);
        check_generate(&bench, action, &[&action.to_string(), "corrupt data", says]).await;
    }
    let escape = v2::OutputFile { path: "/etc/passwd".to_owned(), digest: Some(wire("x")), ..Default::default() };
    let result = v2::ActionResult { output_files: vec![escape], ..Default::default() };
    bench.put_result(&action, message(&result));
    check_generate(&bench, action, &[&action.to_string(), "/etc/passwd"]).await;
}

/// The recorded state of one element, to be spoilt before it is used.
struct Recorded {
    bench: ByHand,
    action: Digest,
    command: Digest,
    root: Digest,
    record: Digest,
    next: Digest,
}

impl Recorded {
    async fn new(layout: &[&str]) -> Self {
        let bench = ByHand::new();
        let (old, next) = (bench.sources("old").await, bench.sources("new").await);
        let root = bench.tree(&[("main.c", file_node(digest("old")))]).await;
        let action = bench.action(root).await;
        let command: v2::Action = read(&bench, &action);
        let command = Digest::try_from(&command.command_digest).unwrap();
        let graph = bench.graph(json!({ "sources": old.to_string(), "subactions": [action.to_string()] }));
        let report = bench.program("generate", &graph).args(layout).json().await;
        let record = find(&report, "e.bst")["speculative_actions"].as_str().unwrap().parse().unwrap();
        Self { bench, action, command, root, record, next }
    }

    async fn instantiate(&self) -> Value {
        instantiate(&self.bench, self.record, self.next).await
    }

    async fn check_dropped(&self, reasons: &[&str]) {
        let report = self.instantiate().await;
        assert_eq!(report["totals"]["dropped"], 1, "{report:#}");
        let action = &find(&report, "e.bst")["actions"][0];
        assert_eq!((&action["outcome"], &action["base"]), (&"dropped".into(), &self.action.to_string().into()));
        let reason = action["reason"].as_str().unwrap();
        for part in reasons {
            assert!(reason.contains(part), "{part:?} is not in {reason:?}");
        }
    }
}

fn read<M: Message + Default>(bench: &ByHand, digest: &Digest) -> M {
    M::decode(std::fs::read(bench.blob_file(digest)).unwrap().as_slice()).unwrap()
}

/// Runs `instantiate` with this record on these sources; the store must not change.
async fn instantiate(bench: &ByHand, record: Digest, sources: Digest) -> Value {
    let element = json!({ "sources": sources.to_string(), "speculative_actions": record.to_string() });
    let graph = bench.graph(element);
    let before = listing(bench.path());
    let ran = bench.program("instantiate", &graph).with_memory(MEGABYTES).done().await;
    ran.expect_message(&[]);
    assert_eq!(listing(bench.path()), before);
    ran.json()
}

#[tokio::test]
async fn instantiate_adapts_what_is_not_spoilt() {
    for layout in [&[][..], &["--reference-layout"]] {
        let recorded = Recorded::new(layout).await;
        let report = recorded.instantiate().await;
        assert_eq!(report["totals"]["adapted"], 1, "{report:#}");
        let expected = {
            let action: v2::Action = read(&recorded.bench, &recorded.action);
            let root = directory_bytes(&[("main.c", file_node(digest("new")))]);
            let root = DigestFunction::Sha256.digest(&root);
            DigestFunction::Sha256.digest(&message(&v2::Action { input_root_digest: Some(root.into()), ..action }))
        };
        assert_eq!(find(&report, "e.bst")["actions"][0]["adapted"], expected.to_string());
    }
}

#[tokio::test]
async fn instantiate_drops_what_is_absent_or_damaged() {
    for layout in [&[][..], &["--reference-layout"]] {
        let recorded = Recorded::new(layout).await;
        for part in [recorded.action, recorded.root] {
            let kept = std::fs::read(recorded.bench.blob_file(&part)).unwrap();
            recorded.bench.damage(&part, "x");
            recorded.check_dropped(&[]).await;
            recorded.bench.forget(&part);
            recorded.check_dropped(&[]).await;
            std::fs::write(recorded.bench.blob_file(&part), kept).unwrap();
        }
        assert_eq!(recorded.instantiate().await["totals"]["adapted"], 1);
    }
    // The compact layout knows more, so its reasons say more.
    let recorded = Recorded::new(&[]).await;
    recorded.bench.damage(&recorded.action, "x");
    recorded.check_dropped(&[&recorded.action.to_string(), "corrupt data"]).await;
    recorded.bench.forget(&recorded.action);
    recorded.check_dropped(&["not in the store"]).await;
    let recorded = Recorded::new(&[]).await;
    recorded.bench.forget(&recorded.root);
    recorded.check_dropped(&[&recorded.root.to_string(), "not in the store"]).await;
    assert_ne!(recorded.command, recorded.action);
}

#[tokio::test]
async fn records_that_are_none_are_not_used() {
    let recorded = Recorded::new(&[]).await;
    let bench = &recorded.bench;
    let whole = std::fs::read(bench.blob_file(&recorded.record)).unwrap();
    let huge = Digest::from_raw(DigestFunction::Sha256, &[7; 32], i64::MAX as u64).unwrap();
    let damaged = bench.put("a record").await;
    bench.damage(&damaged, "A RECORD");
    let records = [
        (bench.put(truncated(&whole)).await, "the record cannot be used"),
        (bench.put([0xff; 40].to_vec()).await, "the record cannot be used: not a SpeculativeActions message"),
        (bench.put(hostile_record(|r| r.version = 99)).await, "version 99"),
        (bench.put(hostile_record(|r| r.path_parents = vec![7])).await, "inconsistent"),
        (bench.put(hostile_record(|r| r.input_origins = vec![u32::MAX])).await, "inconsistent"),
        (bench.put(hostile_record(|r| r.level_entry_counts = vec![u32::MAX])).await, "inconsistent"),
        (bench.put(hostile_record(|r| r.action_roots = vec![9])).await, "inconsistent"),
        (bench.put(hostile_record(|r| r.base_hashes = vec![1; 31].into())).await, "inconsistent"),
        (digest("absent"), "no longer in the store"),
        (huge, "the limit for a message"),
        (damaged, "corrupt data"),
    ];
    for (record, says) in records {
        let report = instantiate(bench, record, recorded.next).await;
        let element = find(&report, "e.bst");
        let reason = element["reason"].as_str().unwrap_or_else(|| panic!("{says}: {report:#}"));
        assert!(reason.contains(says), "{says:?} is not in {reason:?}");
        assert_eq!(element["actions"], json!([]));
        // People who look at such a record are told, too.
        let show = Program::new(["show", "--digest", &record.to_string(), &bench.server()]).with_memory(MEGABYTES);
        let ran = show.run().await;
        ran.expect_code(1);
        assert!(ran.stderr.starts_with("bst-sa: ") && ran.stdout.is_empty(), "{ran:#?}");
    }
}

/// A consistent table of one action without inputs, spoilt by `spoil`.
fn hostile_record(spoil: impl FnOnce(&mut bst_sa::Record)) -> Vec<u8> {
    let mut record = table();
    record.action_elements = vec![0];
    record.action_roots = vec![0];
    record.action_durations = vec![0];
    record.action_output_bytes = vec![0];
    record.action_property_counts = vec![0];
    spoil(&mut record);
    let action = SpeculativeAction { base_action_digest: Some(wire("action")), overlays: Vec::new() };
    SpeculativeActions { actions: vec![action], compact: Some(record), ..Default::default() }.encode_to_vec()
}

fn table() -> bst_sa::Record {
    bst_sa::Record {
        version: 1,
        digest_function: DigestFunction::Sha256.wire_value(),
        elements: vec![bst_sa::Element { name: "e.bst".to_owned(), ..Default::default() }],
        ..Default::default()
    }
}

/// A record may describe the billion paths of a tree bomb in a few lines, too.
#[tokio::test]
async fn a_record_of_a_billion_places_costs_no_memory() {
    let bench = ByHand::new();
    let root = bench.bomb(30).await;
    let base = bench.action(root).await;
    let leaf = digest("leaf");
    let mut record = table();
    // Names from row 1 on: leaf, a, b. Path 1 and the one origin: leaf of the own sources.
    record.names = ["leaf", "a", "b"].map(bytes::Bytes::from).to_vec();
    record.path_parents = vec![0];
    record.path_names = vec![1];
    record.origin_kinds = vec![0];
    record.origin_elements = vec![0];
    record.origin_paths = vec![1];
    record.input_kinds = vec![0];
    record.input_hashes = bytes::Bytes::copy_from_slice(leaf.hash());
    record.input_sizes = vec![leaf.size_bytes()];
    record.input_origin_counts = vec![1];
    record.input_origins = vec![0];
    record.level_entry_counts = vec![1];
    record.level_entry_names = vec![1];
    record.level_entries = vec![0];
    for _ in 0..30 {
        record.level_entry_counts.push(2);
        record.level_entry_names.extend([2, 3]);
        record.level_entries.extend([3, 3]);
    }
    record.action_elements = vec![0];
    record.action_roots = vec![31];
    record.action_durations = vec![0];
    record.action_output_bytes = vec![0];
    record.action_property_counts = vec![0];
    let action = SpeculativeAction { base_action_digest: Some(base.into()), overlays: Vec::new() };
    let message = SpeculativeActions { actions: vec![action], compact: Some(record), ..Default::default() };
    let record = bench.put(message.encode_to_vec()).await;
    let sources = bench.tree(&[("leaf", file_node(digest("new")))]).await;

    let report = instantiate(&bench, record, sources).await;
    // Each of the 31 directories is judged and rewritten once, in no time.
    assert_eq!(report["totals"]["adapted"], 1, "{report:#}");
    let shown = Program::new(["show", "--json", "--digest", &record.to_string(), &bench.server()]);
    let shown = shown.with_memory(MEGABYTES).json().await;
    assert_eq!(shown["actions"][0]["overlays"].as_array().unwrap().len(), 1, "{shown:#}");
}

/// The reference layout says "this digest, wherever it is", so the tree has to be searched.
#[tokio::test]
async fn a_reference_record_on_a_tree_bomb_costs_no_memory() {
    let bench = ByHand::new();
    let root = bench.bomb(30).await;
    let base = bench.action(root).await;
    let overlay = Overlay { source_path: "leaf".to_owned(), target_digest: Some(wire("leaf")), ..Default::default() };
    let action = SpeculativeAction { base_action_digest: Some(base.into()), overlays: vec![overlay] };
    let message = SpeculativeActions { actions: vec![action], ..Default::default() };
    let record = bench.put(message.encode_to_vec()).await;
    let sources = bench.tree(&[("leaf", file_node(digest("new")))]).await;
    let report = instantiate(&bench, record, sources).await;
    let totals = &report["totals"];
    assert_eq!((&totals["actions"], &totals["deferred"]), (&1.into(), &0.into()), "{report:#}");
}

#[tokio::test]
async fn hostile_trees_of_a_record_or_of_sources_are_not_followed() {
    for (directory, _) in bad_directories() {
        let bench = ByHand::new();
        let root = bench.put(message(&directory)).await;
        let base = bench.action(root).await;
        let mut overlay = Overlay { source_path: "main.c".to_owned(), ..Default::default() };
        overlay.target_digest = Some(wire("leaf"));
        let action = SpeculativeAction { base_action_digest: Some(base.into()), overlays: vec![overlay] };
        let message = SpeculativeActions { actions: vec![action], ..Default::default() };
        let record = bench.put(message.encode_to_vec()).await;
        let sources = bench.sources("new").await;
        let report = instantiate(&bench, record, sources).await;
        assert_eq!(report["totals"]["dropped"], 1, "{report:#}");
        // A service is sent nothing for it, either.
        let server = bench.serve().await;
        let prime = Program::new(["prime", "--json", "--server", server.url(), "--graph"]);
        let report = prime.arg(bench.path().join("graph.json")).with_memory(MEGABYTES).json().await;
        assert_eq!(report["totals"]["dropped"], 1, "{report:#}");
        let stats = server.stats();
        assert_eq!((stats.uploaded, stats.executed), (Vec::new(), Vec::new()));
    }
    let recorded = Recorded::new(&[]).await;
    let bench = &recorded.bench;
    let mut roots = vec![bench.put("no directory").await, digest("absent"), bench.bomb(30).await];
    for (directory, _) in bad_directories() {
        roots.push(bench.put(message(&directory)).await);
    }
    for sources in roots {
        let report = instantiate(bench, recorded.record, sources).await;
        assert_eq!(report["totals"]["actions"], 1);
        assert_eq!(report["totals"]["unchanged"], 0, "{report:#}");
    }
}
