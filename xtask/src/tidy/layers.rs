//! Which crate may know which. Arrows point one way; see the invariants in ARCHITECTURE.md.

use serde_json::Value;

use super::Findings;
use super::tree::Tree;
use crate::Failure;
use crate::cargo;

struct Layer {
    package: &'static str,
    features: Features,
    never: &'static [&'static str],
}

#[derive(Clone, Copy)]
enum Features {
    Default,
    None,
}

const OURS: [&str; 12] = [
    "reapi-proto",
    "reapi-archive",
    "cas-client",
    "reapi-overlay",
    "reapi-includes",
    "reapi-record",
    "instantiate",
    "buildstream",
    "simulate",
    "testbed",
    "bst-sa",
    "bst-sa-tests",
];

const LAYERS: &[Layer] = &[
    Layer {
        package: "reapi-proto",
        features: Features::Default,
        never: &["tonic", "tonic-prost", "tokio", "cas-client", "reapi-overlay"],
    },
    Layer {
        package: "reapi-archive",
        features: Features::Default,
        never: &["tokio", "tonic", "reapi-proto", "cas-client", "reapi-overlay"],
    },
    Layer {
        package: "reapi-overlay",
        features: Features::Default,
        never: &["tokio", "tonic", "async-trait", "futures-util", "cas-client"],
    },
    Layer {
        package: "reapi-includes",
        features: Features::Default,
        never: &["tokio", "tonic", "async-trait", "reapi-proto", "cas-client", "reapi-overlay"],
    },
    Layer {
        package: "cas-client",
        features: Features::None,
        never: &["tonic", "hyper", "reapi-overlay", "reapi-record", "instantiate"],
    },
    Layer {
        package: "cas-client",
        features: Features::Default,
        never: &["reapi-overlay", "reapi-record", "instantiate", "buildstream", "testbed"],
    },
    Layer {
        package: "reapi-record",
        features: Features::Default,
        never: &["tonic", "instantiate", "buildstream", "testbed"],
    },
    Layer {
        package: "instantiate",
        features: Features::Default,
        never: &["tonic", "reapi-record", "buildstream", "testbed"],
    },
    Layer {
        package: "buildstream",
        features: Features::Default,
        never: &["tonic", "clap", "comfy-table", "indicatif", "testbed"],
    },
    Layer {
        package: "simulate",
        features: Features::Default,
        never: &["tonic", "clap", "comfy-table", "reapi-record", "buildstream", "testbed"],
    },
    Layer { package: "xtask", features: Features::Default, never: &OURS },
];

/// Packages below a crate that its layer must not know, whatever path they come by.
pub(super) fn forbidden_packages(tree: &Tree) -> Findings {
    let mut findings = Vec::new();
    for layer in LAYERS {
        // The text is searched: the exit code of `cargo tree --invert` says nothing reliable.
        let mut command = cargo(tree.root());
        command.args(["tree", "-p", layer.package, "-e", "normal", "--prefix", "none", "-f", "{p}"]);
        if matches!(layer.features, Features::None) {
            command.arg("--no-default-features");
        }
        let listing = output(command)?;
        findings.extend(forbidden_in(&listing, layer));
    }
    Ok(findings)
}

fn forbidden_in(listing: &str, layer: &Layer) -> Vec<String> {
    let found = |name: &&&str| listing.lines().skip(1).any(|line| line.split(' ').next() == Some(**name));
    let features = match layer.features {
        Features::Default => "",
        Features::None => " without default features",
    };
    let never = layer.never.iter().filter(found);
    never.map(|name| format!("{}{features} must not depend on {name}, directly or not", layer.package)).collect()
}

/// `testbed` serves tests and the demo; nothing that is published may need it.
pub(super) fn testbed_is_for_tests(tree: &Tree) -> Findings {
    let mut command = cargo(tree.root());
    command.args(["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&output(command)?).map_err(|e| Failure::new(e.to_string()))?;
    Ok(production_users(&metadata, "testbed", &["bst-sa", "bst-sa-tests"]))
}

fn production_users(metadata: &Value, package: &str, allowed: &[&str]) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut findings = Vec::new();
    for user in list(&metadata["packages"]) {
        let name = user["name"].as_str().unwrap_or_default();
        let uses = list(&user["dependencies"])
            .iter()
            .any(|dependency| dependency["name"] == package && dependency["kind"] != "dev");
        if uses && !allowed.contains(&name) {
            findings.push(format!("{name} must not depend on {package}, except as a dev-dependency"));
        }
    }
    findings
}

fn output(mut command: std::process::Command) -> Result<String, Failure> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(Failure::new(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_package_is_found_at_any_depth() {
        let layer = Layer { package: "a", features: Features::Default, never: &["tonic", "a"] };
        let check = |listing: &str| forbidden_in(listing, &layer).len();
        assert_eq!(check("a v0.1.0 (dir)\ntonic-types v0.14.9\nbytes v1.0.0\n"), 0);
        assert_eq!(check("a v0.1.0 (dir)\nbytes v1.0.0\ntonic v0.14.9 (*)\n"), 1);
    }

    #[test]
    fn a_production_user_is_found() {
        let check = |name: &str, kind: Value| {
            let metadata =
                serde_json::json!({"packages": [{"name": name, "dependencies": [{"name": "t", "kind": kind}]}]});
            production_users(&metadata, "t", &["allowed"]).len()
        };
        assert_eq!(check("other", Value::Null), 1);
        assert_eq!(check("other", "build".into()), 1);
        assert_eq!(check("other", "dev".into()), 0);
        assert_eq!(check("allowed", Value::Null), 0);
    }
}
