//! One command in its directory: found, started, waited for, killed with all its children.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use reapi_proto::v2;
use rustix::process::{Pid, Signal, kill_process_group};
use tonic::Code;

use super::RunError;

/// Held for reading while files of input trees are open for writing, and for
/// writing while a process starts. A process that starts inherits every open
/// file until it executes its program, and a program that is open for writing
/// anywhere cannot be executed (ETXTBSY).
pub(super) static STARTING: RwLock<()> = RwLock::new(());

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    /// By itself; a signal counts as 128 plus its number, as in a shell.
    Exit(i32),
    /// By us, at its time limit.
    TimedOut,
}

/// Runs `command` in `directory`; its output goes to the two files.
///
/// Dropping the future kills the command's process group.
pub(super) async fn run(
    command: &v2::Command,
    directory: &Path,
    stdout: File,
    stderr: File,
    limit: Option<Duration>,
) -> Result<Ended, RunError> {
    let (name, arguments) = command
        .arguments
        .split_first()
        .ok_or_else(|| RunError::new(Code::InvalidArgument, "the command has no arguments"))?;
    let program = find(name, command, directory)
        .ok_or_else(|| RunError::new(Code::InvalidArgument, format!("there is no executable {name:?}")))?;
    let mut process = tokio::process::Command::new(program);
    process
        .arg0(name)
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .envs(command.environment_variables.iter().map(|v| (&v.name, &v.value)))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0)
        .kill_on_drop(true);
    let child = {
        let _starting = STARTING.write().unwrap_or_else(PoisonError::into_inner);
        process.spawn()
    };
    let mut child = child.map_err(|e| RunError::io(&format!("cannot start {name:?}"), &e))?;
    // Killed on every way out: a command may leave children behind.
    let _group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let waited = match limit {
        None => Ok(child.wait().await),
        Some(limit) => tokio::time::timeout(limit, child.wait()).await,
    };
    match waited {
        Ok(status) => Ok(Ended::Exit(exit_code(status.map_err(|e| RunError::io("cannot wait for the command", &e))?))),
        Err(_) => Ok(Ended::TimedOut),
    }
}

/// A process group that dies with this value.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0
            && let Err(error) = kill_process_group(group, Signal::KILL)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(%error, "cannot kill the process group of a command");
        }
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(-1)
}

/// The file of a command's name: absolute, relative to the working directory, or found in the command's own PATH.
fn find(name: &str, command: &v2::Command, directory: &Path) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(directory.join(name)).filter(|p| is_executable(p));
    }
    let path = &command.environment_variables.iter().find(|v| v.name == "PATH")?.value;
    std::env::split_paths(path).map(|folder| directory.join(folder).join(name)).find(|p| is_executable(p))
}

fn is_executable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
}

/// Creates a file for a command's output and returns it with its path.
pub(super) fn output_file(folder: &Path, name: &str) -> io::Result<(PathBuf, File)> {
    let path = folder.join(name);
    let file = File::create_new(&path)?;
    Ok((path, file))
}
