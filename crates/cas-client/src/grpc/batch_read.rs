//! Reading many small blobs per call (`ContentAddressableStorage.BatchReadBlobs`).

use std::future::Future;

use bytes::Bytes;
use reapi_proto::{Digest, v2};

use super::GrpcClient;
use super::batch::{Batch, Emptiness, Entry, emptiness, in_order, transfer};
use super::client::Rpc;
use crate::batch::distinct;
use crate::retry::Failure;
use crate::{Blob, Error, ErrorKind, PerBlob, Result};

/// Blobs below this size are copied out of the reply: a slice, however small, keeps the whole message in memory.
const COPY_BELOW_BYTES: usize = 1024;

struct Read;

impl GrpcClient {
    pub(super) async fn batch_read(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        self.check_function(Read::METHOD, digests)?;
        let order = distinct(digests);
        let asked = order.iter().copied().filter(|d| !d.is_empty()).collect();
        let mut results = transfer::<Read>(self, asked).await?;
        for digest in &order {
            match emptiness(self.function(), digest) {
                Emptiness::Not => {}
                Emptiness::Empty => drop(results.insert(*digest, Ok(Bytes::new()))),
                Emptiness::Impossible => {
                    drop(results.insert(*digest, Err(Error::not_found(Read::METHOD, *digest))));
                }
            }
        }
        Ok(in_order(Read::METHOD, order, results))
    }
}

impl Batch for Read {
    type Item = Digest;
    type Payload = (Bytes, i32);
    type Output = Bytes;

    const METHOD: &'static str = "BatchReadBlobs";

    fn digest(item: &Digest) -> Digest {
        *item
    }

    async fn send(client: &GrpcClient, items: &[Digest]) -> Result<Vec<Entry<(Bytes, i32)>>, Failure> {
        let request = v2::BatchReadBlobsRequest {
            instance_name: client.instance(),
            digests: items.iter().map(Into::into).collect(),
            acceptable_compressors: Vec::new(),
            digest_function: client.function().wire_value(),
        };
        let rpc = Rpc { method: Self::METHOD, deadline: client.config().timeouts.batch, action: None };
        let reply: v2::BatchReadBlobsResponse = client
            .attempt(rpc, request, |channel, request| {
                let mut cas = client.cas(channel);
                async move { cas.batch_read_blobs(request).await }
            })
            .await?;
        Ok(reply
            .responses
            .into_iter()
            .map(|r| Entry { digest: r.digest, status: r.status, payload: (r.data, r.compressor) })
            .collect())
    }

    fn accept(digest: Digest, (data, compressor): (Bytes, i32)) -> Result<Bytes> {
        if compressor != v2::compressor::Value::Identity as i32 {
            let reason = format!("compressed with compressor {compressor}, which was not offered");
            return Err(Error::new(ErrorKind::Protocol, Self::METHOD, reason).with_digest(digest));
        }
        let received = data.len();
        let data = if received < COPY_BELOW_BYTES { Bytes::copy_from_slice(&data) } else { data };
        Blob::verified(digest, data).map(Blob::into_data).ok_or_else(|| {
            Error::corrupt(Self::METHOD, digest, format!("the {received} bytes received are not this blob"))
        })
    }

    fn alone(client: &GrpcClient, digest: Digest) -> impl Future<Output = Result<Bytes>> + Send {
        client.read_whole(digest)
    }
}
