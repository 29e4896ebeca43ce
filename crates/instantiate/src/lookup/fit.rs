//! Whether a record may be used for an element.

use overlay::graph::Element;
use reapi_proto::Digest;

use super::Lookup;
use crate::skip::{Skip, SkipKind};

/// How well a record fits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fit {
    /// Same weak key, or one of the two is unknown.
    Exact,
    /// Another weak key, which other sources explain.
    Nearest,
    /// Another weak key; whether the sources explain it is not known yet.
    Undecided,
    /// Not to be used.
    Refused(Skip),
}

impl Fit {
    /// Judges a record by the weak key and the sources that it was made with.
    pub(crate) fn judge(
        lookup: Lookup,
        element: &Element,
        weak_key: Option<&str>,
        recorded_sources: Option<Digest>,
        recorded_configuration: Option<&str>,
    ) -> Self {
        let refused = |reason: &str| Self::Refused(Skip::new(SkipKind::OtherKey, reason));
        match (weak_key, element.weak_key.as_deref()) {
            (Some(recorded), Some(current)) if recorded != current => {}
            _ => return Self::Exact,
        }
        if lookup == Lookup::Weak {
            return refused("the record was made under another weak key");
        }
        match (recorded_configuration, element.configuration.as_deref()) {
            // Other sources, or other names of dependencies.
            (Some(recorded), Some(current)) if recorded == current => return Self::Nearest,
            (Some(_), Some(_)) => return refused("its commands or environment are not those of the record"),
            _ => {}
        }
        match (recorded_sources, element.sources) {
            (None, _) => refused("the record was made under another weak key and does not say with which sources"),
            (Some(_), None) => Self::Undecided,
            (Some(recorded), Some(current)) => Self::of_sources(recorded, current),
        }
    }

    /// Judges a record that was made under another weak key.
    pub(crate) fn of_sources(recorded: Digest, current: Digest) -> Self {
        if recorded != current {
            return Self::Nearest;
        }
        let reason =
            "the record was made under another weak key from the same sources: commands or environment changed";
        Self::Refused(Skip::new(SkipKind::OtherKey, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reapi_proto::DigestFunction;

    fn sources(name: &str) -> Digest {
        DigestFunction::Sha256.digest(name.as_bytes())
    }

    #[test]
    fn another_key_needs_other_sources() {
        let check = |lookup, recorded: (Option<&str>, Option<&str>), current: (Option<&str>, Option<&str>)| {
            let element = Element {
                weak_key: current.0.map(str::to_owned),
                sources: current.1.map(sources),
                ..Element::new("a")
            };
            match Fit::judge(lookup, &element, recorded.0, recorded.1.map(sources), None) {
                Fit::Refused(skip) => {
                    assert_eq!(skip.kind, SkipKind::OtherKey);
                    "refused"
                }
                Fit::Exact => "exact",
                Fit::Nearest => "nearest",
                Fit::Undecided => "undecided",
            }
        };
        for lookup in [Lookup::Weak, Lookup::Nearest] {
            assert_eq!(check(lookup, (Some("k"), Some("s")), (Some("k"), Some("s"))), "exact");
            assert_eq!(check(lookup, (Some("k"), Some("s")), (Some("k"), Some("t"))), "exact");
            assert_eq!(check(lookup, (None, None), (Some("k"), Some("t"))), "exact");
            assert_eq!(check(lookup, (Some("k"), None), (None, None)), "exact");
        }
        assert_eq!(check(Lookup::Weak, (Some("j"), Some("s")), (Some("k"), Some("t"))), "refused");
        assert_eq!(check(Lookup::Nearest, (Some("j"), Some("s")), (Some("k"), Some("t"))), "nearest");
        assert_eq!(check(Lookup::Nearest, (Some("j"), Some("s")), (Some("k"), Some("s"))), "refused");
        assert_eq!(check(Lookup::Nearest, (Some("j"), Some("s")), (Some("k"), None)), "undecided");
        assert_eq!(check(Lookup::Nearest, (Some("j"), None), (Some("k"), Some("s"))), "refused");
    }

    #[test]
    fn a_configuration_decides_whatever_the_sources_are() {
        let judge = |lookup, configuration: &str| {
            let element = Element {
                weak_key: Some("k".to_owned()),
                sources: Some(sources("s")),
                configuration: Some("c".to_owned()),
                ..Element::new("a")
            };
            Fit::judge(lookup, &element, Some("j"), Some(sources("s")), Some(configuration))
        };
        assert_eq!(judge(Lookup::Nearest, "c"), Fit::Nearest);
        assert!(matches!(judge(Lookup::Nearest, "d"), Fit::Refused(skip) if skip.kind == SkipKind::OtherKey));
        assert!(matches!(judge(Lookup::Weak, "c"), Fit::Refused(_)));
    }
}
