//! Action, Command, Tree, and single fields of any message.

#![allow(deprecated, reason = "older clients write fields that are deprecated now")]

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use reapi_proto::raw::{Action, ActionEdit, Command, PropertyEdit, RawError, Tree, set_message_field};
use reapi_proto::{DigestError, DigestFunction, buildstream, v2};

use crate::arbitrary::{Unknown, damage, damages, digest, directory, keeps, len_field, unknowns};

fn text() -> impl Strategy<Value = String> {
    select(vec!["", "a", "b", "é", "longer than the others"]).prop_map(str::to_owned)
}

fn property() -> impl Strategy<Value = v2::platform::Property> {
    (text(), text()).prop_map(|(name, value)| v2::platform::Property { name, value })
}

fn platform() -> impl Strategy<Value = Option<v2::Platform>> {
    proptest::option::of(vec(property(), 0..5).prop_map(|properties| v2::Platform { properties }))
}

/// Unknown fields in front of, inside and behind a message with a platform.
#[derive(Clone, Debug)]
struct Extras {
    front: Vec<Unknown>,
    in_platform: Vec<Unknown>,
    in_property: Vec<Unknown>,
    back: Vec<Unknown>,
}

fn extras() -> impl Strategy<Value = Extras> {
    (unknowns(), unknowns(), unknowns(), unknowns()).prop_map(|(front, in_platform, in_property, back)| Extras {
        front,
        in_platform,
        in_property,
        back,
    })
}

impl Extras {
    /// Encodes `without` (a message that has no platform) and a platform as field `number`.
    fn encode(&self, without: &[u8], number: u32, platform: Option<&v2::Platform>) -> Bytes {
        let mut out = Vec::new();
        self.front.iter().for_each(|field| field.encode(&mut out));
        out.extend_from_slice(without);
        if let Some(platform) = platform {
            let mut payload = Vec::new();
            for property in &platform.properties {
                let mut encoded = property.encode_to_vec();
                self.in_property.iter().for_each(|field| field.encode(&mut encoded));
                len_field(&mut payload, 1, &encoded);
            }
            self.in_platform.iter().for_each(|field| field.encode(&mut payload));
            len_field(&mut out, number, &payload);
        }
        self.back.iter().for_each(|field| field.encode(&mut out));
        out.into()
    }

    fn survive_in(&self, bytes: &[u8], platform: Option<&v2::Platform>) -> bool {
        let properties = platform.is_none_or(|p| p.properties.is_empty() || keeps(bytes, &self.in_property));
        let in_platform = platform.is_none() || keeps(bytes, &self.in_platform);
        properties && in_platform && keeps(bytes, &self.front) && keeps(bytes, &self.back)
    }
}

fn action() -> impl Strategy<Value = v2::Action> {
    let timeout = proptest::option::of((any::<i64>(), any::<i32>()));
    (digest(), digest(), timeout, any::<bool>(), vec(any::<u8>(), 0..3), platform()).prop_map(
        |(command, input_root, timeout, do_not_cache, salt, platform)| v2::Action {
            command_digest: Some(command.into()),
            input_root_digest: Some(input_root.into()),
            timeout: timeout.map(|(seconds, nanos)| prost_types::Duration { seconds, nanos }),
            do_not_cache,
            salt: salt.into(),
            platform,
        },
    )
}

fn command() -> impl Strategy<Value = v2::Command> {
    let variable = (text(), text()).prop_map(|(name, value)| v2::command::EnvironmentVariable { name, value });
    let lists = (vec(text(), 0..3), vec(text(), 0..3), vec(text(), 0..3), vec(text(), 0..3));
    (lists, vec(variable, 0..3), text(), platform()).prop_map(
        |((arguments, files, directories, paths), environment_variables, working_directory, platform)| v2::Command {
            arguments,
            environment_variables,
            output_files: files,
            output_directories: directories,
            platform,
            working_directory,
            output_paths: paths,
            ..Default::default()
        },
    )
}

/// Edits of some of the properties, and the platform that they lead to.
fn property_edits(platform: Option<&v2::Platform>, mask: u8) -> (Vec<PropertyEdit>, Option<v2::Platform>) {
    let mut edits: Vec<PropertyEdit> = Vec::new();
    for (i, property) in platform.iter().flat_map(|p| &p.properties).enumerate() {
        let to = if mask >> i & 2 == 0 { String::new() } else { format!("{}'", property.value) };
        let (name, from) = (Bytes::from(property.name.clone()), Bytes::from(property.value.clone()));
        if mask >> i & 1 == 1 && !edits.iter().any(|edit| edit.name == name && edit.from == from) {
            edits.push(PropertyEdit { name, from, to: to.into() });
        }
    }
    let mut after = platform.cloned();
    for property in after.iter_mut().flat_map(|p| &mut p.properties) {
        if let Some(edit) = edits.iter().find(|edit| edit.name == property.name && edit.from == property.value) {
            property.value = String::from_utf8(edit.to.to_vec()).unwrap();
        }
    }
    (edits, after)
}

fn as_pairs<'a>(properties: impl Iterator<Item = reapi_proto::raw::Property<'a>>) -> Vec<(Vec<u8>, Vec<u8>)> {
    properties.map(|p| (p.name.to_vec(), p.value.to_vec())).collect()
}

fn expected_pairs(platform: Option<&v2::Platform>) -> Vec<(Vec<u8>, Vec<u8>)> {
    platform
        .iter()
        .flat_map(|p| &p.properties)
        .map(|p| (p.name.clone().into_bytes(), p.value.clone().into_bytes()))
        .collect()
}

proptest! {
    #[test]
    fn an_action_is_read_and_edited_in_place(
        message in action(),
        extras in extras(),
        command_digest in proptest::option::of(digest()),
        input_root_digest in proptest::option::of(digest()),
        mask in any::<u8>(),
    ) {
        let without = v2::Action { platform: None, ..message.clone() }.encode_to_vec();
        let bytes = extras.encode(&without, 10, message.platform.as_ref());
        let action = Action::parse(bytes.clone()).unwrap();
        prop_assert_eq!(Some(v2::Digest::from(action.command_digest())), message.command_digest.clone());
        prop_assert_eq!(Some(v2::Digest::from(action.input_root_digest())), message.input_root_digest.clone());
        prop_assert_eq!(action.do_not_cache(), message.do_not_cache);
        prop_assert_eq!(action.timeout(), message.timeout.map(|t| (t.seconds, t.nanos)));
        prop_assert_eq!(as_pairs(action.platform()), expected_pairs(message.platform.as_ref()));
        prop_assert_eq!(action.splice(&ActionEdit::default()).unwrap().as_ptr(), bytes.as_ptr());
        let same = ActionEdit {
            command_digest: Some(action.command_digest()),
            input_root_digest: Some(action.input_root_digest()),
            platform: Vec::new(),
        };
        prop_assert_eq!(action.splice(&same).unwrap().as_ptr(), bytes.as_ptr());

        let (platform, after) = property_edits(message.platform.as_ref(), mask);
        let edit = ActionEdit { command_digest, input_root_digest, platform };
        let result = action.splice(&edit).unwrap();
        let mut expected = message.clone();
        expected.platform = after;
        expected.command_digest = command_digest.map(Into::into).or(expected.command_digest);
        expected.input_root_digest = input_root_digest.map(Into::into).or(expected.input_root_digest);
        prop_assert_eq!(&v2::Action::decode(result.clone()).unwrap(), &expected);
        prop_assert!(extras.survive_in(&result, message.platform.as_ref()));
        // Nothing but the edit: the same extras around the edited message give the same bytes.
        let without = v2::Action { platform: None, ..expected.clone() }.encode_to_vec();
        prop_assert_eq!(result, extras.encode(&without, 10, expected.platform.as_ref()));
    }

    #[test]
    fn a_command_is_read_and_edited_in_place(message in command(), extras in extras(), mask in any::<u8>()) {
        let without = v2::Command { platform: None, ..message.clone() }.encode_to_vec();
        let bytes = extras.encode(&without, 5, message.platform.as_ref());
        let command = Command::parse(bytes.clone()).unwrap();
        prop_assert!(command.arguments().eq(message.arguments.iter().map(String::as_bytes)));
        let variables = message.environment_variables.iter().map(|v| (v.name.as_bytes(), v.value.as_bytes()));
        prop_assert!(command.environment().eq(variables));
        prop_assert_eq!(command.working_directory(), message.working_directory.as_bytes());
        let outputs = if message.output_paths.is_empty() {
            [&message.output_files[..], &message.output_directories].concat()
        } else {
            message.output_paths.clone()
        };
        prop_assert!(command.output_paths().eq(outputs.iter().map(String::as_bytes)));
        prop_assert_eq!(as_pairs(command.platform()), expected_pairs(message.platform.as_ref()));
        prop_assert_eq!(command.splice_platform(&[]).unwrap().as_ptr(), bytes.as_ptr());

        let (edits, after) = property_edits(message.platform.as_ref(), mask);
        let result = command.splice_platform(&edits).unwrap();
        prop_assert!(extras.survive_in(&result, message.platform.as_ref()));
        prop_assert_eq!(result, extras.encode(&without, 5, after.as_ref()));
    }

    #[test]
    fn a_tree_keeps_the_bytes_of_its_directories(
        root in directory(),
        children in vec(directory(), 0..4),
        extra in unknowns(),
    ) {
        let mut bytes = Vec::new();
        len_field(&mut bytes, 1, &root.bytes());
        children.iter().for_each(|child| len_field(&mut bytes, 2, &child.bytes()));
        extra.iter().for_each(|field| field.encode(&mut bytes));
        let tree = Tree::parse(bytes.into()).unwrap();
        prop_assert_eq!(tree.root(), &root.bytes());
        prop_assert!(tree.children().iter().eq(children.iter().map(|child| child.bytes()).collect::<Vec<_>>().iter()));
        let function = DigestFunction::Sha256;
        prop_assert_eq!(tree.root_digest(function), function.digest(&root.bytes()));
        let all = std::iter::once(&root).chain(&children).map(|d| function.digest(&d.bytes()));
        prop_assert!(tree.directories(function).map(|(digest, _)| digest).eq(all));
    }

    #[test]
    fn a_field_is_set_and_nothing_else(
        key in text(),
        sources in proptest::option::of(digest()),
        old in proptest::option::of(digest()),
        new in proptest::option::of(digest()),
        extra in unknowns(),
    ) {
        let artifact = |speculative_actions: Option<reapi_proto::Digest>| buildstream::Artifact {
            strong_key: key.clone(),
            sources: sources.map(Into::into),
            speculative_actions: speculative_actions.map(Into::into),
            ..Default::default()
        };
        let encode = |message: &buildstream::Artifact| {
            let mut out = message.encode_to_vec();
            extra.iter().for_each(|field| field.encode(&mut out));
            Bytes::from(out)
        };
        let payload = |digest: &reapi_proto::Digest| v2::Digest::from(digest).encode_to_vec();
        let bytes = encode(&artifact(old));
        let result = set_message_field(&bytes, 19, new.as_ref().map(payload).as_deref()).unwrap();
        prop_assert_eq!(&result, &encode(&artifact(new)));
        let back = set_message_field(&result, 19, old.as_ref().map(payload).as_deref()).unwrap();
        prop_assert_eq!(&back, &bytes);
        let same = set_message_field(&bytes, 19, old.as_ref().map(payload).as_deref()).unwrap();
        prop_assert_eq!(same.as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200), number in any::<u32>()) {
        let bytes = Bytes::from(bytes);
        let _ = Action::parse(bytes.clone());
        let _ = Command::parse(bytes.clone());
        let _ = Tree::parse(bytes.clone());
        let _ = set_message_field(&bytes, number, Some(b"x"));
    }

    #[test]
    fn damaged_messages_are_refused_or_editable(
        action in action(),
        command in command(),
        extras in extras(),
        damages in damages(),
        to in digest(),
    ) {
        let without = v2::Action { platform: None, ..action.clone() }.encode_to_vec();
        let bytes = damage(&extras.encode(&without, 10, action.platform.as_ref()), &damages);
        let edits_of = |properties: &mut dyn Iterator<Item = reapi_proto::raw::Property<'_>>| {
            let edit = properties.next().map(|p| PropertyEdit {
                name: Bytes::copy_from_slice(p.name),
                from: Bytes::copy_from_slice(p.value),
                to: Bytes::from_static(b"to"),
            });
            edit.into_iter().collect::<Vec<_>>()
        };
        if let Ok(action) = Action::parse(bytes) {
            let platform = edits_of(&mut action.platform());
            let edit = ActionEdit { command_digest: Some(to), input_root_digest: Some(to), platform };
            let result = Action::parse(action.splice(&edit).unwrap()).unwrap();
            prop_assert_eq!((result.command_digest(), result.input_root_digest()), (to, to));
            prop_assert!(edit.platform.is_empty() || result.platform().any(|p| p.value == b"to"));
        }
        let without = v2::Command { platform: None, ..command.clone() }.encode_to_vec();
        let bytes = damage(&extras.encode(&without, 5, command.platform.as_ref()), &damages);
        if let Ok(command) = Command::parse(bytes.clone()) {
            let edits = edits_of(&mut command.platform());
            let result = Command::parse(command.splice_platform(&edits).unwrap()).unwrap();
            prop_assert!(edits.is_empty() || result.platform().any(|p| p.value == b"to"));
        }
        if let Ok(result) = set_message_field(&bytes, 19, Some(b"x")) {
            prop_assert_eq!(set_message_field(&result, 19, Some(b"x")).unwrap(), result);
        }
    }
}

#[test]
fn property_edits_that_do_not_apply_are_refused() {
    let property = |name: &str, value: &str| v2::platform::Property { name: name.into(), value: value.into() };
    let platform = v2::Platform { properties: vec![property("OS", "linux"), property("root", "1/2")] };
    let message = v2::Command { platform: Some(platform), ..Default::default() };
    let command = Command::parse(message.encode_to_vec().into()).unwrap();
    let edit = |name: &'static str, from: &'static str, to: &'static str| PropertyEdit {
        name: name.into(),
        from: from.into(),
        to: to.into(),
    };
    for edits in [
        vec![edit("OS", "hurd", "x")],
        vec![edit("os", "linux", "x")],
        vec![edit("OS", "linux", "x"), edit("OS", "linux", "y")],
    ] {
        assert!(matches!(command.splice_platform(&edits), Err(RawError::Edit(_))), "{edits:?}");
    }
    let twice = [edit("OS", "linux", "x"), edit("OS", "linux", "x")];
    assert_eq!(command.splice_platform(&twice).unwrap(), command.splice_platform(&twice[..1]).unwrap());
    let without = Command::parse(Bytes::new()).unwrap();
    assert!(matches!(without.splice_platform(&twice), Err(RawError::Edit(_))));
}

#[test]
fn repeated_singular_fields_are_refused() {
    let digest = v2::Digest::from(DigestFunction::Sha256.empty());
    let action =
        v2::Action { command_digest: Some(digest.clone()), input_root_digest: Some(digest), ..Default::default() };
    let bytes = action.encode_to_vec();
    assert!(Action::parse(bytes.clone().into()).is_ok());
    let twice = [&bytes[..], &bytes].concat();
    assert!(matches!(Action::parse(twice.clone().into()), Err(RawError::NotCanonical(_))));
    assert!(matches!(Tree::parse(b"\x0a\x00\x0a\x00"[..].into()), Err(RawError::NotCanonical(_))));
    assert!(matches!(Tree::parse(Bytes::new()), Err(RawError::NotCanonical(_))));
    assert!(matches!(Command::parse(b"\x32\x01a\x32\x01b"[..].into()), Err(RawError::NotCanonical(_))));
    assert!(matches!(set_message_field(&twice.into(), 1, None), Err(RawError::NotCanonical(_))));
}

#[test]
fn an_action_keeps_the_order_of_its_fields() {
    let message = |digest: v2::Digest, value: &str| {
        let property = v2::platform::Property { name: "p".into(), value: value.into() };
        let mut out = Vec::new();
        len_field(&mut out, 10, &v2::Platform { properties: vec![property] }.encode_to_vec());
        len_field(&mut out, 2, &digest.encode_to_vec());
        out.extend([7 << 3, 1]);
        len_field(&mut out, 1, &digest.encode_to_vec());
        Bytes::from(out)
    };
    let (old, new) = (DigestFunction::Sha256.digest(b"old"), DigestFunction::Sha256.digest(b"newer"));
    let action = Action::parse(message(old.into(), "from")).unwrap();
    let edit = ActionEdit {
        command_digest: Some(new),
        input_root_digest: Some(new),
        platform: vec![PropertyEdit { name: "p".into(), from: "from".into(), to: "to".into() }],
    };
    assert_eq!(action.splice(&edit).unwrap(), message(new.into(), "to"));
}

#[test]
fn an_action_needs_both_digests() {
    let digest = v2::Digest::from(DigestFunction::Sha256.empty());
    let action = v2::Action { command_digest: Some(digest), ..Default::default() };
    let error = Action::parse(action.encode_to_vec().into()).unwrap_err();
    assert_eq!(error, RawError::Digest("Action.input_root_digest".into(), DigestError::Absent));
}

#[test]
fn a_field_is_set_only_where_there_can_be_one() {
    let bytes = Bytes::from_static(b"\x08\x01\x1a\x01c");
    assert_eq!(set_message_field(&bytes, 2, Some(b"b")).unwrap(), &b"\x08\x01\x12\x01b\x1a\x01c"[..]);
    assert_eq!(set_message_field(&bytes, 3, None).unwrap(), &b"\x08\x01"[..]);
    assert_eq!(set_message_field(&bytes, 3, Some(b"")).unwrap(), &b"\x08\x01\x1a\x00"[..]);
    assert_eq!(set_message_field(&bytes, 1, Some(b"x")), Err(RawError::WireType { field: 1, at: 0 }));
    assert_eq!(set_message_field(&bytes, 1, None), Err(RawError::WireType { field: 1, at: 0 }));
    for number in [0, 1 << 29, u32::MAX] {
        assert!(matches!(set_message_field(&bytes, number, Some(b"x")), Err(RawError::Edit(_))), "{number}");
    }
    assert!(set_message_field(&Bytes::from_static(b"\x0a"), 2, None).is_err());
}
