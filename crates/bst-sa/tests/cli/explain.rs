//! `explain` on predictions and actions made by hand.

use serde_json::{Value, json};

use crate::support::{ByHand, Program};

/// One element whose build asked for `actual`, and these predictions for it.
async fn explained(bench: &ByHand, actual: &[&reapi_proto::Digest], predictions: Value) -> Program {
    let actual: Vec<String> = actual.iter().map(ToString::to_string).collect();
    let graph = bench.graph(json!({ "subactions": actual }));
    let predictions = json!({ "elements": [{ "name": "e.bst", "actions": predictions }] });
    let file = bench.write("predictions.json", predictions.to_string());
    bench.program("explain", &graph).arg("--predictions").arg(file)
}

#[tokio::test]
async fn the_first_differing_input_is_named_with_three_digests() {
    let bench = ByHand::new();
    let [old, predicted, actual] =
        [bench.action_on("old").await, bench.action_on("predicted").await, bench.action_on("actual").await];
    let row =
        json!({ "base": old.to_string(), "outcome": "adapted", "adapted": predicted.to_string(), "executed": true });
    let report = explained(&bench, &[&actual], json!([row])).await.json().await;
    let action = &report["elements"][0]["actions"][0];
    assert_eq!(action["prediction"], "different");
    assert_eq!(action["action"], actual.to_string());
    let digest = async |text: &'static str| bench.put(text).await.to_string();
    let expected = json!({
        "kind": "input", "path": "main.c",
        "old": digest("old").await, "predicted": digest("predicted").await, "actual": digest("actual").await,
    });
    assert_eq!(action["difference"], expected);
    assert_eq!(report["elements"][0]["wasted"], json!([predicted.to_string()]));
    assert_eq!(report["totals"]["different"], 1);
}

#[tokio::test]
async fn what_was_given_up_is_explained_by_its_reason() {
    let bench = ByHand::new();
    let [old, actual] = [bench.action_on("old").await, bench.action_on("actual").await];
    let row = json!({ "base": old.to_string(), "outcome": "dropped", "adapted": null, "reason": "no such luck" });
    let report = explained(&bench, &[&actual], json!([row])).await.json().await;
    let action = &report["elements"][0]["actions"][0];
    assert_eq!((&action["prediction"], &action["reason"]), (&json!("none"), &json!("no such luck")));
    assert_eq!(action["base"], old.to_string());
}

#[tokio::test]
async fn what_came_true_needs_no_explanation() {
    let bench = ByHand::new();
    let [old, new, vain] = [bench.action_on("old").await, bench.action_on("new").await, bench.action_on("vain").await];
    let rows = json!([
        { "base": old.to_string(), "outcome": "adapted", "adapted": new.to_string(), "executed": true },
        { "base": vain.to_string(), "outcome": "unchanged", "executed": true },
    ]);
    let report = explained(&bench, &[&new], rows.clone()).await.json().await;
    assert_eq!(report["elements"][0]["actions"][0]["prediction"], "exact");
    assert_eq!(report["elements"][0]["wasted"], json!([vain.to_string()]));

    // What is lost from storage is said to be, and nothing fails.
    bench.forget(&old);
    let other = bench.action_on("other").await;
    let report = explained(&bench, &[&other], rows).await.json().await;
    let action = &report["elements"][0]["actions"][0];
    assert_eq!(action["prediction"], "different", "the other row makes the same output");
    bench.forget(&other);
    let report = explained(&bench, &[&other], json!([])).await.json().await;
    let reason = report["elements"][0]["actions"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("no longer in storage"), "{reason}");
}

#[tokio::test]
async fn predictions_that_are_none_are_refused() {
    let bench = ByHand::new();
    let graph = bench.graph(json!({}));
    bench.program("explain", &graph).run().await.expect_failure(2, &["no predictions", "--predictions"]);
    for (text, says) in [
        ("", "is no list of predictions"),
        ("{\"elements\": 1}", "invalid type"),
        ("{\"elements\": [{\"name\": \"e\", \"actions\": [{\"base\": \"x\", \"outcome\": \"adapted\"}]}]}", "because"),
        ("{\"elements\": [{\"name\": \"e\", \"actions\": [{\"base\": 1}]}]}", "invalid type"),
        ("{\"version\": 9, \"elements\": []}", "format 9"),
    ] {
        let file = bench.write("predictions.json", text);
        let ran = bench.program("explain", &graph).arg("--predictions").arg(file).run().await;
        ran.expect_failure(1, &["predictions.json", says]);
    }
    let ran = bench.program("explain", &graph).args(["--predictions", "nowhere"]).run().await;
    ran.expect_failure(1, &["nowhere has no predictions"]);
}
