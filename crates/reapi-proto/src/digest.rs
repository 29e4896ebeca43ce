//! Content digests: parsed once at the edge, never degenerate afterwards.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

/// A hash function that identifies blobs (Remote Execution API, `DigestFunction.Value`).
///
/// Only functions that this crate can compute are representable: a digest
/// that cannot be recomputed cannot be verified.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum DigestFunction {
    /// SHA-256, 32 bytes. What BuildStream and every server in practice use.
    #[default]
    Sha256 = 1,
    /// SHA-384, 48 bytes.
    Sha384 = 5,
    /// SHA-512, 64 bytes.
    Sha512 = 6,
}

impl DigestFunction {
    /// Every function, in the order of their wire numbers.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// Length of a hash in bytes.
    #[must_use]
    pub const fn hash_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The `DigestFunction.Value` number on the wire.
    #[must_use]
    pub const fn wire_value(self) -> i32 {
        self as i32
    }

    /// The function with this `DigestFunction.Value` number, if it is one that we can compute.
    #[must_use]
    pub fn from_wire(value: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.wire_value() == value)
    }

    /// The name used in JSON and in messages, as the specification spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }

    /// The function whose hashes have this many bytes.
    ///
    /// Unambiguous for the functions here: the specification lets these
    /// lengths stand without naming the function.
    #[must_use]
    pub fn from_hash_len(bytes: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.hash_bytes() == bytes)
    }

    /// The digest of `data`.
    #[must_use]
    pub fn digest(self, data: &[u8]) -> Digest {
        let mut hasher = self.hasher();
        hasher.update(data);
        hasher.finish()
    }

    /// Starts an incremental computation.
    #[must_use]
    pub fn hasher(self) -> Hasher {
        let state = match self {
            Self::Sha256 => State::Sha256(sha2::Sha256::new()),
            Self::Sha384 => State::Sha384(sha2::Sha384::new()),
            Self::Sha512 => State::Sha512(sha2::Sha512::new()),
        };
        Hasher { function: self, state, size_bytes: 0 }
    }

    /// The digest of the empty blob, which every store has without being told.
    #[must_use]
    pub fn empty(self) -> Digest {
        self.digest(&[])
    }
}

impl fmt::Display for DigestFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DigestFunction {
    type Err = DigestError;

    fn from_str(s: &str) -> Result<Self, DigestError> {
        Self::ALL
            .into_iter()
            .find(|f| f.name().eq_ignore_ascii_case(s))
            .ok_or_else(|| DigestError::Function(s.chars().take(40).collect()))
    }
}

/// An incremental digest computation over a stream of bytes.
#[derive(Clone)]
pub struct Hasher {
    function: DigestFunction,
    state: State,
    size_bytes: u64,
}

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Adds the next bytes.
    pub fn update(&mut self, data: &[u8]) {
        self.size_bytes += data.len() as u64;
        match &mut self.state {
            State::Sha256(h) => h.update(data),
            State::Sha384(h) => h.update(data),
            State::Sha512(h) => h.update(data),
        }
    }

    /// Bytes added so far.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The digest of everything added.
    #[must_use]
    pub fn finish(self) -> Digest {
        let hash = match self.state {
            State::Sha256(h) => h.finalize().into(),
            State::Sha384(h) => long::keep(&h.finalize()),
            State::Sha512(h) => long::keep(&h.finalize()),
        };
        Digest { hash, size_bytes: self.size_bytes, function: self.function }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({}, {} bytes)", self.function, self.size_bytes)
    }
}

/// The identity of a blob: hash function, hash and size together.
///
/// A value of this type is always well formed; text and wire forms are parsed
/// into it once. Two digests with the same hash and different sizes are
/// different (the specification makes the size part of the identity).
/// Ordering is by hash bytes, then size, then function.
///
/// Takes 48 bytes, as there are millions of them. Hashes of more than 32 bytes
/// do not fit: each distinct one is kept once, for as long as the process lives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// The hash, or what [`long::keep`] makes of a longer one.
    hash: [u8; 32],
    size_bytes: u64,
    function: DigestFunction,
}

impl Digest {
    /// A digest from raw hash bytes.
    ///
    /// # Errors
    /// [`DigestError::Length`] when the length is not the function's.
    pub fn from_raw(function: DigestFunction, hash: &[u8], size_bytes: u64) -> Result<Self, DigestError> {
        if hash.len() != function.hash_bytes() {
            return Err(DigestError::Length { found: hash.len() * 2, expected: function.hash_bytes() * 2 });
        }
        if size_bytes > i64::MAX as u64 {
            return Err(DigestError::Size(size_bytes.to_string()));
        }
        Ok(Self { hash: kept(hash), size_bytes, function })
    }

    /// A digest from the lowercase hexadecimal hash and size of a wire message.
    /// The function is the one whose hashes have that length.
    ///
    /// # Errors
    /// [`DigestError`] for a negative size, an unknown length, or any character outside `0-9a-f`.
    pub fn from_hex(hash: &[u8], size_bytes: i64) -> Result<Self, DigestError> {
        let size_bytes = u64::try_from(size_bytes).map_err(|_| DigestError::Size(size_bytes.to_string()))?;
        let function = check_hex(hash)?;
        Ok(Self::from_checked_hex(function, hash, size_bytes))
    }

    /// A digest from what [`check_hex`] has accepted.
    pub(crate) fn from_checked_hex(function: DigestFunction, hash: &[u8], size_bytes: u64) -> Self {
        let hash = match function {
            DigestFunction::Sha256 => {
                let mut raw = [0; 32];
                decode_hex(hash, &mut raw);
                raw
            }
            DigestFunction::Sha384 | DigestFunction::Sha512 => {
                let mut raw = [0; 64];
                decode_hex(hash, &mut raw);
                kept(&raw[..function.hash_bytes()])
            }
        };
        Self { hash, size_bytes, function }
    }

    /// The digest of `data` under `function`.
    #[must_use]
    pub fn of(function: DigestFunction, data: &[u8]) -> Self {
        function.digest(data)
    }

    /// The hash function.
    #[must_use]
    pub const fn function(&self) -> DigestFunction {
        self.function
    }

    /// The raw hash.
    #[must_use]
    pub fn hash(&self) -> &[u8] {
        match self.function {
            DigestFunction::Sha256 => &self.hash,
            DigestFunction::Sha384 | DigestFunction::Sha512 => long::whole(&self.hash),
        }
    }

    /// Size of the blob in bytes; never above `i64::MAX`.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Size as the signed number of the wire messages.
    #[must_use]
    pub const fn wire_size(&self) -> i64 {
        self.size_bytes.cast_signed()
    }

    /// Whether this is the empty blob.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.size_bytes == 0
    }

    /// Whether `data` is the blob that this digest names.
    #[must_use]
    pub fn matches(&self, data: &[u8]) -> bool {
        data.len() as u64 == self.size_bytes && self.function.digest(data) == *self
    }

    /// The first bytes of the hash, whatever its length.
    const fn front(&self) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = self.hash;
        [a, b, c, d, e, f, g, h]
    }

    /// The hash in lowercase hexadecimal.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.hex().as_str().to_owned()
    }

    /// [`to_hex`](Self::to_hex) without an allocation.
    #[must_use]
    pub(crate) fn hex(&self) -> Hex {
        let mut digits = [0; 128];
        let len = self.function.hash_bytes() * 2;
        match digits.first_chunk_mut::<64>() {
            Some(digits) if self.function == DigestFunction::Sha256 => encode_hex(&self.hash, digits),
            _ => encode_hex(self.hash(), &mut digits),
        }
        Hex { digits, len }
    }
}

/// A hash of any length, as a digest holds it.
fn kept(hash: &[u8]) -> [u8; 32] {
    match hash.first_chunk::<32>() {
        Some(whole) if hash.len() == 32 => *whole,
        _ => long::keep(hash),
    }
}

/// Hashes that do not fit into a digest.
mod long {
    use std::collections::HashMap;
    use std::sync::{LazyLock, PoisonError, RwLock};

    #[derive(Default)]
    struct Hashes {
        all: Vec<&'static [u8]>,
        places: HashMap<&'static [u8], usize>,
    }

    // Entries are only ever added, whole: nobody who panics leaves less behind.
    static HASHES: LazyLock<RwLock<Hashes>> = LazyLock::new(RwLock::default);

    /// How much of a hash stands in front of its place.
    const FRONT: usize = 24;

    /// The start of a hash, and its place among those that are kept: equal for equal hashes.
    pub(super) fn keep(hash: &[u8]) -> [u8; 32] {
        let known = HASHES.read().unwrap_or_else(PoisonError::into_inner).places.get(hash).copied();
        let place = known.unwrap_or_else(|| {
            let mut hashes = HASHES.write().unwrap_or_else(PoisonError::into_inner);
            let Hashes { all, places } = &mut *hashes;
            if let Some(place) = places.get(hash) {
                return *place;
            }
            let hash: &'static [u8] = Box::leak(hash.into());
            all.push(hash);
            places.insert(hash, all.len() - 1);
            all.len() - 1
        });
        let mut kept = [0; 32];
        let (front, back) = kept.split_at_mut(FRONT);
        front.iter_mut().zip(hash).for_each(|(kept, byte)| *kept = *byte);
        back.iter_mut().zip(place.to_le_bytes()).for_each(|(kept, byte)| *kept = byte);
        kept
    }

    /// The hash that was kept.
    pub(super) fn whole(kept: &[u8; 32]) -> &'static [u8] {
        let mut place = [0; size_of::<usize>()];
        place.iter_mut().zip(&kept[FRONT..]).for_each(|(byte, kept)| *byte = *kept);
        let hashes = HASHES.read().unwrap_or_else(PoisonError::into_inner);
        hashes.all.get(usize::from_le_bytes(place)).copied().unwrap_or_default()
    }
}

impl Ord for Digest {
    fn cmp(&self, other: &Self) -> Ordering {
        let hashes = match (self.function, other.function) {
            // Nearly always decided by the first bytes.
            (DigestFunction::Sha256, DigestFunction::Sha256) => {
                let fronts = u64::from_be_bytes(self.front()).cmp(&u64::from_be_bytes(other.front()));
                fronts.then_with(|| self.hash.cmp(&other.hash))
            }
            _ => self.hash().cmp(other.hash()),
        };
        hashes.then(self.size_bytes.cmp(&other.size_bytes)).then(self.function.cmp(&other.function))
    }
}

impl PartialOrd for Digest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A hash in lowercase hexadecimal.
pub(crate) struct Hex {
    digits: [u8; 128],
    len: usize,
}

impl Hex {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.digits[..self.len]
    }

    fn as_str(&self) -> &str {
        // Digits are ASCII.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

/// The function whose hashes these are, if they are lowercase hexadecimal of a length that one has.
pub(crate) fn check_hex(hash: &[u8]) -> Result<DigestFunction, DigestError> {
    let function = DigestFunction::from_hash_len(hash.len() / 2)
        .filter(|_| hash.len().is_multiple_of(2))
        .ok_or(DigestError::Length { found: hash.len(), expected: 64 })?;
    if hash.iter().fold(true, |all, c| all & is_hex(*c)) {
        return Ok(function);
    }
    let bad = hash.iter().find(|c| !is_hex(**c));
    Err(DigestError::Character(bad.map_or('\0', |c| char::from(*c))))
}

/// Without a branch, as everything in the loops below.
fn is_hex(c: u8) -> bool {
    (c.wrapping_sub(b'0') < 10) | (c.wrapping_sub(b'a') < 6)
}

/// Bytes of digits that [`is_hex`] accepts, eight digits at a time.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the four low bytes are what is wanted")]
fn decode_hex(digits: &[u8], out: &mut [u8]) {
    for (out, eight) in out.as_chunks_mut::<4>().0.iter_mut().zip(digits.as_chunks::<8>().0) {
        let digits = u64::from_le_bytes(*eight);
        let values = (digits & 0x0f0f_0f0f_0f0f_0f0f) + 9 * ((digits >> 6) & 0x0101_0101_0101_0101);
        // Two values to each byte, and the bytes together.
        let pairs = ((values << 4) | (values >> 8)) & 0x00ff_00ff_00ff_00ff;
        let pairs = (pairs | (pairs >> 8)) & 0x0000_ffff_0000_ffff;
        *out = ((pairs | (pairs >> 16)) as u32).to_le_bytes();
    }
}

#[inline]
fn encode_hex(bytes: &[u8], out: &mut [u8]) {
    let digit = |value: u8| value + b'0' + if value > 9 { b'a' - b'0' - 10 } else { 0 };
    for (out, byte) in out.chunks_exact_mut(2).zip(bytes) {
        out[0] = digit(byte >> 4);
        out[1] = digit(byte & 15);
    }
}

impl std::hash::Hash for Digest {
    /// Feeds only the first 8 bytes of the hash: they are uniform already.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from_le_bytes(self.front()));
    }
}

/// `HASH/SIZE`, the form used on command lines, in JSON and in logs.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.hex().as_str(), self.size_bytes)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    /// Parses `HASH/SIZE`.
    fn from_str(s: &str) -> Result<Self, DigestError> {
        let (hash, size) = s.split_once('/').ok_or(DigestError::Form)?;
        if !size.bytes().all(|b| b.is_ascii_digit()) || (size.len() > 1 && size.starts_with('0')) {
            return Err(DigestError::Size(size.chars().take(40).collect()));
        }
        let size: i64 = size.parse().map_err(|_| DigestError::Size(size.chars().take(40).collect()))?;
        Self::from_hex(hash.as_bytes(), size)
    }
}

/// Why something is not a digest.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DigestError {
    /// No slash between hash and size.
    #[error("a digest is HASH/SIZE, with a slash between them")]
    Form,
    /// The hash has a length that no supported function has.
    #[error("a hash of {found} hexadecimal digits; expected {expected}")]
    Length {
        /// Digits found.
        found: usize,
        /// Digits expected.
        expected: usize,
    },
    /// A character that is not a lowercase hexadecimal digit.
    #[error("{0:?} in a hash; only 0-9 and a-f are allowed")]
    Character(char),
    /// A size that is negative, too large, or not a number.
    #[error("{0:?} is not a size in bytes")]
    Size(String),
    /// A digest function that is unknown or cannot be computed here.
    #[error("digest function {0:?} is not supported; use SHA256, SHA384 or SHA512")]
    Function(String),
    /// A message field that must hold a digest is absent.
    #[error("the digest is absent")]
    Absent,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855/0";

    #[test]
    fn the_empty_blob_has_the_published_digest() {
        assert_eq!(DigestFunction::Sha256.empty().to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(DigestFunction::Sha256.empty()));
    }

    #[test]
    fn degenerate_forms_are_refused() {
        let hash = &EMPTY[..64];
        let check = |s: &str, e: DigestError| assert_eq!(s.parse::<Digest>(), Err(e), "{s}");
        check(hash, DigestError::Form);
        check(&format!("{hash}/-1"), DigestError::Size("-1".into()));
        check(&format!("{hash}/+1"), DigestError::Size("+1".into()));
        check(&format!("{hash}/01"), DigestError::Size("01".into()));
        check(&format!("{hash}/9223372036854775808"), DigestError::Size("9223372036854775808".into()));
        check(&format!("{}/0", hash.to_uppercase()), DigestError::Character('E'));
        check(&format!("{}/0", &hash[1..]), DigestError::Length { found: 63, expected: 64 });
        check("/0", DigestError::Length { found: 0, expected: 64 });
    }

    #[test]
    fn the_size_is_part_of_the_identity() {
        let one = Digest::of(DigestFunction::Sha256, b"x");
        let other = Digest::from_raw(DigestFunction::Sha256, one.hash(), 2).unwrap();
        assert_ne!(one, other);
        assert!(one.matches(b"x") && !other.matches(b"x"));
    }

    #[test]
    fn it_takes_no_more_room_than_it_says() {
        assert_eq!(size_of::<Digest>(), 48);
    }

    proptest! {
        #[test]
        fn order_and_equality_are_those_of_the_bytes(
            (a, b) in (prop::sample::select(&DigestFunction::ALL[..]), prop::sample::select(&DigestFunction::ALL[..])),
            (one, other) in (any::<[u8; 64]>(), any::<[u8; 64]>()),
            same_front: bool,
            sizes in (0..2_u64, 0..2_u64),
        ) {
            let mut other = other;
            if same_front {
                other[..40].copy_from_slice(&one[..40]);
            }
            let digest = |function: DigestFunction, hash: &[u8; 64], size| {
                Digest::from_raw(function, &hash[..function.hash_bytes()], size).unwrap()
            };
            let (one, other) = (digest(a, &one, sizes.0), digest(b, &other, sizes.1));
            let key = |digest: &Digest| (digest.hash().to_vec(), digest.size_bytes(), digest.function());
            prop_assert_eq!(one.cmp(&other), key(&one).cmp(&key(&other)));
            prop_assert_eq!(one == other, key(&one) == key(&other));
            prop_assert_eq!(Digest::from_raw(a, one.hash(), one.size_bytes()), Ok(one));
        }

        #[test]
        fn text_round_trips(data: Vec<u8>, function in prop::sample::select(&DigestFunction::ALL[..])) {
            let digest = function.digest(&data);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
            prop_assert_eq!(Digest::from_hex(digest.to_hex().as_bytes(), digest.wire_size()), Ok(digest));
            prop_assert!(digest.matches(&data));
        }

        #[test]
        fn no_text_panics(s in "\\PC*") {
            let _ = s.parse::<Digest>();
        }
    }
}
