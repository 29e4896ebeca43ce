//! Actions as recc shapes them: no salt, no time limit; environment, output
//! paths, a working directory without a leading slash, the platform twice.

use std::path::{Path, PathBuf};

use cas_client::Blob;
use prost::Message;
use reapi_proto::{Digest, DigestFunction, v2};

use super::{Element, Error, FileTree, Product, Project};

/// The C compiler that actions call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Toolchain {
    cc: String,
    path: String,
}

impl Toolchain {
    /// The `cc` of this machine: the first in the process's PATH.
    ///
    /// # Errors
    /// [`Error::NoCompiler`].
    pub fn find() -> Result<Self, Error> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join("cc"))
            .find(|cc| is_executable(cc))
            .and_then(|cc: PathBuf| cc.to_str().map(Self::at))
            .ok_or(Error::NoCompiler)
    }

    /// The compiler at this absolute path.
    #[must_use]
    pub fn at(cc: &str) -> Self {
        let folder = cc.rsplit_once('/').map_or("", |(folder, _)| folder);
        // The compiler's own folder first: it calls the assembler and linker beside it.
        let mut path = String::new();
        for folder in [folder, "/usr/local/bin", "/usr/bin", "/bin"] {
            if !folder.is_empty() && !path.split(':').any(|f| f == folder) {
                if !path.is_empty() {
                    path.push(':');
                }
                path.push_str(folder);
            }
        }
        Self { cc: cc.to_owned(), path }
    }

    /// Everything about it that actions depend on, for keys.
    pub(super) fn describe(&self) -> impl Iterator<Item = String> {
        [self.cc.clone(), self.path.clone()].into_iter().chain(COMPILE_FLAGS.iter().map(|&f| f.to_owned()))
    }
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// No debug information: it would hold the absolute build directory.
const COMPILE_FLAGS: [&str; 4] = ["-O1", "-g0", "-fPIC", "-Wall"];

/// From a working directory up to the root where dependencies are staged.
const UP: &str = "../../..";

/// An action with all messages that it consists of.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) digest: Digest,
    /// Action, Command and Directories.
    pub(super) blobs: Vec<Blob>,
    /// The one path that it makes.
    pub(super) output: String,
}

/// The working directory of an element's actions.
pub(super) fn working_directory(project: &Project, element: &Element) -> String {
    format!("buildstream/{}/{}", project.name, element.name)
}

/// Folders that the compiler searches, from the root of the tree; the flags of [`compile`] say the same.
pub(super) fn include_folders(project: &Project, element: &Element) -> [String; 2] {
    [format!("{}/include", working_directory(project, element)), "usr/include".to_owned()]
}

/// The object of a C file, relative to the working directory.
pub(super) fn object_path(source: &str) -> String {
    let name = source.rsplit_once('/').map_or(source, |(_, name)| name);
    format!("obj/{}.o", name.strip_suffix(".c").unwrap_or(name))
}

/// Compiles one C file.
pub(super) fn compile(
    project: &Project,
    element: &Element,
    source: &str,
    inputs: &FileTree,
    function: DigestFunction,
) -> Result<Prepared, Error> {
    let output = object_path(source);
    let mut arguments: Vec<String> = COMPILE_FLAGS.iter().map(|&f| f.to_owned()).collect();
    arguments.extend(["-Iinclude".to_owned(), format!("-I{UP}/usr/include")]);
    arguments.extend(["-c", source, "-o", &output].map(str::to_owned));
    prepare(project, element, arguments, output, inputs, function)
}

/// Links the objects of an element with the libraries that it depends on.
pub(super) fn link(
    project: &Project,
    element: &Element,
    objects: &[String],
    inputs: &FileTree,
    function: DigestFunction,
) -> Result<Prepared, Error> {
    let output = element.product_path();
    // The identity of the output must not depend on more than its contents.
    let mut arguments = vec!["-Wl,--build-id=none".to_owned()];
    match element.product {
        Product::Library => arguments.extend(["-shared".to_owned(), format!("-Wl,-soname,{output}")]),
        Product::Program => arguments.push("-Wl,-rpath,$ORIGIN/../lib".to_owned()),
    }
    arguments.extend(["-o".to_owned(), output.clone()]);
    arguments.extend_from_slice(objects);
    // The linker resolves from left to right: dependents before what they depend on.
    let libraries = project.closure(element).into_iter().rev().filter(|d| d.product == Product::Library);
    arguments.extend(libraries.map(|d| format!("{UP}/{}", d.staged_product_path())));
    prepare(project, element, arguments, output, inputs, function)
}

fn prepare(
    project: &Project,
    element: &Element,
    arguments: Vec<String>,
    output: String,
    inputs: &FileTree,
    function: DigestFunction,
) -> Result<Prepared, Error> {
    let invalid = |e: reapi_proto::raw::RawError| Error::project(&element.name, e.to_string());
    let (root, mut blobs) = inputs.encode(function).map_err(invalid)?;
    let mut properties: Vec<v2::platform::Property> = project
        .platform
        .iter()
        .map(|(name, value)| v2::platform::Property { name: name.clone(), value: value.clone() })
        .collect();
    properties.sort_by(|a, b| (&a.name, &a.value).cmp(&(&b.name, &b.value)));
    let platform = Some(v2::Platform { properties });
    let Toolchain { cc, path } = &project.toolchain;
    let environment = [("LC_ALL", "C"), ("PATH", path.as_str()), ("SOURCE_DATE_EPOCH", "1320937200")];
    #[allow(deprecated, reason = "recc sets the platform of the Command as well, for older services")]
    let command = v2::Command {
        arguments: std::iter::once(cc.clone()).chain(arguments).collect(),
        environment_variables: environment
            .map(|(name, value)| v2::command::EnvironmentVariable { name: name.to_owned(), value: value.to_owned() })
            .to_vec(),
        output_paths: vec![output.clone()],
        working_directory: working_directory(project, element),
        platform: platform.clone(),
        ..Default::default()
    };
    let command = Blob::new(function, command.encode_to_vec());
    let action = v2::Action {
        command_digest: Some(command.digest().into()),
        input_root_digest: Some(root.into()),
        platform,
        ..Default::default()
    };
    let action = Blob::new(function, action.encode_to_vec());
    let digest = action.digest();
    blobs.extend([command, action]);
    Ok(Prepared { digest, blobs, output })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_holds_each_folder_once() {
        assert_eq!(Toolchain::at("/usr/bin/cc").path, "/usr/bin:/usr/local/bin:/bin");
        assert_eq!(Toolchain::at("/opt/cc").path, "/opt:/usr/local/bin:/usr/bin:/bin");
    }

    #[test]
    fn objects_are_named_after_their_sources() {
        assert_eq!(object_path("src/vector.c"), "obj/vector.o");
        assert_eq!(object_path("x"), "obj/x.o");
    }
}
