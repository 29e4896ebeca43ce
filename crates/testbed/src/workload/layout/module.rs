//! The element itself: modules of sources, own headers, objects, archives and programs.

use super::library::core_text;
use super::{
    ActionSpec, Draft, FileId, HEADER_PROFILES, INPUT, Library, PathIndex, PlaceId, STUB, SYSTEM_PROFILES, Shape,
    WORKING_DIRECTORY, percent, text,
};

/// Own header directories that all modules share, below the element's root.
const SHARED_DIRECTORIES: [&str; 3] = ["include/app", "include/app/core", "include/app/util"];
/// The library that about half of the modules use, and whose core header is vendored.
const POPULAR: usize = 0;

/// `app.bst` before places are numbered.
pub(super) struct Application {
    pub(super) sources: Vec<PathIndex>,
    pub(super) artifact: Vec<PathIndex>,
    compiles: Vec<Compile>,
    links: Vec<Link>,
}

struct Module {
    directory: String,
    /// Ascending.
    libraries: Vec<usize>,
    headers: [Vec<PathIndex>; 2],
    vendored: Option<PathIndex>,
    objects: Vec<PathIndex>,
    object_paths: Vec<String>,
}

/// What a source includes from outside of the element.
#[derive(Clone)]
struct Includes {
    system_profile: usize,
    /// Library and profile.
    libraries: Vec<(usize, usize)>,
}

struct Compile {
    own: Vec<PathIndex>,
    includes: Includes,
    source_path: String,
    output: FileId,
    output_path: String,
    milliseconds: u32,
}

struct Link {
    objects: Vec<PathIndex>,
    arguments: Vec<String>,
    /// Empty for archives.
    libraries: Vec<usize>,
    output: FileId,
    output_path: String,
    milliseconds: u32,
}

impl Application {
    pub(super) fn draft(draft: &mut Draft, shape: &Shape, libraries: &[Library], rng: &mut fastrand::Rng) -> Self {
        let mut application =
            Self { sources: Vec::new(), artifact: Vec::new(), compiles: Vec::new(), links: Vec::new() };
        let [_, _, shared @ ..] = shape.own_headers;
        let shared: Vec<Vec<PathIndex>> = SHARED_DIRECTORIES
            .iter()
            .zip(shared)
            .map(|(directory, count)| application.headers(draft, directory, count))
            .collect();
        let vendored = application.own_file(draft, "vendor/dep00/core.h", core_text(POPULAR));

        let mut modules = Vec::new();
        for number in 0..shape.compiles.div_ceil(shape.module_sources) {
            let directory = format!("src/mod{number:03}");
            let mut module = Module {
                libraries: pick_libraries(shape, number, rng),
                headers: [
                    application.headers(draft, &directory, shape.own_headers[0]),
                    application.headers(draft, &format!("{directory}/detail"), shape.own_headers[1]),
                ],
                // Every second one of the modules that see the library's own copy, too.
                vendored: (number % 4 == 1).then_some(vendored),
                objects: Vec::new(),
                object_paths: Vec::new(),
                directory,
            };
            let mut includes = None;
            for source in 0..shape.module_sources {
                if application.compiles.len() < shape.compiles {
                    application.add_compile(draft, shape, &mut module, &shared, source, &mut includes, rng);
                }
            }
            modules.push(module);
        }
        for number in 0..shape.links {
            let members = &modules[number * modules.len() / shape.links..(number + 1) * modules.len() / shape.links];
            application.add_link(draft, number, members, libraries, rng);
        }
        application
    }

    /// A file of the element: at the same relative path in its sources and in its actions.
    fn own_file(&mut self, draft: &mut Draft, path: &str, content: String) -> PathIndex {
        let file = draft.file(format!("app.bst {path}"), Some(content));
        self.sources.push(draft.path("sources-app", path, file));
        draft.path(INPUT, &format!("{WORKING_DIRECTORY}/{path}"), file)
    }

    fn headers(&mut self, draft: &mut Draft, directory: &str, count: usize) -> Vec<PathIndex> {
        (0..count)
            .map(|number| {
                let (name, content) = match number {
                    1 => ("empty.h".to_owned(), String::new()),
                    2 => ("stub.h".to_owned(), STUB.to_owned()),
                    _ => (format!("own_{number:02}.h"), text(&format!("app {directory} {number}"))),
                };
                self.own_file(draft, &format!("{directory}/{name}"), content)
            })
            .collect()
    }

    #[allow(clippy::too_many_arguments, reason = "everything that one source depends on")]
    fn add_compile(
        &mut self,
        draft: &mut Draft,
        shape: &Shape,
        module: &mut Module,
        shared: &[Vec<PathIndex>],
        number: usize,
        previous: &mut Option<Includes>,
        rng: &mut fastrand::Rng,
    ) {
        let stem = format!("{}/part_{number:02}", module.directory);
        let (source_path, output_path) = (format!("{stem}.c"), format!("{stem}.o"));
        let mut own = vec![self.own_file(draft, &source_path, text(&format!("app {source_path}")))];
        own.extend(module.vendored);
        for header in module.headers.iter().chain(shared).flatten() {
            if percent(rng, shape.own_percent) {
                own.push(*header);
            }
        }
        let includes = match previous.take() {
            Some(same) if percent(rng, shape.repeat_percent) => same,
            _ => Includes {
                system_profile: rng.usize(0..SYSTEM_PROFILES),
                libraries: module.libraries.iter().map(|library| (*library, rng.usize(0..HEADER_PROFILES))).collect(),
            },
        };
        *previous = Some(includes.clone());
        let output = draft.file(format!("app.bst {output_path}"), None);
        module.objects.push(draft.path(INPUT, &format!("{WORKING_DIRECTORY}/{output_path}"), output));
        module.object_paths.push(output_path.clone());
        self.compiles.push(Compile {
            own,
            includes,
            source_path,
            output,
            output_path,
            milliseconds: rng.u32(200..4000),
        });
    }

    fn add_link(
        &mut self,
        draft: &mut Draft,
        number: usize,
        modules: &[Module],
        libraries: &[Library],
        rng: &mut fastrand::Rng,
    ) {
        let objects = modules.iter().flat_map(|module| module.object_paths.iter().cloned());
        let mut used: Vec<usize> = Vec::new();
        let (output_path, arguments) = if number % 2 == 1 {
            let output_path = format!("lib/libpart_{number:02}.a");
            let mut arguments = vec!["/usr/bin/ar".to_owned(), "rcs".to_owned(), output_path.clone()];
            arguments.extend(objects);
            (output_path, arguments)
        } else {
            used.extend(modules.iter().flat_map(|module| &module.libraries));
            used.sort_unstable();
            used.dedup();
            let output_path = format!("bin/program_{number:02}");
            let mut arguments = vec!["/usr/bin/gcc".to_owned(), "-o".to_owned(), output_path.clone()];
            arguments.extend(objects);
            arguments.extend(used.iter().map(|library| format!("-l{}", libraries[*library].name)));
            (output_path, arguments)
        };
        let label = format!("app.bst {output_path}");
        let output = if used.is_empty() { draft.file(label, None) } else { draft.executable(label, None) };
        self.artifact.push(draft.path("artifact-app", &format!("usr/{output_path}"), output));
        self.links.push(Link {
            objects: modules.iter().flat_map(|module| module.objects.iter().copied()).collect(),
            arguments,
            libraries: used,
            output,
            output_path,
            milliseconds: rng.u32(500..6000),
        });
    }

    /// All actions in the order in which they run: compiles first.
    pub(super) fn actions(
        &self,
        system_profiles: &[Vec<PathIndex>],
        libraries: &[Library],
        resolve: &impl Fn(&[PathIndex]) -> Vec<PlaceId>,
    ) -> Vec<ActionSpec> {
        let compiles = self.compiles.iter().map(|compile| {
            let mut inputs = compile.own.clone();
            inputs.extend_from_slice(&system_profiles[compile.includes.system_profile]);
            for &(library, profile) in &compile.includes.libraries {
                inputs.extend_from_slice(&libraries[library].profiles[profile]);
            }
            let arguments = ["/usr/bin/gcc", "-O2", "-Iinclude", "-Ivendor", "-c", &compile.source_path, "-o"];
            ActionSpec {
                arguments: arguments.into_iter().chain([compile.output_path.as_str()]).map(str::to_owned).collect(),
                inputs: resolve(&inputs),
                output: compile.output,
                output_path: compile.output_path.clone(),
                milliseconds: compile.milliseconds,
            }
        });
        let links = self.links.iter().map(|link| {
            let mut inputs = link.objects.clone();
            inputs.extend(link.libraries.iter().map(|library| libraries[*library].shared_object_input));
            ActionSpec {
                arguments: link.arguments.clone(),
                inputs: resolve(&inputs),
                output: link.output,
                output_path: link.output_path.clone(),
                milliseconds: link.milliseconds,
            }
        });
        compiles.chain(links).collect()
    }
}

/// The libraries of a module: the popular one in every second module, others at random.
fn pick_libraries(shape: &Shape, module: usize, rng: &mut fastrand::Rng) -> Vec<usize> {
    let (least, most) = shape.module_dependencies;
    let count = rng.usize(least..=most);
    let mut picked = rng.choose_multiple(1..shape.dependencies, count);
    if module % 2 == 1 {
        picked.pop();
        picked.push(POPULAR);
    }
    picked.sort_unstable();
    picked
}
