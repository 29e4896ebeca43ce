//! Libraries: headers, profiles of headers, a shared object.

use super::{Draft, FileId, HEADER_PROFILES, INPUT, PathIndex, STUB, Shape, percent, text};

/// One library below the element.
#[derive(Clone, Debug)]
pub(in super::super) struct Library {
    pub(super) name: String,
    /// The installed headers; the first one is the core header, which every profile contains.
    pub(in super::super) headers: Vec<Header>,
    pub(in super::super) shared_object: FileId,
    /// Where a link sees the shared object.
    pub(super) shared_object_input: PathIndex,
    pub(super) sources: Vec<PathIndex>,
    pub(super) artifact: Vec<PathIndex>,
    /// Input paths of each profile.
    pub(super) profiles: Vec<Vec<PathIndex>>,
}

/// One installed header.
#[derive(Clone, Debug)]
pub(in super::super) struct Header {
    pub(in super::super) file: FileId,
    /// What it is generated from; `None` where it is installed verbatim.
    pub(in super::super) template: Option<FileId>,
}

/// Below `usr/include/LIBRARY`; with the separator.
const DIRECTORIES: [&str; 3] = ["", "detail/", "impl/"];
/// As many libraries install the same header.
const SHARING: usize = 3;

/// How one header comes about.
enum Kind {
    Verbatim(String),
    /// Written by the library's build from a template.
    Generated,
}

impl Library {
    pub(super) fn draft(draft: &mut Draft, shape: &Shape, number: usize, rng: &mut fastrand::Rng) -> Self {
        let name = format!("dep{number:02}");
        let element = format!("{name}.bst");
        let so_path = format!("usr/lib/lib{name}.so");
        let so_text = text(&format!("shared object {name}"));
        let shared_object = draft.executable(format!("{element} {so_path}"), Some(so_text));
        let mut library = Self {
            headers: Vec::new(),
            shared_object,
            shared_object_input: draft.path(INPUT, &so_path, shared_object),
            sources: Vec::new(),
            artifact: vec![draft.path(&format!("artifact-{name}"), &so_path, shared_object)],
            profiles: vec![Vec::new(); HEADER_PROFILES],
            name,
        };
        for index in 0..shape.headers {
            library.add_header(draft, shape, number, index, rng);
        }
        for unit in 0..4 {
            let path = format!("src/unit_{unit}.c");
            let content = if unit == 0 { String::new() } else { text(&format!("{element} {path}")) };
            let file = draft.file(format!("{element} {path}"), Some(content));
            library.sources.push(draft.path(&format!("sources-{}", library.name), &path, file));
        }
        library
    }

    fn add_header(&mut self, draft: &mut Draft, shape: &Shape, number: usize, index: usize, rng: &mut fastrand::Rng) {
        let name = self.name.clone();
        let verbatim = |file: &str| Kind::Verbatim(text(&format!("{name} {file}")));
        let (file_name, kind) = match index {
            0 => ("core.h".to_owned(), Kind::Verbatim(core_text(number))),
            1 => ("config.h".to_owned(), Kind::Generated),
            2 => ("empty.h".to_owned(), Kind::Verbatim(String::new())),
            3 => ("version.h".to_owned(), Kind::Generated),
            4 => ("stub.h".to_owned(), Kind::Verbatim(STUB.to_owned())),
            5 if number < SHARING => ("platform.h".to_owned(), Kind::Verbatim(text("platform of several libraries"))),
            _ => {
                let file = format!("header_{index:02}.h");
                let kind = verbatim(&file);
                (file, kind)
            }
        };
        let relative = format!("{}{file_name}", DIRECTORIES[index % DIRECTORIES.len()]);
        let label = format!("{name}.bst usr/include/{name}/{relative}");
        let sources = format!("sources-{name}");
        let header = match kind {
            Kind::Verbatim(content) => {
                let file = draft.file(label, Some(content));
                self.sources.push(draft.path(&sources, &format!("include/{name}/{relative}"), file));
                Header { file, template: None }
            }
            Kind::Generated => {
                let path = format!("include/{name}/{relative}.in");
                let template = draft.file(format!("{name}.bst {path}"), Some(text(&format!("{name} {path}"))));
                self.sources.push(draft.path(&sources, &path, template));
                let content = text(&format!("{name} generated {relative}"));
                Header { file: draft.file(label, Some(content)), template: Some(template) }
            }
        };
        let staged = format!("usr/include/{name}/{relative}");
        self.artifact.push(draft.path(&format!("artifact-{name}"), &staged, header.file));
        let input = draft.path(INPUT, &staged, header.file);
        for profile in &mut self.profiles {
            if index == 0 || percent(rng, shape.header_percent) {
                profile.push(input);
            }
        }
        self.headers.push(header);
    }
}

/// The text of a library's core header, which the element has a vendored copy of.
pub(super) fn core_text(number: usize) -> String {
    text(&format!("core header of library {number}"))
}
