//! `cargo xtask codegen`: Rust types from the `.proto` files, without `protoc`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Failure, Outcome, root};

const PROTO_DIR: &str = "crates/reapi-proto/proto";
const OUT_DIR: &str = "crates/reapi-proto/src/generated";

/// Whether to replace the committed files or only to compare with them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Write,
    Check,
}

pub(crate) fn run(mode: Mode) -> Outcome {
    let root = root();
    let fresh = tempfile::tempdir()?;
    generate(&root.join(PROTO_DIR), fresh.path())?;
    let new = read_all(fresh.path())?;
    let out = root.join(OUT_DIR);
    let old = read_all(&out)?;
    if new == old {
        eprintln!("codegen: {} files up to date", new.len());
        return Ok(());
    }
    if mode == Mode::Check {
        let drifted: Vec<_> =
            new.keys().chain(old.keys()).filter(|name| new.get(*name) != old.get(*name)).map(String::as_str).collect();
        return Err(Failure::new(format!(
            "generated code differs from the .proto files: {}; run `cargo xtask codegen` and commit the result",
            drifted.join(", ")
        )));
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        fs::remove_file(out.join(name))?;
    }
    fs::create_dir_all(&out)?;
    for (name, text) in &new {
        fs::write(out.join(name), text)?;
    }
    eprintln!("codegen: wrote {} files", new.len());
    Ok(())
}

fn generate(protos: &Path, out: &Path) -> Outcome {
    let mut files = Vec::new();
    find_protos(protos, &mut files)?;
    files.sort();
    let descriptors = protox::compile(&files, [protos]).map_err(|e| Failure::new(format!("{e:?}")))?;
    let mut prost = tonic_prost_build::Config::new();
    prost.enable_type_names();
    prost.include_file("mod.rs");
    let only_with_grpc = "#[cfg(feature = \"grpc\")]";
    tonic_prost_build::configure()
        .bytes(".")
        .disable_comments(["."])
        .client_mod_attribute(".", only_with_grpc)
        .server_mod_attribute(".", only_with_grpc)
        .emit_rerun_if_changed(false)
        .out_dir(out)
        .compile_fds_with_config(descriptors, prost)?;
    Ok(())
}

fn find_protos(dir: &Path, found: &mut Vec<PathBuf>) -> Outcome {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            find_protos(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

fn read_all(dir: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let mut files = BTreeMap::new();
    if !dir.exists() {
        return Ok(files);
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), fs::read_to_string(entry.path())?);
    }
    Ok(files)
}
