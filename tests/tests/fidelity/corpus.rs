//! What is tried: projects, and kinds of change. Data in `tests/fidelity`, one file per project.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Outcome, because, fail};

/// The kinds of change that are tried on one project.
pub(crate) struct Project {
    pub(crate) name: String,
    /// Everything that some kind rebuilds.
    pub(crate) tops: Vec<String>,
    pub(crate) kinds: Vec<Kind>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ProjectFile {
    /// What is rebuilt, unless a kind says otherwise.
    top: String,
    kind: Vec<KindEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct KindEntry {
    name: String,
    about: String,
    top: Option<String>,
    /// What of it nobody can predict from a record, for the reader.
    out_of_reach: Option<String>,
    /// How many actions that is.
    #[serde(default)]
    unreachable: usize,
    /// Whether to measure as well what priming learns while the build goes on.
    #[serde(default)]
    live: bool,
    #[serde(default)]
    quick: bool,
    edits: Vec<Edit>,
}

/// One kind of change.
#[derive(Clone, Serialize)]
pub(crate) struct Kind {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) top: String,
    pub(crate) out_of_reach: Option<String>,
    /// How many actions are out of reach; all others must be predicted.
    pub(crate) unreachable: usize,
    /// Whether it is also built with priming beside the build.
    pub(crate) live: bool,
    pub(crate) quick: bool,
    pub(crate) edits: Vec<Edit>,
}

/// One change of one file, given by its path in the project.
#[derive(Clone, Deserialize, Serialize, Default)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Edit {
    file: PathBuf,
    /// Text that stands there once or more, and what takes its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    replace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    with: Option<String>,
    /// Text that comes before, or after, all that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    prepend: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    append: Option<String>,
    /// The whole content of a new file.
    #[serde(skip_serializing_if = "Option::is_none")]
    create: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rename: Option<PathBuf>,
    /// The target of a link that takes the file's place.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<PathBuf>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    remove: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    executable: bool,
}

pub(crate) fn load(corpus: &Path, project: &str) -> Outcome<Project> {
    let file = corpus.join(format!("{project}.toml"));
    let parsed: ProjectFile = parse(&file)?;
    let kinds: Vec<Kind> = parsed
        .kind
        .into_iter()
        .map(|kind| Kind {
            top: kind.top.unwrap_or_else(|| parsed.top.clone()),
            name: kind.name,
            about: kind.about,
            out_of_reach: kind.out_of_reach,
            unreachable: kind.unreachable,
            live: kind.live,
            quick: kind.quick,
            edits: kind.edits,
        })
        .collect();
    let mut names: Vec<&str> = kinds.iter().map(|kind| kind.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return fail(format!("{}: two kinds are called {}", file.display(), pair[0]));
    }
    let mut tops: Vec<String> = kinds.iter().map(|kind| kind.top.clone()).collect();
    tops.sort();
    tops.dedup();
    Ok(Project { name: project.to_owned(), tops, kinds })
}

fn parse<T: for<'a> Deserialize<'a>>(file: &Path) -> Outcome<T> {
    let text = fs::read_to_string(file).map_err(because(file.display()))?;
    toml::from_str(&text).map_err(because(file.display()))
}

impl Kind {
    pub(crate) fn apply(&self, project: &Path) -> Outcome<()> {
        self.edits.iter().try_for_each(|edit| {
            edit.apply(project).map_err(because(format_args!("{}: {}", self.name, edit.file.display())))
        })
    }
}

impl Edit {
    fn apply(&self, project: &Path) -> Outcome<()> {
        let path = project.join(&self.file);
        if let Some(text) = &self.create {
            if path.exists() {
                return fail("is there already");
            }
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(because("folder"))?;
            }
            fs::write(&path, text).map_err(because("cannot be written"))?;
        } else if self.replace.is_some() || self.prepend.is_some() || self.append.is_some() {
            self.rewrite(&path)?;
        } else if !path.exists() {
            return fail("is not there");
        }
        if self.executable {
            let mode = fs::metadata(&path).map_err(because("mode"))?.permissions().mode();
            fs::set_permissions(&path, PermissionsExt::from_mode(mode | 0o111)).map_err(because("mode"))?;
        }
        if self.remove || self.link.is_some() {
            fs::remove_file(&path).map_err(because("cannot be removed"))?;
        }
        if let Some(target) = &self.link {
            symlink(target, &path).map_err(because("cannot be linked"))?;
        }
        match &self.rename {
            Some(to) => fs::rename(&path, project.join(to)).map_err(because("cannot be renamed")),
            None => Ok(()),
        }
    }

    fn rewrite(&self, path: &Path) -> Outcome<()> {
        let mut text = fs::read_to_string(path).map_err(because("cannot be read"))?;
        match (&self.replace, &self.with) {
            (Some(old), _) if !text.contains(old) => return fail(format!("has no {old:?}")),
            (Some(old), Some(new)) => text = text.replace(old, new),
            (None, None) => {}
            _ => return fail("`replace` and `with` go together"),
        }
        let (before, after) = (self.prepend.as_deref().unwrap_or_default(), self.append.as_deref().unwrap_or_default());
        fs::write(path, format!("{before}{text}{after}")).map_err(because("cannot be written"))
    }
}
