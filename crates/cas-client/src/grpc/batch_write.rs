//! Storing many small blobs per call (`ContentAddressableStorage.BatchUpdateBlobs`).

use reapi_proto::{Digest, rpc, v2};
use tonic::Code;

use super::batch::{Batch, Entry, in_order, transfer};
use super::client::Rpc;
use super::{GrpcClient, status};
use crate::batch::distinct;
use crate::retry::Failure;
use crate::{Blob, Error, ErrorKind, PerBlob, Result};

struct Update;

impl GrpcClient {
    pub(super) async fn batch_write(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        self.check_writable(Update::METHOD)?;
        let digests: Vec<Digest> = blobs.iter().map(Blob::digest).collect();
        self.check_function(Update::METHOD, &digests)?;
        let order = distinct(&digests);
        let mut seen = std::collections::HashSet::with_capacity(order.len());
        let mut sent = Vec::with_capacity(order.len());
        let mut refused = Vec::new();
        for blob in blobs.iter().filter(|b| !b.digest().is_empty() && seen.insert(b.digest())) {
            match self.size_objection(Update::METHOD, &blob.digest()).await? {
                Some(error) => refused.push((blob.digest(), Err(error))),
                None => sent.push(blob.clone()),
            }
        }
        let mut results = transfer::<Update>(self, sent).await?;
        results.extend(refused);
        // A blob was hashed when it was made, so size 0 means the empty one, which every store has.
        results.extend(order.iter().filter(|d| d.is_empty()).map(|d| (*d, Ok(()))));
        Ok(in_order(Update::METHOD, order, results))
    }
}

impl Batch for Update {
    type Item = Blob;
    type Payload = ();
    type Output = ();

    const METHOD: &'static str = "BatchUpdateBlobs";

    fn digest(item: &Blob) -> Digest {
        item.digest()
    }

    async fn send(client: &GrpcClient, items: &[Blob]) -> Result<Vec<Entry<()>>, Failure> {
        let requests = items
            .iter()
            .map(|blob| v2::batch_update_blobs_request::Request {
                digest: Some(blob.digest().into()),
                data: blob.data().clone(),
                compressor: v2::compressor::Value::Identity.into(),
            })
            .collect();
        let request = v2::BatchUpdateBlobsRequest {
            instance_name: client.instance(),
            requests,
            digest_function: client.function().wire_value(),
        };
        let rpc = Rpc { method: Self::METHOD, deadline: client.config().timeouts.batch, action: None };
        let reply: v2::BatchUpdateBlobsResponse = client
            .attempt(rpc, request, |channel, request| {
                let mut cas = client.cas(channel);
                async move { cas.batch_update_blobs(request).await }
            })
            .await?;
        Ok(reply.responses.into_iter().map(|r| Entry { digest: r.digest, status: r.status, payload: () }).collect())
    }

    fn judge(status: Option<&rpc::Status>) -> Option<Failure> {
        let status = status?;
        match Code::from_i32(status.code) {
            Code::Ok | Code::AlreadyExists => None,
            // Here it means that the disk quota does not suffice for this blob (Remote Execution API).
            Code::ResourceExhausted => Some(Failure::fatal(Error::new(
                ErrorKind::LimitExceeded,
                Self::METHOD,
                format!("RESOURCE_EXHAUSTED: {}", status::printable(&status.message)),
            ))),
            _ => Some(status::inner_failure(Self::METHOD, status)),
        }
    }

    fn accept(_: Blob, (): ()) -> Result<()> {
        Ok(())
    }

    async fn alone(client: &GrpcClient, blob: Blob) -> Result<()> {
        client.write_whole(&blob).await
    }
}
