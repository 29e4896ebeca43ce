//! Asking what a service lacks (`ContentAddressableStorage.FindMissingBlobs`).

use std::collections::HashSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reapi_proto::{Digest, DigestFunction, v2};

use super::GrpcClient;
use super::client::Rpc;
use super::wire::{entry_bytes, from_wire};
use crate::batch::distinct;
use crate::{Error, ErrorKind, Result};

const METHOD: &str = "FindMissingBlobs";

/// Most digests per request. Unbounded requests are known to fail beyond a
/// few 100,000 (they grow past 4 MiB); other clients use 100 to 10,000.
const MAX_DIGESTS: usize = 10_000;

/// Most encoded bytes per request, a quarter of what gRPC transports by default.
const MAX_REQUEST_BYTES: u64 = 1024 * 1024;

/// Requests in flight for one question: enough to hide a round trip behind the others' work.
const CONCURRENT: usize = 8;

impl GrpcClient {
    pub(super) async fn find_missing_blobs(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.check_function(METHOD, digests)?;
        let empty = self.function().empty();
        let mut asked = distinct(digests);
        asked.retain(|d| *d != empty);
        // Not even asked for: no bytes have this name.
        let (impossible, possible): (Vec<_>, Vec<_>) = asked.iter().copied().partition(Digest::is_empty);
        let chunks: Vec<_> =
            possible.chunks(digests_per_request(self.function())).map(|chunk| self.find_in_chunk(chunk)).collect();
        let mut missing: HashSet<Digest> = impossible.into_iter().collect();
        let mut answers = stream::iter(chunks).buffer_unordered(CONCURRENT);
        while let Some(answer) = answers.try_next().await? {
            missing.extend(answer);
        }
        Ok(asked.into_iter().filter(|d| missing.contains(d)).collect())
    }

    async fn find_in_chunk(&self, chunk: &[Digest]) -> Result<Vec<Digest>> {
        let request = v2::FindMissingBlobsRequest {
            instance_name: self.instance(),
            blob_digests: chunk.iter().map(Into::into).collect(),
            digest_function: self.function().wire_value(),
        };
        let rpc = Rpc { method: METHOD, deadline: self.config().timeouts.call, action: None };
        let reply = self
            .call(rpc, request, |channel, request| {
                let mut cas = self.cas(channel);
                async move { cas.find_missing_blobs(request).await }
            })
            .await?;
        check_answer(self.function(), chunk, &reply.missing_blob_digests).map_err(|e| e.at(&self.config().endpoint))
    }
}

/// The answer as digests; every one of them must have been asked about.
fn check_answer(function: DigestFunction, asked: &[Digest], missing: &[v2::Digest]) -> Result<Vec<Digest>> {
    let asked: HashSet<&Digest> = asked.iter().collect();
    missing
        .iter()
        .map(|digest| {
            let digest = from_wire(METHOD, function, Some(digest))?;
            if asked.contains(&digest) {
                Ok(digest)
            } else {
                Err(Error::new(ErrorKind::Protocol, METHOD, "the answer names a blob that was not asked about")
                    .with_digest(digest))
            }
        })
        .collect()
}

fn digests_per_request(function: DigestFunction) -> usize {
    usize::try_from(MAX_REQUEST_BYTES / entry_bytes(function)).unwrap_or(MAX_DIGESTS).min(MAX_DIGESTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn a_full_request_stays_below_its_bound() {
        for function in DigestFunction::ALL {
            let biggest = Digest::from_raw(function, &vec![0xff; function.hash_bytes()], i64::MAX as u64).unwrap();
            let request = v2::FindMissingBlobsRequest {
                instance_name: String::new(),
                blob_digests: vec![biggest.into(); digests_per_request(function)],
                digest_function: function.wire_value(),
            };
            assert!(request.encoded_len() as u64 <= MAX_REQUEST_BYTES + 16, "{function}: {}", request.encoded_len());
        }
    }
}
