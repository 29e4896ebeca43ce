//! Directory: reading, editing, and undoing edits.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use prost::Message;
use reapi_proto::raw::{Directory, Edit, Node, RawEntry, RawError, encode_directory};
use reapi_proto::{Digest, DigestError, DigestFunction, v2};

use crate::arbitrary::{
    damage, damages, digest, directory, directory_and_edits, keeps, len_field, list_of, name, node, plain_directory,
    utf8_name, utf8_target,
};

fn parse(bytes: &Bytes) -> Directory {
    Directory::parse(bytes.clone()).unwrap()
}

fn nodes(directory: &Directory) -> BTreeMap<Bytes, Node> {
    directory.entries().map(|entry| (Bytes::copy_from_slice(entry.name), entry.node)).collect()
}

/// What edits mean, on a map.
fn edited(mut nodes: BTreeMap<Bytes, Node>, edits: &[(Bytes, Edit)]) -> BTreeMap<Bytes, Node> {
    for (name, edit) in edits {
        match edit {
            Edit::Set(node) => nodes.insert(name.clone(), node.clone()),
            Edit::Raw(entry) => nodes.insert(name.clone(), entry.node()),
            Edit::Remove => nodes.remove(name),
        };
    }
    nodes
}

/// The published message with these entries, by way of the generated types.
fn generated(nodes: &BTreeMap<Bytes, Node>) -> Bytes {
    let mut message = v2::Directory::default();
    for (name, node) in nodes {
        let name = String::from_utf8(name.to_vec()).unwrap();
        match node {
            Node::File { digest, executable } => message.files.push(v2::FileNode {
                name,
                digest: Some(digest.into()),
                is_executable: *executable,
                node_properties: None,
            }),
            Node::Directory { digest } => {
                message.directories.push(v2::DirectoryNode { name, digest: Some(digest.into()) });
            }
            Node::Symlink { target } => message.symlinks.push(v2::SymlinkNode {
                name,
                target: String::from_utf8(target.to_vec()).unwrap(),
                node_properties: None,
            }),
        }
    }
    message.encode_to_vec().into()
}

proptest! {
    #[test]
    fn reading_finds_every_entry(sample in directory()) {
        let bytes = sample.bytes();
        let directory = parse(&bytes);
        prop_assert_eq!(directory.bytes(), &bytes);
        prop_assert_eq!(directory.len(), sample.entries.len());
        prop_assert_eq!(directory.is_empty(), sample.entries.is_empty());
        prop_assert_eq!(nodes(&directory), sample.nodes());
        let lists: Vec<_> = directory.entries().map(|entry| (list_of(&entry.node), entry.name)).collect();
        prop_assert!(lists.is_sorted());
        for (name, (node, _)) in &sample.entries {
            prop_assert_eq!(directory.get(name), Some(node.clone()));
            let subdirectory = if let Node::Directory { digest } = node { Some(*digest) } else { None };
            prop_assert_eq!(directory.subdirectory(name), subdirectory);
            let raw = directory.raw_entry(name).unwrap();
            prop_assert_eq!((raw.name(), raw.node()), (&name[..], node.clone()));
            prop_assert_eq!(RawEntry::parse(raw.bytes().clone()), Ok(raw));
        }
        prop_assert!(Directory::subdirectories(&bytes).eq(directory.directories().map(|(_, digest)| digest)));
        let subdirectories: BTreeMap<_, _> = directory.directories().collect();
        for (name, digest) in &subdirectories {
            prop_assert_eq!(directory.get(name), Some(Node::Directory { digest: *digest }));
        }
        prop_assert_eq!(subdirectories.len(), sample.entries.values().filter(|(node, _)| list_of(node) == 1).count());
        for absent in [&b"absent"[..], b"", b"\0", &[0xff; 9]] {
            prop_assert_eq!(directory.get(absent), None);
        }
    }

    #[test]
    fn setting_what_is_there_returns_the_same_bytes(sample in directory()) {
        let bytes = sample.bytes();
        let directory = parse(&bytes);
        let edits: Vec<_> = sample.nodes().into_iter().map(|(name, node)| (name, Edit::Set(node))).collect();
        let result = directory.splice(&edits).unwrap();
        prop_assert_eq!(&result, &bytes);
        prop_assert_eq!(result.as_ptr(), bytes.as_ptr());
        prop_assert_eq!(directory.inverse(&edits).unwrap(), vec![]);
    }

    #[test]
    fn edits_mean_what_they_mean_on_a_map((sample, edits) in directory_and_edits()) {
        let result = parse(&parse(&sample.bytes()).splice(&edits).unwrap());
        prop_assert_eq!(nodes(&result), edited(sample.nodes(), &edits));
        for (name, edit) in &edits {
            if let Edit::Raw(entry) = edit {
                prop_assert_eq!(result.raw_entry(name), Some(entry.clone()));
            }
        }
    }

    #[test]
    fn what_no_edit_names_is_kept((sample, edits) in directory_and_edits()) {
        let directory = parse(&sample.bytes());
        let result = parse(&directory.splice(&edits).unwrap());
        prop_assert!(keeps(result.bytes(), &sample.trailer));
        let edits: BTreeMap<_, _> = edits.into_iter().collect();
        for (name, (old, style)) in &sample.entries {
            match edits.get(name) {
                None => prop_assert_eq!(result.raw_entry(name), directory.raw_entry(name)),
                Some(Edit::Set(new)) if list_of(new) == list_of(old) => {
                    let entry = result.raw_entry(name).unwrap();
                    prop_assert!(keeps(entry.bytes(), &style.in_node));
                    prop_assert!(list_of(old) == 2 || keeps(entry.bytes(), &style.in_digest));
                }
                Some(_) => {}
            }
        }
    }

    #[test]
    fn the_inverse_gives_back_the_same_bytes((sample, edits) in directory_and_edits()) {
        let bytes = sample.bytes();
        let directory = parse(&bytes);
        let inverse = directory.inverse(&edits).unwrap();
        let result = parse(&directory.splice(&edits).unwrap());
        prop_assert_eq!(result.splice(&inverse).unwrap(), bytes);
    }

    #[test]
    fn edits_of_different_names_commute((sample, edits) in directory_and_edits(), split in any::<u64>()) {
        let directory = parse(&sample.bytes());
        let pick = |odd| {
            let chosen = edits.iter().enumerate().filter(move |(i, _)| (split >> (i % 64) & 1 == 1) == odd);
            chosen.map(|(_, edit)| edit.clone()).collect::<Vec<_>>()
        };
        let (a, b) = (pick(true), pick(false));
        let both = directory.splice(&edits).unwrap();
        prop_assert_eq!(&parse(&directory.splice(&a).unwrap()).splice(&b).unwrap(), &both);
        prop_assert_eq!(&parse(&directory.splice(&b).unwrap()).splice(&a).unwrap(), &both);
    }

    #[test]
    fn without_unknown_fields_editing_equals_encoding_anew(
        sample in plain_directory(),
        set in btree_map(utf8_name(), node().prop_map(utf8_target), 0..5),
        removed in vec(any::<bool>(), 8),
    ) {
        let bytes = sample.bytes();
        prop_assert_eq!(&generated(&sample.nodes()), &bytes);
        let mut edits: BTreeMap<_, _> = set.into_iter().map(|(name, node)| (name, Edit::Set(node))).collect();
        for (name, _) in sample.entries.keys().zip(removed).filter(|(_, removed)| *removed) {
            edits.insert(name.clone(), Edit::Remove);
        }
        let edits: Vec<_> = edits.into_iter().collect();
        let expected = edited(sample.nodes(), &edits);
        let result = parse(&bytes).splice(&edits).unwrap();
        prop_assert_eq!(&result, &generated(&expected));
        prop_assert_eq!(result, encode_directory(expected).unwrap());
    }

    #[test]
    fn encoding_sorts(nodes_by_name in btree_map(name(), node(), 0..8), rotation in 0_usize..8) {
        let mut entries: Vec<_> = nodes_by_name.clone().into_iter().collect();
        let sorted = encode_directory(entries.clone()).unwrap();
        entries.rotate_left(rotation.min(nodes_by_name.len()));
        prop_assert_eq!(&encode_directory(entries.clone()).unwrap(), &sorted);
        prop_assert_eq!(nodes(&parse(&sorted)), nodes_by_name);
        if let Some(first) = entries.first().cloned() {
            entries.push(first);
            prop_assert!(matches!(encode_directory(entries), Err(RawError::Duplicate(_))));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = RawEntry::parse(bytes.clone());
        let _ = Directory::subdirectories(&bytes).count();
        if let Ok(directory) = Directory::parse(bytes.clone()) {
            prop_assert_eq!(directory.bytes(), &bytes);
        }
    }

    #[test]
    fn damaged_messages_are_refused_or_editable(sample in directory(), damages in damages(), to in digest()) {
        let bytes = damage(&sample.bytes(), &damages);
        let _ = Directory::subdirectories(&bytes).count();
        let Ok(directory) = Directory::parse(bytes) else { return Ok(()) };
        let mut before = nodes(&directory);
        let edits: Vec<_> = before
            .iter_mut()
            .map(|(name, node)| {
                match node {
                    Node::File { digest, executable } => {
                        *digest = to;
                        *executable = !*executable;
                    }
                    Node::Directory { digest } => *digest = to,
                    Node::Symlink { target } => *target = Bytes::from_static(b"elsewhere"),
                }
                (name.clone(), Edit::Set(node.clone()))
            })
            .collect();
        let inverse = directory.inverse(&edits).unwrap();
        let result = parse(&directory.splice(&edits).unwrap());
        prop_assert_eq!(nodes(&result), before);
        prop_assert_eq!(&result.splice(&inverse).unwrap(), directory.bytes());
    }
}

const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn field(number: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    len_field(&mut out, number, payload);
    out
}

fn empty_digest() -> Vec<u8> {
    field(2, &field(1, HASH.as_bytes()))
}

fn file(name: &[u8]) -> Vec<u8> {
    field(1, &[field(1, name), empty_digest()].concat())
}

fn subdirectory(name: &[u8]) -> Vec<u8> {
    field(2, &[field(1, name), empty_digest()].concat())
}

fn symlink(name: &[u8]) -> Vec<u8> {
    field(3, &[field(1, name), field(2, b"x")].concat())
}

fn refused(parts: &[Vec<u8>]) -> RawError {
    Directory::parse(parts.concat().into()).unwrap_err()
}

#[test]
fn what_is_not_canonical_is_refused_by_name() {
    let duplicate = RawError::Duplicate("a".into());
    assert_eq!(refused(&[file(b"a"), file(b"a")]), duplicate);
    assert_eq!(refused(&[file(b"a"), file(b"b"), subdirectory(b"a")]), duplicate);
    assert_eq!(refused(&[file(b"a"), subdirectory(b"0"), symlink(b"a")]), duplicate);
    assert_eq!(refused(&[subdirectory(b"0"), subdirectory(b"a"), symlink(b"a")]), duplicate);
    assert_eq!(refused(&[file(b"b"), file(b"a")]), RawError::Unsorted("a".into()));
    assert_eq!(refused(&[file(b"\xff"), file(b"a")]), RawError::Unsorted("a".into()));
    for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0"] {
        for entry in [file(bad), subdirectory(bad), symlink(bad)] {
            assert!(matches!(refused(&[entry]), RawError::BadName(..)), "{bad:?}");
        }
    }
    let not_canonical = |parts: &[Vec<u8>]| assert!(matches!(refused(parts), RawError::NotCanonical(_)), "{parts:?}");
    not_canonical(&[subdirectory(b"a"), file(b"b")]);
    not_canonical(&[field(9, b""), file(b"b")]);
    not_canonical(&[field(5, b""), field(5, b"")]);
    not_canonical(&[field(1, &[field(1, b"a"), field(1, b"a"), empty_digest()].concat())]);
    not_canonical(&[field(1, &[field(1, b"a"), empty_digest(), empty_digest()].concat())]);
    not_canonical(&[field(1, &[field(1, b"a"), empty_digest(), field(6, b""), field(6, b"")].concat())]);
    not_canonical(&[field(3, &[field(1, b"a"), field(4, b""), field(4, b"")].concat())]);
}

#[test]
fn digests_are_required_and_checked() {
    let absent = RawError::Digest("a".into(), DigestError::Absent);
    assert_eq!(refused(&[field(1, &field(1, b"a"))]), absent);
    assert_eq!(refused(&[field(2, &field(1, b"a"))]), absent);
    let with = |digest: &[u8]| refused(&[field(1, &[field(1, b"a"), field(2, digest)].concat())]);
    let expect = |error| RawError::Digest("a".into(), error);
    assert_eq!(with(b""), expect(DigestError::Length { found: 0, expected: 64 }));
    assert_eq!(with(&field(1, HASH.to_uppercase().as_bytes())), expect(DigestError::Character('E')));
    let mut negative = field(1, HASH.as_bytes());
    negative.push(2 << 3);
    negative.extend([0xff; 9]);
    negative.push(1);
    assert_eq!(with(&negative), expect(DigestError::Size("-1".into())));
}

#[test]
fn malformed_fields_are_refused() {
    let check = |bytes: &[u8], error| assert_eq!(refused(&[bytes.to_vec()]), error);
    check(b"\x0a", RawError::Truncated(1));
    check(b"\x0a\x05abc", RawError::Truncated(0));
    check(b"\x00", RawError::BadTag(0));
    check(b"\x0c", RawError::BadTag(0));
    check(b"\x0f", RawError::BadTag(0));
    check(b"\x08\x01", RawError::WireType { field: 1, at: 0 });
    check(b"\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", RawError::BadVarint(1));
    check(b"\xa3\x06\x08", RawError::Truncated(3));
    check(b"\xa3\x06\xac\x06", RawError::BadTag(2));
    check(b"\x80\x80\x80\x80\x80\x01", RawError::BadTag(0));
    let nested = [0xa3, 0x06].repeat(10_000);
    assert!(matches!(refused(&[nested]), RawError::BadTag(_)));
}

#[test]
fn unknown_fields_may_stand_between_known_ones() {
    let bytes = Bytes::from([file(b"a"), field(4, b"?"), field(5, b""), field(6, b"!")].concat());
    let directory = parse(&bytes);
    let node = Node::File { digest: DigestFunction::Sha256.empty(), executable: true };
    let result = directory.splice(&[(Bytes::from_static(b"a"), Edit::Set(node))]).unwrap();
    assert!(result.ends_with(&[field(4, b"?"), field(5, b""), field(6, b"!")].concat()));
}

#[test]
fn the_executable_bit_goes_where_encoders_write_it() {
    let properties = field(6, b"\x1a\x03\x08\xa4\x03");
    let entry = |middle: &[u8]| {
        let digest = empty_digest();
        Bytes::from(field(1, &[&field(1, b"a")[..], &digest, &field(3, b"?"), middle, &properties].concat()))
    };
    let set = |bytes: &Bytes, executable| {
        let node = Node::File { digest: DigestFunction::Sha256.empty(), executable };
        parse(bytes).splice(&[(Bytes::from_static(b"a"), Edit::Set(node))]).unwrap()
    };
    let (plain, executable, explicit, odd) = (entry(b""), entry(b"\x20\x01"), entry(b"\x20\x00"), entry(b"\x20\x02"));
    assert_eq!(set(&plain, true), executable);
    assert_eq!(set(&executable, false), plain);
    assert_eq!(set(&explicit, true), executable);
    assert_eq!(set(&explicit, false), explicit);
    assert_eq!(set(&odd, true), odd);
    assert_eq!(set(&odd, false), plain);
}

#[test]
fn a_size_that_stays_keeps_its_encoding() {
    let (old, new) = (DigestFunction::Sha256.digest(b"a"), DigestFunction::Sha256.digest(b"b"));
    // Three bytes for the size 1, and an explicit 0.
    for (size_bytes, size) in [(1, &b"\x10\x81\x80\x00"[..]), (0, b"\x10\x00")] {
        let digest = |digest: &Digest| Digest::from_raw(DigestFunction::Sha256, digest.hash(), size_bytes).unwrap();
        let entry = |digest: &Digest| {
            let payload = [&field(1, digest.to_hex().as_bytes()), size].concat();
            Bytes::from(field(2, &[field(1, b"d"), field(2, &payload)].concat()))
        };
        let (old, new) = (digest(&old), digest(&new));
        let edit = (Bytes::from_static(b"d"), Edit::Set(Node::Directory { digest: new }));
        assert_eq!(parse(&entry(&old)).splice(&[edit]).unwrap(), entry(&new));
    }
}

#[test]
fn edits_that_do_not_apply_are_refused() {
    let directory = parse(&[file(b"a"), subdirectory(b"d")].concat().into());
    let node = || Node::File { digest: DigestFunction::Sha256.empty(), executable: false };
    let check = |edits: &[(&'static [u8], Edit)]| {
        let edits: Vec<_> = edits.iter().map(|(name, edit)| (Bytes::from_static(name), edit.clone())).collect();
        let error = directory.splice(&edits).unwrap_err();
        assert_eq!(directory.inverse(&edits).unwrap_err(), error);
        error
    };
    let is_edit = |error| assert!(matches!(error, RawError::Edit(_)), "{error}");
    is_edit(check(&[(b"b", Edit::Remove)]));
    is_edit(check(&[(b"b", Edit::Set(node())), (b"a", Edit::Set(node()))]));
    is_edit(check(&[(b"a", Edit::Set(node())), (b"a", Edit::Set(node()))]));
    is_edit(check(&[(b"b", Edit::Raw(directory.raw_entry(b"a").unwrap()))]));
    assert!(matches!(check(&[(b"x/y", Edit::Set(node()))]), RawError::BadName(..)));
    assert!(matches!(RawEntry::encode(b"..", &node()), Err(RawError::BadName(..))));
}

#[test]
fn the_empty_directory_has_the_digest_of_no_bytes() {
    let directory = parse(&Bytes::new());
    assert!(directory.is_empty());
    assert_eq!(encode_directory([]).unwrap(), Bytes::new());
    assert_eq!(Digest::of(DigestFunction::Sha256, directory.bytes()), DigestFunction::Sha256.empty());
}

#[test]
fn debug_shows_no_names() {
    let directory = parse(&file(b"secret").into());
    assert_eq!(format!("{directory:?}"), format!("Directory(1 entries, {} bytes)", directory.bytes().len()));
}
