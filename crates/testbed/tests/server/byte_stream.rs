use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reapi_proto::bytestream::{QueryWriteStatusRequest, ReadRequest, WriteRequest};
use reapi_proto::{Digest, DigestFunction};
use testbed::{Fault, Rpc, ServerConfig};
use tonic::{Code, Status};

use crate::rig::Rig;

const ID: &str = "3f5b0c44-298f-4c14-9afb-f4c8996fb924";

async fn read(rig: &Rig, digest: Digest, read_offset: i64, read_limit: i64) -> Result<Vec<Bytes>, Status> {
    let request = ReadRequest { resource_name: format!("blobs/{digest}"), read_offset, read_limit };
    let stream = rig.bytes().read(request).await?.into_inner();
    stream.map(|m| m.map(|m| m.data)).collect::<Vec<_>>().await.into_iter().collect()
}

fn message(digest: Digest, write_offset: i64, data: &'static str, finish_write: bool) -> WriteRequest {
    let resource_name = format!("uploads/{ID}/blobs/{digest}");
    WriteRequest { resource_name, write_offset, finish_write, data: Bytes::from_static(data.as_bytes()) }
}

async fn write(rig: &Rig, messages: Vec<WriteRequest>) -> Result<i64, Code> {
    let answer = rig.bytes().write(stream::iter(messages)).await;
    answer.map(|r| r.into_inner().committed_size).map_err(|s| s.code())
}

async fn status(rig: &Rig, digest: Digest) -> Result<(i64, bool), Code> {
    let resource_name = format!("uploads/{ID}/blobs/{digest}");
    let answer = rig.bytes().query_write_status(QueryWriteStatusRequest { resource_name }).await;
    answer.map(|r| r.into_inner()).map(|r| (r.committed_size, r.complete)).map_err(|s| s.code())
}

#[tokio::test]
async fn reads_parts_in_chunks() {
    let config = ServerConfig { read_chunk_bytes: 4.try_into().unwrap(), ..Default::default() };
    let rig = Rig::with(config).await;
    let blob = rig.server.store().put("0123456789");
    assert_eq!(read(&rig, blob, 0, 0).await.unwrap(), ["0123", "4567", "89"]);
    assert_eq!(read(&rig, blob, 7, 0).await.unwrap(), ["789"]);
    assert_eq!(read(&rig, blob, 2, 3).await.unwrap(), ["234"]);
    assert_eq!(read(&rig, blob, 10, 0).await.unwrap(), Vec::<Bytes>::new());
    assert_eq!(read(&rig, blob, 11, 0).await.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(read(&rig, blob, 0, -1).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(read(&rig, DigestFunction::Sha256.empty(), 0, 0).await.unwrap(), Vec::<Bytes>::new());
    let absent = DigestFunction::Sha256.digest(b"absent");
    assert_eq!(read(&rig, absent, 0, 0).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn writes_are_verified() {
    let rig = Rig::new().await;
    let blob = DigestFunction::Sha256.digest(b"0123456789");
    let wrong = vec![message(blob, 0, "01234", false), message(blob, 5, "5678x", true)];
    assert_eq!(write(&rig, wrong).await, Err(Code::InvalidArgument));
    let gap = vec![message(blob, 0, "01234", false), message(blob, 6, "6789", true)];
    assert_eq!(write(&rig, gap).await, Err(Code::InvalidArgument));
    assert!(rig.server.store().peek(&blob).is_none());
}

#[tokio::test]
async fn a_broken_write_is_resumed() {
    let rig = Rig::new().await;
    let blob = DigestFunction::Sha256.digest(b"0123456789");
    assert_eq!(status(&rig, blob).await, Err(Code::NotFound));
    rig.server.faults().arm(Rpc::Write, Fault::BreakWriteAt(3));
    assert_eq!(write(&rig, vec![message(blob, 0, "01234", false)]).await, Err(Code::Unavailable));
    assert_eq!(status(&rig, blob).await, Ok((3, false)));
    assert_eq!(write(&rig, vec![message(blob, 3, "3456789", true)]).await, Ok(10));
    assert_eq!(status(&rig, blob).await, Ok((10, true)));
    assert_eq!(rig.server.store().peek(&blob).unwrap(), "0123456789");
}

#[tokio::test]
async fn writing_what_is_there_returns_before_the_end_of_the_stream() {
    let rig = Rig::new().await;
    let blob = rig.server.store().put("0123456789");
    // The stream never ends: only an early answer lets this return.
    let messages = stream::iter([message(blob, 0, "01", false)]).chain(stream::pending());
    let answer = rig.bytes().write(messages).await.unwrap();
    assert_eq!(answer.into_inner().committed_size, 10);
    assert_eq!(rig.server.stats().uploaded, []);
}
