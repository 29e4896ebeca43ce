//! How explanations are shown.

use serde_json::{Value, json};

use super::{Asked, ElementExplained, Explained, Prediction, Shown};
use crate::failure::Failure;
use crate::output;

impl Prediction {
    fn name(&self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Late => "late",
            Self::Different { .. } => "different",
            Self::None { .. } => "none",
        }
    }
}

impl Asked {
    fn name(&self) -> &'static str {
        match self.hit {
            Some(true) => "hit",
            Some(false) => "executed",
            None => "unknown",
        }
    }
}

pub(super) fn json(explained: &[ElementExplained]) -> Value {
    let action = |explained: &Explained| {
        let Explained { asked, prediction, confidence, reason } = explained;
        let (base, predicted, shown) = match prediction {
            Prediction::Exact | Prediction::Late => (None, Some(asked.action), None),
            Prediction::Different { base, predicted, difference } => {
                (Some(*base), Some(*predicted), difference.as_ref())
            }
            Prediction::None { base } => (*base, None, None),
        };
        let difference = shown.map(|Shown { kind, place, old, predicted, actual }| {
            let place_name = if *kind == "input" { "path" } else { "name" };
            json!({ "kind": kind, place_name: place, "old": old, "predicted": predicted, "actual": actual })
        });
        json!({
            "action": asked.action.to_string(),
            "asked": asked.name(),
            "prediction": prediction.name(),
            "confidence": confidence,
            "base": base.map(|digest| digest.to_string()),
            "predicted": predicted.map(|digest| digest.to_string()),
            "reason": reason,
            "difference": difference,
        })
    };
    let element = |element: &ElementExplained| {
        json!({
            "name": element.name,
            "actions": element.actions.iter().map(action).collect::<Vec<_>>(),
            "wasted": element.wasted.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    };
    let all = || explained.iter().flat_map(|element| &element.actions);
    let asked = |name: &str| all().filter(|explained| explained.asked.name() == name).count();
    let prediction = |name: &str| all().filter(|explained| explained.prediction.name() == name).count();
    json!({
        "elements": explained.iter().map(element).collect::<Vec<_>>(),
        "totals": {
            "asked": all().count(),
            "hits": asked("hit"),
            "executed": asked("executed"),
            "predicted": prediction("exact"),
            "late": prediction("late"),
            "different": prediction("different"),
            "unpredicted": prediction("none"),
            "wasted": explained.iter().map(|element| element.wasted.len()).sum::<usize>(),
        },
    })
}

pub(super) fn print(explained: &[ElementExplained]) -> Result<(), Failure> {
    let mut table = output::table(
        &["element", "asked", "hits", "executed", "predicted", "late", "different", "not predicted", "wasted"],
        1,
    );
    for element in explained {
        let count = |test: &dyn Fn(&Explained) -> bool| element.actions.iter().filter(|e| test(e)).count().to_string();
        table.add_row([
            element.name.clone(),
            element.actions.len().to_string(),
            count(&|e| e.asked.hit == Some(true)),
            count(&|e| e.asked.hit == Some(false)),
            count(&|e| matches!(e.prediction, Prediction::Exact)),
            count(&|e| matches!(e.prediction, Prediction::Late)),
            count(&|e| matches!(e.prediction, Prediction::Different { .. })),
            count(&|e| matches!(e.prediction, Prediction::None { .. })),
            element.wasted.len().to_string(),
        ]);
    }
    output::print(&table.trim_fmt())?;
    for element in explained {
        // What was found needs no explanation, however it got there.
        for explained in element.actions.iter().filter(|explained| explained.asked.hit != Some(true)) {
            print_action(&element.name, explained)?;
        }
        for digest in &element.wasted {
            output::print(&format!("{}: {digest} was executed ahead in vain", element.name))?;
        }
    }
    Ok(())
}

fn print_action(element: &str, Explained { asked, prediction, confidence, reason }: &Explained) -> Result<(), Failure> {
    let because = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let what = match prediction {
        Prediction::Exact => return Ok(()),
        Prediction::Late => {
            let on = confidence.as_ref().map(|confidence| format!(" ({confidence})")).unwrap_or_default();
            format!("was predicted{on}, and not in time{because}")
        }
        Prediction::None { .. } => format!("was not predicted{because}"),
        Prediction::Different { .. } => format!("was predicted differently{because}"),
    };
    output::print(&format!("{element}: {} {what}", asked.action))?;
    if let Prediction::Different { difference: Some(shown), .. } = prediction {
        let Shown { kind, place, old, predicted, actual } = shown;
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        output::print(&format!("  first difference: {kind} {place}"))?;
        if *kind == "input" {
            output::print(&format!("    recorded:  {}", value(old)))?;
        }
        output::print(&format!("    predicted: {}\n    actual:    {}", value(predicted), value(actual)))?;
    }
    Ok(())
}
