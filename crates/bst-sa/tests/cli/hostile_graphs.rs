//! Graph files that are wrong: refused with the element's name before anything is done.

use serde_json::json;

use crate::support::{ByHand, Program, listing};

const DIGEST: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae/3";

/// Every command refuses this graph and says all of this.
async fn check(graph: impl AsRef<[u8]>, says: &[&str]) {
    let bench = ByHand::new();
    let file = bench.write("graph.json", graph);
    let before = listing(bench.path());
    for command in ["generate", "instantiate", "prime"] {
        let ran = bench.program(command, &file).with_memory(300).run().await;
        ran.expect_failure(2, says);
        ran.expect_failure(2, &[file.to_str().unwrap(), "is not a usable graph", "hint: ", "docs/graph.md"]);
    }
    let show = Program::new(["show", "a", "--graph"]).arg(&file).arg(bench.server()).run().await;
    show.expect_failure(2, says);
    assert_eq!(listing(bench.path()), before);
}

async fn check_elements(elements: serde_json::Value, says: &[&str]) {
    check(json!({ "version": 1, "elements": elements }).to_string(), says).await;
}

#[tokio::test]
async fn text_that_is_no_graph() {
    check("", &["not JSON"]).await;
    check("graph:\n  - yaml\n", &["not JSON", "line 1"]).await;
    check("{ \"version\": 1, \"elements\": [", &["not JSON", "EOF"]).await;
    check([0xff, 0xfe, 0x00], &["not JSON"]).await;
    check("[]", &["where an object is expected"]).await;
    check("[".repeat(1 << 20), &["not JSON", "recursion limit"]).await;
    check("{ \"version\": 2, \"elements\": [] }", &["`version` is 2; expected 1"]).await;
    check("{ \"version\": 1 }", &["`elements`", "expected a list"]).await;
    check("{ \"digest_function\": \"MD5\", \"elements\": [] }", &["`digest_function` is \"MD5\""]).await;
}

#[tokio::test]
async fn cycles_are_shown_whole() {
    let elements = json!([
        { "name": "a", "build_deps": ["b"] }, { "name": "b", "build_deps": ["c"] }, { "name": "c", "build_deps": ["a"] }
    ]);
    check_elements(elements, &["a: `build_deps` lead back to it (a -> b -> c -> a)", "expected no cycle"]).await;
    check_elements(json!([{ "name": "a", "build_deps": ["a"] }]), &["a -> a"]).await;
}

#[tokio::test]
async fn a_long_cycle_takes_neither_stack_nor_memory() {
    let count = 20_000;
    let elements: Vec<_> = (0..count)
        .map(|i| json!({ "name": format!("e{i}"), "build_deps": [format!("e{}", (i + 1) % count)] }))
        .collect();
    check_elements(elements.into(), &["`build_deps` lead back to it", "e19999 -> e0"]).await;
}

#[tokio::test]
async fn wrong_types_name_element_and_member() {
    let wrong = [
        ("cached", json!("yes"), "true or false"),
        ("weak_key", json!(7), "a string"),
        ("sources", json!("abc"), "HASH/SIZE"),
        ("sources", json!(DIGEST.to_uppercase()), "lowercase"),
        ("artifact", json!({ "hash": "abc" }), "HASH/SIZE"),
        ("sources", json!(format!("{}/-1", &DIGEST[..64])), "HASH/SIZE"),
        ("sources", json!(format!("{}/9223372036854775808", &DIGEST[..64])), "HASH/SIZE"),
        ("speculative_actions", json!(["x"]), "HASH/SIZE"),
        ("build_deps", json!("lib.bst"), "a list"),
        ("subactions", json!({}), "a list"),
    ];
    for (member, value, expected) in wrong {
        let element = json!({ "name": "app.bst", member: value });
        check_elements(json!([element]), &["app.bst: ", &format!("`{member}` is "), "expected ", expected]).await;
    }
    let element = json!({ "name": "app.bst", "subactions": [DIGEST, 1] });
    check_elements(json!([element]), &["app.bst: `subactions[1]` is 1"]).await;
}

#[tokio::test]
async fn names_must_be_there_once() {
    check_elements(json!([{ "name": "a" }, {}]), &["element 2: `name` is absent"]).await;
    check_elements(json!([{ "name": "" }]), &["element 1: `name`", "not empty"]).await;
    check_elements(json!([{ "name": "a" }, { "name": "a" }]), &["a: `name` stands for more than one element"]).await;
    check_elements(json!([{ "name": "a", "build_deps": ["b"] }]), &["a: `build_deps` lists \"b\""]).await;
}

#[tokio::test]
async fn digests_of_another_function_are_refused() {
    let sha512 = reapi_proto::DigestFunction::Sha512.digest(b"x").to_string();
    let says = ["a: `sources` is a SHA512 digest", "expected a SHA256 digest"];
    check_elements(json!([{ "name": "a", "sources": sha512 }]), &says).await;
}

#[tokio::test]
async fn a_wrong_value_is_not_repeated_at_length() {
    let bench = ByHand::new();
    let graph = bench.graph(json!({ "weak_key": vec!["long"; 100_000] }));
    let ran = bench.program("generate", &graph).run().await;
    ran.expect_failure(2, &["e.bst: `weak_key` is "]);
    assert!(ran.stderr.len() < 1000, "{} bytes", ran.stderr.len());
}

#[tokio::test]
async fn a_file_that_cannot_be_one_is_refused_unread() {
    let bench = ByHand::new();
    let absent = bench.path().join("absent.json");
    let ran = bench.program("prime", &absent).run().await;
    ran.expect_failure(2, &[absent.to_str().unwrap(), "cannot be read", "No such file"]);
    bench.program("prime", bench.path()).run().await.expect_failure(2, &["cannot be read", "directory"]);
    let huge = bench.write("huge.json", "");
    std::fs::File::options().write(true).open(&huge).unwrap().set_len(1 << 40).unwrap();
    let ran = bench.program("prime", &huge).with_memory(300).run().await;
    ran.expect_failure(2, &[huge.to_str().unwrap(), "cannot be read", "limit"]);
    let show = Program::new(["show", "--file"]).arg(&huge).with_memory(300).run().await;
    show.expect_failure(1, &[huge.to_str().unwrap(), "cannot be read", "limit"]);
}

/// What the manual shows is what the program reads.
#[tokio::test]
async fn the_manuals_examples_are_graphs() {
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/graph.md")).unwrap();
    let examples: Vec<&str> = manual.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 2);
    for example in examples {
        let bench = ByHand::new();
        let graph = bench.write("graph.json", example);
        let report = bench.program("instantiate", &graph).json().await;
        assert_eq!(report["elements"].as_array().unwrap().len(), 2, "{report:#}");
        bench.program("generate", &graph).done().await;
    }
    let (_, message) = manual.split_once("```\nbst-sa: ").unwrap();
    let bench = ByHand::new();
    bench.write("graph.json", "{ \"elements\": [{ \"name\": \"app.bst\", \"sources\": \"abc\" }] }");
    let ran = Program::new(["generate", "--graph", "graph.json"]).within(bench.path()).run().await;
    ran.expect_code(2);
    assert_eq!(ran.stderr.strip_prefix("bst-sa: "), Some(message.split("```").next().unwrap()));
}
