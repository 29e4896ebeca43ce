//! Text that must not occur. The patterns are put together from pieces, so
//! that this file does not match itself.

use super::Findings;
use super::tree::Tree;

/// Files whose text is not ours to choose.
const EXEMPT: &str = "Cargo.lock";

pub(super) fn unfinished_work(tree: &Tree) -> Findings {
    let patterns = [
        (concat!("#[", "ignore"), "an ignored test tests nothing: run it or delete it"),
        (concat!("to", "do!("), "finish it"),
        (concat!("unimpl", "emented!("), "finish it"),
        (concat!("FIX", "ME"), "fix it or say in plain words what is not done"),
        (concat!("X", "XX"), "fix it or say in plain words what is not done"),
    ];
    find(tree, |line| patterns.iter().find(|(pattern, _)| has_word(line, pattern)).copied())
}

pub(super) fn machine_paths(tree: &Tree) -> Findings {
    let patterns = [concat!("/", "work/"), concat!("/", "home/"), concat!("/", "root/."), concat!("/", "tmp/")];
    // The socket that BuildStream's sandbox puts there, by its own configuration.
    let sandbox_socket = concat!("/", "tmp/casd.sock");
    find(tree, |line| {
        let line = line.replace(sandbox_socket, "");
        let pattern = patterns.iter().find(|pattern| {
            line.match_indices(**pattern).any(|(at, _)| !line[..at].ends_with(|c: char| is_path_char(c) || c == '>'))
        })?;
        Some((*pattern, "no paths of one machine; temporary files come from the tempfile crate"))
    })
}

fn is_path_char(c: char) -> bool {
    c.is_alphanumeric() || "._-/)}$*".contains(c)
}

pub(super) fn registry_hosts(tree: &Tree) -> Findings {
    let patterns = [
        concat!("debian", ".org"),
        concat!("ubuntu", ".com"),
        concat!("crates", ".io"),
        concat!("pypi", ".org"),
        concat!("python", "hosted.org"),
        concat!("npm", "js.org"),
        concat!("arti", "factory"),
    ];
    find(tree, |line| {
        let pattern = patterns.iter().find(|pattern| line.contains(**pattern))?;
        Some((*pattern, "name packages, not hosts: each machine's own configuration says where they come from"))
    })
}

/// Files that may wait for time to pass, and why nothing else is waited for there.
const SLEEPERS: &[(&str, &str)] = &[
    ("crates/cas-client/src/retry.rs", "the pause between two attempts: nothing tells when a service is well again"),
    ("crates/buildstream/src/daemon/own.rs", "nothing tells when a socket is listened to"),
    ("crates/instantiate/src/engine/submit.rs", "a service that is full says when to come back"),
    ("crates/instantiate/tests/admission.rs", "virtual time"),
    ("crates/instantiate/tests/schedules.rs", "virtual time"),
    ("crates/instantiate/tests/support/weather.rs", "virtual time"),
    ("crates/simulate/src/build.rs", "virtual time"),
    ("crates/simulate/src/service.rs", "virtual time"),
    ("crates/simulate/src/store.rs", "virtual time"),
    ("crates/simulate/src/updates.rs", "virtual time"),
    ("tests/tests/project/daemon.rs", "nothing tells when a socket is listened to, or a log has a line"),
];

pub(super) fn sleeps(tree: &Tree) -> Findings {
    sleeps_except(tree, SLEEPERS)
}

fn sleeps_except(tree: &Tree, allowed: &[(&str, &str)]) -> Findings {
    let modules = [concat!("thread", "::"), concat!("time", "::")];
    let mut seen = Vec::new();
    let mut findings = Vec::new();
    for (name, number, line) in tree.lines().filter(|(name, _, _)| name.ends_with(".rs")) {
        let code = line.split("//").next().unwrap_or_default();
        let after = modules.iter().find_map(|module| code.split_once(module).map(|(_, after)| after));
        let sleeps = after
            .is_some_and(|after| after.starts_with("sleep") || (after.starts_with('{') && has_word(after, "sleep")));
        if !sleeps {
            continue;
        }
        seen.push(name);
        if !allowed.iter().any(|(file, _)| *file == name) {
            findings.push(format!(
                "{name}:{number}: sleeps; wait for the event instead, or add the file to the list in xtask with a reason"
            ));
        }
    }
    for (name, reason) in allowed.iter().filter(|(name, _)| !seen.contains(name)) {
        findings.push(format!("{name} no longer sleeps ({reason}): take it off the list in xtask"));
    }
    Ok(findings)
}

/// One finding per line for which `check` names a pattern and says what to do.
fn find<'p>(tree: &Tree, check: impl Fn(&str) -> Option<(&'p str, &'p str)>) -> Findings {
    let lines = tree.lines().filter(|(name, _, _)| *name != EXEMPT);
    Ok(lines
        .filter_map(|(name, number, line)| {
            let (pattern, advice) = check(line)?;
            Some(format!("{name}:{number}: {pattern:?}: {advice}"))
        })
        .collect())
}

/// Whether `word` occurs in `line` other than as a part of a longer word.
fn has_word(line: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let open_ended = word.ends_with(is_word);
    line.match_indices(word).any(|(at, _)| {
        let goes_on = open_ended && line[at + word.len()..].starts_with(is_word);
        let is_tail = line[..at].ends_with(is_word);
        !goes_on && !is_tail
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(rule: fn(&Tree) -> Findings, name: &str, line: &str) -> usize {
        rule(&Tree::of(&[(name, line)])).unwrap().len()
    }

    #[test]
    fn unfinished_work_is_found() {
        let check = |line: &str| count(unfinished_work, "a.rs", line);
        for (a, b) in
            [("#[", "ignore]"), ("to", "do!()"), ("// FIX", "ME: x"), ("// X", "XX"), ("unimpl", "emented!()")]
        {
            assert_eq!(check(&format!("    {a}{b}")), 1, "{a}{b}");
        }
        assert_eq!(check("mktemp -d dir.XXXXXX; mytodo!(); [ignored]"), 0);
    }

    #[test]
    fn machine_paths_are_found() {
        let check = |line: &str| count(machine_paths, "a.md", line);
        for dir in ["work", "home", "root/.cargo", "tmp"] {
            assert_eq!(check(&format!("cd /{dir}/x")), 1, "{dir}");
            assert_eq!(check(&format!("cd some/{dir}/x ${{HOME}}/{dir}/y")), 0, "{dir}");
        }
        let socket = ["path: /tm", "p/casd.sock"].concat();
        assert_eq!(check(&socket), 0);
    }

    #[test]
    fn host_names_are_found_except_in_the_lock_file() {
        let line = ["http://deb.debi", "an.org/debian"].concat();
        assert_eq!(count(registry_hosts, "a.rs", &line), 1);
        assert_eq!(count(registry_hosts, "Cargo.lock", &line), 0);
    }

    #[test]
    fn sleeps_are_found_and_the_list_stays_true() {
        let line = |module: &str| format!("    {module}::sle{}(x);", "ep");
        let check =
            |text: &str, allowed: &[(&str, &str)]| sleeps_except(&Tree::of(&[("a.rs", text)]), allowed).unwrap().len();
        for module in ["std::thread", "thread", "tokio::time", "time"] {
            assert_eq!(check(&line(module), &[]), 1, "{module}");
            assert_eq!(check(&line(module), &[("a.rs", "why")]), 0, "{module}");
        }
        assert_eq!(check(&format!("use tokio::time::{{Duration, sle{}}};", "ep"), &[]), 1);
        assert_eq!(check("self.clock.sleep(x).await; // not std::thread::sleep", &[]), 0);
        assert_eq!(check("", &[("a.rs", "why")]), 1);
    }
}
