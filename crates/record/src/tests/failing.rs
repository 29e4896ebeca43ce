//! Stores and caches that fail as a whole.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cas_client::{ActionCache, Blob, BlobStore, Chunks, Error, ErrorKind, InMemory, PerBlob, Result};
use overlay::graph::Element;
use reapi_proto::v2::ActionResult;
use reapi_proto::{Digest, DigestFunction};

use super::toy::*;
use crate::{ExplicitList, Generator, Subaction, SubactionSource};

/// Which operation does not work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    Reading,
    Writing,
    Asking,
}

#[derive(Clone, Debug)]
struct Failing(InMemory, Broken);

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failing({})", self.0)
    }
}

impl Failing {
    fn check(&self, now: Broken) -> Result<()> {
        let out = || Error::new(ErrorKind::Unavailable, "test", "out of order");
        if self.1 == now { Err(out()) } else { Ok(()) }
    }
}

#[async_trait]
impl BlobStore for Failing {
    fn digest_function(&self) -> DigestFunction {
        self.0.digest_function()
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        // The one blob that is written is asked about alone.
        if digests.len() > 1 {
            self.check(Broken::Asking)?;
        }
        self.0.find_missing(digests).await
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        self.check(Broken::Reading)?;
        self.0.read_blobs(digests).await
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        self.check(Broken::Writing)?;
        self.0.write_blobs(blobs).await
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        self.0.open_blob(digest).await
    }

    async fn write_chunks(&self, digest: &Digest, chunks: Chunks) -> Result<()> {
        self.0.write_chunks(digest, chunks).await
    }
}

#[async_trait]
impl ActionCache for Failing {
    async fn fetch_action_result(&self, _: &Digest) -> Result<Option<ActionResult>> {
        Err(Error::new(ErrorKind::Unavailable, "GetActionResult", "out of order"))
    }
}

fn generator(p: &Project, broken: Broken) -> Generator {
    let store = Arc::new(Failing(p.toys.store.clone(), broken));
    Generator::new(store, Arc::new(p.toys.store.clone()), Arc::new(ExplicitList))
}

#[tokio::test]
async fn a_store_that_cannot_be_read_or_written_ends_the_run() {
    let p = Project::new().await;
    for broken in [Broken::Reading, Broken::Writing] {
        let all = generator(&p, broken).generate(&p.graph, &["lib.bst", "app.bst"]).await.unwrap();
        assert_eq!(all.stopped.unwrap().kind(), ErrorKind::Unavailable);
        let [lib] = &all.elements[..] else { panic!("the app was not tried") };
        assert_eq!((lib.name.as_str(), lib.speculative_actions), ("lib.bst", None));
    }
}

#[tokio::test]
async fn keeping_alive_is_best_effort() {
    let p = Project::new().await;
    let all = generator(&p, Broken::Asking).generate(&p.graph, &["app.bst"]).await.unwrap();
    assert!(all.stopped.is_none());
    assert!(all.elements[0].speculative_actions.is_some());
    assert_eq!(all.elements[0].kept.failure.as_ref().unwrap().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn without_an_action_cache_outputs_are_unknown_and_all_else_is_recorded() {
    let p = Project::new().await;
    let blobs = Arc::new(p.toys.store.clone());
    let cache = Arc::new(Failing(p.toys.store.clone(), Broken::Reading));
    let all = Generator::new(blobs, cache, Arc::new(ExplicitList)).generate(&p.graph, &["lib.bst", "app.bst"]).await;
    let all = all.unwrap();
    assert_eq!(all.action_cache.as_ref().unwrap().kind(), ErrorKind::Unavailable);
    let app = report(&all, "app.bst");
    assert_eq!((app.actions, app.skipped.len()), (3, 0));
    let record = p.toys.record(app);
    assert_eq!(origins(&record, &p.app_link, &format!("{APP}/main.o")), [LOCAL]);
    assert_eq!(origins(&record, &p.app_main, &format!("{APP}/main.c")), ["source main.c of app.bst"]);
}

/// Knows the results already, but not of every element.
#[derive(Debug)]
struct Journal(InMemory, Vec<Digest>);

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a journal")
    }
}

#[async_trait]
impl SubactionSource for Journal {
    async fn subactions(&self, element: &Element) -> Result<Option<Vec<Subaction>>> {
        match element.name.as_str() {
            "app.bst" => {}
            "lib.bst" => return Err(Error::new(ErrorKind::Io, "read the journal", "torn page")),
            _ => return Ok(None),
        }
        let results = self.0.action_results();
        let result = |action: &Digest| results.iter().find(|(a, _)| a == action).map(|(_, r)| Box::new(r.clone()));
        Ok(Some(self.1.iter().map(|action| Subaction { result: result(action), ..Subaction::from(*action) }).collect()))
    }
}

#[tokio::test]
async fn results_that_the_source_knows_are_not_looked_up() {
    let p = Project::new().await;
    let source = Journal(p.toys.store.clone(), vec![p.app_main, p.app_util, p.app_link]);
    p.toys.store.take_stats();
    let store = Arc::new(p.toys.store.clone());
    let generator = Generator::new(store.clone(), store, Arc::new(source));
    let all = generator.generate(&p.graph, &["base.bst", "lib.bst", "app.bst"]).await.unwrap();
    assert_eq!(p.toys.store.stats().fetch_action_result.calls, 0);
    assert_eq!(report(&all, "lib.bst").source_failure.as_ref().unwrap().kind(), ErrorKind::Io);
    let record = p.toys.record(report(&all, "app.bst"));
    assert_eq!(origins(&record, &p.app_link, &format!("{APP}/main.o")), [output("main.o", &p.app_main, "app.bst")]);
}
