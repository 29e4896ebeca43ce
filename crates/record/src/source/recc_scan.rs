//! What a log of recc says of the actions that it ran.

use memchr::memmem;
use reapi_proto::Digest;
use rustc_hash::FxHashMap;

use super::casd_scan::parse_digest;
use super::lines::{Lines, between};
use super::{LoggedAction, LoggedOutcome};

/// Actions that are remembered of one file. recc writes one file per process and runs one action per process.
const MAX_ACTIONS: usize = 100_000;

/// The longest beginning of a line that is taken for its time.
const MAX_TIME_BYTES: usize = 40;

const EXECUTING: &[u8] = b"Executing action remotely... [actionDigest=";
const HIT: &[u8] = b"Action Cache hit for [";
const COMPUTED: &[u8] = b"] [DEBUG] Action Digest: ";

/// Reads a log of recc, piece by piece. A pure state machine like [`CasdLogScanner`](super::CasdLogScanner).
///
/// # The log, as recc 1.4.30 writes it
///
/// With `RECC_LOG_DIRECTORY=DIR`, each process writes one file,
/// `DIR/recc.HOST.USER.log.YYYYMMDD-HHMMSS.PID`. In BuildStream's sandbox the
/// process ids of every element are small, so that elements (and builds of one element)
/// may use the same name. With `RECC_LOG_LEVEL=info` or lower:
///
/// ```text
/// TIME [PID:THREAD] [executioncontext.cpp:544] [INFO] Action Cache hit for [HASH/SIZE]
/// TIME [PID:THREAD] [executioncontext.cpp:951] [INFO] Executing action remotely... [actionDigest=HASH/SIZE]
/// ```
///
/// `debug` adds, before either:
///
/// ```text
/// TIME [PID:THREAD] [executioncontext.cpp:896] [DEBUG] Action Digest: HASH/SIZE Action Contents: …
/// ```
///
/// In cache-only mode a miss is logged at `info` without the action's digest:
/// `Action not cached and running in cache-only mode, executing locally`.
///
/// BuildStream builds a workspace on top of its last buildtree, logs included,
/// and from scratch once a dependency has changed: until then, the logs of all builds pile up there.
#[derive(Clone, Debug, Default)]
pub struct ReccLogScanner {
    lines: Lines,
    found: Found,
}

#[derive(Clone, Debug, Default)]
struct Found {
    actions: Vec<(Vec<u8>, LoggedAction)>,
    rows: FxHashMap<Digest, usize>,
}

impl ReccLogScanner {
    /// A scanner at the start of a log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next bytes of the log.
    pub fn advance(&mut self, bytes: &[u8]) {
        let found = &mut self.found;
        self.lines.feed(bytes, |line| found.line(line));
    }

    /// Takes in a last line that has no newline.
    pub fn finish(&mut self) {
        let found = &mut self.found;
        self.lines.finish(|line| found.line(line));
    }

    /// The actions in order of first mention, each with the time of that as it
    /// stands in the log. Times of one time zone sort as text.
    pub fn actions(&self) -> impl Iterator<Item = (&[u8], LoggedAction)> {
        self.found.actions.iter().map(|(time, action)| (time.as_slice(), *action))
    }
}

impl Found {
    fn line(&mut self, line: &[u8]) {
        let markers = [
            (EXECUTING, b']', LoggedOutcome::Executed),
            (HIT, b']', LoggedOutcome::Hit),
            (COMPUTED, b' ', LoggedOutcome::Asked),
        ];
        for (marker, end, outcome) in markers {
            for at in memmem::find_iter(line, marker) {
                if let Some(action) = between(&line[at..], marker, end).and_then(parse_digest) {
                    self.note(line, LoggedAction { action, outcome });
                }
            }
        }
    }

    fn note(&mut self, line: &[u8], logged: LoggedAction) {
        match self.rows.get(&logged.action) {
            Some(row) => {
                let known = &mut self.actions[*row].1.outcome;
                *known = logged.outcome.max(*known);
            }
            None if self.actions.len() < MAX_ACTIONS => {
                let end = line.iter().take(MAX_TIME_BYTES).position(|b| *b == b' ').unwrap_or(0);
                self.rows.insert(logged.action, self.actions.len());
                self.actions.push((line[..end].to_vec(), logged));
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reapi_proto::DigestFunction;

    use super::LoggedOutcome::{Asked, Executed, Hit};
    use super::*;

    fn digest(name: &str) -> Digest {
        DigestFunction::Sha256.digest(name.as_bytes())
    }

    #[track_caller]
    fn check(log: &[u8], expected: &[(&str, &str, LoggedOutcome)]) {
        let mut scanner = ReccLogScanner::new();
        scanner.advance(log);
        scanner.finish();
        let expected: Vec<_> = expected.iter().map(|(time, a, o)| (time.as_bytes(), digest(a), *o)).collect();
        assert_eq!(scanner.actions().map(|(time, a)| (time, a.action, a.outcome)).collect::<Vec<_>>(), expected);
    }

    /// Lines of one process, each a time, the place and level, and the text.
    fn log(lines: &[(&str, &str, String)]) -> String {
        let line = |(time, place, text): &(&str, &str, String)| format!("{time} [5:140354334891584] {place} {text}\n");
        lines.iter().map(line).collect()
    }

    #[test]
    fn an_execution() {
        let log = log(&[
            ("t1", "[recc.m.cpp:460] [INFO]", "Resolved \"gcc\" to \"/usr/bin/gcc\"".into()),
            (
                "2026-11-22T10:48:28.831+0000",
                "[executioncontext.cpp:951] [INFO]",
                format!("Executing action remotely... [actionDigest={}]", digest("a")),
            ),
            ("t3", "[executioncontext.cpp:996] [INFO]", "Remote execution finished with exit code 0".into()),
        ]);
        check(log.as_bytes(), &[("2026-11-22T10:48:28.831+0000", "a", Executed)]);
    }

    #[test]
    fn a_hit_at_debug_level_in_a_cut_file() {
        let a = digest("a");
        let contents = format!("Action Digest: {a} Action Contents: command_digest {{ hash: \"00\" }}");
        let computed = log(&[("t1", "[executioncontext.cpp:896] [DEBUG]", contents)]);
        let hit = log(&[("t2", "[executioncontext.cpp:544] [INFO]", format!("Action Cache hit for [{a}]"))]);
        check([&*computed, hit.trim_end()].concat().as_bytes(), &[("t1", "a", Hit)]);
        check(computed.trim_end().as_bytes(), &[("t1", "a", Asked)]);
    }

    #[test]
    fn cache_only_mode_names_no_action() {
        let text = "Action not cached and running in cache-only mode, executing locally";
        check(log(&[("t1", "[executioncontext.cpp:937] [INFO]", text.into())]).as_bytes(), &[]);
    }

    #[test]
    fn files_of_several_processes_mix_line_by_line() {
        let hit = |text: &str| format!("Action Cache hit for [{text}]");
        let log = log(&[
            ("t1", "[INFO]", hit(&digest("a").to_string())),
            ("t2", "[INFO]", format!("Executing action remotely... [actionDigest={}]\n", digest("b"))),
            ("t3", "[INFO]", hit(&digest("a").to_string())),
            ("t4", "[INFO]", hit("nonsense")),
        ]);
        check(log.as_bytes(), &[("t1", "a", Hit), ("t2", "b", Executed)]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_pieces_do_not_matter(
            pieces in prop::collection::vec(prop_oneof![
                prop::collection::vec(any::<u8>(), 0..20),
                prop::sample::select(vec![EXECUTING, HIT, COMPUTED, b"\n", b"]", b" "]).prop_map(<[u8]>::to_vec),
                "[ab]".prop_map(|name| digest(&name).to_string().into_bytes()),
            ], 0..40),
            cut: prop::sample::Index,
        ) {
            let log = pieces.concat();
            let cut = cut.index(log.len() + 1);
            let mut whole = ReccLogScanner::new();
            whole.advance(&log);
            whole.finish();
            let mut cuts = ReccLogScanner::new();
            cuts.advance(&log[..cut]);
            cuts.advance(&log[cut..]);
            cuts.finish();
            prop_assert_eq!(whole.actions().collect::<Vec<_>>(), cuts.actions().collect::<Vec<_>>());
        }
    }
}
