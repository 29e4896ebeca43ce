//! The whole loop on a real buildbox-casd with a real compiler in a real
//! sandbox: what `cargo xtask integration` runs as its scenario `loop`.
//!
//! Reads `BST_SA_TEST_URL` (`unix:PATH` of the server), `BST_SA_TEST_ROOT` (a
//! root file system with gcc that the server's machine can read) and
//! `BST_SA_TEST_BIN` (the built `bst-sa`). Without them the tests say loudly
//! that they are skipped; the scenario takes that for a failure.
//!
//! Everything that the tool is judged by is put together here from generated
//! types and plain gRPC calls, apart from the crates under test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of a test fail like a test")]
#![allow(clippy::print_stdout, reason = "figures are read from the output")]

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use prost::Message;
use reapi_proto::DigestFunction::Sha256;
use reapi_proto::buildgrid::CaptureTreeRequest;
use reapi_proto::buildgrid::local_content_addressable_storage_client::LocalContentAddressableStorageClient;
use reapi_proto::v2::action_cache_client::ActionCacheClient;
use reapi_proto::v2::batch_update_blobs_request::Request as BlobUpload;
use reapi_proto::v2::command::{EnvironmentVariable, OutputDirectoryFormat};
use reapi_proto::v2::content_addressable_storage_client::ContentAddressableStorageClient;
use reapi_proto::v2::execution_client::ExecutionClient;
use reapi_proto::v2::platform::Property;
use reapi_proto::v2::{
    Action, ActionResult, BatchReadBlobsRequest, BatchUpdateBlobsRequest, Command, Digest, Directory, DirectoryNode,
    ExecuteRequest, ExecuteResponse, FileNode, GetActionResultRequest, Platform,
};
use reapi_proto::{longrunning, v2};
use serde_json::{Value, json};
use tokio::process::Command as Process;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

/// Where recc runs the commands of an element.
const ELEMENT_DIR: &str = "buildstream/demo/app.bst";
/// The commands take about a second here; one that hangs should say so before the scenario's time is over.
const TOOL_LIMIT: Duration = Duration::from_secs(60);
const FUNCTION: i32 = v2::digest_function::Value::Sha256 as i32;

#[tokio::test]
async fn casd_compiles_and_links_in_the_sandbox() {
    let Some(env) = Environment::read(&["BST_SA_TEST_URL", "BST_SA_TEST_ROOT"]) else { return };
    let casd = Casd::connect(&env["BST_SA_TEST_URL"]).await;
    let sandbox = casd.import(Path::new(&env["BST_SA_TEST_ROOT"])).await;

    let state = State { name: "plain", dep: 40 };
    let first = casd.build(&state, &sandbox).await;
    figure("executed in a first build", 3, first.executed);
    figure("exit status of the program", 42, casd.run_program(&first, &sandbox).await);

    let second = casd.build(&state, &sandbox).await;
    figure("found in an identical build", 3, second.found);
    figure("executed in an identical build", 0, second.executed);

    let third = casd.build(&State { dep: 41, ..state }, &sandbox).await;
    figure("found after a change, unprimed", 1, third.found);
    figure("executed after a change, unprimed", 2, third.executed);
}

#[tokio::test]
async fn a_primed_rebuild_executes_nothing() {
    let Some(env) = Environment::read(&["BST_SA_TEST_URL", "BST_SA_TEST_ROOT", "BST_SA_TEST_BIN"]) else { return };
    let url = &env["BST_SA_TEST_URL"];
    let casd = Casd::connect(url).await;
    let sandbox = casd.import(Path::new(&env["BST_SA_TEST_ROOT"])).await;
    let dir = tempfile::tempdir().unwrap();
    let tool = Tool { program: (&env["BST_SA_TEST_BIN"]).into(), url: url.clone(), dir: dir.path().to_owned() };

    let before = State { name: "primed", dep: 40 };
    let build = casd.build(&before, &sandbox).await;
    assert_eq!(build.executed, 3, "the first build starts from an empty cache");
    let graph = casd.graph(&before, &sandbox, Some(&build), None).await;
    let generated = tool.run("generate", &graph).await;
    figure("actions recorded", 3, &generated["elements"][0]["actions"]);

    let after = State { dep: 41, ..before };
    let record = generated["elements"][0]["speculative_actions"].as_str().expect("a digest");
    let graph = casd.graph(&after, &sandbox, None, Some(record)).await;
    let primed = tool.run("prime", &graph).await;
    figure("adapted", 2, outcomes(&primed, "adapted").len());
    figure("unchanged", 1, outcomes(&primed, "unchanged").len());
    figure("executed by priming", 2, &primed["totals"]["executed"]);
    figure("failed while priming", 0, &primed["totals"]["failed"]);

    let rebuild = casd.build(&after, &sandbox).await;
    figure("found in the primed rebuild", 3, rebuild.found);
    figure("executed in the primed rebuild", 0, rebuild.executed);
    let adapted = outcomes(&primed, "adapted");
    let exact = adapted.iter().filter(|digest| rebuild.actions.contains(digest)).count();
    figure("adapted actions that the rebuild asked for", 2, exact);
    figure("exit status of the rebuilt program", 43, casd.run_program(&rebuild, &sandbox).await);
}

/// What became of the actions of `app.bst`: the digests (`H/S`) of the adapted
/// actions, or of the base actions where nothing is adapted.
fn outcomes(json: &Value, outcome: &str) -> Vec<String> {
    let elements = json["elements"].as_array().expect("a list of elements");
    let app = elements.iter().find(|element| element["name"] == "app.bst").expect("the element");
    let actions = app["actions"].as_array().expect("a list of actions");
    let chosen = actions.iter().filter(|action| action["outcome"] == outcome);
    chosen.map(|action| action["adapted"].as_str().or(action["base"].as_str()).unwrap().to_owned()).collect()
}

/// Reports a figure to whoever runs this test, and holds it to what is expected.
#[track_caller]
fn figure(name: &str, expected: i64, found: impl Display) {
    let found = found.to_string();
    println!("figure: {name} | {expected} | {found}");
    assert_eq!(found, expected.to_string(), "{name}");
}

struct Environment;

impl Environment {
    /// The variables, or a loud notice that bypasses the harness's capture of output.
    fn read(names: &[&str]) -> Option<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        for name in names {
            match std::env::var(name) {
                Ok(value) => drop(found.insert((*name).to_owned(), value)),
                Err(_) => {
                    let notice = format!("SKIPPED casd_loop: {name} is not set; `cargo xtask integration` sets it\n");
                    std::io::stderr().write_all(notice.as_bytes()).unwrap();
                    return None;
                }
            }
        }
        Some(found)
    }
}

/// A state of the project: one dependency with one header, and an element of two files that are compiled and linked.
#[derive(Clone, Copy)]
struct State {
    /// Keeps the actions of different tests apart.
    name: &'static str,
    /// What the header of the dependency defines.
    dep: u32,
}

impl State {
    fn header(&self) -> String {
        format!("#define DEP {}\n", self.dep)
    }

    fn main_c(&self) -> String {
        let util = self.util();
        format!("#include <dep.h>\nint {util}(void);\nint main(void) {{ return DEP + {util}(); }}\n")
    }

    fn util_c(&self) -> String {
        format!("int {}(void) {{ return 2; }}\n", self.util())
    }

    /// A name that the objects keep: equal objects would make equal links.
    fn util(&self) -> String {
        format!("util_{}", self.name)
    }
}

/// What a build of a state came to.
#[derive(Default)]
struct Build {
    /// `H/S` of the actions, in order.
    actions: Vec<String>,
    /// How many had a result in the action cache before they were asked to run.
    found: usize,
    /// How many really ran.
    executed: usize,
    /// The linked program.
    program: Option<Digest>,
}

/// The command line tool.
struct Tool {
    program: PathBuf,
    url: String,
    dir: PathBuf,
}

impl Tool {
    /// Runs a command on `app.bst` with `graph` and returns what it prints as JSON.
    async fn run(&self, command: &str, graph: &Value) -> Value {
        let [file, log] = ["json", "log"].map(|suffix| self.dir.join(format!("{command}.{suffix}")));
        fs::write(&file, graph.to_string()).unwrap();
        let mut process = Process::new(&self.program);
        process.args([command, "app.bst", "--json", "--server", &self.url, "--graph"]).arg(&file);
        process.current_dir(&self.dir).stdin(Stdio::null()).stderr(fs::File::create(&log).unwrap()).kill_on_drop(true);
        let outcome = tokio::time::timeout(TOOL_LIMIT, process.output()).await;
        let said = || fs::read_to_string(&log).unwrap();
        let output = outcome.unwrap_or_else(|_| panic!("bst-sa {command} does not end\n{}", said())).unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "bst-sa {command}: {}\n{stdout}{}", output.status, said());
        println!("bst-sa {command}: {}{}", stdout.trim(), said());
        serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("bst-sa {command}: {e} in {stdout:?}\n{}", said()))
    }
}

/// The server, by plain calls.
struct Casd {
    channel: Channel,
}

impl Casd {
    async fn connect(url: &str) -> Self {
        let path = url.strip_prefix("unix:").expect("a Unix socket");
        let channel = Endpoint::from_shared(format!("unix://{path}")).unwrap().connect().await.unwrap();
        Self { channel }
    }

    /// Has the server read a whole directory of this machine: it need not be sent.
    async fn import(&self, dir: &Path) -> Digest {
        let request = CaptureTreeRequest {
            path: vec![dir.to_str().unwrap().to_owned()],
            output_directory_format: OutputDirectoryFormat::DirectoryOnly as i32,
            ..CaptureTreeRequest::default()
        };
        let mut client = LocalContentAddressableStorageClient::new(self.channel.clone());
        let answer = client.capture_tree(request).await.unwrap().into_inner().responses.remove(0);
        assert_eq!(answer.status.unwrap_or_default().code, 0, "import of {}", dir.display());
        answer.root_directory_digest.expect("a digest of the root directory")
    }

    async fn put(&self, data: impl Into<Vec<u8>>) -> Digest {
        let data = data.into();
        let digest = wire(&data);
        let request = BatchUpdateBlobsRequest {
            requests: vec![BlobUpload { digest: Some(digest.clone()), data: data.into(), compressor: 0 }],
            digest_function: FUNCTION,
            ..BatchUpdateBlobsRequest::default()
        };
        let mut client = ContentAddressableStorageClient::new(self.channel.clone());
        let answer = client.batch_update_blobs(request).await.unwrap().into_inner().responses.remove(0);
        assert_eq!(answer.status.unwrap_or_default().code, 0, "upload of {}", text(&digest));
        digest
    }

    async fn read(&self, digest: Digest) -> String {
        let request = BatchReadBlobsRequest {
            digests: vec![digest],
            digest_function: FUNCTION,
            ..BatchReadBlobsRequest::default()
        };
        let mut client = ContentAddressableStorageClient::new(self.channel.clone());
        let answer = client.batch_read_blobs(request).await.unwrap().into_inner().responses.remove(0);
        String::from_utf8_lossy(&answer.data).into_owned()
    }

    /// Stores the Directory messages of a tree given as path and file, and returns its root.
    async fn tree(&self, files: &[(&str, &FileNode)]) -> Digest {
        let mut here = Directory::default();
        let mut below: BTreeMap<&str, Vec<(&str, &FileNode)>> = BTreeMap::new();
        for (path, node) in files {
            match path.split_once('/') {
                Some((dir, rest)) => below.entry(dir).or_default().push((rest, node)),
                None => here.files.push(FileNode { name: (*path).to_owned(), ..(*node).clone() }),
            }
        }
        here.files.sort_by(|a, b| a.name.cmp(&b.name));
        for (name, files) in below {
            let digest = Box::pin(self.tree(&files)).await;
            here.directories.push(DirectoryNode { name: name.to_owned(), digest: Some(digest) });
        }
        self.put(here.encode_to_vec()).await
    }

    async fn file(&self, data: String) -> FileNode {
        FileNode { digest: Some(self.put(data).await), ..FileNode::default() }
    }

    /// Stores an action as recc makes them, and returns its digest.
    #[allow(deprecated, reason = "recc fills in the deprecated Command.platform, and buildbox-run reads it")]
    async fn action(&self, command: &[&str], output: &str, inputs: &[(&str, &FileNode)], sandbox: &Digest) -> Digest {
        let root = Property { name: "chrootRootDigest".into(), value: text(sandbox) };
        let platform = Some(Platform { properties: vec![root] });
        let variables = [("LC_ALL", "C"), ("PATH", "/usr/bin:/bin"), ("SOURCE_DATE_EPOCH", "1320937200")];
        let variable = |(name, value): (&str, &str)| EnvironmentVariable { name: name.into(), value: value.into() };
        let message = Command {
            arguments: command.iter().map(|argument| (*argument).to_owned()).collect(),
            environment_variables: variables.map(variable).into(),
            output_paths: Some(output.to_owned()).into_iter().filter(|path| !path.is_empty()).collect(),
            working_directory: ELEMENT_DIR.into(),
            platform: platform.clone(),
            ..Command::default()
        };
        let action = Action {
            command_digest: Some(self.put(message.encode_to_vec()).await),
            input_root_digest: Some(self.tree(inputs).await),
            platform,
            ..Action::default()
        };
        self.put(action.encode_to_vec()).await
    }

    async fn is_cached(&self, action: &Digest) -> bool {
        let request = GetActionResultRequest {
            action_digest: Some(action.clone()),
            digest_function: FUNCTION,
            ..GetActionResultRequest::default()
        };
        match ActionCacheClient::new(self.channel.clone()).get_action_result(request).await {
            Ok(_) => true,
            Err(status) if status.code() == Code::NotFound => false,
            Err(status) => panic!("GetActionResult: {status}"),
        }
    }

    /// Executes an action; a cached result will do.
    async fn execute(&self, action: &Digest) -> ExecuteResponse {
        let request = ExecuteRequest {
            action_digest: Some(action.clone()),
            digest_function: FUNCTION,
            ..ExecuteRequest::default()
        };
        let mut operations = ExecutionClient::new(self.channel.clone()).execute(request).await.unwrap().into_inner();
        loop {
            let operation = operations.message().await.unwrap().expect("an operation that is done comes last");
            if !operation.done {
                continue;
            }
            let Some(longrunning::operation::Result::Response(response)) = operation.result else {
                panic!("the operation failed: {operation:?}");
            };
            let response = ExecuteResponse::decode(&*response.value).unwrap();
            assert_eq!(response.status.clone().unwrap_or_default().code, 0, "{response:?}");
            return response;
        }
    }

    /// Does what recc does: looks the action up, has it executed if need be, and counts.
    async fn step(&self, build: &mut Build, action: &Digest) -> FileNode {
        build.actions.push(text(action));
        build.found += usize::from(self.is_cached(action).await);
        let response = self.execute(action).await;
        build.executed += usize::from(!response.cached_result);
        let result: ActionResult = response.result.expect("a result");
        if result.exit_code != 0 {
            let stderr = self.read(result.stderr_digest.unwrap_or_default()).await;
            panic!("exit status {}: {stderr}{}", result.exit_code, String::from_utf8_lossy(&result.stderr_raw));
        }
        let output = result.output_files.into_iter().next().expect("an output");
        FileNode { digest: output.digest, is_executable: output.is_executable, ..FileNode::default() }
    }

    /// Builds `app.bst`: compile main.c, compile util.c, link.
    async fn build(&self, state: &State, sandbox: &Digest) -> Build {
        let own = |name: &str| format!("{ELEMENT_DIR}/{name}");
        let mut build = Build::default();
        let main_c = self.file(state.main_c()).await;
        let header = self.file(state.header()).await;
        let inputs = [(&*own("main.c"), &main_c), ("usr/include/dep.h", &header)];
        let command = ["/usr/bin/gcc", "-c", "-o", "main.o", "main.c"];
        let main_o = self.step(&mut build, &self.action(&command, "main.o", &inputs, sandbox).await).await;
        let util_c = self.file(state.util_c()).await;
        let command = ["/usr/bin/gcc", "-c", "-o", "util.o", "util.c"];
        let action = self.action(&command, "util.o", &[(&own("util.c"), &util_c)], sandbox).await;
        let util_o = self.step(&mut build, &action).await;
        let inputs = [(&*own("main.o"), &main_o), (&*own("util.o"), &util_o)];
        let command = ["/usr/bin/gcc", "-o", "app", "main.o", "util.o"];
        let program = self.step(&mut build, &self.action(&command, "app", &inputs, sandbox).await).await;
        build.program = program.digest;
        build
    }

    /// The exit status of the built program, in the sandbox.
    async fn run_program(&self, build: &Build, sandbox: &Digest) -> i32 {
        let program = FileNode { digest: build.program.clone(), is_executable: true, ..FileNode::default() };
        let inputs = [(&*format!("{ELEMENT_DIR}/app"), &program)];
        let action = self.action(&["./app"], "", &inputs, sandbox).await;
        self.execute(&action).await.result.expect("a result").exit_code
    }

    /// The graph of the state, as an orchestrator would describe it: with what
    /// `build` ran, or, before the build of this state, with the record of an earlier one.
    async fn graph(&self, state: &State, sandbox: &Digest, build: Option<&Build>, record: Option<&str>) -> Value {
        let header = self.file(state.header()).await;
        let (main_c, util_c) = (self.file(state.main_c()).await, self.file(state.util_c()).await);
        let nothing = self.put(Directory::default().encode_to_vec()).await;
        let dep_sources = self.tree(&[("include/dep.h", &header)]).await;
        let dep_artifact = self.tree(&[("usr/include/dep.h", &header)]).await;
        let sources = self.tree(&[("main.c", &main_c), ("util.c", &util_c)]).await;
        let key = |element: &str| format!("{:?}", wire(format!("{element} {}", state.dep).as_bytes()).hash);
        let mut app = json!({
            "name": "app.bst", "project": "demo", "weak_key": "a1", "strong_key": key("app"),
            "sources": text(&sources), "build_deps": ["base.bst", "dep.bst"],
        });
        if let Some(build) = build {
            app["cached"] = true.into();
            app["artifact"] = text(&self.tree(&[("usr/bin/app", &program_node(build))]).await).into();
            app["subactions"] = build.actions.clone().into();
        }
        if let Some(record) = record {
            app["speculative_actions"] = record.into();
        }
        json!({ "version": 1, "digest_function": "SHA256", "elements": [
            { "name": "base.bst", "project": "demo", "weak_key": "b1", "strong_key": "b2", "cached": true,
              "sources": text(&nothing), "artifact": text(sandbox) },
            { "name": "dep.bst", "project": "demo", "weak_key": "d1", "strong_key": key("dep"), "cached": true,
              "sources": text(&dep_sources), "artifact": text(&dep_artifact), "build_deps": ["base.bst"] },
            app,
        ]})
    }
}

fn program_node(build: &Build) -> FileNode {
    FileNode { digest: build.program.clone(), is_executable: true, ..FileNode::default() }
}

fn wire(data: &[u8]) -> Digest {
    let digest = Sha256.digest(data);
    Digest { hash: digest.to_hex(), size_bytes: digest.wire_size() }
}

fn text(digest: &Digest) -> String {
    format!("{}/{}", digest.hash, digest.size_bytes)
}
