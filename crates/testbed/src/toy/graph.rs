//! The project's state as the graph file that orchestrators write (version 1).

use cas_client::BlobStore;
use reapi_proto::DigestFunction;
use serde_json::{Value, json};

use super::build::upload_sources;
use super::{BuildReport, Error, Project, State};

/// The state after a build: every element cached, with its subactions.
#[must_use]
pub fn graph_after(project: &Project, report: &BuildReport) -> Value {
    let function = report.elements.first().map_or(DigestFunction::default(), |e| e.sources.function());
    let elements = report.elements.iter().map(|element| {
        let subactions: Vec<String> = element.built.subactions.iter().map(ToString::to_string).collect();
        json!({
            "name": element.name,
            "project": project.name,
            "weak_key": element.weak_key,
            "strong_key": element.strong_key,
            "cached": true,
            "sources": element.sources.to_string(),
            "artifact": element.built.artifact.to_string(),
            "build_deps": element.build_deps,
            "subactions": subactions,
        })
    });
    document(function, &elements.collect::<Vec<_>>())
}

/// The state before the next build: sources are available (and in `store`
/// when this returns), artifacts only where nothing changed.
///
/// # Errors
/// When the sources cannot be stored.
pub async fn graph_before(project: &Project, store: &dyn BlobStore, state: &State) -> Result<Value, Error> {
    let function = store.digest_function();
    let mut elements = Vec::new();
    for (element, keys) in project.elements().iter().zip(project.keys(function)) {
        let sources = upload_sources(store, element).await?;
        let mut member = json!({
            "name": element.name,
            "project": project.name,
            "weak_key": keys.weak,
            "strong_key": keys.strong,
            "cached": false,
            "sources": sources.to_string(),
            "build_deps": element.build_deps,
        });
        if let Some(built) = state.get(&keys.strong) {
            member["cached"] = true.into();
            member["artifact"] = built.artifact.to_string().into();
        }
        elements.push(member);
    }
    Ok(document(function, &elements))
}

fn document(function: DigestFunction, elements: &[Value]) -> Value {
    json!({ "version": 1, "digest_function": function.name(), "elements": elements })
}
