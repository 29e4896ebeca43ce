//! The numbers behind each size.

use super::Size;

/// How many of everything a workload has. Probabilities are percentages.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// Compile actions.
    pub(super) compiles: usize,
    /// Archive and link actions.
    pub(super) links: usize,
    /// Sources per module.
    pub(super) module_sources: usize,
    /// Libraries below the element.
    pub(super) dependencies: usize,
    /// Headers that a library installs.
    pub(super) headers: usize,
    /// Libraries that one module uses: at least, at most.
    pub(super) module_dependencies: (usize, usize),
    /// Share of a library's headers in one of its profiles.
    pub(super) header_percent: u8,
    /// Files in each of the system directories.
    pub(super) system_files: usize,
    /// Share of the system files in one system profile.
    pub(super) system_percent: u8,
    /// The element's own headers to choose from: of the module, below the module, and in the three
    /// directories that all modules share.
    pub(super) own_headers: [usize; 5],
    /// Share of the own headers that one source includes.
    pub(super) own_percent: u8,
    /// How often a source includes the same profiles as the one before it in its module.
    pub(super) repeat_percent: u8,
}

/// Header profiles of each library.
pub(super) const HEADER_PROFILES: usize = 4;
/// Profiles over the system directories.
pub(super) const SYSTEM_PROFILES: usize = 6;
/// The system directories, all below `usr/include`.
pub(super) const SYSTEM_DIRECTORIES: [&str; 8] = ["arpa", "asm", "asm-generic", "bits", "gnu", "linux", "net", "sys"];

impl Shape {
    pub(super) fn of(size: Size) -> Self {
        match size {
            Size::Small => Self {
                compiles: 50,
                links: 3,
                module_sources: 10,
                dependencies: 5,
                headers: 30,
                module_dependencies: (3, 3),
                header_percent: 34,
                system_files: 6,
                system_percent: 40,
                own_headers: [3, 2, 2, 2, 2],
                own_percent: 50,
                repeat_percent: 40,
            },
            Size::Medium => Self {
                compiles: 1000,
                links: 20,
                module_sources: 25,
                dependencies: 20,
                headers: 60,
                module_dependencies: (6, 7),
                header_percent: 45,
                system_files: 14,
                system_percent: 50,
                own_headers: [16, 14, 14, 11, 10],
                own_percent: 50,
                repeat_percent: 13,
            },
            Size::Large => Self {
                compiles: 5000,
                links: 50,
                module_sources: 20,
                dependencies: 40,
                headers: 80,
                module_dependencies: (7, 8),
                header_percent: 47,
                system_files: 18,
                system_percent: 50,
                own_headers: [20, 20, 20, 20, 20],
                own_percent: 50,
                repeat_percent: 0,
            },
        }
    }
}
