//! What two versions of a text have in common.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::directives::{Directives, Form, Include, MacroEvent, Operand};

/// How many pairs of includes are compared; two texts with two thousand
/// different includes each stay below it.
const MAX_PAIRS: usize = 4 << 20;

/// The includes that both texts have, in the same order and under the same
/// conditions, as ascending pairs of indices. `None`: too many to say.
pub(super) fn common(then: &Directives, now: &Directives) -> Option<Vec<(usize, usize)>> {
    let (a, b) = (keys(then), keys(now));
    let head = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let (a_rest, b_rest) = (&a[head..], &b[head..]);
    let tail = a_rest.iter().rev().zip(b_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let (a_mid, b_mid) = (&a_rest[..a_rest.len() - tail], &b_rest[..b_rest.len() - tail]);
    let mut pairs: Vec<(usize, usize)> = (0..head).map(|i| (i, i)).collect();
    pairs.extend(longest(a_mid, b_mid)?.into_iter().map(|(i, j)| (head + i, head + j)));
    pairs.extend((0..tail).rev().map(|back| (a.len() - 1 - back, b.len() - 1 - back)));
    Some(pairs)
}

fn keys(directives: &Directives) -> Vec<Vec<u8>> {
    directives.includes().iter().map(|include| key(directives, include)).collect()
}

fn key(directives: &Directives, include: &Include) -> Vec<u8> {
    let form = match include.form {
        Form::Include => b'i',
        Form::Next => b'n',
        Form::Import => b'm',
        Form::Embed => b'e',
    };
    let (kind, name) = match &include.operand {
        Operand::Quote(name) => (b'"', name),
        Operand::Angle(name) => (b'<', name),
        Operand::Computed(name) => (b'=', name),
    };
    [&[form, kind], &name[..], b"\n", &directives.place_key(include.place)].concat()
}

/// The longest common subsequence.
fn longest(a: &[Vec<u8>], b: &[Vec<u8>]) -> Option<Vec<(usize, usize)>> {
    if a.is_empty() || b.is_empty() {
        return Some(Vec::new());
    }
    let width = b.len() + 1;
    if (a.len() + 1).checked_mul(width).is_none_or(|pairs| pairs > MAX_PAIRS) {
        return None;
    }
    let mut lengths = vec![0_u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            lengths[i * width + j] = if a[i] == b[j] {
                lengths[(i + 1) * width + j + 1] + 1
            } else {
                lengths[(i + 1) * width + j].max(lengths[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < a.len() && j < b.len() {
        if a[i] == b[j] {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[(i + 1) * width + j] >= lengths[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    Some(pairs)
}

/// The macros whose fate differs between the two texts: what happens to them,
/// under which conditions, or between which of the `common` includes.
pub(super) fn different_macros<'d>(
    then: &'d Directives,
    now: &'d Directives,
    common: &[(usize, usize)],
) -> FxHashSet<&'d [u8]> {
    let old = fates(then, |before| common.partition_point(|(i, _)| *i < before));
    let new = fates(now, |before| common.partition_point(|(_, j)| *j < before));
    let differs = |name: &&&[u8]| old.get(**name) != new.get(**name);
    old.keys().chain(new.keys()).filter(differs).copied().collect()
}

type Fates<'d> = FxHashMap<&'d [u8], Vec<(&'d MacroEvent, Vec<u8>, usize)>>;

fn fates(directives: &Directives, position: impl Fn(usize) -> usize) -> Fates<'_> {
    let mut fates = Fates::default();
    for m in directives.macros() {
        let fate = (&m.event, directives.place_key(m.place), position(m.includes_before));
        fates.entry(&m.name).or_default().push(fate);
    }
    fates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(then: &str, now: &str, pairs: &[(usize, usize)], macros: &[&str]) {
        let (then, now) = (Directives::scan(then.as_bytes()), Directives::scan(now.as_bytes()));
        let common = common(&then, &now).unwrap();
        assert_eq!(common, pairs);
        let mut found: Vec<_> = different_macros(&then, &now, &common).into_iter().collect();
        found.sort_unstable();
        assert_eq!(found, macros.iter().map(|name| name.as_bytes()).collect::<Vec<_>>());
    }

    #[test]
    fn common_includes_and_different_macros() {
        let (a, b, c) = ("#include \"a\"\n", "#include <b>\n", "#ifdef X\n#include <c>\n#endif\n");
        check(&[a, b, c].concat(), &[a, c].concat(), &[(0, 0), (2, 1)], &[]);
        check(&[a, b].concat(), &[b, a].concat(), &[(1, 0)], &[]);
        check(c, "#ifdef Y\n#include <c>\n#endif\n", &[], &[]);
        check(&["#define M\n", a].concat(), &[a, "#define M\n"].concat(), &[(0, 0)], &["M"]);
        check(&["#define M\n", a].concat(), &[b, "#define M\n", a].concat(), &[(0, 1)], &[]);
        check("#define M 1\n#define N\n", "#define M 2\n#define N\n#define O\n", &[], &["M", "O"]);
        check("#define M(x) 1\n", "#define M (x) 1\n", &[], &["M"]);
    }
}
