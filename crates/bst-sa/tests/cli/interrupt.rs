//! Ctrl-C: an end at once, a message, and nothing left running.

use std::os::unix::fs::PermissionsExt;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use testbed::runner::{Gated, LocalRunner};
use testbed::{Gate, ServerConfig};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::process::Child;

use crate::prime::Primed;
use crate::support::{Program, Ran, patiently};

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
}

#[tokio::test]
async fn priming_ends_although_executions_do_not() {
    let gate = Gate::new();
    let runner = Gated::new(gate.clone(), LocalRunner::new("gated"));
    let primed = Primed::new(ServerConfig::default().with_runner(runner)).await;
    let child = primed.prime().arg("--json").start();
    patiently("an execution", gate.reached(1)).await;
    interrupt(&child);
    let ran = Ran::of(child, &["prime".to_owned()]).await;
    ran.expect_failure(1, &["bst-sa: interrupted"]);
}

/// The demo is the one command that starts processes, each in a group of its own that no terminal reaches.
#[tokio::test]
async fn the_demos_compilers_end_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let (fifo, compiler) = (directory.path().join("started"), directory.path().join("cc"));
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // A compiler that says who it is and then takes for ever; its child is to end, too.
    let script = format!("#!/bin/sh\ncat /dev/zero > /dev/null &\necho $$ $! > {}\nwait\n", fifo.display());
    std::fs::write(&compiler, script).unwrap();
    std::fs::set_permissions(&compiler, std::fs::Permissions::from_mode(0o755)).unwrap();
    let started = pipe::OpenOptions::new().read_write(true).open_receiver(&fifo).unwrap();
    let child = Program::new(["demo", "--jobs", "1", "--compiler"]).arg(&compiler).start();
    let mut lines = BufReader::new(started).lines();
    let started = patiently("a compiler", lines.next_line()).await.unwrap().unwrap();
    let pids: Vec<i32> = started.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2, "{started}");
    let open = |pid: &i32| pidfd_open(Pid::from_raw(*pid).unwrap(), PidfdFlags::empty()).unwrap();
    let processes: Vec<_> = pids.iter().map(open).collect();

    interrupt(&child);
    Ran::of(child, &["demo".to_owned()]).await.expect_failure(1, &["bst-sa: interrupted"]);
    for process in &processes {
        // Ready once the process has ended; ten seconds at most for what has happened already.
        let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&limit)).unwrap();
        assert_eq!(ended, 1, "a process of {pids:?} is left");
    }
}
