//! Asking BuildStream about a project.
//!
//! Keys, cached states and configuration are BuildStream's own business:
//! nothing here computes them. A small program of ours runs inside the
//! interpreter that runs `bst`, loads the project as `bst show` does, and
//! answers in versioned JSON.
//!
//! What that leaves behind is what `bst show` leaves: the contents of `local`
//! sources and workspaces in CAS (their digests are part of the keys), newer
//! modification times of the refs that were looked at, and fetched junctions
//! unless that is [refused](SubprojectPolicy::Refuse). BuildStream needs a daemon of
//! its own for it, which is started without a quota, so that it expires
//! nothing, and logs elsewhere, so that no log of a build is rotated away.
//!
//! The answer takes as long as `bst show`: with BuildStream 2.8.1 on two cores
//! 0.6 s for three elements (half of it for Python to load modules), 6.5 s for
//! a thousand, and 4 s more where `local` sources have 7,700 files for casd to hash.

mod answer;
mod conversation;
mod error;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Serialize;

use crate::installation::Installation;
use crate::invocation::{Invocation, Strictness};
use crate::project::Introspection;
pub use error::IntrospectError;

/// The versions of BuildStream, major and minor number, whose private
/// interface is known to be the one that is used: a release of each was asked
/// about the same project, with the same answer. 2.2 has another interface.
pub const KNOWN_VERSIONS: std::ops::RangeInclusive<(u32, u32)> = (2, 3)..=(2, 8);

/// What to do with a version of BuildStream that is not among [`KNOWN_VERSIONS`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum VersionPolicy {
    /// Ask it, and say so in the warnings. Where its private interface has
    /// changed, the answer is [`IntrospectError::Incompatible`].
    #[default]
    Warn,
    /// Do not.
    Refuse,
}

/// What to do about sources that are not staged in CAS yet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum SourcePolicy {
    /// Report what is there: their digest is unknown.
    #[default]
    AsTheyAre,
    /// Stage those that need no download, and keep the result, as `bst source fetch` does.
    Stage,
}

/// What to do about junctions to projects that were not fetched yet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum SubprojectPolicy {
    /// Fetch them, as every command of `bst` does.
    #[default]
    Fetch,
    /// Give up.
    Refuse,
}

/// What to ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Which project, and how to look at it.
    pub invocation: Invocation,
    /// The elements whose dependencies are asked for; the project's default targets if none.
    pub elements: Vec<String>,
    /// What to do with unknown versions.
    pub versions: VersionPolicy,
    /// What to do about sources that are not staged.
    pub sources: SourcePolicy,
    /// What to do about junctions that are not fetched.
    pub subprojects: SubprojectPolicy,
    /// How long BuildStream may take. It gets some seconds more to stop its daemon.
    pub timeout: Duration,
}

impl Request {
    /// Large projects take BuildStream a minute to load; a junction that has to be fetched takes longer.
    pub const TIMEOUT: Duration = Duration::from_secs(600);

    /// Asks about these elements.
    pub fn new(invocation: Invocation, elements: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            invocation,
            elements: elements.into_iter().map(Into::into).collect(),
            versions: VersionPolicy::default(),
            sources: SourcePolicy::default(),
            subprojects: SubprojectPolicy::default(),
            timeout: Self::TIMEOUT,
        }
    }
}

/// Asks BuildStream.
///
/// Dropping the future closes a pipe, whereupon the interpreter stops its
/// daemon and ends by itself.
///
/// # Errors
/// [`IntrospectError`]; the interpreter has ended then, or was killed.
pub async fn introspect(installation: &Installation, request: &Request) -> Result<Introspection, IntrospectError> {
    let asked = asked(request).map_err(|source| IntrospectError::Directory { source })?;
    let limits = conversation::Limits { timeout: request.timeout, ..conversation::Limits::default() };
    let answer = conversation::converse(installation, &asked, request.versions, limits).await?;
    answer.into_introspection()
}

/// The known versions in words.
fn known_versions() -> String {
    let ((a, b), (c, d)) = (KNOWN_VERSIONS.start(), KNOWN_VERSIONS.end());
    format!("{a}.{b} to {c}.{d}")
}

/// The request as the helper reads it.
#[derive(Serialize)]
struct Asked<'a> {
    directory: String,
    config: Option<String>,
    options: &'a [(String, String)],
    strict: Option<bool>,
    default_mirror: Option<&'a str>,
    elements: &'a [String],
    fetch_subprojects: bool,
    stage_sources: bool,
}

fn asked(request: &Request) -> std::io::Result<String> {
    let Invocation { directory, config, options, strictness, default_mirror, further: _ } = &request.invocation;
    let path = |path: &std::path::Path| {
        let path = if path.as_os_str().is_empty() { std::env::current_dir()? } else { std::path::absolute(path)? };
        path.into_os_string().into_string().map_err(|path| {
            std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("{} is not UTF-8", path.display()))
        })
    };
    let asked = Asked {
        directory: path(directory)?,
        config: config.as_deref().map(path).transpose()?,
        options,
        strict: match strictness {
            Strictness::Configured => None,
            Strictness::Strict => Some(true),
            Strictness::NotStrict => Some(false),
        },
        default_mirror: default_mirror.as_deref(),
        elements: &request.elements,
        fetch_subprojects: request.subprojects == SubprojectPolicy::Fetch,
        stage_sources: request.sources == SourcePolicy::Stage,
    };
    Ok(serde_json::to_string(&asked)?)
}
