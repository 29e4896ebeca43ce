//! A small cluster on this machine: BuildGrid on PostgreSQL, a casd that stores, and workers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use record::{CasdLogScanner, LoggedOutcome};
use tempfile::TempDir;

use super::daemon::{Casd, Daemon, free_port};
use super::world::{Asked, World};

/// `bgd`, in its Python environment.
const BUILDGRID: &str = "BST_SA_TEST_BUILDGRID";
/// The folder of `initdb` and `postgres`.
const POSTGRES: &str = "BST_SA_TEST_POSTGRES";

/// PostgreSQL refuses to be run by root; its package brings this user.
const POSTGRES_USER: &str = "postgres";

/// What a worker says of an action with a root of its own, before it runs it: one of recc's, not an element.
const NESTED: &str = "FetchTree(chrootDigest=";

/// Seconds until a worker that is silent is given up, and its actions are given to another.
const KEEPALIVE: u32 = 20;

/// A cluster. The order of its members is the one in which they are stopped.
pub(crate) struct Grid {
    workers: Vec<Worker>,
    server: Option<Daemon>,
    /// One per worker, and kept for the next one where a worker is lost: what it has fetched takes a while.
    casds: Vec<Casd>,
    _store: Casd,
    _postgres: Daemon,
    ports: Ports,
    buildgrid: PathBuf,
    buildbox: PathBuf,
    root: PathBuf,
    logs: PathBuf,
    started: usize,
    /// How far the logs of the workers' casds were read.
    read: RefCell<BTreeMap<PathBuf, usize>>,
    folder: TempDir,
    /// Apart, as the address of a socket has room for 108 bytes only.
    sockets: TempDir,
    _database: TempDir,
}

/// A buildbox-worker.
pub(crate) struct Worker {
    casd: usize,
    daemon: Daemon,
}

struct Ports {
    store: u16,
    server: u16,
}

/// Whether a machine puts artifacts on the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Push {
    Yes,
    No,
}

/// Where elements are built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Elements {
    OnTheGrid,
    Here,
}

impl Grid {
    /// Everything but workers.
    pub(crate) fn start(world: &World) -> Self {
        let variable = |name| PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set")));
        let (buildgrid, postgres) = (variable(BUILDGRID), variable(POSTGRES));
        let folder = world.folder_beside();
        let logs = world.logs().join("grid");
        if logs.exists() {
            fs::remove_dir_all(&logs).unwrap();
        }
        fs::create_dir_all(&logs).unwrap();

        let ports = Ports { store: free_port(), server: free_port() };
        let bind = format!("127.0.0.1:{}", ports.store);
        let storage = folder.path().join("storage");
        let store = Casd::start(world.buildbox(), &bind, &storage, &logs.join("store.log"), &[]);

        let database = TempDir::new().unwrap();
        let port = free_port();
        let daemon = start_postgres(&postgres, database.path(), port, &logs.join("postgres.log"));
        let url = format!("postgresql+psycopg2://bgd@127.0.0.1:{port}/postgres");
        run(Command::new(&buildgrid).args(["migrate", "apply", &url]));
        fs::write(folder.path().join("bgd.yml"), server_configuration(&ports, &url)).unwrap();

        let mut grid = Self {
            workers: Vec::new(),
            server: None,
            casds: Vec::new(),
            _store: store,
            _postgres: daemon,
            ports,
            buildgrid,
            buildbox: world.buildbox().to_owned(),
            root: world.sandbox_root(),
            logs,
            started: 0,
            read: RefCell::default(),
            folder,
            sockets: TempDir::new().unwrap(),
            _database: database,
        };
        grid.start_server();
        grid
    }

    pub(crate) fn start_server(&mut self) {
        let mut command = Daemon::tied("TERM", &self.buildgrid);
        command.args(["server", "start", "-vv"]).arg(self.folder.path().join("bgd.yml"));
        let mut daemon = Daemon::start("bgd", command, &self.logs.join("bgd.log"));
        daemon.wait_until_it_listens(&self.server_address());
        self.server = Some(daemon);
    }

    /// Ends BuildGrid at once, as a crash does. What it knows is in the database.
    pub(crate) fn kill_server(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill();
        }
    }

    fn server_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.server)
    }

    /// Starts a worker of two slots, with a casd of its own, and waits until BuildGrid knows it.
    pub(crate) fn start_worker(&mut self) {
        self.started += 1;
        let name = format!("worker-{}", self.started);
        let server = self.server_address();
        let free = (0..self.casds.len()).find(|row| self.workers.iter().all(|worker| worker.casd != *row));
        let casd = free.unwrap_or_else(|| self.start_casd());
        let bind = self.casds[casd].address().to_owned();

        // The program of the sandbox root, by that root's loader.
        let mut command = Daemon::tied("TERM", self.root.join("lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(self.root.join("usr/lib/x86_64-linux-gnu"));
        command.arg(self.root.join("usr/bin/buildbox-worker"));
        command.arg(format!("--bots-remote=http://{server}")).arg(format!("--cas-remote={bind}"));
        command.arg(format!("--buildbox-run={}", self.buildbox.join("buildbox-run").display()));
        command.args(["--concurrent-jobs=2", "--max-wait-time=10", "--request-timeout=60", "--bots-retry-limit=20"]);
        command.args(["--platform", "OSFamily=linux", "--platform", "ISA=x86-64", "--log-level=info"]).arg(&name);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = [self.buildbox.clone()].into_iter().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(path).unwrap());
        let daemon = Daemon::start(&name, command, &self.logs.join(format!("{name}.log")));
        let mut worker = Worker { casd, daemon };
        let (log, known) = (self.logs.join("bgd.log"), format!("request.bot_id=\"{name}\""));
        worker.daemon.wait("BuildGrid knows it", || fs::read_to_string(&log).is_ok_and(|log| log.contains(&known)));
        self.workers.push(worker);
    }

    /// Starts a casd for a worker, and returns its place.
    fn start_casd(&mut self) -> usize {
        let place = self.casds.len();
        let (store, server) = (format!("http://127.0.0.1:{}", self.ports.store), self.server_address());
        let bind = format!("unix:{}", self.sockets.path().join(format!("{place}.sock")).display());
        let remotes = [
            format!("--cas-remote={store}"),
            format!("--ac-remote=http://{server}"),
            format!("--exec-remote=http://{server}"),
            "--findmissingblobs-cache-ttl=60".to_owned(),
        ];
        let storage = self.folder.path().join(format!("casd-{place}"));
        self.casds.push(Casd::start(&self.buildbox, &bind, &storage, &self.casd_log(place), &remotes));
        place
    }

    /// Stops all workers.
    pub(crate) fn stop_workers(&mut self) {
        self.workers.clear();
    }

    /// How many actions of recc the workers have begun to run.
    pub(crate) fn begun(&self) -> usize {
        self.workers.iter().map(Worker::begun).sum()
    }

    /// Kills the worker that has begun most of the actions since there were so many of each.
    pub(crate) fn kill_busiest(&mut self, before: &[usize]) {
        let begun = |(row, worker): &(usize, &Worker)| worker.begun() - before.get(*row).copied().unwrap_or_default();
        let busiest = self.workers.iter().enumerate().max_by_key(begun).map(|(row, _)| row).unwrap();
        self.workers.remove(busiest).daemon.kill();
    }

    /// What each worker has begun.
    pub(crate) fn begun_each(&self) -> Vec<usize> {
        self.workers.iter().map(Worker::begun).collect()
    }

    fn casd_log(&self, place: usize) -> PathBuf {
        self.logs.join(format!("casd-{place}.log"))
    }

    /// What recc asked for inside of elements since the last time that this was called, by the logs of the workers' casds.
    pub(crate) fn asked(&self) -> Asked {
        let mut asked = Asked { hits: 0, executed: 0 };
        for place in 0..self.casds.len() {
            let path = self.casd_log(place);
            let log = fs::read(&path).unwrap();
            let from = self.read.borrow_mut().insert(path, log.len()).unwrap_or_default();
            let mut scanner = CasdLogScanner::new();
            scanner.advance(&log[from..]);
            scanner.finish();
            for action in scanner.actions() {
                if action.outcome <= LoggedOutcome::Hit {
                    asked.hits += 1;
                } else {
                    asked.executed += 1;
                }
            }
        }
        asked
    }

    /// BuildStream's configuration of a machine that uses the cluster.
    pub(crate) fn configuration(&self, elements: Elements, push: Push) -> String {
        let (store, server) = (format!("http://127.0.0.1:{}", self.ports.store), self.server_address());
        let execution = match elements {
            Elements::OnTheGrid => format!("  execution-service: {{url: \"http://{server}\"}}\n"),
            Elements::Here => String::new(),
        };
        format!(
            "remote-execution:\n{execution}  storage-service: {{url: \"{store}\"}}\n  \
             action-cache-service: {{url: \"http://{server}\"}}\n\
             artifacts: {{servers: [{{url: \"{store}\", push: {}}}]}}\n",
            push == Push::Yes
        )
    }

    /// The options that name it to the tool.
    pub(crate) fn options(&self) -> [String; 6] {
        let (store, server) = (format!("http://127.0.0.1:{}", self.ports.store), self.server_address());
        let server = format!("http://{server}");
        ["--cas".into(), store, "--action-cache".into(), server.clone(), "--execution".into(), server]
    }
}

impl Drop for Grid {
    fn drop(&mut self) {
        // A worker that lost its server, or its casd, would try to reach it again for a while.
        self.workers.clear();
        self.server = None;
        self.casds.clear();
    }
}

impl Worker {
    fn begun(&self) -> usize {
        self.daemon.said().matches(NESTED).count()
    }
}

fn start_postgres(bin: &Path, folder: &Path, port: u16, log: &Path) -> Daemon {
    let data = folder.join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        run(Command::new("chown").arg(POSTGRES_USER).arg(&data));
    }
    let command = |program: &str| {
        let mut command = Command::new("setpriv");
        // The database ends at once at this signal, with whoever is connected.
        command.args(["--pdeathsig", "INT"]);
        if is_root {
            command.args(["--reuid", POSTGRES_USER, "--regid", POSTGRES_USER, "--clear-groups"]);
        }
        command.arg("--").arg(bin.join(program)).arg("-D").arg(&data).current_dir(&data);
        command
    };
    run(command("initdb").args(["-A", "trust", "--no-sync", "-U", "bgd", "-E", "UTF8", "--locale=C"]));
    let mut postgres = command("postgres");
    postgres.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]);
    postgres.args(["-p", &port.to_string()]);
    let mut daemon = Daemon::start("postgres", postgres, log);
    daemon.wait_for_log("database system is ready to accept connections");
    daemon
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = || [output.stdout.as_slice(), &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{:?}: {}\n{}", command.get_program().display(), output.status, said());
}

fn server_configuration(ports: &Ports, database: &str) -> String {
    let Ports { store, server } = ports;
    let at_store = format!("url: \"http://127.0.0.1:{store}\", instance-name: \"\"");
    format!(
        "server:
- !channel {{address: \"127.0.0.1:{server}\", insecure-mode: true}}
authorization: {{method: none}}
connections:
- !sql-connection &sql {{connection-string: \"{database}\"}}
storages:
- !remote-storage &storage {{{at_store}}}
caches:
- !remote-action-cache &cache {{{at_store}}}
schedulers:
- !sql-scheduler &scheduler
  sql: *sql
  storage: *storage
  action-cache: *cache
  poll-interval: 0.1
  bot-poll-interval: 0.1
  bot-session-keepalive-timeout: {KEEPALIVE}
  property-set:
    !dynamic-property-set
    match-property-keys: [OSFamily, ISA]
    wildcard-property-keys: [chrootRootDigest, unixUID, unixGID, network, remoteApisSocketPath]
  assigners:
  - !priority-age-assigner {{priority-assignment-percentage: 100}}
instances:
- name: \"\"
  services:
  - !action-cache {{cache: *cache}}
  - !execution {{scheduler: *scheduler}}
  - !bots {{scheduler: *scheduler}}
  - !cas {{storage: *storage}}
  - !bytestream {{storage: *storage}}
thread-pool-size: 100
"
    )
}
