//! The graph as JSON.

use reapi_proto::{Digest, DigestFunction};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Element, Graph, GraphError};

/// The only schema version there is.
const VERSION: u64 = 1;

/// Characters of a wrong value that an error shows.
const SHOWN: usize = 60;

pub(super) fn read(bytes: &[u8]) -> Result<Graph, GraphError> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| GraphError::Syntax(e.to_string()))?;
    let Value::Object(mut graph) = value else {
        return Err(GraphError::Syntax(format!("{} where an object is expected", shown(&value))));
    };
    let wrong = |member, expected, value: &Value| GraphError::Graph { member, expected, found: shown(value) };
    let version = take(&mut graph, "version");
    if version.as_ref().is_some_and(|v| v.as_u64() != Some(VERSION)) {
        return Err(wrong("version", "1", &version.unwrap_or_default()));
    }
    let digest_function = match take(&mut graph, "digest_function") {
        None => DigestFunction::default(),
        Some(value) => value
            .as_str()
            .and_then(|name| name.parse().ok())
            .ok_or_else(|| wrong("digest_function", "SHA256, SHA384 or SHA512", &value))?,
    };
    let elements = match graph.remove("elements") {
        Some(Value::Array(elements)) => elements,
        other => return Err(wrong("elements", "a list of elements", &other.unwrap_or_default())),
    };
    let elements = elements.into_iter().enumerate().map(|(i, value)| read_element(i, value)).collect::<Result<_, _>>();
    Graph::new(digest_function, elements?)
}

fn read_element(position: usize, value: Value) -> Result<Element, GraphError> {
    let place = format!("element {}", position + 1);
    let Value::Object(mut members) = value else {
        return Err(GraphError::Graph {
            member: "elements",
            expected: "a list of objects",
            found: format!("a list with {} as {place}", shown(&value)),
        });
    };
    let name = match take(&mut members, "name") {
        Some(Value::String(name)) if !name.is_empty() => name,
        other => {
            return Err(GraphError::Element {
                element: place,
                member: "name".to_owned(),
                expected: "a string that is not empty".to_owned(),
                found: other.map_or_else(|| "absent".to_owned(), |value| shown(&value)),
            });
        }
    };
    let mut members = Members { element: &name, members };
    Ok(Element {
        project: members.string("project")?,
        weak_key: members.string("weak_key")?,
        configuration: members.string("configuration")?,
        strong_key: members.string("strong_key")?,
        cached: members.boolean("cached")?,
        sources: members.digest("sources")?,
        artifact: members.digest("artifact")?,
        build_deps: members.list("build_deps", "a string", |value| value.as_str().map(str::to_owned))?,
        staged: members.list("staged", "a string", |value| value.as_str().map(str::to_owned))?,
        platforms: members.list("platforms", "a list of strings", parse_names)?,
        subactions: members.list("subactions", DIGEST, parse_digest)?,
        speculative_actions: members.digest("speculative_actions")?,
        name,
    })
}

const DIGEST: &str = "a digest as \"HASH/SIZE\" with a lowercase hexadecimal hash";

fn parse_digest(value: &Value) -> Option<Digest> {
    value.as_str()?.parse().ok()
}

fn parse_names(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

/// The members of an element that were not read yet.
struct Members<'a> {
    element: &'a str,
    members: Map<String, Value>,
}

impl Members<'_> {
    fn wrong(&self, member: impl Into<String>, expected: impl Into<String>, value: &Value) -> GraphError {
        let (member, expected) = (member.into(), expected.into());
        GraphError::Element { element: self.element.to_owned(), member, expected, found: shown(value) }
    }

    fn read<T>(
        &mut self,
        member: &'static str,
        expected: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, GraphError> {
        let Some(value) = take(&mut self.members, member) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| self.wrong(member, expected, &value))
    }

    fn string(&mut self, member: &'static str) -> Result<Option<String>, GraphError> {
        self.read(member, "a string", |value| value.as_str().map(str::to_owned))
    }

    fn boolean(&mut self, member: &'static str) -> Result<Option<bool>, GraphError> {
        self.read(member, "true or false", Value::as_bool)
    }

    fn digest(&mut self, member: &'static str) -> Result<Option<Digest>, GraphError> {
        self.read(member, DIGEST, parse_digest)
    }

    fn list<T>(
        &mut self,
        member: &'static str,
        expected: &'static str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, GraphError> {
        match take(&mut self.members, member) {
            None => Ok(None),
            Some(Value::Array(values)) => {
                let each = values
                    .iter()
                    .enumerate()
                    .map(|(i, value)| read(value).ok_or_else(|| self.wrong(format!("{member}[{i}]"), expected, value)));
                each.collect::<Result<_, _>>().map(Some)
            }
            Some(other) => Err(self.wrong(member, format!("a list, each entry {expected}"), &other)),
        }
    }
}

/// A member that is there and not `null`.
fn take(members: &mut Map<String, Value>, member: &str) -> Option<Value> {
    members.remove(member).filter(|value| !value.is_null())
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[derive(Serialize)]
struct WrittenGraph<'a> {
    version: u64,
    digest_function: &'static str,
    elements: Vec<WrittenElement<'a>>,
}

#[derive(Serialize)]
struct WrittenElement<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weak_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strong_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sources: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_deps: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    staged: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platforms: Option<&'a [Vec<String>]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subactions: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    speculative_actions: Option<String>,
}

pub(super) fn write(graph: &Graph) -> String {
    let text = |digest: &Option<Digest>| digest.map(|d| d.to_string());
    let elements = graph.elements().map(|element| WrittenElement {
        name: &element.name,
        project: element.project.as_deref(),
        weak_key: element.weak_key.as_deref(),
        strong_key: element.strong_key.as_deref(),
        configuration: element.configuration.as_deref(),
        cached: element.cached,
        sources: text(&element.sources),
        artifact: text(&element.artifact),
        build_deps: element.build_deps.as_deref(),
        staged: element.staged.as_deref(),
        platforms: element.platforms.as_deref(),
        subactions: element.subactions.as_ref().map(|list| list.iter().map(Digest::to_string).collect()),
        speculative_actions: text(&element.speculative_actions),
    });
    let written = WrittenGraph {
        version: VERSION,
        digest_function: graph.digest_function().name(),
        elements: elements.collect(),
    };
    // Strings and numbers under string keys: there is nothing that JSON could not express.
    serde_json::to_string_pretty(&written).unwrap_or_default()
}
