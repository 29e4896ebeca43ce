//! What changed about one command, said so that it can be done to others.

use bytes::Bytes;
use prost::Message;
use reapi_proto::raw::{Command, RawError};
use reapi_proto::v2;

/// The most arguments that are compared: a comparison takes time and memory in their square.
const MAX_ARGUMENTS: usize = 4096;

/// The difference between the commands of the same step in two builds: other
/// flags, another environment. What differs from step to step (the names of
/// files) is no part of it, so that it can be applied to other steps.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CommandChange {
    arguments: Vec<Hunk>,
    /// By name: the value before and after.
    environment: Vec<(String, Option<String>, Option<String>)>,
}

/// Some arguments in a row that give way to others.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Hunk {
    /// The argument in front of them.
    before: Option<String>,
    /// The argument behind them.
    after: Option<String>,
    removed: Vec<String>,
    inserted: Vec<String>,
}

impl CommandChange {
    /// What leads from `old` to `new`. `None` where they differ in more than
    /// arguments and environment, or cannot be compared; platforms are not looked at.
    #[must_use]
    pub fn between(old: &Command, new: &Command) -> Option<Self> {
        let (mut old, mut new) = (readable(old)?, readable(new)?);
        if old.arguments.len().max(new.arguments.len()) > MAX_ARGUMENTS {
            return None;
        }
        let arguments = hunks(&old.arguments, &new.arguments);
        let mut environment = Vec::new();
        let value = |command: &v2::Command, name: &str| {
            let found = command.environment_variables.iter().find(|variable| variable.name == name);
            found.map(|variable| variable.value.clone())
        };
        let mut names: Vec<&String> =
            old.environment_variables.iter().chain(&new.environment_variables).map(|variable| &variable.name).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let (before, after) = (value(&old, name), value(&new, name));
            if before != after {
                environment.push((name.clone(), before, after));
            }
        }
        for command in [&mut old, &mut new] {
            command.arguments.clear();
            command.environment_variables.clear();
            #[allow(deprecated, reason = "clients write it beside that of the Action")]
            {
                command.platform = None;
            }
        }
        (old == new).then_some(Self { arguments, environment })
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.arguments.is_empty() && self.environment.is_empty()
    }

    /// Whether the change makes `new` of `old`, platforms apart.
    #[must_use]
    pub fn leads_to(&self, old: &Command, new: &Command) -> bool {
        let Ok(Some(changed)) = self.apply(old) else { return false };
        let Ok(changed) = Command::parse(changed) else { return false };
        Self::between(&changed, new).is_some_and(|rest| rest.is_empty())
    }

    /// The command with the change, as bytes. `None` where it does not fit:
    /// what would be replaced is not there, or there is more than one place for it.
    ///
    /// # Errors
    /// [`RawError`] where the command is malformed.
    pub fn apply(&self, command: &Command) -> Result<Option<Bytes>, RawError> {
        let Some(mut changed) = readable(command) else { return Ok(None) };
        let Some(arguments) = self.apply_arguments(&changed.arguments) else { return Ok(None) };
        changed.arguments = arguments;
        for (name, before, after) in &self.environment {
            let variables = &mut changed.environment_variables;
            let place = variables.iter().position(|variable| variable.name == *name);
            if place.map(|place| &variables[place].value) != before.as_ref() {
                return Ok(None);
            }
            match (place, after) {
                (Some(place), Some(value)) => variables[place].value.clone_from(value),
                (Some(place), None) => {
                    variables.remove(place);
                }
                (None, Some(value)) => {
                    let place = variables.partition_point(|variable| variable.name < *name);
                    let variable = v2::command::EnvironmentVariable { name: name.clone(), value: value.clone() };
                    variables.insert(place, variable);
                }
                (None, None) => {}
            }
        }
        let bytes = Bytes::from(changed.encode_to_vec());
        Command::parse(bytes.clone())?;
        Ok(Some(bytes))
    }

    fn apply_arguments(&self, arguments: &[String]) -> Option<Vec<String>> {
        let mut changed = Vec::with_capacity(arguments.len());
        let mut rest = 0;
        for hunk in &self.arguments {
            let place = hunk.place(arguments, rest)?;
            changed.extend_from_slice(&arguments[rest..place]);
            changed.extend_from_slice(&hunk.inserted);
            rest = place + hunk.removed.len();
        }
        changed.extend_from_slice(&arguments[rest..]);
        Some(changed)
    }
}

impl Hunk {
    /// The one place from `start` on where it fits, the better one if its surroundings tell two apart.
    fn place(&self, arguments: &[String], start: usize) -> Option<usize> {
        let last = arguments.len().checked_sub(self.removed.len())?;
        let fits = (start..=last).filter(|i| arguments[*i..].starts_with(&self.removed));
        let surroundings = |i: usize| {
            let before = i.checked_sub(1).map(|i| &arguments[i]) == self.before.as_ref();
            let after = arguments.get(i + self.removed.len()) == self.after.as_ref();
            usize::from(before) + usize::from(after)
        };
        // An insertion fits anywhere: only its surroundings say where it goes.
        let needed = usize::from(self.removed.is_empty());
        let fits: Vec<(usize, usize)> = fits.map(|i| (surroundings(i), i)).filter(|(s, _)| *s >= needed).collect();
        let best = fits.iter().map(|(surroundings, _)| *surroundings).max()?;
        let mut best = fits.iter().filter(|(surroundings, _)| *surroundings == best);
        let (_, place) = best.next()?;
        best.next().is_none().then_some(*place)
    }
}

/// The message, if writing it again gives the same bytes: nothing in it is unknown.
fn readable(command: &Command) -> Option<v2::Command> {
    let message = v2::Command::decode(command.bytes().clone()).ok()?;
    (message.encode_to_vec() == command.bytes()[..]).then_some(message)
}

/// A shortest list of hunks that leads from `old` to `new`.
fn hunks(old: &[String], new: &[String]) -> Vec<Hunk> {
    let width = new.len() + 1;
    // Length of the longest common subsequence of the ends that start at (i, j).
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let mut found: Vec<Hunk> = Vec::new();
    let (mut i, mut j) = (0, 0);
    let mut open = false;
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            if open && let Some(hunk) = found.last_mut() {
                hunk.after = Some(old[i].clone());
            }
            open = false;
            (i, j) = (i + 1, j + 1);
            continue;
        }
        if !open {
            let before = i.checked_sub(1).map(|i| old[i].clone());
            found.push(Hunk { before, after: None, removed: Vec::new(), inserted: Vec::new() });
            open = true;
        }
        let Some(hunk) = found.last_mut() else { break };
        let remove = j == new.len() || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]);
        if remove {
            hunk.removed.push(old[i].clone());
            i += 1;
        } else {
            hunk.inserted.push(new[j].clone());
            j += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
        let message = v2::Command {
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            environment_variables: environment
                .iter()
                .map(|(name, value)| v2::command::EnvironmentVariable {
                    name: (*name).to_owned(),
                    value: (*value).to_owned(),
                })
                .collect(),
            working_directory: "w".to_owned(),
            ..v2::Command::default()
        };
        Command::parse(message.encode_to_vec().into()).unwrap()
    }

    #[track_caller]
    fn applied(old: &str, new: &str, other: &str) -> Option<String> {
        let split = |text: &str| command(&text.split(' ').collect::<Vec<_>>(), &[]);
        let change = CommandChange::between(&split(old), &split(new)).unwrap();
        let bytes = change.apply(&split(other)).unwrap()?;
        let changed = Command::parse(bytes).unwrap();
        let arguments: Vec<String> =
            changed.arguments().map(|argument| String::from_utf8(argument.to_vec()).unwrap()).collect();
        Some(arguments.join(" "))
    }

    #[test]
    fn other_flags_are_the_same_flags_for_another_file() {
        let check = |old, new, expected: Option<&str>| {
            assert_eq!(applied(old, new, "cc -O1 -Iinc -c b.c -o b.o").as_deref(), expected, "{old} / {new}");
        };
        check("cc -O1 -Iinc -c a.c -o a.o", "cc -O2 -Iinc -c a.c -o a.o", Some("cc -O2 -Iinc -c b.c -o b.o"));
        check("cc -O1 -Iinc -c a.c -o a.o", "cc -O1 -DX -Iinc -c a.c -o a.o", Some("cc -O1 -DX -Iinc -c b.c -o b.o"));
        check("cc -O1 -Iinc -c a.c -o a.o", "cc -O1 -Iinc -c -g a.c -o a.o", Some("cc -O1 -Iinc -c -g b.c -o b.o"));
        check("cc -O1 -Iinc -c a.c -o a.o", "cc -Iinc -c a.c -o a.o", Some("cc -Iinc -c b.c -o b.o"));
        check("cc -O1 -Iinc -c a.c -o a.o", "cc -O1 -Iinc -c a.c -o a.o", Some("cc -O1 -Iinc -c b.c -o b.o"));
        check("cc -O3 -Iinc -c a.c -o a.o", "cc -O2 -Iinc -c a.c -o a.o", None);
    }

    #[test]
    fn where_it_could_go_in_two_places_it_goes_nowhere() {
        assert_eq!(applied("cc -I x a.c", "cc -I x -I y a.c", "cc -I z -I x -I x b.c"), None);
        assert_eq!(applied("cc -x a.c -x", "cc -y a.c -x", "cc -x b.c -x").as_deref(), Some("cc -y b.c -x"));
    }

    #[test]
    fn the_environment_stays_sorted() {
        let old = command(&["cc"], &[("A", "1"), ("C", "3")]);
        let new = command(&["cc"], &[("A", "2"), ("B", "2"), ("C", "3")]);
        let change = CommandChange::between(&old, &new).unwrap();
        assert_eq!(change.apply(&old).unwrap().as_ref(), Some(new.bytes()));
        assert_eq!(change.apply(&new).unwrap(), None, "it has been done already");
    }

    proptest! {
        #[test]
        fn a_change_does_to_the_old_command_what_it_says(
            old in prop::collection::vec("[a-c]", 0..8),
            new in prop::collection::vec("[a-d]", 0..8),
        ) {
            let strings = |list: &[String]| {
                command(&list.iter().map(String::as_str).collect::<Vec<_>>(), &[])
            };
            let (old, new) = (strings(&old), strings(&new));
            let change = CommandChange::between(&old, &new).unwrap();
            prop_assert_eq!(change.is_empty(), old.bytes() == new.bytes());
            // It may be ambiguous, but it is never wrong about where it came from.
            if let Some(bytes) = change.apply(&old).unwrap() {
                let hunk_count = change.arguments.len();
                prop_assert!(hunk_count > 1 || bytes == *new.bytes());
            }
        }

        #[test]
        fn nothing_panics(bytes: Vec<u8>) {
            if let Ok(command) = Command::parse(bytes.into())
                && let Some(change) = CommandChange::between(&command, &command)
            {
                prop_assert!(change.is_empty());
            }
        }
    }
}
