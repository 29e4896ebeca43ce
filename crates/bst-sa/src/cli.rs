//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::connect::ConnectOptions;
use crate::observe::ObserveOptions;
use crate::project::{BuildStreamOptions, ProjectOptions};

/// Speculative actions for Remote Execution: run what the next build will ask for before it asks.
#[derive(Parser, Debug)]
#[command(name = "bst-sa", version, about, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    /// Say more on stderr (or set BST_SA_LOG to a tracing filter)
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  bst-sa demo
  bst-sa build app.bst
  bst-sa generate --graph graph.json --server unix:casd.sock app.bst
  bst-sa instantiate --graph next.json --server unix:casd.sock app.bst
  bst-sa prime --graph next.json --server unix:casd.sock app.bst

Exit status: 0 done, 1 failed, 2 wrong usage.";

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// The whole loop on an embedded server with this machine's C compiler
    Demo(DemoArgs),
    /// Build elements of a BuildStream project with `bst`, primed by the record of the last build
    Build(BuildArgs),
    /// After a build: record where the inputs of its actions came from, and store that
    Generate(GenerateArgs),
    /// Before a build: show what the recorded actions have become; execute nothing
    Instantiate(InstantiateArgs),
    /// Before a build: adapt the recorded actions and have them executed
    Prime(PrimeArgs),
    /// After a rebuild: hold what was predicted against what the build asked for
    Explain(ExplainArgs),
    /// Say how long a rebuild would take with and without priming, by numbers of workers
    Simulate(Box<SimulateArgs>),
    /// Show what is recorded
    Show(ShowArgs),
    /// Print the graph of a BuildStream project as JSON
    Graph(GraphArgs),
    /// Run one command through Remote Execution
    Exec(ExecArgs),
    /// Check services and machine, and say what to do
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    #[command(after_help = "\
Examples:
  bst-sa completions bash > ~/.local/share/bash-completion/completions/bst-sa
  bst-sa completions fish > ~/.config/fish/completions/bst-sa.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args, Debug)]
pub(crate) struct JsonOption {
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Builds three small libraries and programs, changes a header and a source, and
rebuilds twice from equal caches: once without and once with priming.

Examples:
  bst-sa demo
  bst-sa demo --lookup weak --json")]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    pub(crate) json: JsonOption,
    #[arg(long, value_enum, default_value_t = LookupChoice::Nearest, help = LOOKUP_HELP)]
    pub(crate) lookup: LookupChoice,
    /// Actions to run at once (default: number of processors)
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// The C compiler, by name or path
    #[arg(long, value_name = "CC", env = "CC", default_value = "cc")]
    pub(crate) compiler: String,
}

const LOOKUP_HELP: &str = "Which record of an element to use when its own inputs changed: the nearest one, or only one with the same weak key";

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum LookupChoice {
    /// The newest record whose sources differ, where the weak key has none
    Nearest,
    /// Only a record of the same weak key
    Weak,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ModeChoice {
    /// Record nothing
    None,
    /// Use records, write none
    PrimeOnly,
    /// Origins in sources and artifacts; no action cache is read
    SourceArtifact,
    /// Also outputs of the element's own actions
    IntraElement,
    /// Also outputs of other elements' actions
    Full,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Runs `bst build` in this terminal. While it runs, the actions that the last
builds recorded are adapted to what has changed and executed ahead of it, and
every element that it builds is recorded. The exit status is that of `bst`:
whatever goes wrong beside the build is reported and left out.

A primed hit is an action that the build found in the action cache because it
had been executed ahead; a direct hit was there anyway.

Examples:
  bst-sa build app.bst
  bst-sa build app.bst -- --on-error continue --builders 8
  bst-sa build --config my.conf --option arch x86_64 app.bst --json
  bst-sa build --progress --trace build.json app.bst
  bst-sa build --metrics /var/lib/node_exporter/textfile/bst_sa.prom app.bst")]
pub(crate) struct BuildArgs {
    /// Elements to build
    #[arg(value_name = "ELEMENT", required = true)]
    pub(crate) elements: Vec<String>,
    /// How much to record; `none` primes nothing either
    #[arg(long, value_enum, default_value_t = ModeChoice::Full)]
    pub(crate) mode: ModeChoice,
    #[arg(long, value_enum, default_value_t = LookupChoice::Nearest, help = LOOKUP_HELP)]
    pub(crate) lookup: LookupChoice,
    /// Executions ahead of the build at once at most; fewer while the service is busy
    /// (default: as many as processors, or 2000 with remote execution)
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// Start bst only when the project is known, or after so many seconds at the latest: priming
    /// can only be ahead of a build whose elements it knows
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = simulate::seconds)]
    pub(crate) head_start: Duration,
    /// Say on stderr how priming goes, in between what bst prints, every few seconds
    #[arg(long)]
    pub(crate) progress: bool,
    #[command(flatten)]
    pub(crate) observe: ObserveOptions,
    #[command(flatten)]
    pub(crate) json: JsonOption,
    #[command(flatten)]
    pub(crate) project: BuildStreamOptions,
    #[command(flatten)]
    pub(crate) connect: ConnectOptions,
    /// Further global options of bst
    #[arg(last = true, value_name = "BST-OPTIONS", allow_hyphen_values = true)]
    pub(crate) bst_options: Vec<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Without --graph, the elements are those of the BuildStream project, their actions
are found in BuildStream's and recc's logs, and each record is attached to its
element's artifact.

Examples:
  bst-sa generate app.bst
  bst-sa generate --graph graph.json --server unix:casd.sock app.bst
  bst-sa generate --graph graph.json --server file:$HOME/.cache/buildstream --out records --json")]
pub(crate) struct GenerateArgs {
    /// Elements to record (default: every one of the graph with subactions, or every built one of the project)
    #[arg(value_name = "ELEMENT")]
    pub(crate) elements: Vec<String>,
    /// How much to record
    #[arg(long, value_enum, default_value_t = ModeChoice::Full)]
    pub(crate) mode: ModeChoice,
    /// Also write each message to DIR/NAME.pb
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Write the layout of the reference implementation, which is larger and knows no paths
    #[arg(long)]
    pub(crate) reference_layout: bool,
    #[command(flatten)]
    pub(crate) json: JsonOption,
    #[command(flatten)]
    pub(crate) project: ProjectOptions,
    #[command(flatten)]
    pub(crate) connect: ConnectOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bst-sa instantiate --graph next.json --server unix:casd.sock app.bst
  bst-sa instantiate --graph next.json --server file:DIR --json")]
pub(crate) struct InstantiateArgs {
    /// Elements to look at, with everything they build against (default: the whole graph)
    #[arg(value_name = "ELEMENT")]
    pub(crate) elements: Vec<String>,
    #[arg(long, value_enum, default_value_t = LookupChoice::Nearest, help = LOOKUP_HELP)]
    pub(crate) lookup: LookupChoice,
    #[command(flatten)]
    pub(crate) json: JsonOption,
    #[command(flatten)]
    pub(crate) project: ProjectOptions,
    #[command(flatten)]
    pub(crate) connect: ConnectOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bst-sa prime --graph next.json --server unix:casd.sock app.bst
  bst-sa prime --graph next.json --server http://127.0.0.1:50051 --jobs 64 --detach
  bst-sa prime --graph next.json --server unix:casd.sock --skip-below 0.2 --trace prime.json")]
pub(crate) struct PrimeArgs {
    /// Elements to prime, with everything they build against (default: the whole graph)
    #[arg(value_name = "ELEMENT")]
    pub(crate) elements: Vec<String>,
    #[arg(long, value_enum, default_value_t = LookupChoice::Nearest, help = LOOKUP_HELP)]
    pub(crate) lookup: LookupChoice,
    /// Submit what is ready and return without waiting for results
    #[arg(long)]
    pub(crate) detach: bool,
    /// Executions in flight at once, at most; fewer while the service is busy
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// Priority of the executions; higher numbers run later, a build's own actions have 0
    #[arg(long, value_name = "N")]
    pub(crate) priority: Option<i32>,
    /// Leave out actions that ran for less than this many seconds, unless another one needs them
    #[arg(long, value_name = "SECONDS", value_parser = simulate::seconds)]
    pub(crate) skip_below: Option<Duration>,
    /// Submit no more than this many actions
    #[arg(long, value_name = "N")]
    pub(crate) max_actions: Option<u64>,
    /// Submit no more than this many seconds of work, by recorded durations
    #[arg(long, value_name = "SECONDS")]
    pub(crate) max_seconds: Option<u64>,
    /// Upload no more than this many bytes
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_bytes: Option<u64>,
    #[command(flatten)]
    pub(crate) observe: ObserveOptions,
    #[command(flatten)]
    pub(crate) json: JsonOption,
    #[command(flatten)]
    pub(crate) project: ProjectOptions,
    #[command(flatten)]
    pub(crate) connect: ConnectOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "\
For each action that the last build executed although it was to be primed: was it
predicted, and if it was predicted differently, where is the first difference?

Predictions are those of the last `bst-sa build` or `bst-sa prime`. What the build
asked for is read from casd's log; with --graph, it is the subactions there.

Examples:
  bst-sa explain app.bst
  bst-sa explain --json > explained.json
  bst-sa explain --graph built.json --predictions primed.json --server unix:casd.sock app.bst")]
pub(crate) struct ExplainArgs {
    /// Elements to explain (default: all that were primed or asked for something)
    #[arg(value_name = "ELEMENT")]
    pub(crate) elements: Vec<String>,
    /// What was predicted: the output of `bst-sa prime --json` (default: what the last priming left behind)
    #[arg(long, value_name = "FILE")]
    pub(crate) predictions: Option<PathBuf>,
    /// The log of casd for the build (default: the newest one that names actions)
    #[arg(long, value_name = "FILE", conflicts_with = "graph")]
    pub(crate) log: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) json: JsonOption,
    #[command(flatten)]
    pub(crate) project: ProjectOptions,
    #[command(flatten)]
    pub(crate) connect: ConnectOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "\
The priming engine itself is run beside a simulated build, on a service in memory
with so many workers, by a clock that only goes on while everybody waits. The
project is that of the graph or of BuildStream, with the actions, durations and
chains that its records tell; or it is made up, with --elements.

For each number of workers: how long a rebuild takes without priming (none), if
the build waits until everything that is known before it is primed (blocking),
and with priming beside the build (primed); and what no schedule can beat
(lower bound): the longest chain of actions, or each worker's share of the work.

DISTRIBUTION is SECONDS for always this long, FROM..TO for anything between, or
MEDIAN~SIGMA for a log-normal distribution, as compile times have.

Examples:
  bst-sa simulate --elements 200 --actions 100
  bst-sa simulate --elements 1000 --actions 200 --workers 10,100,1000,10000 --json
  bst-sa simulate --elements 50 --actions 40 --duration 0.5..20 --link 30 --depth 25 --builders 4
  bst-sa simulate --graph next.json --server unix:casd.sock --workers 16,64,256 app.bst")]
pub(crate) struct SimulateArgs {
    /// Elements to rebuild, with everything they build against (default: the whole graph)
    #[arg(value_name = "ELEMENT", conflicts_with = "elements")]
    pub(crate) targets: Vec<String>,
    /// Numbers of workers of the service, separated by commas
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "10,100,1000")]
    pub(crate) workers: Vec<usize>,
    #[command(flatten)]
    pub(crate) generate: GenerateOptions,
    #[command(flatten)]
    pub(crate) conditions: ConditionOptions,
    #[command(flatten)]
    pub(crate) json: JsonOption,
    #[command(flatten)]
    pub(crate) project: ProjectOptions,
    #[command(flatten)]
    pub(crate) connect: ConnectOptions,
}

/// What a made-up project is like.
#[derive(Args, Debug)]
#[command(next_help_heading = "Made-up project")]
pub(crate) struct GenerateOptions {
    /// Make up a project of this many elements
    #[arg(long, value_name = "N", conflicts_with_all = ["graph", "project_dir", "config", "option"])]
    pub(crate) elements: Option<usize>,
    /// Actions per element: compiles and a link [default: 50]
    #[arg(long, value_name = "N", requires = "elements")]
    pub(crate) actions: Option<usize>,
    /// Elements in the longest chain of dependencies [default: 10]
    #[arg(long, value_name = "N", requires = "elements")]
    pub(crate) depth: Option<usize>,
    /// Elements that an element builds against, besides the one at the bottom [default: 3]
    #[arg(long, value_name = "N", requires = "elements")]
    pub(crate) fan_out: Option<usize>,
    /// How long a compile takes [default: 4~0.7]
    #[arg(long, value_name = "DISTRIBUTION", requires = "elements")]
    pub(crate) duration: Option<simulate::Distribution>,
    /// How long a link takes [default: 2..10]
    #[arg(long, value_name = "DISTRIBUTION", requires = "elements")]
    pub(crate) link: Option<simulate::Distribution>,
    /// Files that a compile reads [default: 40]
    #[arg(long, value_name = "N", requires = "elements")]
    pub(crate) tree_size: Option<usize>,
    /// Elements whose own sources changed, from the bottom upwards [default: 1]
    #[arg(long, value_name = "N", requires = "elements")]
    pub(crate) changed: Option<usize>,
    /// What everything that is drawn by lot follows from [default: 1]
    #[arg(long, value_name = "N", requires = "elements")]
    pub(crate) seed: Option<u64>,
}

/// What a rebuild goes on in. Durations have a resolution of a millisecond.
#[derive(Args, Debug)]
#[command(next_help_heading = "Conditions")]
pub(crate) struct ConditionOptions {
    /// Round trip of a call to the service
    #[arg(long, value_name = "SECONDS", value_parser = simulate::seconds, default_value = "0.01")]
    pub(crate) latency: Duration,
    /// Elements that are built at once, as BuildStream's scheduler.builders, which is 4 if nothing is said
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) builders: usize,
    /// Actions that the build of an element asks for at once, as BuildStream's build.max-jobs
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) max_jobs: usize,
    /// What an element takes besides its actions: staging, configuring, installing
    #[arg(long, value_name = "SECONDS", value_parser = simulate::seconds, default_value = "1")]
    pub(crate) element_overhead: Duration,
    /// What an action takes on the machine that builds: finding its headers, hashing
    #[arg(long, value_name = "SECONDS", value_parser = simulate::seconds, default_value = "0.02")]
    pub(crate) action_overhead: Duration,
    /// Executions ahead of the build at once (default: a tenth more than there are workers)
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bst-sa show --file records/app.bst.pb
  bst-sa show --graph graph.json --server unix:casd.sock app.bst
  bst-sa show --file records/app.bst.pb --dot | dot -Tsvg > app.svg")]
#[command(group = clap::ArgGroup::new("what").required(true).args(["element", "file", "digest"]))]
pub(crate) struct ShowArgs {
    /// The element whose record to show
    #[arg(value_name = "ELEMENT")]
    pub(crate) element: Option<String>,
    /// A file that holds a message
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// A message in storage
    #[arg(long, value_name = "HASH/SIZE")]
    pub(crate) digest: Option<String>,
    /// Print a graph of origins and actions for Graphviz
    #[arg(long, conflicts_with = "json")]
    pub(crate) dot: bool,
    #[command(flatten)]
    pub(crate) json: JsonOption,
    #[command(flatten)]
    pub(crate) project: ProjectOptions,
    #[command(flatten)]
    pub(crate) connect: ConnectOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "\
The output is what --graph reads; docs/graph.md describes it.

Examples:
  bst-sa graph app.bst
  bst-sa graph --project-dir path/to/project --option arch x86_64 app.bst > graph.json")]
pub(crate) struct GraphArgs {
    /// Elements that it begins with (default: the project's default targets)
    #[arg(value_name = "ELEMENT")]
    pub(crate) elements: Vec<String>,
    #[command(flatten)]
    pub(crate) project: ProjectOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Inputs are files and directories below the current directory, at the same paths
in the action. Outputs are written back to where the command put them. The exit
status is the command's own, or 1 where it could not be run.

Examples:
  bst-sa exec --server unix:casd.sock --input main.c --output main.o -- /usr/bin/cc -c main.c
  bst-sa exec --server unix:casd.sock --platform chrootRootDigest=HASH/SIZE --output out -- /bin/sh -c 'date > out'")]
pub(crate) struct ExecArgs {
    /// A file or directory that the command reads; repeat for more
    #[arg(long, value_name = "PATH")]
    pub(crate) input: Vec<PathBuf>,
    /// A file or directory that the command makes; repeat for more
    #[arg(long, value_name = "PATH")]
    pub(crate) output: Vec<String>,
    /// An environment variable of the command
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) env: Vec<(String, String)>,
    /// A platform property of the action
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) platform: Vec<(String, String)>,
    /// Directory of the action in which the command runs
    #[arg(long, value_name = "PATH", default_value = "")]
    pub(crate) working_directory: String,
    /// Run it even where a cached result exists
    #[arg(long)]
    pub(crate) skip_cache: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectOptions,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bst-sa doctor
  bst-sa doctor --server unix:casd.sock --json")]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) json: JsonOption,
    #[command(flatten)]
    pub(crate) connect: ConnectOptions,
}
