//! Remote Asset: `Fetch` and `Push`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use cas_client::{AssetIndex, BlobStore, PushRequest};
use reapi_proto::Digest;
use reapi_proto::asset::fetch_server::Fetch;
use reapi_proto::asset::push_server::Push;
use reapi_proto::asset::{
    FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, FetchDirectoryResponse, PushBlobRequest,
    PushBlobResponse, PushDirectoryRequest, PushDirectoryResponse, Qualifier,
};
use tonic::{Request, Response, Status, async_trait};

use super::shared::Instance;
use super::{Service, wire};
use crate::stats::Rpc;

/// Names of directories; those of blobs are in the instance's [`InMemory`](cas_client::InMemory).
#[derive(Debug, Default)]
pub(super) struct DirectoryAssets(Mutex<BTreeMap<String, Digest>>);

#[async_trait]
impl Fetch for Service {
    async fn fetch_blob(&self, request: Request<FetchBlobRequest>) -> Result<Response<FetchBlobResponse>, Status> {
        let call = self.0.arrive(Rpc::FetchBlob, &request).proceed(&self.0).await?;
        call.without_fault()?;
        let request = request.into_inner();
        let instance = self.0.instance(&request.instance_name)?;
        let names = names(instance, &request.uris, &request.qualifiers, request.digest_function)?;
        for (uri, name) in request.uris.iter().zip(names) {
            let found = instance.store.fetch_blob(&[name]).await.map_err(|e| wire::status(&e))?;
            if let Some(digest) = found {
                return Ok(Response::new(FetchBlobResponse {
                    status: Some(wire::ok()),
                    uri: uri.clone(),
                    qualifiers: request.qualifiers,
                    blob_digest: Some(digest.into()),
                    digest_function: instance.function().wire_value(),
                    ..Default::default()
                }));
            }
        }
        Err(Status::not_found("none of the names is known"))
    }

    async fn fetch_directory(
        &self,
        request: Request<FetchDirectoryRequest>,
    ) -> Result<Response<FetchDirectoryResponse>, Status> {
        let call = self.0.arrive(Rpc::FetchDirectory, &request).proceed(&self.0).await?;
        call.without_fault()?;
        let request = request.into_inner();
        let instance = self.0.instance(&request.instance_name)?;
        let names = names(instance, &request.uris, &request.qualifiers, request.digest_function)?;
        let found = {
            let known = instance.directories.0.lock().unwrap_or_else(PoisonError::into_inner);
            request.uris.iter().zip(names).find_map(|(uri, name)| Some((uri.clone(), *known.get(&name)?)))
        };
        let (uri, digest) = found.ok_or_else(|| Status::not_found("none of the names is known"))?;
        Ok(Response::new(FetchDirectoryResponse {
            status: Some(wire::ok()),
            uri,
            qualifiers: request.qualifiers,
            root_directory_digest: Some(digest.into()),
            digest_function: instance.function().wire_value(),
            ..Default::default()
        }))
    }
}

#[async_trait]
impl Push for Service {
    async fn push_blob(&self, request: Request<PushBlobRequest>) -> Result<Response<PushBlobResponse>, Status> {
        let call = self.0.arrive(Rpc::PushBlob, &request).proceed(&self.0).await?;
        call.without_fault()?;
        let request = request.into_inner();
        let instance = self.0.instance(&request.instance_name)?;
        let uris = names(instance, &request.uris, &request.qualifiers, request.digest_function)?;
        let blob = wire::required("blob_digest", request.blob_digest.as_ref(), instance.function())?;
        let references_blobs = wire::all("references_blobs", &request.references_blobs, instance.function())?;
        let references_directories =
            wire::all("references_directories", &request.references_directories, instance.function())?;
        require_present(instance, blob, &references_blobs, &references_directories).await?;
        let push = PushRequest { uris, blob, references_blobs, references_directories, lifetime: None };
        AssetIndex::push_blob(&instance.store, &push).await.map_err(|e| wire::status(&e))?;
        Ok(Response::new(PushBlobResponse {}))
    }

    async fn push_directory(
        &self,
        request: Request<PushDirectoryRequest>,
    ) -> Result<Response<PushDirectoryResponse>, Status> {
        let call = self.0.arrive(Rpc::PushDirectory, &request).proceed(&self.0).await?;
        call.without_fault()?;
        let request = request.into_inner();
        let instance = self.0.instance(&request.instance_name)?;
        let uris = names(instance, &request.uris, &request.qualifiers, request.digest_function)?;
        let root =
            wire::required("root_directory_digest", request.root_directory_digest.as_ref(), instance.function())?;
        let blobs = wire::all("references_blobs", &request.references_blobs, instance.function())?;
        let directories = wire::all("references_directories", &request.references_directories, instance.function())?;
        require_present(instance, root, &blobs, &directories).await?;
        let mut known = instance.directories.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(uris.into_iter().map(|uri| (uri, root)));
        drop(known);
        Ok(Response::new(PushDirectoryResponse {}))
    }
}

/// The keys under which names are stored: a name with qualifiers is another name.
fn names(
    instance: &Instance,
    uris: &[String],
    qualifiers: &[Qualifier],
    digest_function: i32,
) -> Result<Vec<String>, Status> {
    wire::check_function(digest_function, instance.function())?;
    if uris.is_empty() || uris.iter().any(String::is_empty) {
        return Err(Status::invalid_argument("no name, or an empty one"));
    }
    let mut qualifiers: Vec<String> = qualifiers.iter().map(|q| format!("\n{}={}", q.name, q.value)).collect();
    qualifiers.sort_unstable();
    Ok(uris.iter().map(|uri| format!("{uri}{}", qualifiers.concat())).collect())
}

/// Content has to be uploaded before it is named (Remote Asset API, `Push`).
async fn require_present(
    instance: &Instance,
    content: Digest,
    blobs: &[Digest],
    directories: &[Digest],
) -> Result<(), Status> {
    let all: Vec<_> = std::iter::once(&content).chain(blobs).chain(directories).copied().collect();
    let missing = instance.store.find_missing(&all).await.map_err(|e| wire::status(&e))?;
    match missing.first() {
        None => Ok(()),
        Some(first) => Err(Status::invalid_argument(format!(
            "{first} and {} more blobs that the name refers to are not in the store",
            missing.len() - 1
        ))),
    }
}

impl DirectoryAssets {
    /// A copy that does not share anything.
    pub(super) fn snapshot(&self) -> Self {
        Self(Mutex::new(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()))
    }
}
