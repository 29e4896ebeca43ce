//! What buildbox-casd's log says of the actions that clients asked for.

use memchr::memmem;
use reapi_proto::Digest;
use rustc_hash::FxHashMap;

use super::lines::{Lines, between};
use super::{LoggedAction, LoggedOutcome};

/// Clients whose requests are a build's: what compiles, and what runs any command.
const CLIENTS: [&str; 3] = ["recc", "trexe", "bst-sa-exec"];

/// Distinct actions that are remembered of one log, at about 200 bytes each: a hundred times the largest workload's.
const MAX_ACTIONS: usize = 1_000_000;

const REQUEST: &[u8] = b" request from [";
const RESULT: &[u8] = b"ActionResult ";
const FOUND: &[u8] = b"found for ActionDigest='";
const NOT_FOUND: &[u8] = b"not found for ActionDigest='";

/// Reads a log of buildbox-casd, piece by piece, and keeps the actions that a build's clients asked for.
///
/// A pure state machine: what it finds depends on the bytes alone, not on how
/// they are cut into pieces. No bytes make it fail; it remembers distinct
/// actions, and one line at most.
///
/// # The log, as buildbox-casd 1.4.25 writes it
///
/// Measured with BuildStream 2.8.1, which starts one casd per `bst` process
/// and sends its output to a file of its own, `LOGDIR/_casd/START.log` (START
/// in seconds since 1970, with a fraction; the ten newest are kept). One line per event:
///
/// ```text
/// TIME [PID:THREAD] [FILE.cpp:LINE] [LEVEL] TEXT
/// ```
///
/// TIME is local time with milliseconds and offset, as in
/// `2026-11-22T10:48:28.830+0000`. The TEXTs that count, at level INFO:
///
/// ```text
/// GetActionResult request from [peer="unix:"]: [tool_name="recc", tool_version="1.4.30", action_id="HASH/SIZE", tool_invocation_id="buildbox:4", ]
/// ActionResult found for ActionDigest='HASH/SIZE'
/// ActionResult not found for ActionDigest='HASH/SIZE'
/// Execute request from [peer="unix:"]: [tool_name="recc", …as above… ]
/// ```
///
/// - recc asks for each action once, and executes what was not found. Between
///   the two it uploads: after a miss the Action may not be in CAS yet.
/// - To execute, casd asks itself once more, as `recc (via buildbox-casd)`.
/// - Without a remote action cache, the answer follows on the same thread.
///   With one there is no such line; a hit is then a request that no `Execute` follows.
/// - In recc's cache-only mode neither an execution nor a hit follows a miss.
/// - `FindMissingBlobs`, `BatchUpdateBlobs`, `BatchReadBlobs` and
///   `UpdateActionResult` requests name the action in the same way; requests
///   of BuildStream itself have empty brackets.
/// - buildbox-run and gRPC write to the same file, the latter without TIME and level (`bst --debug`).
/// - 160 lookups and executions of 16 concurrent recc processes left no mixed lines.
/// - `bst --no-verbose` sets the level to WARNING: the file stays empty.
#[derive(Clone, Debug)]
pub struct CasdLogScanner {
    lines: Lines,
    state: State,
}

#[derive(Clone, Debug)]
struct State {
    tools: Vec<Vec<u8>>,
    actions: Vec<LoggedAction>,
    rows: FxHashMap<Digest, usize>,
    stats: ScanStats,
}

/// What a scanner has come by. All numbers count from where it started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScanStats {
    /// Complete lines.
    pub lines: u64,
    /// Lines of which only the beginning was looked at.
    pub overlong: u64,
    /// Requests of a wanted client without a readable action: cut short, or mixed with another line.
    pub malformed: u64,
    /// Distinct actions beyond what is remembered.
    pub forgotten: u64,
    /// Lines of level INFO. A log without any was written at a higher level: it says nothing.
    pub informative: u64,
}

impl Default for CasdLogScanner {
    fn default() -> Self {
        Self::new()
    }
}

impl CasdLogScanner {
    /// A scanner at the start of a log, for the requests of recc, trexe and `bst-sa exec`.
    #[must_use]
    pub fn new() -> Self {
        Self::resume(0)
    }

    /// A scanner that continues where another one [would have to](Self::resume_at).
    #[must_use]
    pub fn resume(offset: u64) -> Self {
        let state = State {
            tools: CLIENTS.map(Into::into).into(),
            actions: Vec::new(),
            rows: FxHashMap::default(),
            stats: ScanStats::default(),
        };
        Self { lines: Lines::starting_at(offset), state }
    }

    /// Looks for requests of other clients, by the `tool_name` of their `RequestMetadata`.
    #[must_use]
    pub fn with_tools<S: Into<String>>(mut self, tools: impl IntoIterator<Item = S>) -> Self {
        self.state.tools = tools.into_iter().map(|tool| tool.into().into_bytes()).collect();
        self
    }

    /// Takes in the next bytes of the log.
    pub fn advance(&mut self, bytes: &[u8]) {
        let state = &mut self.state;
        self.lines.feed(bytes, |line| state.line(line));
    }

    /// Takes in a last line that has no newline. Only for a log that is no longer written.
    pub fn finish(&mut self) {
        let state = &mut self.state;
        self.lines.finish(|line| state.line(line));
    }

    /// The actions, in order of first request. What comes later is appended,
    /// but the outcome of those that are there may still change: it only ever
    /// goes from [`Asked`](LoggedOutcome::Asked) to another one, and to [`Executed`](LoggedOutcome::Executed).
    #[must_use]
    pub fn actions(&self) -> &[LoggedAction] {
        &self.state.actions
    }

    /// The actions alone.
    #[must_use]
    pub fn into_actions(self) -> Vec<LoggedAction> {
        self.state.actions
    }

    /// The offset of the first byte that is not taken in for good: the start of the unfinished line.
    #[must_use]
    pub fn resume_at(&self) -> u64 {
        self.lines.resume_at()
    }

    /// What it has come by.
    #[must_use]
    pub fn stats(&self) -> ScanStats {
        ScanStats { lines: self.lines.lines, overlong: self.lines.overlong, ..self.state.stats }
    }
}

impl State {
    fn line(&mut self, line: &[u8]) {
        self.stats.informative += u64::from(memmem::find(line, b" [INFO] ").is_some());
        let mut requests = memmem::find_iter(line, REQUEST).peekable();
        if requests.peek().is_none() {
            self.answer(line);
            return;
        }
        // More than one only where lines were mixed.
        while let Some(at) = requests.next() {
            let end = requests.peek().copied().unwrap_or(line.len());
            self.request(&line[..at], &line[at..end]);
        }
    }

    fn request(&mut self, before: &[u8], metadata: &[u8]) {
        let outcome = if before.ends_with(b"GetActionResult") {
            LoggedOutcome::Asked
        } else if before.ends_with(b" Execute") {
            LoggedOutcome::Executed
        } else {
            return;
        };
        if !between(metadata, b"tool_name=\"", b'"').is_some_and(|tool| self.wanted(tool)) {
            return;
        }
        match between(metadata, b"action_id=\"", b'"').and_then(parse_digest) {
            Some(action) => self.note(action, outcome),
            None => self.stats.malformed += 1,
        }
    }

    /// Whether a tool is a wanted one, itself or behind other casds.
    fn wanted(&self, tool: &[u8]) -> bool {
        self.tools.iter().any(|wanted| {
            tool.strip_prefix(wanted.as_slice()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b" (via "))
        })
    }

    /// An answer counts for the client's first request alone: others may ask for the same action.
    fn answer(&mut self, line: &[u8]) {
        let Some(at) = memmem::find(line, RESULT) else { return };
        let text = &line[at + RESULT.len()..];
        let (digest, outcome) = if let Some(rest) = text.strip_prefix(FOUND) {
            (rest, LoggedOutcome::Hit)
        } else if let Some(rest) = text.strip_prefix(NOT_FOUND) {
            (rest, LoggedOutcome::Missed)
        } else {
            return;
        };
        let digest = between(digest, b"", b'\'').and_then(parse_digest);
        if let Some(row) = digest.and_then(|digest| self.rows.get(&digest))
            && self.actions[*row].outcome == LoggedOutcome::Asked
        {
            self.actions[*row].outcome = outcome;
        }
    }

    fn note(&mut self, action: Digest, outcome: LoggedOutcome) {
        match self.rows.get(&action) {
            Some(row) => {
                let known = &mut self.actions[*row].outcome;
                *known = outcome.max(*known);
            }
            None if self.actions.len() < MAX_ACTIONS => {
                self.rows.insert(action, self.actions.len());
                self.actions.push(LoggedAction { action, outcome });
            }
            None => self.stats.forgotten += 1,
        }
    }
}

pub(super) fn parse_digest(text: &[u8]) -> Option<Digest> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reapi_proto::DigestFunction;

    use super::LoggedOutcome::{Asked, Executed, Hit, Missed};
    use super::*;

    fn digest(name: &str) -> Digest {
        DigestFunction::Sha256.digest(name.as_bytes())
    }

    fn line(file: &str, text: &str) -> String {
        format!("2026-11-22T10:48:28.830+0000 [5871:139984694654656] [{file}] [INFO] {text}\n")
    }

    fn request(method: &str, tool: &str, action: &str) -> String {
        let metadata = format!(
            r#"[tool_name="{tool}", tool_version="1.4.30", action_id="{}", tool_invocation_id="buildbox:4", ]"#,
            digest(action)
        );
        line("buildboxcasd_server.cpp:228", &format!(r#"{method} request from [peer="unix:"]: {metadata}"#))
    }

    fn answer(text: &str, action: &str) -> String {
        line(
            "buildboxcasd_localacinstance.cpp:54",
            &format!("ActionResult {text} for ActionDigest='{}'", digest(action)),
        )
    }

    fn miss(action: &str) -> String {
        [
            request("GetActionResult", "recc", action),
            answer("not found", action),
            request("FindMissingBlobs", "recc", action),
            line(
                "buildboxcasd_localcasinstance.cpp:118",
                r#"LocalCasInstance::FindMissingBlobs request for instance name "" for 11 digest(s)"#,
            ),
            request("BatchUpdateBlobs", "recc", action),
            request("Execute", "recc", action),
            request("GetActionResult", "recc (via buildbox-casd)", action),
            answer("not found", action),
            request("FetchTree", "buildbox-run", action),
            line("buildboxcasd_server.cpp:228", r#"UpdateActionResult request from [peer="unix:"]: []"#),
            request("BatchReadBlobs", "recc", action),
        ]
        .concat()
    }

    fn hit(action: &str) -> String {
        [request("GetActionResult", "recc", action), answer("found", action), request("BatchReadBlobs", "recc", action)]
            .concat()
    }

    #[track_caller]
    fn check(log: &str, expected: &[(&str, LoggedOutcome)]) -> ScanStats {
        let mut scanner = CasdLogScanner::new();
        scanner.advance(log.as_bytes());
        scanner.finish();
        let found: Vec<_> = scanner.actions().iter().map(|a| (a.action, a.outcome)).collect();
        assert_eq!(found, expected.iter().map(|(a, outcome)| (digest(a), *outcome)).collect::<Vec<_>>());
        scanner.stats()
    }

    #[test]
    fn hits_and_misses_in_order_of_first_request() {
        let log = [hit("util"), miss("main"), hit("util"), miss("link"), hit("main")].concat();
        let stats = check(&log, &[("util", Hit), ("main", Executed), ("link", Executed)]);
        assert_eq!((stats.malformed, stats.overlong, stats.lines), (0, 0, 31));
        assert_eq!(stats.informative, stats.lines);
    }

    #[test]
    fn concurrent_requests_interleave_by_line() {
        let (a, b) = (miss("a"), miss("b"));
        let log: String = a.lines().zip(b.lines()).flat_map(|(a, b)| [a, "\n", b, "\n"]).collect();
        check(&log, &[("a", Executed), ("b", Executed)]);
    }

    #[test]
    fn a_remote_action_cache_leaves_no_answers() {
        let log = [
            request("GetActionResult", "recc", "hit"),
            request("GetActionResult", "recc", "miss"),
            request("Execute", "recc", "miss"),
        ];
        check(&log.concat(), &[("hit", Asked), ("miss", Executed)]);
    }

    #[test]
    fn a_miss_in_cache_only_mode_is_no_hit() {
        let log = [
            request("GetActionResult", "recc", "a"),
            answer("not found", "a"),
            request("UpdateActionResult", "recc", "a"),
            request("GetActionResult", "recc", "a"),
            answer("found", "a"),
        ];
        check(&log.concat(), &[("a", Missed)]);
    }

    #[test]
    fn the_requests_of_others_do_not_count() {
        let log = [
            request("GetActionResult", "primer", "a"),
            answer("found", "a"),
            request("Execute", "primer", "b"),
            request("Execute", "primer (via buildbox-casd)", "b"),
            request("GetActionResult", "recclike", "c"),
            request("GetActionResult", "buildbox-run", "d"),
            line("buildboxcasd_server.cpp:228", r#"GetActionResult request from [peer="unix:"]: []"#),
            request("GetActionResult", "recc (via buildbox-casd) (via buildbox-casd)", "e"),
            request("BatchExecute", "recc", "f"),
        ];
        check(&log.concat(), &[("e", Asked)]);
        let mut scanner = CasdLogScanner::new().with_tools(["primer"]);
        scanner.advance(log.concat().as_bytes());
        assert_eq!(scanner.actions().len(), 2);
    }

    #[test]
    fn a_cut_request_is_counted_and_what_follows_is_read() {
        let cut = request("GetActionResult", "recc", "a");
        let in_action = cut.find("action_id").unwrap() + 30;
        let in_tool = cut.find("tool_name").unwrap() + 12;
        let log = [
            &cut[..in_action],
            &hit("b"),
            &cut[..in_action],
            "\n",
            &hit("c"),
            &cut[..in_tool],
            "\n",
            &cut[..in_action],
        ];
        let stats = check(&log.concat(), &[("b", Hit), ("c", Hit)]);
        assert_eq!(stats.malformed, 3, "whose request it was is not known of the one cut short most");
    }

    #[test]
    fn what_casd_is_told_about_bad_digests_is_not_believed() {
        let good = request("GetActionResult", "recc", "a");
        let hash = digest("a").to_hex();
        let log = [
            good.replace(&hash, &hash.to_uppercase()),
            good.replace(&hash, &hash[1..]),
            good.replace(&hash, &format!("{hash}/")),
            good.replace(&hash, ""),
        ];
        assert_eq!(check(&log.concat(), &[]).malformed, 4);
    }

    #[test]
    fn a_quiet_log_is_told_from_one_without_actions() {
        assert_eq!(check("", &[]).informative, 0);
        assert_eq!(check("2026-11-22T10:48:28.830+0000 [1:2] [a.cpp:1] [WARNING] careful\n", &[]).informative, 0);
        assert_eq!(check(&line("buildboxcasd_daemon.cpp:579", "Starting buildbox-casd 1.4.25"), &[]).informative, 1);
    }

    #[test]
    fn a_live_log_is_followed_and_resumed() {
        let log = [miss("a"), hit("b")].concat();
        let log = log.as_bytes();
        for cut in 0..log.len() {
            let mut first = CasdLogScanner::new();
            first.advance(&log[..cut]);
            let known = first.actions().len();
            let mut second = CasdLogScanner::resume(first.resume_at());
            second.advance(&log[usize::try_from(first.resume_at()).unwrap()..]);
            first.advance(&log[cut..]);
            assert_eq!(first.actions().iter().map(|a| a.action).collect::<Vec<_>>(), [digest("a"), digest("b")]);
            assert!(known <= 2);
            let resumed: Vec<_> = second.actions().iter().map(|a| a.action).collect();
            assert!(first.actions()[known..].iter().all(|a| resumed.contains(&a.action)), "cut at {cut}");
            assert_eq!((first.resume_at(), second.resume_at()), (log.len() as u64, log.len() as u64));
        }
    }

    /// Bytes that look like a log, more or less.
    fn noise() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..20),
            prop::sample::select(vec![
                &b" request from ["[..],
                b"GetActionResult",
                b" Execute",
                b"tool_name=\"recc\"",
                b"action_id=\"",
                b"ActionResult found for ActionDigest='",
                b"ActionResult not found for ActionDigest='",
                b"\"",
                b"'",
                b"\n",
                b"]: [",
            ])
            .prop_map(<[u8]>::to_vec),
            "[ab]".prop_map(|name| digest(&name).to_string().into_bytes()),
            "[ab]".prop_map(|name| miss(&name).into_bytes()),
        ];
        prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_pieces_do_not_matter(log in noise(), cut: prop::sample::Index) {
            let cut = cut.index(log.len() + 1);
            let mut pieces = CasdLogScanner::new();
            pieces.advance(&log[..cut]);
            pieces.advance(&log[cut..]);
            pieces.finish();
            let mut whole = CasdLogScanner::new();
            whole.advance(&log);
            whole.finish();
            prop_assert_eq!(pieces.actions(), whole.actions());
            prop_assert_eq!(pieces.stats(), whole.stats());
            let distinct: std::collections::BTreeSet<_> = whole.actions().iter().map(|a| a.action).collect();
            prop_assert_eq!(distinct.len(), whole.actions().len());
        }

        #[test]
        fn whole_events_survive_any_noise_between_them(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let log = [miss("first").as_bytes(), &noise, b"\n", hit("last").as_bytes()].concat();
            let mut scanner = CasdLogScanner::new();
            scanner.advance(&log);
            let found: Vec<_> = scanner.actions().iter().map(|a| a.action).collect();
            prop_assert_eq!(found, [digest("first"), digest("last")]);
        }
    }
}
