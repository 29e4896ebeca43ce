//! Why BuildStream did not answer.

use std::io;
use std::time::Duration;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum IntrospectError {
    /// A path of the request cannot be passed on.
    #[error("the project's directory or the configuration file cannot be passed on")]
    Directory {
        /// Why not.
        source: io::Error,
    },
    /// The interpreter cannot be started.
    #[error("{interpreter} cannot be started")]
    Start {
        /// The interpreter.
        interpreter: String,
        /// Why not.
        source: io::Error,
    },
    /// The interpreter does not have BuildStream.
    #[error("BuildStream is not installed for {interpreter}: {message}")]
    Absent {
        /// The interpreter.
        interpreter: String,
        /// What Python says.
        message: String,
    },
    /// A version that is not known, and [`VersionPolicy::Refuse`](super::VersionPolicy::Refuse).
    #[error("BuildStream {version} is not a version that is known here ({})", super::known_versions())]
    UnknownVersion {
        /// The version.
        version: String,
    },
    /// BuildStream's private interface is not the one that is used here.
    #[error("BuildStream {version} cannot be asked: {message}")]
    Incompatible {
        /// The version.
        version: String,
        /// What is different.
        message: String,
        /// Where it was missed: a Python traceback.
        detail: String,
    },
    /// BuildStream refuses: the configuration, the project or an element does not load.
    #[error("BuildStream says: {message}")]
    Refused {
        /// What it says.
        message: String,
        /// What else it says; may be empty.
        detail: String,
    },
    /// It took too long.
    #[error("BuildStream did not answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// The helper ended without an answer, or answered something else.
    #[error("no answer from BuildStream: {reason}{}", shown(.output))]
    Broken {
        /// What happened.
        reason: String,
        /// The end of what was printed; may be empty.
        output: String,
    },
}

fn shown(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!("; it printed: {output}") }
}
