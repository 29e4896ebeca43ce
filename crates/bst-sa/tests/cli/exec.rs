//! `bst-sa exec`: one command, its inputs, outputs and exit code.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use prost::Message;
use reapi_proto::{DigestFunction, v2};
use tempfile::TempDir;
use testbed::runner::FnRunner;
use testbed::{Fault, Rpc, Server, ServerConfig};

use crate::support::{Program, Ran, listing};

/// A server, and a directory to run in.
struct Bench {
    server: Server,
    /// Inside of a temporary directory, so that what escapes from it escapes into that.
    here: PathBuf,
    _temporary: TempDir,
}

impl Bench {
    async fn new() -> Self {
        Self::on(ServerConfig::default()).await
    }

    async fn on(config: ServerConfig) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let here = temporary.path().join("here");
        fs::create_dir(&here).unwrap();
        Self { server: Server::start(config).await.unwrap(), here, _temporary: temporary }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.here.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn exec(&self, options: &[&str]) -> Program {
        Program::new(["exec", "--server", self.server.url()]).args(options).within(&self.here)
    }

    async fn shell(&self, options: &[&str], script: &str) -> Ran {
        self.exec(options).args(["--", "/bin/sh", "-c", script]).run().await
    }
}

#[tokio::test]
async fn output_goes_where_it_came_from() {
    let bench = Bench::new().await;
    let ran = bench.shell(&[], "echo to stdout; echo to stderr >&2").await;
    assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), (Some(0), "to stdout\n", "to stderr\n"));
}

#[tokio::test]
async fn the_exit_code_is_the_commands_own() {
    let bench = Bench::new().await;
    let ran = bench.shell(&["--output", "made"], "echo text > made; echo no luck >&2; exit 37").await;
    assert_eq!((ran.code, &*ran.stderr), (Some(37), "no luck\n"));
    assert_eq!(bench.read("made"), "text\n", "what a failed command made is written too");
    // A shell reports a signal as 128 plus its number.
    assert_eq!(bench.shell(&[], "kill -TERM $$").await.code, Some(143));
}

#[tokio::test]
async fn inputs_lie_at_their_own_paths() {
    let bench = Bench::new().await;
    bench.write("top.txt", "top ");
    bench.write("dir/below/deep.txt", "deep ");
    bench.write("dir/other.txt", "other ");
    bench.write("not-an-input.txt", "secret");
    bench.write("run.sh", "#!/bin/sh\necho ran\n");
    fs::set_permissions(bench.path("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("top.txt", bench.path("link")).unwrap();
    fs::create_dir(bench.path("dir/empty")).unwrap();
    let inputs = ["top.txt", "./dir/below", "link", "run.sh", "dir/empty"].map(|i| format!("--input={i}"));
    let inputs: Vec<_> = inputs.iter().map(String::as_str).collect();
    let script = "cat top.txt dir/below/deep.txt; readlink link; ./run.sh; find . | sort | tr '\\n' ' '";
    let ran = bench.shell(&inputs, script).await;
    let found = ". ./dir ./dir/below ./dir/below/deep.txt ./dir/empty ./link ./run.sh ./top.txt ";
    assert_eq!(ran.stdout, format!("top deep top.txt\nran\n{found}"), "{ran:#?}");

    let ran = bench.shell(&["--input", "."], "cat not-an-input.txt").await;
    assert_eq!(ran.stdout, "secret");
}

#[tokio::test]
async fn a_large_input_and_a_large_output_pass_through() {
    let bench = Bench::new().await;
    let text = "0123456789abcdef".repeat(1 << 18);
    bench.write("in", &text);
    bench.shell(&["--input=in", "--output=out"], "cat in in > out").await.expect_code(0);
    assert!(bench.read("out") == format!("{text}{text}"), "8 MiB came back changed");
}

#[tokio::test]
async fn outputs_are_written_with_directories_and_links() {
    let bench = Bench::new().await;
    bench.write("stale", "old");
    let script = "mkdir -p out/sub/empty; echo a > out/a; echo b > out/sub/b; chmod +x out/sub/b; \
                  ln -s sub/b out/link; ln -s nowhere dangling; echo new > stale; echo c > new/dir/c";
    let outputs = ["--output=out", "--output=dangling", "--output=stale", "--output=new/dir/c", "--output=never-made"];
    let ran = bench.shell(&outputs, script).await;
    assert_eq!((ran.code, &*ran.stderr), (Some(0), ""));
    assert_eq!(
        (bench.read("out/a"), bench.read("out/sub/b"), bench.read("stale")),
        ("a\n".into(), "b\n".into(), "new\n".into())
    );
    assert_eq!(bench.read("new/dir/c"), "c\n");
    let mode = |name| fs::metadata(bench.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("out/a"), mode("out/sub/b")), (0o644, 0o755));
    assert!(bench.path("out/sub/empty").is_dir());
    assert_eq!(fs::read_link(bench.path("out/link")).unwrap(), Path::new("sub/b"));
    assert_eq!(fs::read_link(bench.path("dangling")).unwrap(), Path::new("nowhere"));
    assert!(!bench.path("never-made").exists());
}

#[tokio::test]
async fn a_working_directory_holds_for_outputs() {
    let bench = Bench::new().await;
    bench.write("src/main.txt", "main");
    let options = ["--input=src", "--working-directory=src", "--output=made"];
    bench.shell(&options, "cat main.txt > made").await.expect_code(0);
    assert_eq!(bench.read("src/made"), "main");
}

#[tokio::test]
async fn environment_and_platform_are_in_the_action() {
    let bench = Bench::new().await;
    let options = ["--env", "GREETING=a=b", "--env", "EMPTY=", "--platform", "os=linux", "--platform", "arch=any"];
    let ran = bench.shell(&options, "echo \"$GREETING$EMPTY\"").await;
    assert_eq!(ran.stdout, "a=b\n");
    let action = bench.server.stats().executed[0];
    let store = bench.server.store();
    let action: v2::Action = Message::decode(store.peek(&action).unwrap()).unwrap();
    let properties: Vec<_> = action.platform.unwrap().properties.into_iter().map(|p| (p.name, p.value)).collect();
    assert_eq!(properties, [("arch".into(), "any".into()), ("os".into(), "linux".into())]);
}

#[tokio::test]
async fn a_second_run_hits_the_cache_unless_told_otherwise() {
    let bench = Bench::new().await;
    for (options, runs) in [(&[][..], 1), (&[][..], 1), (&["--skip-cache"][..], 2)] {
        bench.shell(options, "echo x").await.expect_code(0);
        assert_eq!(bench.server.stats().executed.len(), runs);
    }
}

#[tokio::test]
async fn nothing_outside_the_current_directory_is_taken_or_written() {
    let bench = Bench::new().await;
    bench.write("inside/file", "x");
    for (option, path) in [
        ("--input", "../secret"),
        ("--input", "inside/../../secret"),
        ("--input", "/etc/hostname"),
        ("--output", "../escape"),
        ("--output", "/escape"),
        ("--working-directory", "/"),
        ("--working-directory", "inside/.."),
    ] {
        let ran = bench.shell(&[option, path], "true").await;
        ran.expect_failure(2, &[option, path, "leads out of the current directory", "hint: "]);
    }
    bench.shell(&["--input", "absent"], "true").await.expect_failure(1, &["input absent", "No such file"]);
    let ran = bench.shell(&["--input", "inside/file", "--input", "inside/file/x"], "true").await;
    ran.expect_code(1);
    assert_eq!(bench.server.stats().uploaded, [], "nothing was sent");
}

#[tokio::test]
async fn a_service_must_be_named_and_must_execute() {
    let bench = Bench::new().await;
    let plain = |options: &[&str]| Program::new(["exec"]).args(options).args(["--", "true"]);
    plain(&[]).run().await.expect_failure(2, &["neither --cas nor --server", "hint: "]);
    let directory = format!("file:{}", bench.here.display());
    let ran = plain(&["--server", &directory]).run().await;
    ran.expect_failure(2, &["a directory cannot execute actions", "--execution"]);
    // From the environment, as in a sandbox.
    let ran = plain(&["--skip-cache"]).env("BST_SA_SERVER", bench.server.url()).run().await;
    ran.expect_failure(1, &["\"true\""]);
}

#[tokio::test]
async fn a_command_that_cannot_be_run_is_an_error() {
    let bench = Bench::new().await;
    let ran = bench.exec(&["--", "/nowhere/program"]).run().await;
    ran.expect_failure(1, &["Execute", "/nowhere/program"]);
}

#[tokio::test]
async fn lost_inputs_are_uploaded_again() {
    let bench = Bench::new().await;
    bench.write("in", "text");
    let lost = DigestFunction::Sha256.digest(b"text");
    bench.server.faults().arm(Rpc::Execute, Fault::Evict(vec![lost]));
    let ran = bench.shell(&["--input=in"], "cat in").await;
    assert_eq!((ran.code, &*ran.stdout), (Some(0), "text"));
}

/// Runs a command for these outputs on a service that reports this result for it, whatever it is.
async fn lie(outputs: &[&str], blobs: &[&[u8]], result: v2::ActionResult) -> (Bench, Ran) {
    let runner = FnRunner::new(move |_| Ok(result.clone()));
    let bench = Bench::on(ServerConfig::default().with_runner(runner)).await;
    for blob in blobs {
        bench.server.store().put(blob.to_vec());
    }
    let outputs: Vec<_> = outputs.iter().map(|output| format!("--output={output}")).collect();
    let program = bench.exec(&[]).args(&outputs).args(["--", "true"]).with_memory(300);
    let ran = program.run().await;
    (bench, ran)
}

fn wire(data: &[u8]) -> Option<v2::Digest> {
    Some(DigestFunction::Sha256.digest(data).into())
}

fn file(path: &str) -> v2::OutputFile {
    v2::OutputFile { path: path.to_owned(), digest: wire(b"x"), ..Default::default() }
}

#[tokio::test]
async fn a_result_cannot_write_elsewhere() {
    for path in ["../escape", "/escape", "out/../../escape", "other", ""] {
        let result = v2::ActionResult { output_files: vec![file("out"), file(path)], ..Default::default() };
        let (bench, ran) = lie(&["out"], &[b"x"], result).await;
        ran.expect_failure(1, &[&format!("{path:?}")]);
        assert_eq!(listing(&bench.here), []);
        assert!(!bench.here.parent().unwrap().join("escape").exists());
    }
    // A link first, and then something below it.
    let link = v2::OutputSymlink { path: "d".to_owned(), target: "..".to_owned(), ..Default::default() };
    let output_files = vec![file("d/escape")];
    let result = v2::ActionResult { output_symlinks: vec![link], output_files, ..Default::default() };
    let (bench, ran) = lie(&["d", "d/escape"], &[b"x"], result).await;
    ran.expect_failure(1, &["output d cannot be written"]);
    assert_eq!(bench.read("d/escape"), "x");
    assert!(!bench.here.parent().unwrap().join("escape").exists());
}

#[tokio::test]
async fn a_directory_that_no_disk_can_hold_is_refused() {
    let leaf = v2::FileNode { name: "leaf".to_owned(), digest: wire(b"x"), ..Default::default() };
    let mut children = vec![v2::Directory { files: vec![leaf], ..Default::default() }];
    for _ in 0..30 {
        let digest = wire(&children[children.len() - 1].encode_to_vec());
        let node = |name: &str| v2::DirectoryNode { name: name.to_owned(), digest: digest.clone() };
        children.push(v2::Directory { directories: vec![node("a"), node("b")], ..Default::default() });
    }
    let bytes = v2::Tree { root: children.pop(), children }.encode_to_vec();
    assert!(bytes.len() < 10_000);
    let directory = |tree| v2::OutputDirectory { path: "out".to_owned(), tree_digest: tree, ..Default::default() };
    let result = v2::ActionResult { output_directories: vec![directory(wire(&bytes))], ..Default::default() };
    let (bench, ran) = lie(&["out"], &[b"x", &bytes], result).await;
    ran.expect_failure(1, &["output directory out", "paths; the limit is"]);
    assert_eq!(listing(&bench.here), []);

    for name in ["..", "a/b", ""] {
        let node = v2::FileNode { name: name.to_owned(), digest: wire(b"x"), ..Default::default() };
        let root = Some(v2::Directory { files: vec![node], ..Default::default() });
        let bytes = v2::Tree { root, ..Default::default() }.encode_to_vec();
        let result = v2::ActionResult { output_directories: vec![directory(wire(&bytes))], ..Default::default() };
        let (bench, ran) = lie(&["out"], &[b"x", &bytes], result).await;
        ran.expect_failure(1, &["output directory out is not valid", &format!("{name:?}")]);
        assert_eq!(listing(&bench.here), []);
    }
}

#[tokio::test]
async fn output_without_end_takes_no_memory() {
    let bench = Bench::new().await;
    let script = "head -c 100000000 /dev/zero; echo end >&2";
    let program = bench.exec(&["--", "/bin/sh", "-c", script]).with_memory(60);
    let ran = program.run().await;
    assert_eq!((ran.code, ran.stdout.len(), &*ran.stderr), (Some(0), 100_000_000, "end\n"));
}

#[tokio::test]
async fn an_output_that_arrives_damaged_is_not_written() {
    let bench = Bench::new().await;
    for _ in 0..50 {
        bench.server.faults().arm(Rpc::Read, Fault::CorruptBytes);
        bench.server.faults().arm(Rpc::BatchReadBlobs, Fault::CorruptBytes);
    }
    let ran = bench.shell(&["--output=out"], "echo text > out").await;
    let digest = DigestFunction::Sha256.digest(b"text\n").to_string();
    ran.expect_failure(1, &["corrupt data", &digest]);
    assert_eq!(listing(&bench.here), [], "neither the output nor a temporary file");
}
