//! `bst-sa doctor`: what works, what does not, and what to do about it.

use std::process::{Command, ExitCode};

use cas_client::grpc::GrpcClient;
use cas_client::{ActionCache, AssetIndex, BlobStore, ErrorKind};
use reapi_proto::DigestFunction;
use serde::Serialize;

use crate::cli::DoctorArgs;
use crate::connect::{ConnectOptions, Place};
use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

/// One thing that was looked at.
#[derive(Serialize, Debug)]
struct Check {
    what: String,
    verdict: Verdict,
    found: String,
    /// What to do, where something is to be done.
    advice: Option<String>,
}

impl Check {
    fn ok(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    fn bad(what: impl Into<String>, verdict: Verdict, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), verdict, found: found.into(), advice: Some(advice.into()) }
    }
}

const FUNCTION: DigestFunction = DigestFunction::Sha256;

pub(crate) async fn run(args: DoctorArgs) -> Result<ExitCode, Failure> {
    let progress = Progress::new("checking");
    let mut checks = vec![Check::ok("bst-sa", env!("CARGO_PKG_VERSION")), compiler()];
    if args.connect.is_empty() {
        checks.push(Check::bad(
            "services",
            Verdict::Warning,
            "none given",
            "name them with --server URL (or --cas, --action-cache, --execution, --asset); \
             buildbox-casd --bind=unix:PATH DIR provides all of them on one machine",
        ));
    } else {
        checks.extend(services(&args.connect).await);
    }
    drop(progress);
    let failed = checks.iter().any(|check| check.verdict == Verdict::Failed);
    if args.json.json {
        output::print_json(&serde_json::json!({ "checks": checks, "ok": !failed }))?;
    } else {
        let mut table = output::table(&["", "what", "found"], 3);
        for check in &checks {
            let mark = match check.verdict {
                Verdict::Ok => "ok",
                Verdict::Warning => "warning",
                Verdict::Failed => "FAILED",
            };
            table.add_row([mark, &check.what, &check.found]);
        }
        output::print(&table.trim_fmt())?;
        for check in &checks {
            if let Some(advice) = &check.advice {
                output::print(&format!("\n{}: {advice}", check.what))?;
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn compiler() -> Check {
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let missing = "`bst-sa demo` needs a C compiler (a package named gcc or clang); nothing else does";
    match Command::new(&cc).arg("--version").output() {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            Check::ok("C compiler", text.lines().next().unwrap_or(&cc))
        }
        Ok(output) => Check::bad("C compiler", Verdict::Warning, format!("{cc}: {}", output.status), missing),
        Err(error) => Check::bad("C compiler", Verdict::Warning, format!("{cc}: {error}"), missing),
    }
}

/// All four at once: a service that is away takes its time to be given up.
async fn services(connect: &ConnectOptions) -> Vec<Check> {
    let place = |what: &str, option: &str, own: &Option<String>| {
        if own.is_none() && connect.server.is_none() {
            let advice = format!("name it with {option} URL, if it is to be used");
            return Err(Check::bad(what, Verdict::Warning, "not given", advice));
        }
        connect.place(option, own.as_deref(), FUNCTION).map_err(|failure| {
            let advice = format!("correct the URL of {option} or --server");
            Check::bad(what, Verdict::Failed, failure.summary(), advice)
        })
    };
    let (storage, action_cache, execution, assets) = tokio::join!(
        async {
            match place("storage", "--cas", &connect.cas) {
                Ok(place) => storage(place).await,
                Err(check) => vec![check],
            }
        },
        async {
            match place("action cache", "--action-cache", &connect.action_cache) {
                Ok(place) => action_cache(place).await,
                Err(check) => check,
            }
        },
        async {
            match place("execution", "--execution", &connect.execution) {
                Ok(place) => execution(place).await,
                Err(check) => check,
            }
        },
        async {
            match place("asset index", "--asset", &connect.asset) {
                Ok(place) => assets(place).await,
                Err(check) => check,
            }
        },
    );
    storage.into_iter().chain([action_cache, execution, assets]).collect()
}

const START: &str =
    "start the service, or correct the URL; for casd on one machine: buildbox-casd --bind=unix:PATH DIR";

async fn storage(place: Place) -> Vec<Check> {
    let probe = FUNCTION.digest(b"bst-sa doctor asks whether this blob is there");
    match place {
        Place::Directory(store) => vec![match store.find_missing(&[probe]).await {
            Ok(_) => Check::ok("storage", store.to_string()),
            Err(e) => Check::bad("storage", Verdict::Failed, e.to_string(), "check the directory and its permissions"),
        }],
        Place::Service(client) => match client.find_missing(&[probe]).await {
            Ok(_) => {
                let mut checks = vec![Check::ok("storage", client.to_string())];
                capabilities(&client, &mut checks).await;
                checks
            }
            Err(e) => vec![Check::bad("storage", Verdict::Failed, e.to_string(), START)],
        },
    }
}

async fn capabilities(client: &GrpcClient, checks: &mut Vec<Check>) {
    match client.capabilities().await {
        Ok(capabilities) => {
            let functions: Vec<&str> = capabilities
                .cache_digest_functions
                .iter()
                .map(|f| DigestFunction::from_wire(*f).map_or("(another)", DigestFunction::name))
                .collect();
            let sha256 = functions.is_empty() || functions.contains(&FUNCTION.name());
            let found = if functions.is_empty() { "not said".to_owned() } else { functions.join(", ") };
            checks.push(if sha256 {
                Check::ok("digest functions", found)
            } else {
                Check::bad(
                    "digest functions",
                    Verdict::Failed,
                    found,
                    "BuildStream and recc use SHA256; choose a service that does",
                )
            });
            let limit = capabilities.max_batch_total_size_bytes;
            checks.push(Check::ok("largest batch", limit.map_or("no stated limit".to_owned(), output::bytes)));
        }
        Err(e) => {
            checks.push(Check::bad("capabilities", Verdict::Warning, e.to_string(), "defaults are used without them"));
        }
    }
    // Only casd answers this one; others need not.
    if let Ok(Some(details)) = client.local_server_details().await {
        checks.push(Check::ok("casd's directory", details.storage_root.display().to_string()));
    }
}

async fn action_cache(place: Place) -> Check {
    let probe = FUNCTION.digest(b"bst-sa doctor asks for the result of this action");
    let (name, answer) = match &place {
        Place::Directory(store) => (store.to_string(), store.fetch_action_result(&probe).await),
        Place::Service(client) => (client.to_string(), client.fetch_action_result(&probe).await),
    };
    match answer {
        Ok(_) => Check::ok("action cache", name),
        Err(e) => Check::bad("action cache", Verdict::Failed, e.to_string(), START),
    }
}

async fn execution(place: Place) -> Check {
    let advice = "`prime` and `exec` need it; for casd add --buildbox-run=PATH/buildbox-run and --jobs=N";
    match place {
        Place::Directory(store) => {
            Check::bad("execution", Verdict::Warning, format!("{store} executes nothing"), advice)
        }
        Place::Service(client) => match client.capabilities().await.map(|c| c.execution) {
            Ok(Some(true)) => Check::ok("execution", client.to_string()),
            Ok(Some(false)) => Check::bad("execution", Verdict::Warning, "switched off", advice),
            Ok(None) => {
                Check::bad("execution", Verdict::Warning, "the service does not say whether it executes", advice)
            }
            Err(e) => Check::bad("execution", Verdict::Failed, e.to_string(), START),
        },
    }
}

async fn assets(place: Place) -> Check {
    let advice = "only records that other machines published need it";
    match place {
        Place::Directory(store) => Check::bad("asset index", Verdict::Warning, format!("{store} has none"), advice),
        Place::Service(client) => match client.fetch_blob(&["urn:bst-sa:doctor".to_owned()]).await {
            Ok(_) => Check::ok("asset index", client.to_string()),
            Err(e) if e.kind() == ErrorKind::Unsupported => {
                Check::bad("asset index", Verdict::Warning, "not offered", advice)
            }
            Err(e) => Check::bad("asset index", Verdict::Warning, e.to_string(), advice),
        },
    }
}
