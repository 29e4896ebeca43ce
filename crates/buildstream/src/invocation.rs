//! The global options of `bst` that decide what a project looks like.

use std::ffi::OsString;
use std::path::PathBuf;

/// Whether elements are rebuilt whenever a dependency has changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Strictness {
    /// As BuildStream's configuration says for the project.
    #[default]
    Configured,
    /// `--strict`.
    Strict,
    /// `--no-strict`: an artifact with the right weak key will do.
    NotStrict,
}

/// Which project, and how `bst` is to look at it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Invocation {
    /// The project's directory or one below it. Relative to the current directory, like `config`.
    pub directory: PathBuf,
    /// The user configuration; BuildStream's own choice if `None`.
    pub config: Option<PathBuf>,
    /// Project options: names and values.
    pub options: Vec<(String, String)>,
    /// Whether elements are rebuilt whenever a dependency has changed.
    pub strictness: Strictness,
    /// The mirror to prefer.
    pub default_mirror: Option<String>,
    /// Global options that only matter to `bst` itself, as given.
    pub further: Vec<String>,
}

/// An option of `bst` lacks its value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` of bst needs a value")]
pub struct MissingValue(String);

/// Global options of `bst` with a value, beyond those that are understood here.
const WITH_VALUE: [&str; 10] = [
    "--on-error",
    "--fetchers",
    "--builders",
    "--pushers",
    "--max-jobs",
    "--network-retries",
    "--error-lines",
    "--message-lines",
    "--log-file",
    "--cache-buildtrees",
];

impl Invocation {
    /// The project in this directory, or above it.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), ..Self::default() }
    }

    /// Takes in global options of `bst`; later ones win over earlier ones, as they do there.
    ///
    /// # Errors
    /// [`MissingValue`] at the end of the list. Options that `bst` does not
    /// have are kept: it will say so itself.
    pub fn with_options(mut self, options: impl IntoIterator<Item = String>) -> Result<Self, MissingValue> {
        let mut options = options.into_iter();
        while let Some(option) = options.next() {
            let (name, mut attached) = attached_value(&option);
            let mut value = || attached.take().or_else(|| options.next()).ok_or_else(|| MissingValue(name.clone()));
            match name.as_str() {
                "--strict" => self.strictness = Strictness::Strict,
                "--no-strict" => self.strictness = Strictness::NotStrict,
                "-c" | "--config" => self.config = Some(value()?.into()),
                "-C" | "--directory" => self.directory = value()?.into(),
                "-o" | "--option" => {
                    let name = value()?;
                    self.options.push((name, value()?));
                }
                "--default-mirror" => self.default_mirror = Some(value()?),
                other if WITH_VALUE.contains(&other) => {
                    let value = value()?;
                    self.further.extend([name.clone(), value]);
                }
                _ => self.further.push(option),
            }
        }
        Ok(self)
    }

    /// All of it as arguments of `bst`, to stand before a command.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--directory".into(), self.directory.clone().into()];
        if let Some(config) = &self.config {
            arguments.extend(["--config".into(), config.clone().into()]);
        }
        for (name, value) in &self.options {
            arguments.extend(["--option".into(), name.into(), value.into()]);
        }
        match self.strictness {
            Strictness::Configured => {}
            Strictness::Strict => arguments.push("--strict".into()),
            Strictness::NotStrict => arguments.push("--no-strict".into()),
        }
        if let Some(mirror) = &self.default_mirror {
            arguments.extend(["--default-mirror".into(), mirror.into()]);
        }
        arguments.extend(self.further.iter().map(OsString::from));
        arguments
    }
}

/// `--name=value` and `-nvalue` in two parts.
fn attached_value(option: &str) -> (String, Option<String>) {
    let parts = match option.split_at_checked(2) {
        Some(("-c" | "-C" | "-o", value)) if !value.is_empty() => Some(option.split_at(2)),
        Some(("--", _)) => option.split_once('='),
        _ => None,
    };
    match parts {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (option.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_of_bst_are_understood_or_passed_on() {
        let given = "--no-strict -oarch x86 --option debug True --builders 3 --config=my.conf --on-error --strict \
                     --verbose --default-mirror near -C elsewhere --max-jobs=2";
        let invocation = Invocation::new(".").with_options(words(given)).unwrap();
        let expected = Invocation {
            directory: "elsewhere".into(),
            config: Some("my.conf".into()),
            options: vec![("arch".into(), "x86".into()), ("debug".into(), "True".into())],
            strictness: Strictness::NotStrict,
            default_mirror: Some("near".into()),
            further: words("--builders 3 --on-error --strict --verbose --max-jobs 2"),
        };
        assert_eq!(invocation, expected);
        let arguments = "--directory elsewhere --config my.conf --option arch x86 --option debug True --no-strict \
                         --default-mirror near --builders 3 --on-error --strict --verbose --max-jobs 2";
        assert_eq!(invocation.arguments(), words(arguments).into_iter().map(OsString::from).collect::<Vec<_>>());
    }

    #[test]
    fn a_value_that_is_missing_is_named() {
        for (given, name) in
            [("--strict -o", "-o"), ("-o a", "-o"), ("--config", "--config"), ("--builders", "--builders")]
        {
            assert_eq!(Invocation::default().with_options(words(given)), Err(MissingValue(name.into())));
        }
    }

    proptest! {
        #[test]
        fn arguments_say_the_same_again(
            given in prop::collection::vec("(--)?(strict|no-strict|config|option|builders|x|-c|-o)?(=y)?", 0..8)
        ) {
            if let Ok(invocation) = Invocation::new("p").with_options(given) {
                let arguments = invocation.arguments().into_iter().map(|a| a.into_string().unwrap());
                prop_assert_eq!(Invocation::default().with_options(arguments), Ok(invocation));
            }
        }
    }
}
