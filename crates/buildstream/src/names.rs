//! Names that BuildStream gives to artifacts, in files and in asset indexes.

use std::fmt;
use std::str::FromStr;

/// Hexadecimal digits of a cache key: it is a SHA-256 hash.
const KEY_LEN: usize = 64;

/// Begins the name of every artifact in a Remote Asset index.
const ARTIFACT_URN: &str = "urn:fdc:buildstream.build:2020:artifact:";

/// Begins the name of every element's sources in a Remote Asset index.
const SOURCE_URN: &str = "urn:fdc:buildstream.build:2020:source:";

/// Why a text is not a name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct NameError {
    text: String,
    expected: &'static str,
}

/// Longest part of a refused name that its error repeats, in characters.
const SHOWN_CHARS: usize = 100;

impl NameError {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(SHOWN_CHARS).collect(), expected }
    }
}

/// A cache key of an element, weak or strong, or of its sources: 64 lowercase hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey(Box<str>);

impl CacheKey {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of these sources in a Remote Asset index; for the key of an element's sources.
    #[must_use]
    pub fn source_urn(&self) -> String {
        format!("{SOURCE_URN}{self}")
    }
}

impl FromStr for CacheKey {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if digits && text.len() == KEY_LEN {
            return Ok(Self(text.into()));
        }
        Err(NameError::new(text, "a cache key of 64 lowercase hexadecimal digits"))
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({self})")
    }
}

/// An element as artifacts are filed under it: its project and its normalised
/// name. Each is one path segment that is safe to use in a file name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ElementRef {
    project: Box<str>,
    name: Box<str>,
}

impl ElementRef {
    /// The element of this name in its project.
    ///
    /// A name across junctions (`junction.bst:element.bst`) stands for its
    /// last part: artifacts are filed under the project that an element
    /// belongs to, whatever way leads there.
    ///
    /// # Errors
    /// [`NameError`] where project or name cannot be a path segment.
    pub fn new(project: &str, element: &str) -> Result<Self, NameError> {
        let local = element.rsplit(':').next().unwrap_or(element);
        Self::of_segments(project, &normalised(local))
    }

    fn of_segments(project: &str, name: &str) -> Result<Self, NameError> {
        let segment = |text: &str| !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '\0']);
        if !segment(project) {
            return Err(NameError::new(project, "the name of a project"));
        }
        if !segment(name) {
            return Err(NameError::new(name, "the name of an element"));
        }
        Ok(Self { project: project.into(), name: name.into() })
    }

    /// The project.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The normalised name: without extension, `-` for path separators.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its artifact of this key.
    #[must_use]
    pub fn artifact(&self, key: CacheKey) -> ArtifactName {
        ArtifactName { element: self.clone(), key }
    }
}

/// `PROJECT/NAME`.
impl fmt::Display for ElementRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.name)
    }
}

/// An artifact: an element and one of its keys. Prints as `PROJECT/NAME/KEY`,
/// which is also its path below the folder of refs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ArtifactName {
    element: ElementRef,
    key: CacheKey,
}

impl ArtifactName {
    /// The element.
    #[must_use]
    pub fn element(&self) -> &ElementRef {
        &self.element
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &CacheKey {
        &self.key
    }

    /// Its name in a Remote Asset index.
    #[must_use]
    pub fn urn(&self) -> String {
        format!("{ARTIFACT_URN}{self}")
    }
}

impl fmt::Display for ArtifactName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.element, self.key)
    }
}

impl FromStr for ArtifactName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = text.split('/');
        let (Some(project), Some(name), Some(key), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NameError::new(text, "an artifact name PROJECT/NAME/KEY"));
        };
        Ok(ElementRef::of_segments(project, name)?.artifact(key.parse()?))
    }
}

/// The name without its extension, with `-` for path separators and `_` for
/// whatever is neither a letter or digit of ASCII nor one of `-._`.
///
/// As Python's `os.path.splitext` has it: dots at the beginning do not begin an extension.
fn normalised(element: &str) -> String {
    let flat = element.replace('/', "-");
    let leading = flat.len() - flat.trim_start_matches('.').len();
    let stem = match flat.rfind('.') {
        Some(dot) if dot > leading => &flat[..dot],
        _ => &flat,
    };
    stem.chars().map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(digit: char) -> CacheKey {
        digit.to_string().repeat(64).parse().unwrap()
    }

    #[test]
    fn names_are_normalised_as_buildstream_does() {
        // The right sides were computed by BuildStream 2.8.1's own functions.
        let check = |element: &str, name: &str| assert_eq!(ElementRef::new("demo", element).unwrap().name(), name);
        check("app.bst", "app");
        check("sub/app.bst", "sub-app");
        check("a/b/c.d.bst", "a-b-c.d");
        check("noext", "noext");
        check(".bst", ".bst");
        check("...bst", "...bst");
        check("..a.bst", "..a");
        check("a+b c~.bst", "a_b_c_");
        check("gtk+-3.0.bst", "gtk_-3.0");
        check("näh.bst", "n_h");
        check("junction.bst:sub/lib.bst", "sub-lib");
        check("a.bst:b.bst:c.bst", "c");
    }

    #[test]
    fn artifacts_have_one_name_in_files_and_indexes() {
        let name = ElementRef::new("demo", "sub/app.bst").unwrap().artifact(key('a'));
        assert_eq!(name.to_string(), format!("demo/sub-app/{}", key('a')));
        assert_eq!(name.urn(), format!("urn:fdc:buildstream.build:2020:artifact:demo/sub-app/{}", key('a')));
        assert_eq!(key('b').source_urn(), format!("urn:fdc:buildstream.build:2020:source:{}", key('b')));
        assert_eq!(name.to_string().parse(), Ok(name));
    }

    #[test]
    fn what_would_leave_the_folder_of_refs_is_refused() {
        for project in ["", ".", "..", "a/b", "a\0"] {
            assert!(ElementRef::new(project, "app.bst").is_err(), "{project:?}");
        }
        for element in ["", ".", "..", "junction.bst:"] {
            assert!(ElementRef::new("demo", element).is_err(), "{element:?}");
        }
        assert_eq!(ElementRef::new("demo", "../../x.bst").unwrap().name(), "..-..-x");
        let key = key('0');
        for name in
            [format!("../x/{key}"), format!("a/../{key}"), format!("a/b/c/{key}"), format!("a/{key}"), "a/b/..".into()]
        {
            assert!(name.parse::<ArtifactName>().is_err(), "{name}");
        }
        for text in ["", "abc", &"A".repeat(64), &"g".repeat(64), &"a".repeat(63), &"a".repeat(65)] {
            assert!(text.parse::<CacheKey>().is_err(), "{text}");
        }
        let shown = "x".repeat(1000).parse::<CacheKey>().unwrap_err().to_string();
        assert!(shown.len() < 200, "{shown}");
    }

    proptest! {
        #[test]
        fn no_text_makes_a_path_out_of_a_name(project in ".*", element in ".*") {
            if let Ok(element) = ElementRef::new(&project, &element) {
                for segment in [element.project(), element.name()] {
                    prop_assert!(!segment.contains('/') && !["", ".", ".."].contains(&segment));
                }
            }
            let _ = element.parse::<ArtifactName>();
        }
    }
}
