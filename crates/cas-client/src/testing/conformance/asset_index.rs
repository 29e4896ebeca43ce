//! What every asset index does.

use super::action_cache::Rule;
use super::material::{Material, refused};
use super::report::{Checked, Report, ensure_eq};
use crate::{AssetIndex, Blob, BlobStore, BlobStoreExt, ErrorKind, PushRequest};

/// Runs all checks of an asset index that may be written to, and its CAS.
/// `without_blob` is what it does with a name for something that is not in CAS.
pub async fn asset_index(index: &dyn AssetIndex, store: &dyn BlobStore, without_blob: Rule) -> Report {
    let mut report = Report::new(index);
    let subject = &Subject { index, store, without_blob, material: Material::new(store.digest_function()) };
    report.check("an_unknown_name_has_no_blob", subject.unknown()).await;
    report.check("a_published_blob_is_found_by_each_of_its_names", subject.round_trip()).await;
    report.check("a_later_push_replaces_an_earlier_one", subject.replace()).await;
    report.check("a_known_name_is_found_among_unknown_ones", subject.among_unknown()).await;
    report.check("a_name_without_a_blob_is_judged_by_the_rules", subject.without_blob()).await;
    report
}

struct Subject<'a> {
    index: &'a dyn AssetIndex,
    store: &'a dyn BlobStore,
    without_blob: Rule,
    material: Material,
}

impl Subject<'_> {
    fn uri(&self, name: &str) -> String {
        // A name that no other run uses, in the form that BuildStream uses.
        let unique = self.material.blob(name).digest().to_hex();
        format!("urn:fdc:buildstream.build:2020:artifact:conformance/{}/{unique}", name.replace(' ', "-"))
    }

    async fn push(&self, uris: &[String], blob: &Blob) -> crate::Result<()> {
        let request = PushRequest {
            uris: uris.to_vec(),
            blob: blob.digest(),
            references_blobs: vec![blob.digest()],
            references_directories: Vec::new(),
            lifetime: None,
        };
        self.index.push_blob(&request).await
    }

    async fn unknown(&self) -> Checked {
        ensure_eq!(self.index.fetch_blob(&[self.uri("unknown")]).await?, None, "blob of an unknown name");
        Ok(())
    }

    async fn round_trip(&self) -> Checked {
        let (blob, uris) = (self.material.blob("published"), [self.uri("strong"), self.uri("weak")]);
        self.store.write_blob(&blob).await?;
        self.push(&uris, &blob).await?;
        for uri in uris {
            ensure_eq!(self.index.fetch_blob(std::slice::from_ref(&uri)).await?, Some(blob.digest()), "{uri}");
        }
        Ok(())
    }

    async fn replace(&self) -> Checked {
        let uri = self.uri("replaced");
        for name in ["earlier", "later"] {
            let blob = self.material.blob(name);
            self.store.write_blob(&blob).await?;
            self.push(std::slice::from_ref(&uri), &blob).await?;
            ensure_eq!(self.index.fetch_blob(std::slice::from_ref(&uri)).await?, Some(blob.digest()), "{name} push");
        }
        Ok(())
    }

    async fn among_unknown(&self) -> Checked {
        let (blob, known) = (self.material.blob("known"), self.uri("known"));
        self.store.write_blob(&blob).await?;
        self.push(std::slice::from_ref(&known), &blob).await?;
        let asked = [self.uri("not this"), known, self.uri("nor this")];
        ensure_eq!(self.index.fetch_blob(&asked).await?, Some(blob.digest()), "blob");
        Ok(())
    }

    async fn without_blob(&self) -> Checked {
        let (absent, uri) = (self.material.blob("absent"), self.uri("dangling"));
        let pushed = self.push(std::slice::from_ref(&uri), &absent).await;
        match self.without_blob {
            Rule::Refused => {
                let kinds = [ErrorKind::NotFound, ErrorKind::MissingInputs, ErrorKind::Invalid];
                refused("push_blob", pushed, &kinds)?;
                ensure_eq!(self.index.fetch_blob(&[uri]).await?, None, "blob after the refusal");
            }
            Rule::Accepted => pushed?,
        }
        Ok(())
    }
}
