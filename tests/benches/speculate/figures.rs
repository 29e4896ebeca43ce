//! Figures, and the targets that they are held against.

/// What a figure depends on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// On the code alone: the same on every machine.
    Counted,
    /// On the machine, and on what else it does.
    Timed,
}

/// Prints a figure as `cargo xtask bench` reads it: kind, name, value, and the most that it should be.
pub(crate) fn figure(kind: Kind, name: &str, value: f64, target: f64) {
    let kind = match kind {
        Kind::Counted => "counted",
        Kind::Timed => "timed",
    };
    println!("figure\t{kind}\t{name}\t{value:.3}\t{target}");
}
