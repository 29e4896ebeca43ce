//! What the outside tells the engine while it runs.

use reapi_proto::Digest;

/// Something that happened in the build. Events may come in any order and repeatedly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The sources of an element are in CAS.
    SourcesAvailable {
        /// The element's name.
        element: String,
        /// Root of its sources.
        root: Digest,
    },
    /// The artifact that the build will use of an element is in CAS.
    ArtifactAvailable {
        /// The element's name.
        element: String,
        /// Root of its artifact.
        root: Digest,
    },
    /// The build sets an element up, and will run its commands soon. Unless priming is told to
    /// [go on](crate::WhenReached::GoOn), what of its actions takes more than half as long as setting up does is left
    /// to the build, which would ask for it, and execute it as well, before priming is done with it: beside the build it
    /// takes longer than it is recorded; what takes half a second at most is tried nevertheless. How long setting up takes, the last element that was reached has shown; one
    /// second as long as none was.
    BuildStarted {
        /// The element's name.
        element: String,
    },
    /// The build has started on an element itself. Unless priming is told to
    /// [go on](crate::WhenReached::GoOn), what of its actions is not
    /// submitted will not be; what the service has only queued is taken back,
    /// as the build is about to ask for it. What executes already goes on.
    BuildReached {
        /// The element's name.
        element: String,
    },
    /// The build has asked for the result of an action. What it shows of
    /// changed commands, and of files that an element makes by itself, is
    /// applied to the element's actions that were not asked for yet.
    Requested {
        /// The action's digest.
        action: Digest,
    },
    /// Stop: nothing further is submitted, and what runs is cancelled where the service can.
    Cancel,
}
