//! What priming predicted, kept until the build can be held against it.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use reapi_proto::Digest;
use serde::Deserialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::files::{read_whole, replace};

/// The version of the format.
const VERSION: u64 = 1;

/// Predictions, as `prime --json` prints them. Members that are not known are ignored.
#[derive(Deserialize, Clone, Debug)]
pub(crate) struct Journal {
    #[serde(default = "current")]
    version: u64,
    pub(crate) elements: Vec<Element>,
}

fn current() -> u64 {
    VERSION
}

#[derive(Deserialize, Clone, Debug)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) actions: Vec<Action>,
    /// Why no record was used.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

#[derive(Deserialize, Clone, Debug)]
pub(crate) struct Action {
    #[serde(deserialize_with = "digest")]
    pub(crate) base: Digest,
    pub(crate) outcome: Outcome,
    #[serde(default, deserialize_with = "optional_digest")]
    pub(crate) adapted: Option<Digest>,
    #[serde(default)]
    pub(crate) reason: Option<String>,
    /// What the prediction rests on.
    #[serde(default)]
    pub(crate) confidence: Option<String>,
    #[serde(default)]
    pub(crate) executed: bool,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Unchanged,
    Adapted,
    Deferred,
    Dropped,
}

impl Action {
    /// The action that the build is expected to ask for.
    pub(crate) fn predicted(&self) -> Option<Digest> {
        match self.outcome {
            Outcome::Unchanged => Some(self.base),
            Outcome::Adapted => self.adapted,
            Outcome::Deferred | Outcome::Dropped => None,
        }
    }
}

fn digest<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn optional_digest<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Digest>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
}

/// Where the predictions for the project of a cache directory are.
pub(crate) fn path(cachedir: &Path) -> PathBuf {
    cachedir.join("bst-sa").join("priming.json")
}

/// Keeps what was predicted, as `prime --json` prints it. The file is replaced at once or not at all. That
/// it cannot be written is no reason for anything to fail, and is logged.
pub(crate) fn keep(cachedir: &Path, mut value: Value) {
    value["version"] = VERSION.into();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    value["time"] = now.as_secs().into();
    if let Err(error) = replace(&path(cachedir), value.to_string().as_bytes()) {
        tracing::warn!(cachedir = %cachedir.display(), %error, "predictions cannot be kept; `bst-sa explain` will not know them");
    }
}

/// Reads predictions.
pub(crate) fn read(path: &Path) -> Result<Journal, Failure> {
    let unusable = |message: &str| Failure::new(format!("{} {message}", path.display()));
    let hint = "`bst-sa build` and `bst-sa prime` leave one behind; `bst-sa prime --json` prints one";
    let bytes = read_whole(path).map_err(|e| unusable("has no predictions to explain").because(&e).hint(hint))?;
    let journal = parse(&bytes).map_err(|e| unusable("is no list of predictions").because(&e).hint(hint))?;
    match journal.version {
        VERSION => Ok(journal),
        other => Err(unusable(&format!("has predictions of format {other}, and {VERSION} is known here"))),
    }
}

fn parse(bytes: &[u8]) -> serde_json::Result<Journal> {
    serde_json::from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use instantiate::{ActionReport, ElementReport, ExecutionReport, RecordReport, Report, Totals};
    use proptest::prelude::*;
    use reapi_proto::DigestFunction;

    use std::fs;

    use super::*;

    #[test]
    fn what_is_kept_is_read_again() {
        let sha = |text: &str| DigestFunction::Sha256.digest(text.as_bytes());
        let action = ActionReport {
            base: sha("base"),
            outcome: instantiate::Outcome::Adapted,
            adapted: Some(sha("adapted")),
            reason: None,
            skip: None,
            guess: false,
            confidence: Some(instantiate::Confidence::Known),
            execution: ExecutionReport::Executed,
            recorded_duration: None,
        };
        let element = ElementReport { name: "app.bst".into(), record: RecordReport::Exact, actions: vec![action] };
        let home = tempfile::tempdir().unwrap();
        let report = Report { elements: vec![element], totals: Totals::default() };
        keep(home.path(), crate::commands::prime::json_of_priming(&report));
        let journal = read(&path(home.path())).unwrap();
        let [element] = &journal.elements[..] else { panic!("{journal:?}") };
        assert_eq!(element.name, "app.bst");
        assert_eq!(element.actions[0].predicted(), Some(sha("adapted")));
        assert!(element.actions[0].executed);
        let later = home.path().join("later");
        fs::write(&later, r#"{"version": 2, "elements": []}"#).unwrap();
        assert!(read(&later).unwrap_err().summary().contains("format 2"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r#"\{"elements": \[(\{("name": "a"|"actions": (\[\]|\[\{"base": "[0-9a-f/]{0,70}"\}\]|1)|,){0,4}\},?){0,2}\]\}?"#, noise in prop::collection::vec(any::<u8>(), 0..50)) {
            let _ = parse(text.as_bytes());
            let _ = parse(&noise);
        }
    }
}
