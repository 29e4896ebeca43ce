//! What a cluster on this machine consists of, besides the released buildbox: BuildGrid and PostgreSQL.

use std::fs;
use std::path::{Path, PathBuf};

use super::process::{Interrupts, run_logged, tied};
use super::setup::{self, FETCH_LIMIT, Part};
use crate::{Failure, Outcome};

/// BuildGrid, and what it talks to the database through.
const PACKAGES: [&str; 2] = ["buildgrid==0.4.4", "psycopg2-binary"];

/// The Debian package of the database; it keeps its programs out of the search path.
const DATABASE: &str = "postgresql";
const DATABASES: &str = "/usr/lib/postgresql";

/// A package that starts a database for everybody as soon as it is installed would leave something behind.
const NO_DATABASE: &str = "/etc/postgresql-common/createcluster.d/bst-sa-integration.conf";

/// Where the parts are.
pub(super) struct Cluster {
    /// The program `bgd`.
    pub(super) buildgrid: PathBuf,
    /// The folder of `initdb` and `postgres`.
    pub(super) postgres: PathBuf,
}

pub(super) fn prepare(home: &Path, logs: &Path, interrupts: &Interrupts) -> Result<Cluster, Failure> {
    let postgres = match installed() {
        Some(folder) => folder,
        None => {
            install(logs, interrupts)?;
            installed().ok_or_else(|| Failure::new(format!("{DATABASE} was installed, and {DATABASES} has none")))?
        }
    };
    let venv = home.join("grid-venv");
    let part = Part { name: "grid-venv", dir: &venv, recipe: PACKAGES.join(" ") };
    part.ensure(|log| build_venv(&venv, log, interrupts), logs)?;
    Ok(Cluster { buildgrid: venv.join("bin/bgd"), postgres })
}

/// The folder of the newest database that is installed.
fn installed() -> Option<PathBuf> {
    let versions = fs::read_dir(DATABASES).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut versions: Vec<(u32, String)> = versions.filter_map(|name| Some((name.parse().ok()?, name))).collect();
    versions.sort_unstable();
    let folders = versions.iter().rev().map(|(_, name)| Path::new(DATABASES).join(name).join("bin"));
    folders.into_iter().find(|folder| ["initdb", "postgres"].iter().all(|program| folder.join(program).is_file()))
}

fn install(logs: &Path, interrupts: &Interrupts) -> Outcome {
    let settings = Path::new(NO_DATABASE);
    if let Some(folder) = settings.parent().filter(|_| setup::is_root()) {
        fs::create_dir_all(folder)?;
        fs::write(settings, "create_main_cluster = false\n")?;
    }
    setup::install_packages(&[DATABASE], logs, interrupts)
}

fn build_venv(venv: &Path, log: &Path, interrupts: &Interrupts) -> Outcome {
    setup::create_venv(venv, log, interrupts)?;
    let mut install = tied("KILL", venv.join("bin/python"));
    install.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input"]).args(PACKAGES);
    run_logged("pip install", install, log, FETCH_LIMIT, interrupts)
}
