//! What a workload consists of, apart from contents: elements, files, paths and the inputs of every action.

use super::namespace::{FileId, Namespace, PlaceId, id};
use super::shape::{HEADER_PROFILES, SYSTEM_DIRECTORIES, SYSTEM_PROFILES, Shape};

mod library;
mod module;

pub(super) use library::Library;

/// The project of all elements.
pub(super) const PROJECT: &str = "proj";
/// Where `app.bst` builds, and the working directory of its actions.
pub(super) const WORKING_DIRECTORY: &str = "buildstream/proj/app.bst";
/// The tree family of action inputs.
const INPUT: &str = "input";

/// The text of all stubs, wherever they are.
pub(super) const STUB: &str = "#pragma once\n";

/// A file of an element or an output of an action.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// Its text in the old state; `None` for outputs of actions, which depend on the action.
    pub(super) text: Option<String>,
    pub(super) is_executable: bool,
    /// Element and path: what makes a changed text unlike all others.
    pub(super) label: String,
}

/// One element, dependencies by index.
#[derive(Clone, Debug)]
pub(super) struct ElementSpec {
    pub(super) name: String,
    pub(super) build_deps: Vec<usize>,
    /// Places of the sources, ascending.
    pub(super) sources: Vec<PlaceId>,
    /// Places of the artifact, ascending.
    pub(super) artifact: Vec<PlaceId>,
}

/// One action of `app.bst`.
#[derive(Clone, Debug)]
pub(super) struct ActionSpec {
    pub(super) arguments: Vec<String>,
    /// Places of the input files, ascending.
    pub(super) inputs: Vec<PlaceId>,
    pub(super) output: FileId,
    /// Relative to the working directory.
    pub(super) output_path: String,
    /// How long it ran.
    pub(super) milliseconds: u32,
}

/// Everything but contents.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) namespace: Namespace,
    pub(super) files: Vec<File>,
    /// `sdk.bst`, the libraries, `app.bst`.
    pub(super) elements: Vec<ElementSpec>,
    pub(super) libraries: Vec<Library>,
    /// The files of `sdk.bst`.
    pub(super) system: Vec<FileId>,
    /// Compiles, then archives and links.
    pub(super) actions: Vec<ActionSpec>,
    compiles: usize,
}

impl Layout {
    pub(super) fn generate(shape: &Shape, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut draft = Draft::default();

        let system = System::draft(&mut draft, shape, &mut rng);
        let libraries: Vec<Library> =
            (0..shape.dependencies).map(|number| Library::draft(&mut draft, shape, number, &mut rng)).collect();
        let application = module::Application::draft(&mut draft, shape, &libraries, &mut rng);

        let (namespace, place_of) = Namespace::new(&draft.paths);
        let resolve = |paths: &[PathIndex]| {
            let mut places: Vec<PlaceId> = paths.iter().map(|path| place_of[*path]).collect();
            places.sort_unstable();
            places
        };
        let actions = application.actions(&system.profiles, &libraries, &resolve);

        let mut elements = vec![ElementSpec {
            name: "sdk.bst".into(),
            build_deps: Vec::new(),
            sources: resolve(&system.artifact),
            artifact: resolve(&system.artifact),
        }];
        elements.extend(libraries.iter().map(|library| ElementSpec {
            name: format!("{}.bst", library.name),
            build_deps: vec![0],
            sources: resolve(&library.sources),
            artifact: resolve(&library.artifact),
        }));
        elements.push(ElementSpec {
            name: "app.bst".into(),
            build_deps: (0..=libraries.len()).collect(),
            sources: resolve(&application.sources),
            artifact: resolve(&application.artifact),
        });
        Self {
            namespace,
            files: draft.files,
            elements,
            libraries,
            system: system.files,
            actions,
            compiles: shape.compiles,
        }
    }

    pub(super) fn compiles(&self) -> usize {
        self.compiles
    }
}

/// Index into [`Draft::paths`], until places are numbered.
type PathIndex = usize;

/// Files and paths while they are still being invented.
#[derive(Default)]
struct Draft {
    files: Vec<File>,
    paths: Vec<(String, FileId)>,
}

impl Draft {
    fn file(&mut self, label: String, text: Option<String>) -> FileId {
        self.files.push(File { text, is_executable: false, label });
        id(self.files.len() - 1)
    }

    fn executable(&mut self, label: String, text: Option<String>) -> FileId {
        self.files.push(File { text, is_executable: true, label });
        id(self.files.len() - 1)
    }

    fn path(&mut self, family: &str, path: &str, file: FileId) -> PathIndex {
        self.paths.push((format!("{family}/{path}"), file));
        self.paths.len() - 1
    }
}

/// A text of some 100 to 900 bytes that no other label has.
fn text(label: &str) -> String {
    let mut text = format!("/* {label} */\n");
    // Any spread of sizes will do; the label's own bytes give a stable one.
    let lines = 2 + label.bytes().fold(0_usize, |sum, byte| (sum * 31 + usize::from(byte)) % 25);
    for line in 0..lines {
        text.push_str(&format!("extern int declaration_{line:02}(void);\n"));
    }
    text
}

/// The system import: sources and artifact are the same tree.
struct System {
    files: Vec<FileId>,
    artifact: Vec<PathIndex>,
    /// Input paths of each profile.
    profiles: Vec<Vec<PathIndex>>,
}

impl System {
    fn draft(draft: &mut Draft, shape: &Shape, rng: &mut fastrand::Rng) -> Self {
        let mut system = Self { files: Vec::new(), artifact: Vec::new(), profiles: vec![Vec::new(); SYSTEM_PROFILES] };
        for directory in SYSTEM_DIRECTORIES {
            for number in 0..shape.system_files {
                let (name, content) = match number {
                    0 => ("empty.h".to_owned(), String::new()),
                    1 => ("stub.h".to_owned(), STUB.to_owned()),
                    _ => (format!("types_{number:02}.h"), text(&format!("sdk {directory} {number}"))),
                };
                let path = format!("usr/include/{directory}/{name}");
                let file = draft.file(format!("sdk.bst {path}"), Some(content));
                system.files.push(file);
                system.artifact.push(draft.path("sdk", &path, file));
                let input = draft.path(INPUT, &path, file);
                // The third file stands for what everybody includes.
                for profile in &mut system.profiles {
                    if number == 2 || percent(rng, shape.system_percent) {
                        profile.push(input);
                    }
                }
            }
        }
        system
    }
}

fn percent(rng: &mut fastrand::Rng, percent: u8) -> bool {
    rng.u8(0..100) < percent
}
