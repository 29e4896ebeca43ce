//! `ByteStream`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use cas_client::{Blob, BlobStore};
use futures_util::{StreamExt, stream};
use reapi_proto::bytestream::byte_stream_server::ByteStream;
use reapi_proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::resource::{self, Resource};
use super::shared::{Call, Instance, Replies};
use super::{Service, wire};
use crate::faults::Fault;
use crate::stats::Rpc;

/// Unfinished uploads that are kept for resumption, per instance.
const MAX_UNFINISHED: usize = 64;

/// What unfinished uploads have sent so far, by upload id and digest.
#[derive(Default)]
pub(super) struct Uploads(Mutex<HashMap<(String, reapi_proto::Digest), BytesMut>>);

impl Uploads {
    fn with<T>(&self, f: impl FnOnce(&mut HashMap<(String, reapi_proto::Digest), BytesMut>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for Uploads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Uploads({})", self.with(|u| u.len()))
    }
}

#[async_trait]
impl ByteStream for Service {
    type ReadStream = Replies<ReadResponse>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let mut call = self.0.arrive(Rpc::Read, &request).proceed(&self.0).await?;
        let request = request.into_inner();
        let Resource { instance, digest, .. } = resource::parse_read(&request.resource_name)?;
        let instance = self.0.instance(&instance)?;
        let mut answers = instance.store.read_blobs(&[digest]).await.map_err(|e| wire::status(&e))?;
        let data = match answers.pop() {
            Some((_, data)) => data.map_err(|e| wire::status(&e))?,
            None => return Err(Status::internal("the store did not answer")),
        };
        let mut data = spoil(&call, data);
        if matches!(call.fault, Some(Fault::CorruptBytes | Fault::ShortBytes | Fault::LongBytes)) {
            call.fault = None;
        }
        let offset =
            usize::try_from(request.read_offset).map_err(|_| Status::out_of_range("read_offset is negative"))?;
        if offset > data.len() {
            return Err(Status::out_of_range(format!("read_offset {offset} is past the end, {}", data.len())));
        }
        let limit =
            usize::try_from(request.read_limit).map_err(|_| Status::invalid_argument("read_limit is negative"))?;
        data = data.slice(offset..if limit == 0 { data.len() } else { data.len().min(offset.saturating_add(limit)) });
        let chunk = self.0.config.read_chunk_bytes.get();
        let pieces = std::iter::from_fn(move || {
            (!data.is_empty()).then(|| Ok(ReadResponse { data: data.split_to(chunk.min(data.len())) }))
        });
        Ok(Response::new(call.script(stream::iter(pieces).boxed())?))
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        let call = self.0.arrive(Rpc::Write, &request).proceed(&self.0).await?;
        let mut messages = request.into_inner();
        let Some(mut message) = messages.message().await? else {
            return Err(Status::invalid_argument("a write without any message"));
        };
        let name = message.resource_name.clone();
        let resource = resource::parse_write(&name)?;
        let instance = self.0.instance(&resource.instance)?;
        let digest = resource.digest;
        if digest.function() != instance.function() {
            return Err(Status::invalid_argument(format!("this instance uses {}", instance.function())));
        }
        if instance.store.find_missing(&[digest]).await.map_err(|e| wire::status(&e))?.is_empty() {
            // The early return of the specification: the rest of the stream is not read.
            return committed(&call, digest.wire_size());
        }
        let mut upload = Upload::resume(instance, resource);
        loop {
            if !message.resource_name.is_empty() && message.resource_name != name {
                return Err(Status::invalid_argument("resource_name differs from the first message's"));
            }
            let limit = match call.fault {
                Some(Fault::BreakWriteAt(at)) => Some(at),
                _ => None,
            };
            upload.append(&message, limit)?;
            if message.finish_write {
                break;
            }
            message = messages
                .message()
                .await?
                .ok_or_else(|| Status::invalid_argument("the stream ended before finish_write"))?;
        }
        if messages.message().await?.is_some() {
            return Err(Status::invalid_argument("a message behind finish_write"));
        }
        let blob = upload.finish()?;
        instance.store.write_blobs(&[blob]).await.map_err(|e| wire::status(&e))?;
        self.0.counters.update(|s| s.uploaded.push(digest));
        committed(&call, digest.wire_size())
    }

    async fn query_write_status(
        &self,
        request: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        let call = self.0.arrive(Rpc::QueryWriteStatus, &request).proceed(&self.0).await?;
        call.without_fault()?;
        let resource = resource::parse_write(&request.get_ref().resource_name)?;
        let instance = self.0.instance(&resource.instance)?;
        let digest = resource.digest;
        if instance.store.find_missing(&[digest]).await.map_err(|e| wire::status(&e))?.is_empty() {
            return Ok(Response::new(QueryWriteStatusResponse { committed_size: digest.wire_size(), complete: true }));
        }
        let key = (resource.upload.unwrap_or_default(), digest);
        let so_far = instance.uploads.with(|u| u.get(&key).map(BytesMut::len));
        let so_far = so_far.ok_or_else(|| Status::not_found("there is no such upload"))?;
        let committed_size = i64::try_from(so_far).unwrap_or(i64::MAX);
        Ok(Response::new(QueryWriteStatusResponse { committed_size, complete: false }))
    }
}

fn committed(call: &Call, size: i64) -> Result<Response<WriteResponse>, Status> {
    let committed_size = match call.fault {
        None => size,
        Some(Fault::CommittedSize(other)) => other,
        Some(ref other) => return Err(call.does_not_apply(other)),
    };
    Ok(Response::new(WriteResponse { committed_size }))
}

/// One upload in progress. What has arrived stays behind when it is dropped, so that the client can resume.
struct Upload<'a> {
    instance: &'a Instance,
    key: (String, reapi_proto::Digest),
    data: BytesMut,
}

impl<'a> Upload<'a> {
    fn resume(instance: &'a Instance, resource: Resource) -> Self {
        let key = (resource.upload.unwrap_or_default(), resource.digest);
        let data = instance.uploads.with(|u| u.remove(&key)).unwrap_or_default();
        Self { instance, key, data }
    }

    fn append(&mut self, message: &WriteRequest, limit: Option<u64>) -> Result<(), Status> {
        if usize::try_from(message.write_offset) != Ok(self.data.len()) {
            return Err(Status::invalid_argument(format!(
                "write_offset {} where {} bytes are committed",
                message.write_offset,
                self.data.len()
            )));
        }
        if (self.data.len() + message.data.len()) as u64 > self.key.1.size_bytes() {
            self.data.clear();
            return Err(Status::invalid_argument("more data than the digest says"));
        }
        self.data.extend_from_slice(&message.data);
        if let Some(limit) = limit
            && self.data.len() as u64 >= limit
        {
            self.data.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            return Err(Status::unavailable("broken off by a scripted fault"));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Blob, Status> {
        let data = std::mem::take(&mut self.data).freeze();
        Blob::verified(self.key.1, data)
            .ok_or_else(|| Status::invalid_argument(format!("the data does not match the digest {}", self.key.1)))
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if !self.data.is_empty() {
            let data = std::mem::take(&mut self.data);
            self.instance.uploads.with(|uploads| {
                if uploads.len() < MAX_UNFINISHED {
                    uploads.insert(self.key.clone(), data);
                }
            });
        }
    }
}

/// Acts out the faults of blob data.
pub(super) fn spoil(call: &Call, data: Bytes) -> Bytes {
    let mut data = match call.fault {
        Some(Fault::CorruptBytes | Fault::ShortBytes | Fault::LongBytes) => BytesMut::from(data),
        _ => return data,
    };
    match call.fault {
        Some(Fault::CorruptBytes) => data.iter_mut().take(1).for_each(|b| *b = !*b),
        Some(Fault::ShortBytes) => data.truncate(data.len().saturating_sub(1)),
        _ => data.put_u8(b'x'),
    }
    data.freeze()
}
