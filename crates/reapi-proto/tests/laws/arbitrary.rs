//! Random messages as other implementations might write them: canonical where
//! the specification demands it, with unknown fields and unusual encodings elsewhere.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use reapi_proto::raw::{Edit, Node, RawEntry};
use reapi_proto::{Digest, DigestFunction};

/// Appends a number in `width` bytes or as few as it takes.
pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let start = out.len();
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 && out.len() - start + 1 >= width {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

/// Appends a length-delimited field.
pub(crate) fn len_field(out: &mut Vec<u8>, number: u32, payload: &[u8]) {
    len_field_wide(out, number, payload, 1);
}

/// Appends a length-delimited field whose tag and length take more bytes than needed.
fn len_field_wide(out: &mut Vec<u8>, number: u32, payload: &[u8], width: usize) {
    varint(out, u64::from(number) << 3 | 2, width);
    varint(out, payload.len() as u64, width);
    out.extend_from_slice(payload);
}

/// A field that no known message has, recognisable by its payload.
#[derive(Clone, Debug)]
pub(crate) struct Unknown {
    number: u32,
    wire_type: u8,
    pub(crate) marker: [u8; 8],
}

impl Unknown {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self.wire_type {
            1 => {
                varint(out, u64::from(self.number) << 3 | 1, 1);
                out.extend_from_slice(&self.marker);
            }
            3 => {
                varint(out, u64::from(self.number) << 3 | 3, 1);
                len_field(out, 1, &self.marker);
                varint(out, u64::from(self.number) << 3 | 4, 1);
            }
            _ => len_field(out, self.number, &self.marker),
        }
    }
}

/// Unknown fields, in ascending order.
pub(crate) fn unknowns() -> impl Strategy<Value = Vec<Unknown>> {
    let one = (20_u32..2000, select(vec![1, 2, 3]), any::<[u8; 8]>());
    vec(one, 0..3).prop_map(|mut fields| {
        fields.sort_by_key(|(number, ..)| *number);
        fields.into_iter().map(|(number, wire_type, marker)| Unknown { number, wire_type, marker }).collect()
    })
}

pub(crate) fn digest() -> impl Strategy<Value = Digest> {
    // Few contents, so that equal ones occur; the empty file among them.
    let function = prop_oneof![4 => Just(DigestFunction::Sha256), 1 => select(&DigestFunction::ALL[..])];
    (function, 0_usize..6).prop_map(|(function, len)| function.digest(&b"abcdef"[..len]))
}

pub(crate) fn node() -> impl Strategy<Value = Node> {
    prop_oneof![
        4 => (digest(), any::<bool>()).prop_map(|(digest, executable)| Node::File { digest, executable }),
        2 => digest().prop_map(|digest| Node::Directory { digest }),
        1 => vec(any::<u8>(), 0..5).prop_map(|target| Node::Symlink { target: target.into() }),
    ]
}

/// Names from a small set, so that edits meet entries; one in four is not UTF-8.
pub(crate) fn name() -> impl Strategy<Value = Bytes> {
    vec(select(vec![b'a', b'b', b'.', b'-', 0xff, 1]), 1..4)
        .prop_filter("a legal name", |name| !matches!(&name[..], b"." | b".."))
        .prop_map(Bytes::from)
}

pub(crate) fn utf8_name() -> impl Strategy<Value = Bytes> {
    "[ab.é-]{1,3}".prop_filter("a legal name", |name| !matches!(&name[..], "." | "..")).prop_map(Bytes::from)
}

/// How one entry is written.
#[derive(Clone, Debug)]
pub(crate) struct Style {
    pub(crate) in_node: Vec<Unknown>,
    pub(crate) in_digest: Vec<Unknown>,
    /// Whether the unknown fields stand in front of the known ones.
    unknown_first: bool,
    /// Whether default values are written.
    explicit: bool,
    /// Bytes that tags and lengths take at least.
    width: usize,
    node_properties: bool,
}

impl Style {
    fn plain() -> Self {
        Self {
            in_node: Vec::new(),
            in_digest: Vec::new(),
            unknown_first: false,
            explicit: false,
            width: 1,
            node_properties: false,
        }
    }
}

fn style() -> impl Strategy<Value = Style> {
    let fancy = (unknowns(), unknowns(), any::<bool>(), any::<bool>(), 1_usize..3, any::<bool>()).prop_map(
        |(in_node, in_digest, unknown_first, explicit, width, node_properties)| Style {
            in_node,
            in_digest,
            unknown_first,
            explicit,
            width,
            node_properties,
        },
    );
    prop_oneof![Just(Style::plain()), fancy]
}

/// One entry in this style.
pub(crate) fn encode_entry(name: &[u8], node: &Node, style: &Style) -> Vec<u8> {
    let mut known = Vec::new();
    len_field(&mut known, 1, name);
    let put_digest = |out: &mut Vec<u8>, digest: &Digest| {
        let mut payload = Vec::new();
        len_field_wide(&mut payload, 1, digest.to_hex().as_bytes(), style.width);
        if style.explicit || digest.size_bytes() != 0 {
            payload.push(2 << 3);
            varint(&mut payload, digest.size_bytes(), style.width);
        }
        style.in_digest.iter().for_each(|field| field.encode(&mut payload));
        len_field_wide(out, 2, &payload, style.width);
    };
    let (field, properties) = match node {
        Node::File { digest, executable } => {
            put_digest(&mut known, digest);
            if style.explicit || *executable {
                known.extend([4 << 3, u8::from(*executable)]);
            }
            (1, 6)
        }
        Node::Directory { digest } => {
            put_digest(&mut known, digest);
            (2, 0)
        }
        Node::Symlink { target } => {
            if style.explicit || !target.is_empty() {
                len_field(&mut known, 2, target);
            }
            (3, 4)
        }
    };
    if style.node_properties && properties != 0 {
        len_field(&mut known, properties, b"\x1a\x03\x08\xa4\x03");
    }
    let mut unknown = Vec::new();
    style.in_node.iter().for_each(|field| field.encode(&mut unknown));
    let payload = if style.unknown_first { [unknown, known].concat() } else { [known, unknown].concat() };
    let mut out = Vec::new();
    len_field_wide(&mut out, field, &payload, style.width);
    out
}

/// A canonical Directory and what is in it.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) entries: BTreeMap<Bytes, (Node, Style)>,
    pub(crate) trailer: Vec<Unknown>,
}

impl Sample {
    pub(crate) fn bytes(&self) -> Bytes {
        let mut out = Vec::new();
        for kind in 0..3 {
            for (name, (node, style)) in self.entries.iter().filter(|(_, (node, _))| list_of(node) == kind) {
                out.extend(encode_entry(name, node, style));
            }
        }
        self.trailer.iter().for_each(|field| field.encode(&mut out));
        out.into()
    }

    pub(crate) fn nodes(&self) -> BTreeMap<Bytes, Node> {
        self.entries.iter().map(|(name, (node, _))| (name.clone(), node.clone())).collect()
    }
}

pub(crate) fn list_of(node: &Node) -> usize {
    match node {
        Node::File { .. } => 0,
        Node::Directory { .. } => 1,
        Node::Symlink { .. } => 2,
    }
}

pub(crate) fn directory() -> impl Strategy<Value = Sample> {
    (btree_map(name(), (node(), style()), 0..8), unknowns()).prop_map(|(entries, trailer)| Sample { entries, trailer })
}

/// A Directory that a decoder with the published fields loses nothing of.
pub(crate) fn plain_directory() -> impl Strategy<Value = Sample> {
    btree_map(utf8_name(), node().prop_map(utf8_target), 0..8).prop_map(|nodes| Sample {
        entries: nodes.into_iter().map(|(name, node)| (name, (node, Style::plain()))).collect(),
        trailer: Vec::new(),
    })
}

pub(crate) fn utf8_target(node: Node) -> Node {
    match node {
        Node::Symlink { target } => {
            Node::Symlink { target: Bytes::from(String::from_utf8_lossy(&target).into_owned()) }
        }
        other => other,
    }
}

/// Edits that apply to a Directory with these names: sorted, no absent name removed.
pub(crate) fn edits_for(present: Vec<Bytes>) -> impl Strategy<Value = Vec<(Bytes, Edit)>> {
    let names = if present.is_empty() { name().boxed() } else { prop_oneof![name(), select(present.clone())].boxed() };
    let edit = (node(), style(), 0..4).prop_map(|(node, style, kind)| match kind {
        0 => (node, Some(style), false),
        1 => (node, None, true),
        _ => (node, None, false),
    });
    btree_map(names, edit, 0..6).prop_map(move |edits| {
        edits
            .into_iter()
            .filter_map(|(name, (node, style, remove))| {
                let edit = match (style, remove) {
                    (_, true) if present.contains(&name) => Edit::Remove,
                    (_, true) => return None,
                    (Some(style), _) => Edit::Raw(RawEntry::parse(encode_entry(&name, &node, &style).into()).unwrap()),
                    (None, _) => Edit::Set(node),
                };
                Some((name, edit))
            })
            .collect()
    })
}

pub(crate) fn directory_and_edits() -> impl Strategy<Value = (Sample, Vec<(Bytes, Edit)>)> {
    directory().prop_flat_map(|sample| {
        let present = sample.entries.keys().cloned().collect();
        (Just(sample), edits_for(present))
    })
}

/// What goes wrong with bytes on their way.
#[derive(Clone, Debug)]
pub(crate) enum Damage {
    Set(Index, u8),
    Cut(Index),
    Insert(Index, u8),
    Remove(Index),
}

pub(crate) fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let one = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        any::<Index>().prop_map(Damage::Cut),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        any::<Index>().prop_map(Damage::Remove),
    ];
    vec(one, 1..4)
}

pub(crate) fn damage(bytes: &[u8], damages: &[Damage]) -> Bytes {
    let mut bytes = bytes.to_vec();
    for damage in damages {
        let at = |index: &Index| index.index(bytes.len().max(1));
        match damage {
            Damage::Insert(index, byte) => bytes.insert(at(index).min(bytes.len()), *byte),
            _ if bytes.is_empty() => {}
            Damage::Set(index, byte) => {
                let at = at(index);
                bytes[at] = *byte;
            }
            Damage::Cut(index) => bytes.truncate(at(index)),
            Damage::Remove(index) => drop(bytes.remove(at(index))),
        }
    }
    bytes.into()
}

/// Whether all markers of these unknown fields are in the bytes.
pub(crate) fn keeps(bytes: &[u8], fields: &[Unknown]) -> bool {
    fields.iter().all(|field| bytes.windows(8).any(|window| window == field.marker))
}
