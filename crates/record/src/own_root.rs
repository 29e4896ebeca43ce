//! Where an element's own files lie in the input trees of its actions.

use bytes::Bytes;
use overlay::graph::Element;

/// The first segment of a working directory in BuildStream's sandboxes,
/// before those of the project and of the element.
pub(crate) const BUILD_ROOT: &[u8] = b"buildstream";

/// The directory that holds the element's sources: `buildstream/PROJECT/ELEMENT`
/// where a working directory is there or below, otherwise what all working
/// directories have in common. Empty for the root.
pub(crate) fn own_root<'a>(element: &Element, working_directories: impl Iterator<Item = &'a [u8]> + Clone) -> Bytes {
    if let Some(root) = working_directories.clone().find_map(|directory| build_root(element, directory)) {
        return root;
    }
    let mut common: Option<Vec<&[u8]>> = None;
    for directory in working_directories {
        let directory = segments(directory);
        match &mut common {
            None => common = Some(directory.collect()),
            Some(common) => {
                let equal = common.iter().zip(directory).take_while(|(a, b)| *a == b).count();
                common.truncate(equal);
            }
        }
    }
    common.unwrap_or_default().join(&b'/').into()
}

fn build_root(element: &Element, directory: &[u8]) -> Option<Bytes> {
    let mut rest = segments(directory);
    let first = rest.next().filter(|first| *first == BUILD_ROOT)?;
    let project = rest.next().filter(|found| element.project.as_ref().is_none_or(|p| p.as_bytes() == *found))?;
    // An element of another project is named `JUNCTION:ELEMENT`; its project does not know the junction.
    let name = element.name.rsplit(':').next().unwrap_or_default();
    let mut root = vec![first, project];
    for segment in segments(name.as_bytes()) {
        root.push(rest.next().filter(|found| *found == segment)?);
    }
    Some(root.join(&b'/').into())
}

pub(crate) fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|segment| !segment.is_empty() && *segment != b".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, project: Option<&str>, directories: &[&str], expected: &str) {
        let element = Element { project: project.map(str::to_owned), ..Element::new(name) };
        assert_eq!(own_root(&element, directories.iter().map(|d| d.as_bytes())), expected);
    }

    #[test]
    fn buildstreams_layout_is_recognised_at_any_depth() {
        check("app.bst", Some("demo"), &["buildstream/demo/app.bst"], "buildstream/demo/app.bst");
        check("app.bst", Some("demo"), &["buildstream/demo/app.bst/_b/util"], "buildstream/demo/app.bst");
        check("app.bst", None, &["buildstream/demo/app.bst/_b/util"], "buildstream/demo/app.bst");
        check("sub/app.bst", Some("demo"), &["./buildstream/demo//sub/app.bst/x/"], "buildstream/demo/sub/app.bst");
        check("junction.bst:app.bst", None, &["buildstream/demo/app.bst/x"], "buildstream/demo/app.bst");
        check("app.bst", Some("demo"), &["", "buildstream/demo/app.bst/x"], "buildstream/demo/app.bst");
    }

    #[test]
    fn elsewhere_it_is_what_all_have_in_common() {
        check("app", None, &["build/app/x", "build/app/y"], "build/app");
        check("app", None, &["build/app", "build/apps"], "build");
        check("app", None, &["build/app/x"], "build/app/x");
        check("app", None, &["build/app", ""], "");
        check("app", None, &[], "");
        check("app.bst", Some("other"), &["buildstream/demo/app.bst/x"], "buildstream/demo/app.bst/x");
        check("app.bst", None, &["buildstream/demo/lib.bst/x"], "buildstream/demo/lib.bst/x");
        check("app.bst", None, &["buildstream/demo"], "buildstream/demo");
    }
}
