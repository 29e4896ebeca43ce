//! `build` around a `bst` that is none of BuildStream's: what holds whatever happens beside the build.
//!
//! With the released BuildStream it is tested by `cargo xtask integration`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::support::{Program, patiently};

/// A `bst` that notes its arguments, says something on both channels and does
/// as `then` says. Its interpreter cannot import BuildStream.
fn world(then: &str) -> TempDir {
    let home = TempDir::new().unwrap();
    let script = format!(
        "#!/usr/bin/env -S python3 -S\n\
         import json, os, signal, sys\n\
         json.dump(sys.argv[1:], open({:?}, 'w'))\n\
         print('out of bst', flush=True)\n\
         {then}\n",
        home.path().join("arguments").display().to_string(),
    );
    let bst = home.path().join("bst");
    std::fs::write(&bst, script).unwrap();
    std::fs::set_permissions(&bst, std::fs::Permissions::from_mode(0o755)).unwrap();
    home
}

fn build(home: &Path, arguments: &[&str]) -> Program {
    let path = format!("{}:{}", home.display(), std::env::var("PATH").unwrap());
    Program::new(["build"]).args(arguments).env("PATH", &path).within(home)
}

#[tokio::test]
async fn a_build_that_cannot_be_primed_is_a_build() {
    let home = world("sys.exit(7)");
    let ran = build(home.path(), &["--json", "--config", "my.conf", "app.bst", "lib.bst", "--", "--builders", "3"])
        .run()
        .await;
    ran.expect_code(7);
    let report = ran.json();
    assert_eq!((&report["status"], &report["elements"]), (&json!(7), &json!([])));
    let reason = report["unprimed"].as_str().unwrap();
    assert!(reason.contains("buildstream"), "{reason}");
    assert!(ran.stderr.contains("out of bst"), "what bst prints is no result: {ran:?}");
    assert!(ran.stderr.contains("building without priming"), "{ran:?}");

    let arguments: Value = serde_json::from_slice(&std::fs::read(home.path().join("arguments")).unwrap()).unwrap();
    let expected = ["--directory", ".", "--config", "my.conf", "--builders", "3", "build", "--", "app.bst", "lib.bst"];
    assert_eq!(arguments, json!(expected));

    let table = build(home.path(), &["app.bst"]).run().await;
    table.expect_code(7);
    assert!(table.stdout.contains("nothing was primed"), "{table:?}");
}

#[tokio::test]
async fn without_bst_nothing_is_built() {
    let home = TempDir::new().unwrap();
    let ran = Program::new(["build", "app.bst"]).env("PATH", home.path().to_str().unwrap()).run().await;
    ran.expect_failure(1, &["BuildStream was not found", "install it"]);
    let ran = build(world("").path(), &["app.bst", "--", "--builders"]).run().await;
    ran.expect_failure(2, &["--builders", "needs a value"]);
}

#[tokio::test]
async fn signals_reach_bst_and_nothing_is_left() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let home =
            world("signal.signal(signal.SIGINT, signal.SIG_DFL); print(os.getpid(), flush=True); signal.pause()");
        let mut child = build(home.path(), &["app.bst"]).start();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let bst = patiently("the process id of bst", async {
            let mut line = String::new();
            while line.trim().parse::<i32>().is_err() {
                line.clear();
                assert_ne!(stderr.read_line(&mut line).await.unwrap(), 0, "bst says its number");
            }
            line.trim().parse::<i32>().unwrap()
        });
        let bst = Pid::from_raw(bst.await).unwrap();
        kill_process(Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap(), signal).unwrap();
        let status = patiently(signal, child.wait()).await.unwrap();
        assert_eq!(status.code(), Some(code));
        assert!(kill_process(bst, Signal::CONT).is_err(), "bst is gone");
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).await.unwrap();
    }
}
