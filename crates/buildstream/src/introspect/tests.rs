//! The conversation, with a shell in the place of the interpreter.

use std::io::Read;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A shell script that is run instead of Python.
struct Fake {
    folder: TempDir,
}

impl Fake {
    fn new(script: &str) -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("fake"), script).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn ask(
        &self,
        versions: VersionPolicy,
        limits: conversation::Limits,
    ) -> Result<Introspection, IntrospectError> {
        let installation = Installation::with_interpreter("bst", "/bin/sh", [self.path("fake").into_os_string()]);
        let request = Request::new(Invocation::new(self.folder.path()), ["app.bst"]);
        let asked = asked(&request).unwrap();
        conversation::converse(&installation, &asked, versions, limits).await?.into_introspection()
    }
}

const HELLO: &str = r#"{"event":"hello","protocol":1,"buildstream":"2.8.1","python":"3.11.7"}"#;

/// An answer as the helper wrote it, with one remote and one member that nobody knows added.
const ANSWER: &str = include_str!("answer.json");

fn one_line(json: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    value.to_string()
}

/// Says the lines, then waits for the end of the conversation.
fn saying(lines: &[&str]) -> Fake {
    let mut script = String::from("read request\ncat <<'END'\n");
    for line in lines {
        script += &format!("{line}\n");
    }
    Fake::new(&(script + "END\ncat\n"))
}

async fn ask(lines: &[&str]) -> Result<Introspection, IntrospectError> {
    saying(lines).ask(VersionPolicy::Warn, conversation::Limits::default()).await
}

#[tokio::test]
async fn an_answer_becomes_a_graph() {
    let found = ask(&[HELLO, r#"{"event":"daemon","pid":1}"#, &one_line(ANSWER)]).await.unwrap();
    assert_eq!(found.versions, crate::Versions { buildstream: "2.8.1".into(), python: "3.11.7".into() });
    assert_eq!((found.project.name.as_str(), found.targets.as_slice()), ("demo", &["sub/app.bst".to_owned()][..]));
    assert!(found.configuration.strict && found.warnings.is_empty());
    assert_eq!(found.configuration.artifact_refs().folder(), Path::new("/cache/artifacts/refs"));
    let [server] = &found.servers["demo"].artifacts[..] else { panic!("{:?}", found.servers) };
    assert_eq!(
        (server.url.as_str(), server.push, server.kind),
        ("http://localhost:1234", true, crate::RemoteKind::All)
    );
    assert_eq!(server.access_token_reload, Some(Duration::from_secs(600)));
    assert_eq!(server.retry_delay, Some(Duration::from_millis(20)));

    let graph = found.to_graph().unwrap();
    let app = graph.get("junction.bst:sub/app.bst").unwrap();
    assert_eq!((app.cached, app.project.as_deref(), app.artifact), (Some(false), Some("demo"), None));
    assert_eq!(app.build_deps.as_deref(), Some(&["stack.bst".to_owned()][..]));
    assert_eq!(app.sources, found.elements[2].sources);
    let base = graph.get("base.bst").unwrap();
    assert_eq!((base.cached, base.artifact), (Some(true), found.elements[0].files));
    assert!(base.artifact.is_some() && base.weak_key.is_some() && base.strong_key.is_some());
    let staged: Vec<_> = found.staged("junction.bst:sub/app.bst").into_iter().map(|e| e.name.as_str()).collect();
    assert_eq!(staged, ["base.bst", "stack.bst"]);
    let app = found.element_of("demo", "sub/app.bst").unwrap();
    let strong = app.strong_artifact().unwrap();
    assert!(strong.to_string().starts_with("demo/sub-app/") && Some(&strong) != app.weak_artifact.as_ref());
    assert_eq!(found.element("unresolved.bst").unwrap().cache, crate::CacheState::Unknown);
    assert_eq!(graph.get("unresolved.bst").unwrap().cached, None);
}

#[tokio::test]
async fn a_digest_or_key_that_is_none_is_named() {
    for (from, to, named) in [
        ("\"weak_key\": \"200f", "\"weak_key\": \"zzzz", "`weak_key` of base.bst"),
        ("\"files\": \"8eb6", "\"files\": \"8EB6", "`files` of base.bst"),
        ("\"ref_name\": \"demo/base", "\"ref_name\": \"demo/..", "`ref_name` of base.bst"),
    ] {
        assert!(ANSWER.contains(from));
        let error = ask(&[HELLO, &one_line(&ANSWER.replacen(from, to, 1))]).await.unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[tokio::test]
async fn what_buildstream_refuses_is_passed_on() {
    let check = async |line: &str| ask(&[HELLO, line]).await.unwrap_err();
    let refused = check(r#"{"event":"error","kind":"refused","message":"No such element","detail":"it said"}"#).await;
    assert_eq!(refused.to_string(), "BuildStream says: No such element");
    assert!(matches!(refused, IntrospectError::Refused { detail, .. } if detail == "it said"));
    let other = check(r#"{"event":"error","kind":"incompatible","message":"AttributeError('x')","detail":null}"#).await;
    assert_eq!(other.to_string(), "BuildStream 2.8.1 cannot be asked: AttributeError('x')");
    let absent = ask(&[r#"{"event":"error","kind":"absent","message":"No module named 'buildstream'"}"#]).await;
    let expected = "BuildStream is not installed for /bin/sh: No module named 'buildstream'";
    assert_eq!(absent.unwrap_err().to_string(), expected);
}

#[tokio::test]
async fn unknown_versions_are_warned_of_or_refused() {
    let newer = HELLO.replace("2.8.1", "3.1.0");
    let fake = saying(&[&newer, &one_line(ANSWER)]);
    let limits = conversation::Limits::default();
    let found = fake.ask(VersionPolicy::Warn, limits).await.unwrap();
    assert_eq!(found.warnings, ["BuildStream 3.1.0 is not a version that is known here (2.3 to 2.8)"]);
    let refused = fake.ask(VersionPolicy::Refuse, limits).await.unwrap_err();
    assert!(matches!(refused, IntrospectError::UnknownVersion { version } if version == "3.1.0"));
    assert!(saying(&[HELLO, &one_line(ANSWER)]).ask(VersionPolicy::Refuse, limits).await.is_ok());
}

#[tokio::test]
async fn what_is_no_conversation_is_told_with_what_was_printed() {
    let broken = async |script: &str| {
        let error = Fake::new(script).ask(VersionPolicy::Warn, conversation::Limits::default()).await.unwrap_err();
        assert!(matches!(error, IntrospectError::Broken { .. }), "{error:?}");
        error.to_string()
    };
    let error = broken("echo 'no such file' >&2; exit 3").await;
    assert_eq!(
        error,
        "no answer from BuildStream: the interpreter ended with exit status: 3; it printed: no such file"
    );
    let error = broken("read request; echo Traceback; cat").await;
    assert!(error.contains("\"Traceback\""), "{error}");
    let error = broken(&format!("read request; echo '{}'; cat", HELLO.replace("col\":1", "col\":2"))).await;
    assert!(error.contains("version 2 of the conversation"), "{error}");
    let error = broken(&format!("read request; echo '{}'; cat", one_line(ANSWER))).await;
    assert!(error.contains("an answer without a version"), "{error}");

    let nowhere = Installation::with_interpreter("bst", "/nonexistent/python", []);
    let error = introspect(&nowhere, &Request::new(Invocation::new("."), ["a.bst"])).await.unwrap_err();
    assert!(matches!(error, IntrospectError::Start { .. }), "{error:?}");
}

#[tokio::test]
async fn a_helper_that_prints_much_is_still_heard() {
    let script =
        format!("read request\nhead -c 1000000 /dev/zero >&2\ncat <<'END'\n{HELLO}\n{}\nEND\ncat\n", one_line(ANSWER));
    Fake::new(&script).ask(VersionPolicy::Warn, conversation::Limits::default()).await.unwrap();
}

#[tokio::test]
async fn silence_ends_at_the_limit_and_so_does_the_helper() {
    // It ends when its stdin does, as the real one; nobody has to kill it.
    let fake = Fake::new("read request; cat; echo ended > \"${0%fake}ended\"");
    let limits = conversation::Limits { timeout: Duration::from_millis(50), ..conversation::Limits::default() };
    let error = fake.ask(VersionPolicy::Warn, limits).await.unwrap_err();
    assert!(matches!(error, IntrospectError::TimedOut(after) if after == limits.timeout), "{error:?}");
    assert_eq!(std::fs::read_to_string(fake.path("ended")).unwrap(), "ended\n");
}

#[tokio::test]
async fn a_helper_that_hangs_is_killed_and_its_daemon_stopped() {
    let script = "read request
        mkfifo \"${0%fake}never\"
        cat \"${0%fake}never\" > \"${0%fake}daemon\" 2> /dev/null < /dev/null &
        echo \"{\\\"event\\\":\\\"daemon\\\",\\\"pid\\\":$!}\"
        wait";
    let fake = Fake::new(script);
    // The daemon holds this pipe open for writing as long as it lives.
    let pipe = fake.path("daemon");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let daemon = tokio::task::spawn_blocking(move || std::fs::File::open(pipe).unwrap().read_to_end(&mut Vec::new()));
    let limits = conversation::Limits { timeout: Duration::from_millis(500), grace: Duration::from_millis(50) };
    let error = fake.ask(VersionPolicy::Warn, limits).await.unwrap_err();
    assert!(matches!(error, IntrospectError::TimedOut(_)), "{error:?}");
    assert_eq!(daemon.await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn dropping_the_future_ends_the_helper() {
    let script = "read request; echo started > \"${0%fake}pipe\"; cat; echo ended > \"${0%fake}pipe\"";
    let fake = Fake::new(script);
    let pipe = fake.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let hear = |pipe: std::path::PathBuf| tokio::task::spawn_blocking(move || std::fs::read_to_string(pipe).unwrap());
    let started = hear(pipe.clone());
    tokio::select! {
        outcome = fake.ask(VersionPolicy::Warn, conversation::Limits::default()) => panic!("{outcome:?}"),
        said = started => assert_eq!(said.unwrap(), "started\n"),
    }
    assert_eq!(hear(pipe).await.unwrap(), "ended\n");
}

/// Replaces one value somewhere in a document.
fn replaced(value: &mut serde_json::Value, place: &mut usize, with: &serde_json::Value) {
    if *place == 0 {
        *value = with.clone();
    }
    *place = place.wrapping_sub(1);
    match value {
        serde_json::Value::Array(values) => values.iter_mut().for_each(|value| replaced(value, place, with)),
        serde_json::Value::Object(members) => members.values_mut().for_each(|value| replaced(value, place, with)),
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_answer_is_too_strange(places in prop::collection::vec((0_usize..200, 0_usize..6), 1..4)) {
        let mut document: serde_json::Value = serde_json::from_str(ANSWER).unwrap();
        let values = serde_json::json!([null, -1, "", ["stack.bst", "base.bst", "none.bst"], {}, "absent"]);
        for (place, value) in places {
            replaced(&mut document, &mut place.clone(), &values[value]);
        }
        if let Ok(answer) = serde_json::from_value::<answer::Answer>(document)
            && let Ok(found) = answer.into_introspection()
        {
            let _ = found.to_graph();
            let _ = found.elements.iter().map(|element| found.staged(&element.name).len()).sum::<usize>();
        }
    }
}

#[test]
fn the_request_says_everything_that_matters() {
    let invocation = Invocation {
        config: Some("/etc/bst.conf".into()),
        options: vec![("arch".into(), "x86".into())],
        strictness: Strictness::NotStrict,
        default_mirror: Some("near".into()),
        further: vec!["--verbose".into()],
        ..Invocation::new("/project")
    };
    let request = Request {
        sources: SourcePolicy::Stage,
        subprojects: SubprojectPolicy::Refuse,
        ..Request::new(invocation, ["a.bst", "b.bst"])
    };
    let expected = serde_json::json!({
        "directory": "/project", "config": "/etc/bst.conf", "options": [["arch", "x86"]], "strict": false,
        "default_mirror": "near", "elements": ["a.bst", "b.bst"], "fetch_subprojects": false, "stage_sources": true,
    });
    let asked_value: serde_json::Value = serde_json::from_str(&asked(&request).unwrap()).unwrap();
    assert_eq!(asked_value, expected);
    let here: serde_json::Value =
        serde_json::from_str(&asked(&Request::new(Invocation::default(), ["a.bst"])).unwrap()).unwrap();
    assert_eq!(here["directory"], std::env::current_dir().unwrap().to_str().unwrap());
    assert_eq!((here["strict"].is_null(), here["fetch_subprojects"].as_bool()), (true, Some(true)));
}
