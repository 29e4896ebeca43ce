//! `ContentAddressableStorage`.

use std::collections::{HashSet, VecDeque};

use cas_client::{Blob, BlobStore};
use futures_util::{StreamExt, stream};
use prost::Message;
use reapi_proto::v2::content_addressable_storage_server::ContentAddressableStorage;
use reapi_proto::{Digest, v2};
use tonic::{Code, Request, Response, Status, async_trait};

use super::shared::{Call, Instance, Replies};
use super::{Service, wire};
use crate::faults::Fault;
use crate::stats::Rpc;

/// Directories per page of `GetTree` where the client does not say.
const DEFAULT_PAGE: usize = 1000;

#[async_trait]
impl ContentAddressableStorage for Service {
    async fn find_missing_blobs(
        &self,
        request: Request<v2::FindMissingBlobsRequest>,
    ) -> Result<Response<v2::FindMissingBlobsResponse>, Status> {
        let call = self.0.arrive(Rpc::FindMissingBlobs, &request).proceed(&self.0).await?;
        let request = request.into_inner();
        let instance = self.0.instance(&request.instance_name)?;
        wire::check_function(request.digest_function, instance.function())?;
        let digests = wire::all("blob_digests", &request.blob_digests, instance.function())?;
        let mut missing = instance.store.find_missing(&digests).await.map_err(|e| wire::status(&e))?;
        match call.fault {
            None => {}
            Some(Fault::ClaimPresent) => missing.clear(),
            Some(Fault::ClaimMissing) => missing = digests,
            Some(Fault::ForeignEntry(foreign)) => missing.push(foreign),
            Some(ref other) => return Err(call.does_not_apply(other)),
        }
        let missing_blob_digests = missing.iter().map(Into::into).collect();
        Ok(Response::new(v2::FindMissingBlobsResponse { missing_blob_digests }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<v2::BatchUpdateBlobsRequest>,
    ) -> Result<Response<v2::BatchUpdateBlobsResponse>, Status> {
        let call = self.0.arrive(Rpc::BatchUpdateBlobs, &request).proceed(&self.0).await?;
        let request = request.into_inner();
        let instance = self.0.instance(&request.instance_name)?;
        wire::check_function(request.digest_function, instance.function())?;
        // The message is larger than the blobs in it, so this is the stricter of the limit's two readings.
        self.check_batch(request.encoded_len())?;
        let mut responses = Vec::with_capacity(request.requests.len());
        for (index, entry) in request.requests.into_iter().enumerate() {
            let digest = wire::required("requests.digest", entry.digest.as_ref(), instance.function())?;
            let status = if let Some(Fault::EntryStatus(at, code)) = call.fault
                && at == index
            {
                wire::rpc_status(code, "scripted")
            } else if entry.compressor != 0 {
                wire::rpc_status(Code::InvalidArgument, "compression is not supported")
            } else {
                self.store_blob(instance, digest, entry.data).await
            };
            responses.push(v2::batch_update_blobs_response::Response { digest: entry.digest, status: Some(status) });
        }
        script_batch(&call, &mut responses, |foreign| v2::batch_update_blobs_response::Response {
            digest: Some(foreign.into()),
            status: Some(wire::ok()),
        })?;
        Ok(Response::new(v2::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<v2::BatchReadBlobsRequest>,
    ) -> Result<Response<v2::BatchReadBlobsResponse>, Status> {
        let call = self.0.arrive(Rpc::BatchReadBlobs, &request).proceed(&self.0).await?;
        let request = request.into_inner();
        let instance = self.0.instance(&request.instance_name)?;
        wire::check_function(request.digest_function, instance.function())?;
        let digests = wire::all("digests", &request.digests, instance.function())?;
        let total = digests
            .iter()
            .fold(0usize, |sum, d| sum.saturating_add(usize::try_from(d.size_bytes()).unwrap_or(usize::MAX)));
        self.check_batch(total)?;
        let read = instance.store.read_blobs(&digests).await.map_err(|e| wire::status(&e))?;
        let mut responses = Vec::with_capacity(read.len());
        for (index, (digest, data)) in read.into_iter().enumerate() {
            let (data, status) = match data {
                _ if matches!(call.fault, Some(Fault::EntryStatus(at, _)) if at == index) => {
                    let code = if let Some(Fault::EntryStatus(_, code)) = call.fault { code } else { Code::Unknown };
                    (bytes::Bytes::new(), wire::rpc_status(code, "scripted"))
                }
                Ok(data) => (super::byte_stream::spoil(&call, data), wire::ok()),
                Err(error) => (bytes::Bytes::new(), wire::entry_status(&error)),
            };
            responses.push(v2::batch_read_blobs_response::Response {
                digest: Some(digest.into()),
                data,
                status: Some(status),
                compressor: 0,
            });
        }
        match call.fault {
            Some(Fault::CorruptBytes | Fault::ShortBytes | Fault::LongBytes) => {}
            Some(Fault::Pad(bytes)) => {
                if let Some(status) = responses.first_mut().and_then(|r| r.status.as_mut()) {
                    status.message = "x".repeat(bytes);
                }
            }
            _ => script_batch(&call, &mut responses, |foreign| v2::batch_read_blobs_response::Response {
                digest: Some(foreign.into()),
                data: bytes::Bytes::new(),
                status: Some(wire::ok()),
                compressor: 0,
            })?,
        }
        Ok(Response::new(v2::BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = Replies<v2::GetTreeResponse>;

    async fn get_tree(&self, request: Request<v2::GetTreeRequest>) -> Result<Response<Self::GetTreeStream>, Status> {
        let mut call = self.0.arrive(Rpc::GetTree, &request).proceed(&self.0).await?;
        let request = request.into_inner();
        let instance = self.0.instance(&request.instance_name)?;
        wire::check_function(request.digest_function, instance.function())?;
        let root = wire::required("root_digest", request.root_digest.as_ref(), instance.function())?;
        let page = match usize::try_from(request.page_size) {
            Ok(0) => DEFAULT_PAGE,
            Ok(n) => n,
            Err(_) => return Err(Status::invalid_argument("page_size is negative")),
        };
        let start = match request.page_token.as_str() {
            "" => 0,
            token => token.parse().map_err(|_| Status::invalid_argument("page_token is not one of ours"))?,
        };
        let omit = match call.fault {
            Some(Fault::OmitSubtree(omit)) => {
                call.fault = None;
                Some(omit)
            }
            _ => None,
        };
        let all = walk(instance, root, omit)?;
        if start > all.len() {
            return Err(Status::invalid_argument("page_token is past the end"));
        }
        let pages: Vec<_> = (start..all.len().max(start + 1))
            .step_by(page)
            .map(|from| {
                let to = from.saturating_add(page).min(all.len());
                let next_page_token = if to < all.len() { to.to_string() } else { String::new() };
                Ok(v2::GetTreeResponse { directories: all[from.min(to)..to].to_vec(), next_page_token })
            })
            .collect();
        Ok(Response::new(call.script(stream::iter(pages).boxed())?))
    }
}

impl Service {
    fn check_batch(&self, total_bytes: usize) -> Result<(), Status> {
        let limit = self.0.config.max_batch_bytes;
        if total_bytes > limit {
            return Err(Status::invalid_argument(format!("{total_bytes} bytes in a batch; the limit is {limit}")));
        }
        Ok(())
    }

    async fn store_blob(&self, instance: &Instance, digest: Digest, data: bytes::Bytes) -> reapi_proto::rpc::Status {
        let Some(blob) = Blob::verified(digest, data) else {
            return wire::rpc_status(Code::InvalidArgument, "the data does not match the digest");
        };
        match instance.store.write_blobs(&[blob]).await {
            Ok(entries) => match entries.into_iter().find_map(|(_, result)| result.err()) {
                None => {
                    self.0.counters.update(|s| s.uploaded.push(digest));
                    wire::ok()
                }
                Some(error) => wire::entry_status(&error),
            },
            Err(error) => wire::entry_status(&error),
        }
    }
}

/// The faults that batches of both directions have.
fn script_batch<T: Clone>(
    call: &Call,
    entries: &mut Vec<T>,
    foreign_entry: impl FnOnce(Digest) -> T,
) -> Result<(), Status> {
    match call.fault {
        None | Some(Fault::EntryStatus(..)) => {}
        Some(Fault::OmitEntry(at)) if at < entries.len() => {
            entries.remove(at);
        }
        Some(Fault::DuplicateEntry(at)) if at < entries.len() => entries.push(entries[at].clone()),
        Some(Fault::ForeignEntry(digest)) => entries.push(foreign_entry(digest)),
        Some(ref other) => return Err(call.does_not_apply(other)),
    }
    Ok(())
}

/// Every directory below `root` once, breadth first. Missing ones are left out, as the specification has it.
fn walk(instance: &Instance, root: Digest, omit: Option<Digest>) -> Result<Vec<v2::Directory>, Status> {
    let mut found = Vec::new();
    let mut seen = HashSet::from([root]);
    let mut queue = VecDeque::from([root]);
    while let Some(digest) = queue.pop_front() {
        let Some(data) = instance.store.peek(&digest).filter(|_| Some(digest) != omit) else {
            if digest == root {
                return Err(Status::not_found(format!("the root {digest} is not in the store")));
            }
            continue;
        };
        let directory = v2::Directory::decode(data.clone())
            .map_err(|e| Status::invalid_argument(format!("{digest} is not a Directory: {e}")))?;
        if directory.encode_to_vec() != data {
            // Decoding loses fields that we do not know, and the client would compute another digest.
            return Err(Status::unimplemented(format!("{digest} cannot be sent byte for byte; read it as a blob")));
        }
        for node in &directory.directories {
            let child = wire::required("DirectoryNode.digest", node.digest.as_ref(), instance.function())?;
            if seen.insert(child) {
                queue.push_back(child);
            }
        }
        found.push(directory);
    }
    Ok(found)
}
