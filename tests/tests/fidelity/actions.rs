//! What an action is about, read from the storage of a cache directory.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use prost::Message;
use reapi_proto::Digest;
use reapi_proto::v2::{Action, Command, Directory};

use super::{Outcome, because, fail};

/// How many differences are told.
const TOLD: usize = 6;

/// The actions in a cache directory.
pub(crate) struct Actions {
    objects: PathBuf,
    trees: RefCell<BTreeMap<String, Rc<Tree>>>,
}

/// Paths, and in words what is there.
type Tree = BTreeMap<String, String>;

/// An action, unfolded.
pub(crate) struct Unfolded {
    pub(crate) command: Command,
    platform: Vec<(String, String)>,
    root: String,
}

impl Actions {
    pub(crate) fn of(cache: &Path) -> Self {
        Self { objects: cache.join("cas/objects"), trees: RefCell::default() }
    }

    pub(crate) fn read(&self, digest: &Digest) -> Outcome<Unfolded> {
        let action: Action = self.message(&digest.to_string())?;
        let command = self.message(&hash(action.command_digest.as_ref()))?;
        let platform = action.platform.unwrap_or_default().properties;
        let platform = platform.into_iter().map(|property| (property.name, property.value)).collect();
        Ok(Unfolded { command, platform, root: hash(action.input_root_digest.as_ref()) })
    }

    fn message<M: Message + Default>(&self, digest: &str) -> Outcome<M> {
        let hash = digest.split('/').next().unwrap_or_default();
        if hash.len() < 3 {
            return fail("a message without a digest");
        }
        let bytes = fs::read(self.objects.join(&hash[..2]).join(&hash[2..])).map_err(because(digest))?;
        M::decode(&bytes[..]).map_err(because(digest))
    }

    fn tree(&self, root: &str) -> Outcome<Rc<Tree>> {
        if let Some(tree) = self.trees.borrow().get(root) {
            return Ok(Rc::clone(tree));
        }
        let directory: Directory = self.message(root)?;
        let mut tree = Tree::new();
        for file in directory.files {
            let executable = if file.is_executable { ", executable" } else { "" };
            tree.insert(file.name, format!("{}{executable}", hash(file.digest.as_ref())));
        }
        for link in directory.symlinks {
            tree.insert(link.name, format!("link to {}", link.target));
        }
        for below in directory.directories {
            let inside = self.tree(&hash(below.digest.as_ref()))?;
            if inside.is_empty() {
                tree.insert(below.name.clone(), "empty directory".to_owned());
            }
            tree.extend(inside.iter().map(|(path, what)| (format!("{}/{path}", below.name), what.clone())));
        }
        let tree = Rc::new(tree);
        self.trees.borrow_mut().insert(root.to_owned(), Rc::clone(&tree));
        Ok(tree)
    }

    /// Where the second action differs from the first, in words: the command, then the inputs.
    pub(crate) fn differences(&self, first: &Unfolded, second: &Unfolded) -> Outcome<Vec<String>> {
        let mut found = Vec::new();
        let (old, new) = (&first.command, &second.command);
        let words = old.arguments.iter().map(Some).chain(std::iter::repeat(None));
        let words = words.zip(new.arguments.iter().map(Some).chain(std::iter::repeat(None)));
        for (old, new) in words.take(old.arguments.len().max(new.arguments.len())).filter(|(old, new)| old != new) {
            found.push(format!("argument {} -> {}", word(old), word(new)));
        }
        if old.working_directory != new.working_directory {
            found.push(format!("working directory {} -> {}", old.working_directory, new.working_directory));
        }
        if old.environment_variables != new.environment_variables {
            found.push("environment".to_owned());
        }
        if old.output_paths != new.output_paths {
            found.push(format!("outputs {:?} -> {:?}", old.output_paths, new.output_paths));
        }
        if first.platform != second.platform {
            found.push("platform".to_owned());
        }
        let (old, new) = (self.tree(&first.root)?, self.tree(&second.root)?);
        found.extend(new.keys().filter(|path| !old.contains_key(*path)).map(|path| format!("+ {path}")));
        found.extend(old.keys().filter(|path| !new.contains_key(*path)).map(|path| format!("- {path}")));
        let changed = old.iter().filter(|(path, what)| new.get(*path).is_some_and(|now| now != *what));
        found.extend(changed.map(|(path, _)| format!("~ {path}")));
        Ok(found)
    }
}

/// The first few of a list.
pub(crate) fn some_of(mut list: Vec<String>) -> Vec<String> {
    let more = list.len().saturating_sub(TOLD);
    list.truncate(TOLD);
    if more > 0 {
        list.push(format!("and {more} more"));
    }
    list
}

fn word(word: Option<&String>) -> &str {
    word.map_or("nothing", String::as_str)
}

fn hash(digest: Option<&reapi_proto::v2::Digest>) -> String {
    digest.map(|digest| digest.hash.clone()).unwrap_or_default()
}

impl Unfolded {
    /// Where it runs and what it makes: what stays the same while inputs change.
    pub(crate) fn place(&self) -> (String, Vec<String>) {
        let mut outputs = self.command.output_paths.clone();
        outputs.sort();
        (self.command.working_directory.clone(), outputs)
    }

    /// Whether names in it are new in every build: nobody can predict those.
    pub(crate) fn has_random_names(&self) -> bool {
        let command = &self.command;
        let mut texts = command.arguments.iter().chain(&command.output_paths).chain([&command.working_directory]);
        texts.any(|text| text.contains("TryCompile-") || text.contains("cmTC_"))
    }
}
