//! The rule by which actions are placed.

use crate::SkipReason;
use crate::source::content::Score;

/// Where an action belongs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Placement {
    /// To these elements, by name; never empty, and rarely more than one.
    Elements(Vec<String>, Grounds),
    /// To an element that is not in the graph.
    Elsewhere,
    /// Several elements might have run it, and something speaks against each.
    Ambiguous,
    /// Nothing connects it with an element.
    Unexplained,
    /// It cannot be looked at. Of an action that was asked for only just now
    /// the client may not have uploaded the message yet.
    Unusable(SkipReason),
}

/// What decided on a placement.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Grounds {
    /// `Command.working_directory`.
    WorkingDirectory,
    /// Another source.
    Listing,
    /// The input tree.
    Content,
}

/// What is known of an action when it is to be placed.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts<'a> {
    pub(super) directory: Directory,
    /// The elements that another source lists it for.
    pub(super) listed: &'a [usize],
    /// How much of it is each element's.
    pub(super) scores: Vec<(usize, Score)>,
}

/// What a working directory says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Directory {
    /// It is one of these elements, or in it.
    Named(Vec<usize>),
    /// It is an element, but none of the graph.
    Foreign,
    /// Nothing.
    #[default]
    Silent,
}

/// A [`Placement`] by rows of the graph.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Decision {
    Rows(Vec<usize>, Grounds),
    Elsewhere,
    Ambiguous,
    Unexplained,
}

/// The rule; see [`Attributor`].
pub(super) fn decide(facts: &Facts<'_>) -> Decision {
    let rows = match &facts.directory {
        Directory::Foreign => return Decision::Elsewhere,
        Directory::Named(rows) if rows.len() == 1 => return Decision::Rows(rows.clone(), Grounds::WorkingDirectory),
        // One project in the graph several times: what follows narrows it down.
        Directory::Named(rows) => Some(rows),
        Directory::Silent => None,
    };
    let among = |row: &usize| rows.is_none_or(|rows| rows.contains(row));
    let listed: Vec<usize> = facts.listed.iter().copied().filter(among).collect();
    if !listed.is_empty() {
        return Decision::Rows(listed, Grounds::Listing);
    }
    let scores = facts.scores.iter().filter(|(row, score)| score.matching > 0 && among(row));
    let best = scores.clone().map(|(_, score)| *score).max();
    let tied: Vec<usize> = scores.filter(|(_, score)| Some(*score) == best).map(|(row, _)| *row).collect();
    match (best, rows) {
        (Some(best), _) if tied.len() == 1 || best.is_undisputed() => Decision::Rows(tied, Grounds::Content),
        (_, Some(rows)) => Decision::Rows(rows.clone(), Grounds::WorkingDirectory),
        (Some(_), None) => Decision::Ambiguous,
        (None, None) => Decision::Unexplained,
    }
}
