//! What happens when, as a file in Chrome's trace event format.
//!
//! Two groups of lanes: the build, with a slice per element, and priming,
//! with a slice per action. The file is complete JSON after every event:
//! each is written over the end of the file together with a new end, so that
//! whatever stops the program leaves something to look at.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use instantiate::{ActionEvent, ActionKind, ActionStep, ExecutionReport, Progress};
use reapi_proto::Digest;
use serde_json::{Map, Value, json};

use super::outcome;
use crate::failure::Failure;

/// The end of a complete file.
const END: &str = "\n]}\n";

/// The groups of lanes, "processes" in the format.
const PRIMING: u32 = 1;
const BUILD: u32 = 2;

/// The lane of what was not executed; those of executions follow.
const LOOKED_UP: u32 = 0;

/// A trace that is being written.
pub(crate) struct Trace {
    file: File,
    path: PathBuf,
    /// Where the next event goes: before the end.
    at: u64,
    empty: bool,
    broken: bool,
    began: Instant,
    actions: HashMap<Digest, Action>,
    elements: HashMap<String, Element>,
    priming: Lanes,
    building: Lanes,
    counters: Option<[u64; 3]>,
}

/// An action whose result is wanted.
struct Action {
    element: String,
    kind: ActionKind,
    upload_bytes: u64,
    wanted: Duration,
    /// The first submission, and how many there were.
    submitted: Option<(Duration, u32)>,
    /// Its lane, from then on.
    lane: u32,
    executing: Option<Duration>,
    completed: Option<Duration>,
    queued: Option<Duration>,
    executed: Option<Duration>,
}

/// An element that is being built.
struct Element {
    lane: u32,
    started: Duration,
    running: Option<Duration>,
}

/// Which lanes are free. The lowest are taken first.
#[derive(Default)]
struct Lanes {
    free: BinaryHeap<Reverse<u32>>,
    used: u32,
}

impl Lanes {
    /// A free lane, and whether it is a new one.
    fn take(&mut self) -> (u32, bool) {
        if let Some(Reverse(lane)) = self.free.pop() {
            return (lane, false);
        }
        self.used += 1;
        (self.used, true)
    }

    fn give_back(&mut self, lane: u32) {
        self.free.push(Reverse(lane));
    }
}

impl Trace {
    pub(crate) fn create(path: PathBuf) -> Result<Self, Failure> {
        let unwritable =
            |e: std::io::Error| Failure::usage(format!("{} cannot be written", path.display())).because(&e);
        let file = File::create(&path).map_err(unwritable)?;
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let about =
            json!({ "program": "bst-sa", "version": env!("CARGO_PKG_VERSION"), "started": started.as_secs_f64() });
        let head = format!("{{\"displayTimeUnit\":\"ms\",\"otherData\":{about},\"traceEvents\":[");
        file.write_all_at(format!("{head}{END}").as_bytes(), 0).map_err(unwritable)?;
        let mut trace = Self {
            file,
            path,
            at: head.len() as u64,
            empty: true,
            broken: false,
            began: Instant::now(),
            actions: HashMap::new(),
            elements: HashMap::new(),
            priming: Lanes::default(),
            building: Lanes::default(),
            counters: None,
        };
        trace.name("process_name", PRIMING, LOOKED_UP, "priming");
        trace.name("thread_name", PRIMING, LOOKED_UP, "looked up");
        trace.name("process_name", BUILD, 0, "build");
        Ok(trace)
    }

    pub(crate) fn progress(&mut self, progress: &Progress) {
        let counters = [progress.running, progress.ready, progress.waiting + progress.preparing];
        if self.counters.replace(counters) != Some(counters) {
            let [running, ready, waiting] = counters;
            let at = micros(self.began.elapsed());
            let args = json!({ "in flight": running, "ready": ready, "waiting": waiting });
            self.write(&json!({ "ph": "C", "pid": PRIMING, "tid": 0, "ts": at, "name": "actions", "args": args }));
        }
    }

    pub(crate) fn action(&mut self, event: &ActionEvent<'_>) {
        let now = self.began.elapsed();
        let digest = event.action;
        let action = self.actions.entry(digest).or_insert_with(|| Action {
            element: event.element.to_owned(),
            kind: event.kind,
            upload_bytes: 0,
            wanted: now,
            submitted: None,
            lane: LOOKED_UP,
            executing: None,
            completed: None,
            queued: None,
            executed: None,
        });
        action.upload_bytes = event.upload_bytes;
        match event.step {
            ActionStep::Wanted => {}
            ActionStep::Submitted => match &mut action.submitted {
                Some((_, times)) => *times += 1,
                None => {
                    action.submitted = Some((now, 1));
                    let (lane, new) = self.priming.take();
                    action.lane = lane;
                    if new {
                        self.name("thread_name", PRIMING, lane, &format!("execution {lane}"));
                    }
                }
            },
            ActionStep::Executing => action.executing = Some(now),
            ActionStep::Completed { cached: _, queued, executed } => {
                action.completed = Some(now);
                (action.queued, action.executed) = (queued, executed);
            }
            ActionStep::Withdrawn => self.end_action(digest, now, "withdrawn", None),
            ActionStep::Ended(execution) => {
                let reason = match execution {
                    ExecutionReport::Failed(reason) => Some(reason.as_str()),
                    _ => None,
                };
                self.end_action(digest, now, outcome(execution), reason);
            }
        }
    }

    fn end_action(&mut self, digest: Digest, now: Duration, outcome: &str, reason: Option<&str>) {
        let Some(action) = self.actions.remove(&digest) else { return };
        let mut args = Map::new();
        args.insert("action".to_owned(), digest.to_string().into());
        args.insert("outcome".to_owned(), outcome.into());
        args.insert("upload_bytes".to_owned(), action.upload_bytes.into());
        args.extend(reason.map(|reason| ("reason".to_owned(), reason.into())));
        let seconds = |name: &str, time: Duration| (name.to_owned(), Value::from(time.as_secs_f64()));
        args.extend(action.queued.map(|time| seconds("queued_seconds", time)));
        args.extend(action.executed.map(|time| seconds("executed_seconds", time)));
        let kind = action.kind.name();
        let Some((submitted, times)) = action.submitted else {
            // Look-ups go together, so that they overlap; they are marks, not slices with a length.
            args.extend([seconds("looked_up_seconds", now.saturating_sub(action.wanted))]);
            self.slice(PRIMING, LOOKED_UP, (now, now), kind, &action.element, &args.into());
            return;
        };
        if times > 1 {
            args.insert("submissions".to_owned(), times.into());
        }
        self.slice(PRIMING, action.lane, (submitted, now), kind, &action.element, &args.into());
        if let Some(executing) = action.executing.filter(|executing| *executing >= submitted) {
            let end = action.completed.unwrap_or(now);
            self.slice(PRIMING, action.lane, (executing, end), "stage", "executing", &json!({}));
        }
        self.priming.give_back(action.lane);
    }

    pub(crate) fn element_started(&mut self, name: &str) {
        if self.elements.contains_key(name) {
            return;
        }
        let (lane, new) = self.building.take();
        if new {
            self.name("thread_name", BUILD, lane, &format!("builder {lane}"));
        }
        let element = Element { lane, started: self.began.elapsed(), running: None };
        self.elements.insert(name.to_owned(), element);
    }

    pub(crate) fn element_running(&mut self, name: &str) {
        self.element_started(name);
        let now = self.began.elapsed();
        if let Some(element) = self.elements.get_mut(name) {
            element.running.get_or_insert(now);
        }
    }

    pub(crate) fn element_built(&mut self, name: &str) {
        self.end_element(name, "built");
    }

    fn end_element(&mut self, name: &str, outcome: &str) {
        let Some(Element { lane, started, running }) = self.elements.remove(name) else { return };
        let now = self.began.elapsed();
        self.slice(BUILD, lane, (started, now), "element", name, &json!({ "outcome": outcome }));
        if let Some(running) = running {
            self.slice(BUILD, lane, (running, now), "stage", "running", &json!({}));
        }
        self.building.give_back(lane);
    }

    /// Whatever goes on ends here.
    pub(crate) fn finish(mut self) {
        let now = self.began.elapsed();
        for digest in self.actions.keys().copied().collect::<Vec<_>>() {
            self.end_action(digest, now, "unfinished", None);
        }
        for name in self.elements.keys().cloned().collect::<Vec<_>>() {
            self.end_element(&name, "unfinished");
        }
    }

    fn slice(
        &mut self,
        group: u32,
        lane: u32,
        (from, to): (Duration, Duration),
        category: &str,
        name: &str,
        args: &Value,
    ) {
        let (from, to) = (micros(from), micros(to));
        self.write(&json!({
            "ph": "X", "pid": group, "tid": lane, "ts": from, "dur": to.saturating_sub(from),
            "cat": category, "name": name, "args": args,
        }));
    }

    fn name(&mut self, what: &str, group: u32, lane: u32, name: &str) {
        self.write(&json!({ "ph": "M", "pid": group, "tid": lane, "name": what, "args": { "name": name } }));
    }

    /// One write, so that there is no time at which the file is incomplete for who reads it.
    fn write(&mut self, event: &Value) {
        if self.broken {
            return;
        }
        let text = format!("{}{event}{END}", if self.empty { "\n" } else { ",\n" });
        match self.file.write_all_at(text.as_bytes(), self.at) {
            Ok(()) => {
                self.at += (text.len() - END.len()) as u64;
                self.empty = false;
            }
            Err(error) => {
                self.broken = true;
                tracing::warn!("{} is incomplete: {error}", self.path.display());
            }
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reapi_proto::DigestFunction;

    fn read(path: &std::path::Path) -> Vec<Value> {
        let trace: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        trace["traceEvents"].as_array().unwrap().clone()
    }

    fn slices(path: &std::path::Path, group: u32) -> Vec<Value> {
        read(path).into_iter().filter(|event| event["ph"] == "X" && event["pid"] == group).collect()
    }

    #[test]
    fn it_can_be_read_at_any_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace.json");
        std::fs::write(&path, "x".repeat(10_000)).unwrap();
        let mut trace = Trace::create(path.clone()).unwrap();
        let before = read(&path).len();
        let digests: Vec<Digest> = (0..3_u8).map(|i| DigestFunction::Sha256.digest(&[i])).collect();
        let [a, b, c] = digests[..] else { unreachable!() };
        let failed = ExecutionReport::Failed("no luck".to_owned());
        let mut tell = |action, step| {
            let kind = ActionKind::Adapted;
            trace.action(&ActionEvent { action, element: "a \"quoted\"\u{1b}.bst", kind, upload_bytes: 7, step });
            read(&path).len()
        };
        for action in [a, b, c] {
            tell(action, ActionStep::Wanted);
            tell(action, ActionStep::Submitted);
        }
        tell(a, ActionStep::Executing);
        tell(a, ActionStep::Completed { cached: false, queued: Some(Duration::from_secs(2)), executed: None });
        let read_back = tell(a, ActionStep::Ended(&ExecutionReport::Executed));
        assert_eq!(read_back, before + 5, "three lanes, two slices");
        tell(b, ActionStep::Ended(&failed));
        tell(b, ActionStep::Wanted);
        tell(b, ActionStep::Ended(&ExecutionReport::Cached));
        trace.progress(&Progress { running: 1, ready: 2, waiting: 3, ..Progress::default() });
        trace.finish();

        let actions: Vec<Value> =
            slices(&path, PRIMING).into_iter().filter(|event| event["cat"] == "adapted").collect();
        let outcomes: Vec<&str> = actions.iter().map(|event| event["args"]["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ["executed", "failed", "cached", "unfinished"]);
        let lanes: Vec<u64> = actions.iter().map(|event| event["tid"].as_u64().unwrap()).collect();
        assert_eq!(lanes, [1, 2, 0, 3]);
        let args = &actions[0]["args"];
        assert_eq!((&args["action"], &args["upload_bytes"]), (&a.to_string().into(), &7.into()));
        assert_eq!(args["queued_seconds"], 2.0);
        assert_eq!(actions[0]["name"], "a \"quoted\"\u{1b}.bst");
        assert_eq!(actions[1]["args"]["reason"], "no luck");
        let counters = read(&path).into_iter().find(|event| event["ph"] == "C").unwrap();
        assert_eq!(counters["args"], json!({ "in flight": 1, "ready": 2, "waiting": 3 }));
    }

    #[test]
    fn elements_have_lanes_of_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace.json");
        let mut trace = Trace::create(path.clone()).unwrap();
        trace.element_started("a.bst");
        trace.element_started("b.bst");
        trace.element_running("a.bst");
        trace.element_built("a.bst");
        trace.element_built("nobody.bst");
        trace.element_running("c.bst");
        trace.finish();
        let mut built: Vec<(String, u64, String)> = slices(&path, BUILD)
            .into_iter()
            .filter(|slice| slice["cat"] == "element")
            .map(|slice| {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                (text(&slice["name"]), slice["tid"].as_u64().unwrap(), text(&slice["args"]["outcome"]))
            })
            .collect();
        built.sort();
        let expected = [("a.bst", 1, "built"), ("b.bst", 2, "unfinished"), ("c.bst", 1, "unfinished")];
        assert_eq!(built, expected.map(|(name, lane, outcome)| (name.to_owned(), lane, outcome.to_owned())));
        assert_eq!(slices(&path, BUILD).len(), 5, "two of them were running");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let failure = Trace::create("/nowhere/at/all.json".into()).err().unwrap();
        assert!(failure.summary().contains("/nowhere/at/all.json"), "{failure}");
    }
}
