//! How often what is read.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use cas_client::{Blob, BlobStore, Chunks, InMemory, PerBlob, Result};
use overlay::graph::{Element, Graph};
use reapi_proto::raw::Node;
use reapi_proto::{Digest, DigestFunction};

use super::toy::*;
use crate::{ExplicitList, Generator};

/// Counts how often each blob is read, and in how many calls.
#[derive(Clone, Debug)]
struct Counting {
    store: InMemory,
    calls: Arc<Mutex<(usize, HashMap<Digest, usize>)>>,
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counting({})", self.store)
    }
}

#[async_trait]
impl BlobStore for Counting {
    fn digest_function(&self) -> DigestFunction {
        self.store.digest_function()
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.store.find_missing(digests).await
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        {
            let mut calls = self.calls.lock().unwrap();
            calls.0 += 1;
            for digest in digests {
                *calls.1.entry(*digest).or_default() += 1;
            }
        }
        self.store.read_blobs(digests).await
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        self.store.write_blobs(blobs).await
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        self.store.open_blob(digest).await
    }

    async fn write_chunks(&self, digest: &Digest, chunks: Chunks) -> Result<()> {
        self.store.write_chunks(digest, chunks).await
    }
}

/// Runs a generation; returns the number of read calls and the digests that were read.
async fn read_calls(toys: &Toys, graph: &Graph, names: &[&str]) -> (usize, HashMap<Digest, usize>) {
    let store = Counting { store: toys.store.clone(), calls: Arc::default() };
    let generator = Generator::new(Arc::new(store.clone()), Arc::new(toys.store.clone()), Arc::new(ExplicitList));
    let all = generator.generate(graph, names).await.unwrap();
    assert!(all.stopped.is_none() && all.skips().is_empty(), "{all:?}");
    let calls = store.calls.lock().unwrap();
    calls.clone()
}

#[tokio::test]
async fn everything_is_read_once_at_most() {
    let p = Project::new().await;
    let (_, read) = read_calls(&p.toys, &p.graph, &["lib.bst", "app.bst"]).await;
    assert!(read.values().all(|times| *times == 1), "{read:?}");
    for file in ["main", "lib header", "shared"] {
        let Node::File { digest, .. } = p.toys.file(file) else { panic!("a file") };
        assert!(!read.contains_key(&digest), "contents of files are not needed");
    }
}

/// `count` compiles of one file each, on a library of `count` headers in nested directories.
async fn many(count: usize) -> (Toys, Graph) {
    let toys = Toys::default();
    let nested = |i: usize| format!("usr/include/x/y/z/d{}/h{i}.h", i % 7);
    let headers: Vec<_> = (0..count).map(|i| (nested(i), toys.file(&format!("header {i}")))).collect();
    let sources: Vec<_> =
        (0..count).map(|i| (format!("src/m{}/f{i}.c", i % 5), toys.file(&format!("code {i}")))).collect();
    let mut subactions = Vec::new();
    for i in 0..count {
        let (source, code) = &sources[i];
        let inputs = vec![(format!("{APP}/{source}"), code.clone()), headers[i].clone()];
        let path = format!("f{i}.o");
        let outputs: &[(&str, &str)] = &[(&path, "object")];
        let run = Run { working_directory: APP, inputs, outputs: Some(outputs), ..Run::default() };
        subactions.push(toys.run(&run).await);
    }
    let artifact = Some(toys.tree_of(&headers));
    let app = Element {
        sources: Some(toys.tree_of(&sources)),
        subactions: Some(subactions),
        build_deps: Some(vec!["lib.bst".into()]),
        ..Element::new("app.bst")
    };
    (toys, graph(vec![app, Element { artifact, ..Element::new("lib.bst") }]))
}

#[tokio::test]
async fn calls_depend_on_depth_and_not_on_the_number_of_actions() {
    let mut calls = Vec::new();
    for count in [10, 100] {
        let (toys, graph) = many(count).await;
        let (count, read) = read_calls(&toys, &graph, &["app.bst"]).await;
        assert!(read.values().all(|times| *times == 1), "{read:?}");
        calls.push(count);
    }
    // Actions, commands, seven levels of input trees, as many of the artifact beside them.
    assert!(calls[0] <= 2 + 7 + 7 && calls[0] == calls[1], "{calls:?}");
}
