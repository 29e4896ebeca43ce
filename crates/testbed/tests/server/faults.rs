use std::time::Duration;

use futures_util::StreamExt;
use prost::Message;
use reapi_proto::bytestream::ReadRequest;
use reapi_proto::longrunning::operation;
use reapi_proto::{Digest, DigestFunction, rpc, v2};
use testbed::runner::FnRunner;
use testbed::{Fault, Gate, Rpc, ServerConfig, faults};
use tonic::{Code, Request, Status};

use crate::rig::{Rig, missing_of, request, shell};

async fn find_missing(rig: &Rig, digests: &[Digest]) -> Result<Vec<v2::Digest>, Status> {
    let blob_digests = digests.iter().map(Into::into).collect();
    let request = v2::FindMissingBlobsRequest { blob_digests, ..Default::default() };
    Ok(rig.cas().find_missing_blobs(request).await?.into_inner().missing_blob_digests)
}

async fn batch_read(rig: &Rig, digests: &[Digest]) -> Vec<(Option<v2::Digest>, Code, bytes::Bytes)> {
    let digests = digests.iter().map(Into::into).collect();
    let request = v2::BatchReadBlobsRequest { digests, ..Default::default() };
    let responses = rig.cas().batch_read_blobs(request).await.unwrap().into_inner().responses;
    responses.into_iter().map(|r| (r.digest, Code::from_i32(r.status.unwrap().code), r.data)).collect()
}

async fn read(rig: &Rig, digest: Digest) -> (Vec<u8>, Option<Code>) {
    let request = ReadRequest { resource_name: format!("blobs/{digest}"), ..Default::default() };
    let mut stream = match rig.bytes().read(request).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return (Vec::new(), Some(status.code())),
    };
    let mut data = Vec::new();
    while let Some(message) = stream.next().await {
        match message {
            Ok(message) => data.extend_from_slice(&message.data),
            Err(status) => return (data, Some(status.code())),
        }
    }
    (data, None)
}

#[tokio::test]
async fn statuses_with_details_and_their_order() {
    let rig = Rig::new().await;
    let script = rig.server.faults();
    script.arm(Rpc::FindMissingBlobs, Fault::Status(faults::retry_after(Duration::from_secs(3))));
    script.arm(Rpc::FindMissingBlobs, Fault::Pass);
    script.arm(Rpc::FindMissingBlobs, Fault::Status(Status::aborted("twice")));
    let status = find_missing(&rig, &[]).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let info: rpc::RetryInfo = rpc::Status::decode(status.details()).unwrap().details[0].to_msg().unwrap();
    assert_eq!(info.retry_delay.unwrap().seconds, 3);
    assert!(find_missing(&rig, &[]).await.is_ok());
    assert_eq!(find_missing(&rig, &[]).await.unwrap_err().code(), Code::Aborted);
    assert_eq!(script.pending(Rpc::FindMissingBlobs), 0);
}

#[tokio::test]
async fn a_severed_connection_fails_the_call_and_a_new_one_works() {
    let rig = Rig::new().await;
    rig.server.faults().arm(Rpc::FindMissingBlobs, Fault::Disconnect);
    assert!(find_missing(&rig, &[]).await.is_err());
    assert!(find_missing(&rig, &[]).await.is_ok());
}

#[tokio::test]
async fn a_held_call_waits_for_its_gate() {
    let rig = Rig::new().await;
    let gate = Gate::new();
    rig.server.faults().arm(Rpc::FindMissingBlobs, Fault::Hold(gate.clone()));
    let call = find_missing(&rig, &[]);
    tokio::pin!(call);
    tokio::select! {
        _ = &mut call => panic!("it was not held"),
        () = gate.reached(1) => {}
    }
    gate.open();
    assert!(call.await.is_ok());
}

#[tokio::test]
async fn lies_of_find_missing() {
    let rig = Rig::new().await;
    let there = rig.server.store().put("there");
    let gone = DigestFunction::Sha256.digest(b"gone");
    let foreign = DigestFunction::Sha256.digest(b"foreign");
    let script = rig.server.faults();
    for fault in [Fault::ClaimPresent, Fault::ClaimMissing, Fault::ForeignEntry(foreign)] {
        script.arm(Rpc::FindMissingBlobs, fault);
    }
    assert_eq!(find_missing(&rig, &[there, gone]).await.unwrap(), []);
    assert_eq!(find_missing(&rig, &[there, gone]).await.unwrap(), [there.into(), gone.into()]);
    assert_eq!(find_missing(&rig, &[there, gone]).await.unwrap(), [gone.into(), foreign.into()]);
}

#[tokio::test]
async fn batches_with_wrong_entries() {
    let rig = Rig::new().await;
    let (a, b) = (rig.server.store().put("a"), rig.server.store().put("b"));
    let (wire_a, wire_b): (v2::Digest, v2::Digest) = (a.into(), b.into());
    let foreign = DigestFunction::Sha256.digest(b"foreign");
    let names = |entries: Vec<(Option<v2::Digest>, Code, bytes::Bytes)>| {
        entries.into_iter().map(|(digest, _, _)| digest.unwrap()).collect::<Vec<_>>()
    };
    let script = rig.server.faults();
    script.arm(Rpc::BatchReadBlobs, Fault::OmitEntry(0));
    assert_eq!(names(batch_read(&rig, &[a, b]).await), std::slice::from_ref(&wire_b));
    script.arm(Rpc::BatchReadBlobs, Fault::DuplicateEntry(0));
    assert_eq!(names(batch_read(&rig, &[a, b]).await), [wire_a.clone(), wire_b.clone(), wire_a.clone()]);
    script.arm(Rpc::BatchReadBlobs, Fault::ForeignEntry(foreign));
    assert_eq!(names(batch_read(&rig, &[a, b]).await), [wire_a, wire_b, foreign.into()]);
    script.arm(Rpc::BatchReadBlobs, Fault::EntryStatus(1, Code::Unavailable));
    let codes: Vec<_> = batch_read(&rig, &[a, b]).await.into_iter().map(|(_, code, _)| code).collect();
    assert_eq!(codes, [Code::Ok, Code::Unavailable]);
    for (fault, expected) in
        [(Fault::CorruptBytes, vec![!b'a']), (Fault::ShortBytes, vec![]), (Fault::LongBytes, b"ax".to_vec())]
    {
        script.arm(Rpc::BatchReadBlobs, fault);
        assert_eq!(batch_read(&rig, &[a]).await[0].2, expected);
    }
}

#[tokio::test]
async fn an_oversize_reply_is_too_large_for_the_client() {
    let rig = Rig::new().await;
    let a = rig.server.store().put("a");
    rig.server.faults().arm(Rpc::BatchReadBlobs, Fault::Pad(5 << 20));
    let request = v2::BatchReadBlobsRequest { digests: vec![a.into()], ..Default::default() };
    assert_eq!(rig.cas().batch_read_blobs(request).await.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test]
async fn streams_that_break() {
    let rig = Rig::with(ServerConfig { read_chunk_bytes: 2.try_into().unwrap(), ..Default::default() }).await;
    let blob = rig.server.store().put("012345");
    let script = rig.server.faults();
    script.arm(Rpc::Read, Fault::EndAfter(2));
    assert_eq!(read(&rig, blob).await, (b"0123".to_vec(), None));
    script.arm(Rpc::Read, Fault::FailAfter(1, Status::data_loss("disk")));
    assert_eq!(read(&rig, blob).await, (b"01".to_vec(), Some(Code::DataLoss)));
    script.arm(Rpc::Read, Fault::Repeat);
    assert_eq!(read(&rig, blob).await, (b"010123234545".to_vec(), None));
    script.arm(Rpc::Read, Fault::DisconnectAfter(1));
    let (data, code) = read(&rig, blob).await;
    assert!(code.is_some() && data.len() < 6, "{data:?}");
    script.arm(Rpc::Read, Fault::CorruptBytes);
    assert_eq!(read(&rig, blob).await.0[0], !b'0');
    assert_eq!(read(&rig, blob).await, (b"012345".to_vec(), None));
}

#[tokio::test]
async fn a_stream_that_stalls() {
    let rig = Rig::with(ServerConfig { read_chunk_bytes: 2.try_into().unwrap(), ..Default::default() }).await;
    let blob = rig.server.store().put("012345");
    let gate = Gate::new();
    rig.server.faults().arm(Rpc::Read, Fault::HoldAfter(1, gate.clone()));
    let request = ReadRequest { resource_name: format!("blobs/{blob}"), ..Default::default() };
    let mut stream = rig.bytes().read(request).await.unwrap().into_inner();
    assert_eq!(stream.next().await.unwrap().unwrap().data, "01");
    gate.reached(1).await;
    gate.open();
    let rest: Vec<_> = stream.map(|m| m.unwrap().data).collect().await;
    assert_eq!(rest, ["23", "45"]);
}

#[tokio::test]
async fn a_wrong_committed_size() {
    let rig = Rig::new().await;
    let blob = DigestFunction::Sha256.digest(b"data");
    rig.server.faults().arm(Rpc::Write, Fault::CommittedSize(-1));
    let message = reapi_proto::bytestream::WriteRequest {
        resource_name: format!("uploads/{}/blobs/{blob}", "3f5b0c44-298f-4c14-9afb-f4c8996fb924"),
        finish_write: true,
        data: bytes::Bytes::from_static(b"data"),
        ..Default::default()
    };
    let answer = rig.bytes().write(futures_util::stream::iter([message])).await.unwrap().into_inner();
    assert_eq!(answer.committed_size, -1);
}

#[tokio::test]
async fn eviction_between_upload_and_execution() {
    let rig = Rig::new().await;
    let action = rig.action(&shell("true", &[]), &[("in", "input")]);
    let input = DigestFunction::Sha256.digest(b"input");
    assert_eq!(find_missing(&rig, &[input]).await.unwrap(), []);
    rig.server.faults().arm(Rpc::Execute, Fault::Evict(vec![input]));
    assert_eq!(missing_of(&rig.execute(action).await.unwrap_err()), [format!("blobs/{input}")]);
}

#[tokio::test]
async fn operations_that_end_wrongly() {
    let rig = Rig::with(ServerConfig::default().with_runner(FnRunner::succeeding())).await;
    let action = rig.action(&shell("true", &[]), &[]);
    let status = rpc::Status { code: Code::Internal as i32, message: "broken".to_owned(), details: vec![] };
    type Expected = fn(&Option<operation::Result>) -> bool;
    let ends: [(Fault, Expected); 4] = [
        (
            Fault::OperationError(status.clone()),
            |r| matches!(r, Some(operation::Result::Error(s)) if s.message == "broken"),
        ),
        (
            Fault::ResponseStatus(status),
            |r| matches!(r, Some(operation::Result::Response(any)) if any.to_msg::<v2::ExecuteResponse>().unwrap().result.is_none()),
        ),
        (Fault::NoResponse, Option::is_none),
        (
            Fault::ForeignResponse,
            |r| matches!(r, Some(operation::Result::Response(any)) if any.to_msg::<v2::ExecuteResponse>().is_err()),
        ),
    ];
    for (fault, expected) in ends {
        rig.server.faults().arm(Rpc::Execute, fault);
        let operations: Vec<_> = rig.execute(action).await.unwrap().map(Result::unwrap).collect().await;
        let last = operations.last().unwrap();
        assert!(last.done && expected(&last.result), "{last:?}");
    }
}

#[tokio::test]
async fn an_operation_that_is_forgotten() {
    let rig = Rig::with(ServerConfig::default().with_runner(FnRunner::succeeding())).await;
    let action = rig.action(&shell("true", &[]), &[]);
    rig.server.faults().arm(Rpc::Execute, Fault::ForgetOperation);
    let mut stream = rig.execution().execute(request(action)).await.unwrap().into_inner();
    let name = stream.next().await.unwrap().unwrap().name;
    let status = rig.execution().wait_execution(v2::WaitExecutionRequest { name }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn a_token_can_be_required() {
    let rig = Rig::new().await;
    rig.server.faults().require_bearer(Some("secret"));
    assert_eq!(find_missing(&rig, &[]).await.unwrap_err().code(), Code::Unauthenticated);
    let mut request = Request::new(v2::FindMissingBlobsRequest::default());
    request.metadata_mut().insert("authorization", "Bearer secret".parse().unwrap());
    assert!(rig.cas().find_missing_blobs(request).await.is_ok());
    rig.server.faults().require_bearer(None);
    assert!(find_missing(&rig, &[]).await.is_ok());
}

#[tokio::test]
async fn a_fault_that_does_not_apply_fails_the_call() {
    let rig = Rig::new().await;
    rig.server.faults().arm(Rpc::GetActionResult, Fault::ClaimPresent);
    let action = rig.action(&shell("true", &[]), &[]);
    rig.server.faults().arm(Rpc::GetTree, Fault::CommittedSize(1));
    let root = rig.server.store().put("");
    let tree = v2::GetTreeRequest { root_digest: Some(root.into()), ..Default::default() };
    assert_eq!(rig.cas().get_tree(tree).await.map(drop).unwrap_err().code(), Code::Internal);
    // A miss is a miss; the fault is used up all the same.
    assert_eq!(rig.lookup(action).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(rig.server.faults().pending(Rpc::GetActionResult), 0);
}

#[tokio::test]
async fn all_connections_can_be_severed_at_once() {
    let rig = Rig::new().await;
    assert!(find_missing(&rig, &[]).await.is_ok());
    let gate = Gate::new();
    rig.server.faults().arm(Rpc::FindMissingBlobs, Fault::Hold(gate.clone()));
    let call = find_missing(&rig, &[]);
    tokio::pin!(call);
    tokio::select! {
        _ = &mut call => panic!("it was not held"),
        () = gate.reached(1) => {}
    }
    rig.server.sever_connections();
    assert!(call.await.is_err());
}

#[tokio::test]
async fn trees_with_parts_left_out_and_repeated() {
    let rig = Rig::new().await;
    let store = rig.server.store();
    let directory = |name: &'static str, node| {
        store.put(reapi_proto::raw::encode_directory([(bytes::Bytes::from_static(name.as_bytes()), node)]).unwrap())
    };
    let link = reapi_proto::raw::Node::Symlink { target: bytes::Bytes::from_static(b"t") };
    let leaf = directory("leaf", link);
    let middle = directory("middle", reapi_proto::raw::Node::Directory { digest: leaf });
    let root = directory("root", reapi_proto::raw::Node::Directory { digest: middle });
    let count = async || {
        let request = v2::GetTreeRequest { root_digest: Some(root.into()), page_size: 2, ..Default::default() };
        let pages = rig.cas().get_tree(request).await.unwrap().into_inner();
        pages.map(|page| page.unwrap().directories.len()).collect::<Vec<_>>().await
    };
    assert_eq!(count().await, [2, 1]);
    rig.server.faults().arm(Rpc::GetTree, Fault::OmitSubtree(middle));
    assert_eq!(count().await, [1]);
    rig.server.faults().arm(Rpc::GetTree, Fault::Repeat);
    assert_eq!(count().await, [2, 2, 1, 1]);
}

#[tokio::test]
async fn capabilities_that_are_absent_or_other() {
    let rig = Rig::new().await;
    let ask = async || {
        let mut capabilities = v2::capabilities_client::CapabilitiesClient::new(rig.channel.clone());
        let answer = capabilities.get_capabilities(v2::GetCapabilitiesRequest::default()).await;
        answer.map(|r| r.into_inner()).map_err(|s| s.code())
    };
    let script = rig.server.faults();
    script.arm(Rpc::GetCapabilities, Fault::Status(Status::unimplemented("no")));
    assert_eq!(ask().await, Err(Code::Unimplemented));
    script.arm(Rpc::GetCapabilities, Fault::Capabilities(Box::default()));
    assert_eq!(ask().await, Ok(v2::ServerCapabilities::default()));
    assert!(ask().await.unwrap().cache_capabilities.is_some());
}
