//! One run of the program.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};

/// Far longer than any run takes, so that a hang is a failure and not a silent test.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was read from a variable of the environment would make tests depend on who runs them.
const VARIABLES: [&str; 5] = ["BST_SA_SERVER", "BST_SA_INSTANCE", "BST_SA_TOKEN_FILE", "BST_SA_LOG", "CC"];

/// Waits for what happens in no time or never.
pub(crate) async fn patiently<T>(what: impl Debug, event: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, event).await.unwrap_or_else(|_| panic!("waited in vain for {what:?}"))
}

/// The program with its arguments, not yet running.
pub(crate) struct Program {
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    directory: Option<PathBuf>,
    memory_bytes: Option<u64>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// `None` after a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Program {
    pub(crate) fn new<A: AsRef<str>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self {
            arguments: arguments.into_iter().map(|a| a.as_ref().to_owned()).collect(),
            variables: Vec::new(),
            directory: None,
            memory_bytes: None,
        }
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_str().unwrap().to_owned());
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs in this directory.
    pub(crate) fn within(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Lets the kernel refuse memory beyond this: heap and stacks, not what is mapped from files.
    pub(crate) fn with_memory(mut self, megabytes: u64) -> Self {
        self.memory_bytes = Some(megabytes << 20);
        self
    }

    pub(crate) fn start(self) -> Child {
        let program = env!("CARGO_BIN_EXE_bst-sa");
        let mut command = match self.memory_bytes {
            None => Command::new(program),
            Some(limit) => {
                let mut command = Command::new("sh");
                command.args(["-c", "ulimit -d \"$1\" && shift && exec \"$@\"", "sh", &(limit >> 10).to_string()]);
                command.arg(program);
                command
            }
        };
        for name in VARIABLES {
            command.env_remove(name);
        }
        command
            .args(&self.arguments)
            // Every thread has a stack, and they must not depend on the machine's processors.
            .env("TOKIO_WORKER_THREADS", "2")
            .env("RUST_BACKTRACE", "0")
            .envs(self.variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(directory) = self.directory {
            command.current_dir(directory);
        }
        command.spawn().unwrap()
    }

    pub(crate) async fn run(self) -> Ran {
        let arguments = self.arguments.clone();
        Ran::of(self.start(), &arguments).await
    }

    /// Runs it, and expects it to be done.
    pub(crate) async fn done(self) -> Ran {
        let ran = self.run().await;
        ran.expect_code(0);
        ran
    }

    /// Runs it, and expects one JSON document.
    pub(crate) async fn json(self) -> Value {
        self.done().await.json()
    }
}

impl Ran {
    pub(crate) async fn of(child: Child, arguments: &[String]) -> Self {
        let output = patiently(arguments, child.wait_with_output()).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    #[track_caller]
    pub(crate) fn expect_code(&self, code: i32) {
        assert_eq!(self.code, Some(code), "{self:#?}");
    }

    /// It failed with this code, printed no result, and its message says all of this.
    #[track_caller]
    pub(crate) fn expect_failure(&self, code: i32, says: &[&str]) {
        self.expect_code(code);
        assert_eq!(self.stdout, "", "{self:#?}");
        assert!(self.stderr.contains("bst-sa: "), "{self:#?}");
        self.expect_message(says);
    }

    #[track_caller]
    pub(crate) fn expect_message(&self, says: &[&str]) {
        for part in says {
            assert!(self.stderr.contains(part), "{part:?} is not said: {self:#?}");
        }
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }
}

/// Otherwise the tests that limit it would prove nothing.
#[tokio::test]
async fn the_memory_limit_bites() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("message");
    std::fs::File::create(&file).unwrap().set_len(200 << 20).unwrap();
    let show = |megabytes| Program::new(["show", "--file"]).arg(&file).with_memory(megabytes).run();
    assert_eq!(show(100).await.code, None);
    show(300).await.expect_failure(1, &["cannot be read"]);
}
