use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn read(value: &Value) -> Result<Graph, GraphError> {
    Graph::from_json(value.to_string().as_bytes())
}

fn graph(elements: &Value) -> Graph {
    read(&json!({ "version": 1, "elements": elements })).unwrap()
}

fn names<'a>(elements: impl IntoIterator<Item = &'a Element>) -> Vec<&'a str> {
    elements.into_iter().map(|e| e.name.as_str()).collect()
}

fn digest(text: &str) -> Digest {
    DigestFunction::Sha256.digest(text.as_bytes())
}

#[test]
fn every_member_is_read_and_absence_is_not_emptiness() {
    let d = digest("x").to_string();
    let graph = graph(&json!([
        { "name": "base.bst", "cached": null, "extra": { "ignored": [1] } },
        { "name": "app.bst", "project": "demo", "weak_key": "w", "strong_key": "s", "cached": true, "sources": d,
          "artifact": d, "build_deps": ["base.bst"], "subactions": [], "speculative_actions": d },
    ]));
    assert_eq!(graph.get("base.bst"), Some(&Element::new("base.bst")));
    let app = graph.get("app.bst").unwrap();
    assert_eq!((app.project.as_deref(), app.weak_key.as_deref()), (Some("demo"), Some("w")));
    assert_eq!((app.strong_key.as_deref(), app.cached), (Some("s"), Some(true)));
    assert_eq!([app.sources, app.artifact, app.speculative_actions], [Some(digest("x")); 3]);
    assert_eq!((app.build_deps.as_deref(), app.subactions.as_deref()), (Some(&["base.bst".into()][..]), Some(&[][..])));
    assert!(app.is_current() && !graph.get("base.bst").unwrap().is_current());
    assert_eq!((graph.len(), graph.is_empty(), graph.get("nobody")), (2, false, None));
}

#[test]
fn version_and_function_have_defaults() {
    let graph = read(&json!({ "elements": [] })).unwrap();
    assert_eq!((graph.digest_function(), graph.is_empty()), (DigestFunction::Sha256, true));
    let graph = read(&json!({ "digest_function": "sha512", "elements": [] })).unwrap();
    assert_eq!(graph.digest_function(), DigestFunction::Sha512);
}

#[test]
fn orders_are_depth_first_along_build_deps() {
    let graph = graph(&json!([
        { "name": "app", "build_deps": ["ui", "net", "ui"] },
        { "name": "net", "build_deps": ["base"] },
        { "name": "ui", "build_deps": ["gfx", "base"] },
        { "name": "gfx" },
        { "name": "base" },
        { "name": "docs", "build_deps": ["base"] },
    ]));
    assert_eq!(names(graph.elements()), ["gfx", "base", "ui", "net", "app", "docs"]);
    assert_eq!(names(graph.closure("app")), ["gfx", "base", "ui", "net"]);
    assert_eq!(names(graph.closure("net")), ["base"]);
    assert_eq!(names(graph.dependents("base")), ["ui", "net", "app", "docs"]);
    assert_eq!(names(graph.dependents("app")), [""; 0]);
    assert_eq!(names(graph.closure("nobody")), [""; 0]);
    assert_eq!(names(graph.dependents("nobody")), [""; 0]);
}

#[test]
fn a_chain_as_long_as_the_graph_is_walked() {
    let count = 100_000;
    let elements = (0..count).rev().map(|i| {
        let build_deps = Some(if i == 0 { Vec::new() } else { vec![format!("e{}", i - 1)] });
        Element { build_deps, ..Element::new(format!("e{i}")) }
    });
    let graph = Graph::new(DigestFunction::Sha256, elements.collect()).unwrap();
    assert_eq!(graph.elements().next().unwrap().name, "e0");
    assert_eq!(graph.closure(&format!("e{}", count - 1)).len(), count - 1);
    assert_eq!(graph.dependents("e0").len(), count - 1);
    assert_eq!(Graph::from_json(graph.to_json().as_bytes()).unwrap(), graph);
}

#[track_caller]
fn check_refused(graph: &Value, message: &str) {
    assert_eq!(read(graph).unwrap_err().to_string(), message);
}

#[test]
fn the_graph_itself_is_checked() {
    let list = |value: Value| json!({ "version": 1, "elements": value });
    check_refused(&json!([]), "the graph is not JSON: [] where an object is expected");
    check_refused(&json!({ "version": 2, "elements": [] }), "the graph's `version` is 2; expected 1");
    check_refused(&json!({ "version": "1", "elements": [] }), "the graph's `version` is \"1\"; expected 1");
    check_refused(
        &json!({ "digest_function": "MD5", "elements": [] }),
        "the graph's `digest_function` is \"MD5\"; expected SHA256, SHA384 or SHA512",
    );
    check_refused(&json!({ "version": 1 }), "the graph's `elements` is null; expected a list of elements");
    check_refused(&list(json!({})), "the graph's `elements` is {}; expected a list of elements");
    check_refused(
        &list(json!([{ "name": "a" }, "b"])),
        "the graph's `elements` is a list with \"b\" as element 2; expected a list of objects",
    );
    let error = Graph::from_json(b"{ \"version\": 1, }").unwrap_err();
    assert!(error.to_string().starts_with("the graph is not JSON: "), "{error}");
}

#[test]
fn errors_name_element_and_member() {
    let one = |member: &str, value: Value| json!({ "elements": [{ "name": "app.bst", member: value }] });
    check_refused(
        &json!({ "elements": [{ "name": "a" }, {}] }),
        "element 2: `name` is absent; expected a string that is not empty",
    );
    check_refused(
        &json!({ "elements": [{ "name": "" }] }),
        "element 1: `name` is \"\"; expected a string that is not empty",
    );
    check_refused(
        &json!({ "elements": [{ "name": "a" }, { "name": "a" }] }),
        "a: `name` stands for more than one element; expected every name once",
    );
    for member in ["project", "weak_key", "strong_key"] {
        check_refused(&one(member, json!(7)), &format!("app.bst: `{member}` is 7; expected a string"));
    }
    check_refused(&one("cached", json!("yes")), "app.bst: `cached` is \"yes\"; expected true or false");
    let expected = "a digest as \"HASH/SIZE\" with a lowercase hexadecimal hash";
    for member in ["sources", "artifact", "speculative_actions"] {
        for value in ["", "abc/1", &digest("x").to_string().to_uppercase(), &digest("x").to_string()[..64]] {
            check_refused(
                &one(member, json!(value)),
                &format!("app.bst: `{member}` is {}; expected {expected}", shown(value)),
            );
        }
    }
    check_refused(&one("subactions", json!(["x"])), &format!("app.bst: `subactions[0]` is \"x\"; expected {expected}"));
    check_refused(
        &one("subactions", json!({})),
        &format!("app.bst: `subactions` is {{}}; expected a list, each entry {expected}"),
    );
    check_refused(&one("build_deps", json!([1])), "app.bst: `build_deps[0]` is 1; expected a string");
    check_refused(
        &one("build_deps", json!(["lib.bst"])),
        "app.bst: `build_deps` lists \"lib.bst\"; expected names of elements of this graph",
    );
}

fn shown(value: &str) -> String {
    let quoted = format!("\"{value}\"");
    if quoted.len() > 60 { format!("{}…", &quoted[..60]) } else { quoted }
}

#[test]
fn digests_are_of_the_graphs_function() {
    let found = DigestFunction::Sha512.digest(b"x");
    check_refused(
        &json!({ "elements": [{ "name": "a", "subactions": [digest("x").to_string(), found.to_string()] }] }),
        &format!("a: `subactions` is a SHA512 digest, {found}; expected a SHA256 digest, the graph's function"),
    );
}

#[test]
fn a_cycle_is_named_in_full() {
    let cyclic = json!({ "elements": [
        { "name": "top", "build_deps": ["a"] },
        { "name": "a", "build_deps": ["b"] },
        { "name": "b", "build_deps": ["c"] },
        { "name": "c", "build_deps": ["a"] },
    ] });
    check_refused(&cyclic, "a: `build_deps` lead back to it (a -> b -> c -> a); expected no cycle");
    let alone = json!({ "elements": [{ "name": "a", "build_deps": ["a"] }] });
    check_refused(&alone, "a: `build_deps` lead back to it (a -> a); expected no cycle");
}

fn any_json() -> impl Strategy<Value = Value> {
    let members = prop_oneof![
        Just("version"),
        Just("digest_function"),
        Just("elements"),
        Just("name"),
        Just("project"),
        Just("weak_key"),
        Just("strong_key"),
        Just("cached"),
        Just("sources"),
        Just("artifact"),
        Just("build_deps"),
        Just("subactions"),
        Just("speculative_actions"),
        Just("other"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(1)),
        "[ab]{0,2}".prop_map(Value::from),
        Just(json!(digest("x").to_string())),
    ];
    leaf.prop_recursive(4, 64, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((members.clone(), inner), 0..6)
                .prop_map(|list| Value::Object(list.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

fn any_graph() -> impl Strategy<Value = Graph> {
    let text = || option::of("\\PC{0,4}");
    let blob = || option::of("[a-c]".prop_map(|s| digest(&s)));
    let lists = (option::of(vec(any::<usize>(), 0..4)), option::of(vec("[a-c]".prop_map(|s| digest(&s)), 0..3)));
    let element = (text(), text(), text(), option::of(any::<bool>()), blob(), blob(), blob(), lists);
    vec(element, 0..12).prop_map(|list| {
        let elements = list.into_iter().enumerate().map(|(i, fields)| {
            let (project, weak_key, strong_key, cached, sources, artifact, speculative_actions, lists) = fields;
            let (build_deps, subactions) = lists;
            let pick = |list: Vec<usize>| list.into_iter().filter(|_| i > 0).map(|n| format!("e {}", n % i)).collect();
            Element {
                name: format!("e {i}"),
                project,
                weak_key,
                configuration: strong_key.clone(),
                strong_key,
                cached,
                sources,
                artifact,
                staged: build_deps.clone().map(pick),
                platforms: build_deps.clone().map(|list| vec![pick(list), Vec::new()]),
                build_deps: build_deps.map(pick),
                subactions,
                speculative_actions,
            }
        });
        let mut elements: Vec<_> = elements.collect();
        elements.reverse();
        Graph::new(DigestFunction::Sha256, elements).unwrap()
    })
}

#[test]
fn what_is_staged_and_platforms_are_what_the_element_says_or_what_it_builds_on() {
    let graph = |more: Value| {
        let mut app = json!({ "name": "app", "build_deps": ["tools", "lib"] });
        app.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "elements": [app, { "name": "base" }, { "name": "lib", "build_deps": ["base"] }, { "name": "tools" }] })
    };
    let platforms =
        |graph: &Graph| graph.platforms("app").into_iter().map(|p| names(p).join(" ")).collect::<Vec<_>>().join("|");
    let unsaid = read(&graph(json!({}))).unwrap();
    assert_eq!(names(unsaid.staged("app")), ["tools", "base", "lib"]);
    assert_eq!(platforms(&unsaid), "tools|base lib|tools base lib");
    let said = read(&graph(json!({ "staged": ["lib"], "platforms": [["base", "tools"]] }))).unwrap();
    assert_eq!(names(said.staged("app")), ["lib"]);
    assert_eq!(platforms(&said), "base tools");
    let wrong = read(&graph(json!({ "platforms": [["base", "nobody"]] }))).unwrap_err();
    assert_eq!(wrong.to_string(), "app: `platforms` is \"nobody\"; expected names of elements of this graph");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = Graph::from_json(&bytes);
    }

    #[test]
    fn no_json_panics(value in any_json(), elements in vec(any_json(), 0..4)) {
        let _ = read(&value);
        let _ = read(&json!({ "version": 1, "elements": elements }));
    }

    #[test]
    fn what_is_written_reads_as_the_same(graph in any_graph()) {
        prop_assert_eq!(Graph::from_json(graph.to_json().as_bytes()).unwrap(), graph);
    }

    #[test]
    fn orders_put_dependencies_first(graph in any_graph()) {
        let mut before: Vec<&str> = Vec::new();
        for element in graph.elements() {
            for dependency in element.build_deps.iter().flatten() {
                prop_assert!(before.contains(&dependency.as_str()));
                prop_assert!(names(graph.dependents(dependency)).contains(&element.name.as_str()));
            }
            let closure = names(graph.closure(&element.name));
            for (i, member) in closure.iter().enumerate() {
                let direct = graph.get(member).unwrap().build_deps.iter().flatten();
                for dependency in direct {
                    prop_assert!(closure[..i].contains(&dependency.as_str()));
                }
            }
            prop_assert!(!closure.contains(&element.name.as_str()));
            before.push(&element.name);
        }
    }
}
