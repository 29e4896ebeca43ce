//! What is reported as the first difference of two actions.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests may fail like tests")]

mod support;

use bytes::Bytes;
use overlay::{Difference, Forest, difference, same_step};
use proptest::prelude::*;
use prost::Message;
use reapi_proto::raw::{Action, Command};
use reapi_proto::{Digest, v2};
use support::{SHA, extra, tree};

fn command(arguments: &[&str], outputs: &[&str]) -> Command {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    let message = v2::Command {
        arguments: texts(arguments),
        output_paths: texts(outputs),
        working_directory: "build".to_owned(),
        environment_variables: vec![v2::command::EnvironmentVariable { name: "PATH".into(), value: "/bin".into() }],
        ..v2::Command::default()
    };
    parse(&message)
}

fn parse(message: &v2::Command) -> Command {
    Command::parse(message.encode_to_vec().into()).unwrap()
}

fn action(command: &Command, root: Digest, salt: &'static [u8]) -> Action {
    let message = v2::Action {
        command_digest: Some((&SHA.digest(command.bytes())).into()),
        input_root_digest: Some((&root).into()),
        salt: Bytes::from_static(salt),
        ..v2::Action::default()
    };
    Action::parse(message.encode_to_vec().into()).unwrap()
}

#[track_caller]
fn check_field(first: &Command, second: &Command, expected: (&str, Option<&'static str>, Option<&'static str>)) {
    let root = SHA.digest(b"");
    let found = difference((&action(first, root, b""), first), (&action(second, root, b""), second), &Forest::new());
    let bytes = |text: Option<&'static str>| text.map(|text| Bytes::from_static(text.as_bytes()));
    let expected = Difference::Field { name: expected.0.into(), first: bytes(expected.1), second: bytes(expected.2) };
    assert_eq!(found, Ok(Some(expected)));
}

#[test]
fn fields_are_named_by_their_parts() {
    let plain = command(&["cc", "-O1", "-c"], &["a.o"]);
    check_field(&plain, &command(&["cc", "-O2", "-c"], &["a.o"]), ("argument 1", Some("-O1"), Some("-O2")));
    check_field(&plain, &command(&["cc", "-O1", "-c", "-g"], &["a.o"]), ("argument 3", None, Some("-g")));
    check_field(&plain, &command(&["cc", "-O1", "-c"], &[]), ("output path 0", Some("a.o"), None));
    let mut other = v2::Command::decode(plain.bytes().clone()).unwrap();
    other.environment_variables[0].value = "/usr/bin".into();
    check_field(&plain, &parse(&other), ("environment variable PATH", Some("/bin"), Some("/usr/bin")));
    other.environment_variables[0].name = "HOME".into();
    check_field(&plain, &parse(&other), ("environment variable PATH", Some("/bin"), None));
}

#[test]
fn what_is_not_known_here_is_a_difference_too() {
    let command = command(&["cc"], &["a.o"]);
    let root = SHA.digest(b"");
    let (plain, salted) = (action(&command, root, b""), action(&command, root, b"salt"));
    assert_eq!(difference((&plain, &command), (&plain, &command), &Forest::new()), Ok(None));
    let found = difference((&plain, &command), (&salted, &command), &Forest::new()).unwrap().unwrap();
    assert!(matches!(found, Difference::Field { name, .. } if name == "other fields"));
}

#[test]
fn a_step_is_known_by_its_outputs() {
    let wanted = command(&["cc", "-O2"], &["a.o"]);
    let [other, older, same] =
        [command(&["cc", "-O2"], &["b.o"]), command(&["cc", "-O1"], &["a.o"]), command(&["cc", "-O2"], &["a.o"])];
    assert_eq!(same_step(&wanted, &[&other, &older, &same]), Some(2));
    assert_eq!(same_step(&wanted, &[&other, &older]), Some(1));
    assert_eq!(same_step(&wanted, &[&other]), None);
    let nothing = command(&["true"], &[]);
    assert_eq!(same_step(&nothing, &[&nothing]), None);
}

proptest! {
    #[test]
    fn the_reported_path_is_the_first_that_differs(first in tree(extra()), second in tree(extra())) {
        let mut forest = Forest::new();
        let (a, b) = (first.store(&mut forest), second.store(&mut forest));
        let command = command(&["cc"], &["a.o"]);
        let (first, second) = (action(&command, a, b""), action(&command, b, b""));
        let found = difference((&first, &command), (&second, &command), &forest).unwrap();
        prop_assert_eq!(found.is_none(), a == b);
        let back = difference((&second, &command), (&first, &command), &forest).unwrap();
        match (found, back) {
            (Some(Difference::Input { path, first, second }), Some(Difference::Input { path: p, first: f, second: s })) => {
                prop_assert_eq!((&p, &f, &s), (&path, &second, &first));
                if first.is_some() || second.is_some() {
                    prop_assert_eq!(forest.find(&a, &path).unwrap(), first);
                    prop_assert_eq!(forest.find(&b, &path).unwrap(), second);
                }
            }
            (None, None) => {}
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn what_is_lacking_is_asked_for_until_the_answer_is_there(first in tree(extra()), second in tree(extra())) {
        let mut all = Forest::new();
        let (a, b) = (first.store(&mut all), second.store(&mut all));
        let command = command(&["cc"], &["a.o"]);
        let (first, second) = (action(&command, a, b""), action(&command, b, b""));
        let mut forest = Forest::new();
        let found = loop {
            match difference((&first, &command), (&second, &command), &forest) {
                Ok(found) => break found,
                Err(missing) => {
                    prop_assert!(!forest.contains(&missing.0));
                    forest.insert(missing.0, all.get(&missing.0).unwrap().clone());
                }
            }
        };
        prop_assert_eq!(found, difference((&first, &command), (&second, &command), &all).unwrap());
    }
}
