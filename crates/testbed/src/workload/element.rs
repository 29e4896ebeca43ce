//! Elements and the graph document that describes them.

use reapi_proto::Digest;
use serde_json::{Map, Value, json};

use super::DIGEST_FUNCTION;
use super::layout::PROJECT;

/// One element of a state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Element {
    /// Its name, as `app.bst`.
    pub name: String,
    /// Covers its own sources and the names of its dependencies.
    pub weak_key: String,
    /// Covers its own sources and the strong keys of its dependencies.
    pub strong_key: String,
    /// Root directory of its sources.
    pub sources: Digest,
    /// Root directory of its artifact; `None` where it is not built in this state.
    pub artifact: Option<Digest>,
    /// Names of its direct dependencies.
    pub build_deps: Vec<String>,
    /// Digests of the actions that it ran, in order.
    pub subactions: Vec<Digest>,
}

/// The graph document, schema version 1. An element is cached where its artifact is known.
pub(super) fn graph(elements: &[Element]) -> Value {
    let elements: Vec<Value> = elements
        .iter()
        .map(|element| {
            let mut members = Map::new();
            members.insert("name".into(), json!(element.name));
            members.insert("project".into(), json!(PROJECT));
            members.insert("weak_key".into(), json!(element.weak_key));
            members.insert("strong_key".into(), json!(element.strong_key));
            members.insert("cached".into(), json!(element.artifact.is_some()));
            members.insert("sources".into(), json!(element.sources.to_string()));
            if let Some(artifact) = element.artifact {
                members.insert("artifact".into(), json!(artifact.to_string()));
            }
            members.insert("build_deps".into(), json!(element.build_deps));
            if !element.subactions.is_empty() {
                let subactions: Vec<String> = element.subactions.iter().map(Digest::to_string).collect();
                members.insert("subactions".into(), json!(subactions));
            }
            Value::Object(members)
        })
        .collect();
    json!({ "version": 1, "digest_function": DIGEST_FUNCTION.name(), "elements": elements })
}

/// The weak and strong key of an element, as 64 hexadecimal digits each.
pub(super) fn keys<'a>(
    name: &str,
    sources: &Digest,
    build_deps: impl Iterator<Item = (&'a str, &'a str)>,
) -> (String, String) {
    let mut weak = format!("weak {name} {sources}");
    let mut strong = format!("strong {name} {sources}");
    for (dependency, strong_key) in build_deps {
        weak.push_str(&format!(" {dependency}"));
        strong.push_str(&format!(" {strong_key}"));
    }
    (DIGEST_FUNCTION.digest(weak.as_bytes()).to_hex(), DIGEST_FUNCTION.digest(strong.as_bytes()).to_hex())
}
