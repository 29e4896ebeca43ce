//! Byte streams of the gRPC client against a scripted server.

use std::time::Duration;

use bytes::Bytes;
use cas_client::grpc::GrpcClient;
use cas_client::{Blob, BlobStore as _, Chunks, Error, ErrorKind, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use h2::Reason;
use reapi_proto::bytestream::ReadResponse;
use reapi_proto::{Digest, DigestFunction};
use tonic::Status;

use crate::support::raw::{End, Sink};
use crate::support::{Answer, Scripted, WriteStep, digest, impatient, piece, replies, replies_then_hang};

async fn read(client: &GrpcClient, digest: &Digest) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    let mut pieces = client.open_blob(digest).await?;
    while let Some(piece) = pieces.try_next().await? {
        data.extend_from_slice(&piece);
    }
    assert!(pieces.next().await.is_none());
    Ok(data)
}

/// Reads "content" from a server that answers each attempt with one of `attempts`.
async fn read_content(attempts: Vec<Vec<Answer<ReadResponse>>>) -> (Scripted, Result<Vec<u8>>) {
    let server = Scripted::start().await;
    for list in attempts {
        server.script.read.then_ok(replies(list));
    }
    let result = read(&server.client(), &digest(b"content")).await;
    (server, result)
}

fn offsets(server: &Scripted) -> Vec<i64> {
    server.script.read.calls().iter().map(|call| call.read_offset).collect()
}

#[tokio::test]
async fn a_blob_is_read_by_its_name_in_pieces() {
    let server = Scripted::start().await;
    let name = digest(b"content");
    server.script.read.then_ok(replies(vec![piece(b""), piece(b"con"), piece(b""), piece(b"tent"), piece(b"")]));
    let client = server.client_with(|config| config.instance_name = "a/b".into());
    assert_eq!(read(&client, &name).await.unwrap(), b"content");
    let call = &server.script.read.calls()[0];
    assert_eq!(call.resource_name, format!("a/b/blobs/{name}"));
    assert_eq!((call.read_offset, call.read_limit), (0, 0));
}

#[tokio::test]
async fn the_empty_blob_is_read_without_a_call() {
    let server = Scripted::start().await;
    assert_eq!(read(&server.client(), &DigestFunction::Sha256.empty()).await.unwrap(), b"");
    let impossible = Digest::from_raw(DigestFunction::Sha256, digest(b"a").hash(), 0).unwrap();
    assert_eq!(read(&server.client(), &impossible).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(server.script.read.calls().len(), 0);
}

#[tokio::test]
async fn other_content_is_corrupt_and_its_last_piece_withheld() {
    let server = Scripted::start().await;
    server.script.read.then_ok(replies(vec![piece(b"con"), piece(b"TENT")]));
    let pieces: Vec<_> = server.client().open_blob(&digest(b"content")).await.unwrap().collect().await;
    assert_eq!(pieces.len(), 2);
    assert_eq!(pieces[0].as_ref().unwrap(), "con");
    let error = pieces[1].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.digests()), (ErrorKind::Corrupt, &[digest(b"content")][..]));
    assert_eq!(server.script.read.calls().len(), 1, "the same again would be no better");
}

#[tokio::test]
async fn short_and_long_blobs_are_corrupt() {
    let (_server, result) = read_content(vec![vec![piece(b"con")]]).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Corrupt, "short");
    let (_server, result) = read_content(vec![vec![piece(b"content"), piece(b"!")]]).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Corrupt, "long, in another piece");
    let (_server, result) = read_content(vec![vec![piece(b"content!")]]).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Corrupt, "long, in the same piece");
}

#[tokio::test]
async fn reading_stops_at_the_claimed_size() {
    let server = Scripted::start().await;
    let endless = stream::repeat_with(|| piece(&[0; 100])).boxed();
    server.script.read.then_ok(endless);
    assert_eq!(read(&server.client(), &digest(b"content")).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_broken_stream_is_taken_up_where_it_broke() {
    let broken = || Err(Status::unavailable("broken"));
    let (server, result) = read_content(vec![
        vec![piece(b"con"), broken()],
        vec![broken()],
        vec![piece(b"t"), broken()],
        vec![piece(b"ent")],
    ])
    .await;
    assert_eq!(result.unwrap(), b"content");
    assert_eq!(offsets(&server), [0, 3, 3, 4]);
}

#[tokio::test]
async fn progress_resets_the_count_of_attempts() {
    let attempts = b"content".iter().map(|byte| vec![piece(&[*byte]), Err(Status::unavailable("broken"))]).collect();
    let (server, result) = read_content(attempts).await;
    assert_eq!(result.unwrap(), b"content", "7 attempts where the policy has 3");
    assert_eq!(offsets(&server), [0, 1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn what_follows_a_complete_blob_does_not_matter() {
    let (server, result) = read_content(vec![vec![piece(b"content"), Err(Status::unavailable("late"))]]).await;
    assert_eq!(result.unwrap(), b"content");
    assert_eq!(offsets(&server), [0]);
}

#[tokio::test]
async fn a_missing_blob_is_not_found_at_once() {
    let server = Scripted::start().await;
    server.script.read.then_fail(Status::not_found("no")).then_ok(replies(vec![Err(Status::not_found("no"))]));
    for _ in 0..2 {
        let error = read(&server.client(), &digest(b"content")).await.unwrap_err();
        assert_eq!((error.kind(), error.digests()), (ErrorKind::NotFound, &[digest(b"content")][..]));
    }
    assert_eq!(server.script.read.left(), 0);
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_taken_up_again() {
    let server = Scripted::start().await;
    server.script.read.then_ok(replies_then_hang(vec![])).then_ok(replies_then_hang(vec![piece(b"con")]));
    server.script.read.then_ok(replies(vec![piece(b"tent")]));
    let client = server.client_with(|config| config.timeouts.idle = Duration::from_millis(400));
    assert_eq!(read(&client, &digest(b"content")).await.unwrap(), b"content");
    assert_eq!(offsets(&server), [0, 0, 3]);
}

#[tokio::test]
async fn a_stream_that_stays_silent_fails() {
    let server = Scripted::start().await;
    for _ in 0..3 {
        server.script.read.then_ok(replies_then_hang(vec![]));
    }
    let client = server.client_with(|config| config.timeouts.idle = Duration::from_millis(300));
    let error = read(&client, &digest(b"content")).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Unavailable, "no data for 300ms"));
    assert_eq!(offsets(&server), [0, 0, 0]);
}

#[tokio::test]
async fn half_read_streams_hold_their_places() {
    let server = Scripted::start().await;
    server.script.read.then_ok(replies(vec![piece(b"con"), piece(b"tent")]));
    server.script.read.then_ok(replies(vec![piece(b"content")]));
    let client = server.client_with(|config| config.limits.concurrent_calls = 1);
    let mut first = client.open_blob(&digest(b"content")).await.unwrap();
    first.try_next().await.unwrap();
    let name = digest(b"content");
    let mut second = Box::pin(read(&client, &name));
    assert!(futures_util::poll!(&mut second).is_pending());
    tokio::task::yield_now().await;
    assert_eq!(server.script.read.calls().len(), 1, "the second waits for the first");
    drop(first);
    assert_eq!(second.await.unwrap(), b"content");
}

const MIB: usize = 1024 * 1024;

/// A blob above the size that the client gathers in memory, and its pieces.
fn large() -> (Blob, Vec<Bytes>) {
    let data: Vec<u8> = (0..6 * MIB + 5).map(|n| (n % 251).try_into().unwrap()).collect();
    let blob = Blob::new(DigestFunction::Sha256, data);
    let pieces = blob.data().chunks(3 * MIB / 2).map(Bytes::copy_from_slice).collect();
    (blob, pieces)
}

fn chunks(pieces: Vec<Bytes>) -> Chunks {
    stream::iter(pieces.into_iter().map(Ok)).boxed()
}

#[tokio::test]
async fn an_upload_keeps_the_rules_of_the_protocol() {
    let server = Scripted::start().await;
    server.script.write_ok();
    let (blob, pieces) = large();
    let client = server.client_with(|config| config.instance_name = "main".into());
    client.write_chunks(&blob.digest(), chunks(pieces)).await.unwrap();
    let upload = server.script.upload_over(0).await;
    assert!(upload.data() == *blob.data(), "the content arrived");
    let name = &upload.messages[0].resource_name;
    assert!(name.starts_with("main/uploads/") && name.ends_with(&format!("/blobs/{}", blob.digest())), "{name}");
    assert_eq!(upload.header.as_ref(), Some(name));
    let mut offset = 0;
    for (n, message) in upload.messages.iter().enumerate() {
        assert_eq!(message.resource_name.is_empty(), n > 0, "only the first message has the name");
        assert_eq!(message.write_offset, offset);
        assert_eq!(message.finish_write, n + 1 == upload.messages.len(), "exactly the last message finishes");
        assert!(message.data.len() <= MIB);
        offset += i64::try_from(message.data.len()).unwrap();
    }
}

#[tokio::test]
async fn an_early_confirmation_stops_the_upload() {
    let server = Scripted::start().await;
    let (blob, _) = large();
    let size = blob.digest().wire_size();
    server.script.write(WriteStep::After(1, Ok(size)));
    // The rest of the blob is never produced.
    let first = blob.data().slice(..2 * MIB);
    let source = stream::iter([Ok(first)]).chain(stream::pending()).boxed();
    server.client().write_chunks(&blob.digest(), source).await.unwrap();
    assert!(!server.script.upload_over(0).await.finished());
}

#[tokio::test]
async fn an_early_confirmation_stops_an_upload_in_full_flow() {
    let server = Scripted::start().await;
    let data = Bytes::from(vec![1; 64 * MIB]);
    let blob = Blob::new(DigestFunction::Sha256, data);
    let client = server.client();
    for _ in 0..3 {
        server.script.write(WriteStep::After(2, Ok(blob.digest().wire_size())));
        let pieces = blob.data().chunks(MIB).map(|c| blob.data().slice_ref(c)).collect();
        client.write_chunks(&blob.digest(), chunks(pieces)).await.unwrap();
    }
    // The connection is still good for other calls.
    server.script.find_missing.then_ok(reapi_proto::v2::FindMissingBlobsResponse::default());
    assert_eq!(client.find_missing(&[blob.digest()]).await.unwrap(), []);
}

#[tokio::test]
async fn an_early_refusal_is_reported() {
    let server = Scripted::start().await;
    let (blob, _) = large();
    server.script.write(WriteStep::After(1, Err(Status::permission_denied("not yours"))));
    let source = stream::iter([Ok(blob.data().slice(..2 * MIB))]).chain(stream::pending()).boxed();
    let error = server.client().write_chunks(&blob.digest(), source).await.unwrap_err();
    assert_eq!((error.kind(), error.digests()), (ErrorKind::Denied, &[blob.digest()][..]));
}

#[tokio::test]
async fn another_committed_size_is_a_broken_promise() {
    for committed in [-1, 0, 6, 8] {
        let server = Scripted::start().await;
        server.script.write(WriteStep::AfterAll(Ok(committed)));
        let source = chunks(vec![Bytes::from_static(b"content")]);
        let error = server.client().write_chunks(&digest(b"content"), source).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{committed}");
    }
}

#[tokio::test]
async fn somebody_else_was_faster() {
    let server = Scripted::start().await;
    server.script.write(WriteStep::AfterAll(Err(Status::already_exists(""))));
    server.client().write_chunks(&digest(b"content"), chunks(vec![Bytes::from_static(b"content")])).await.unwrap();
}

#[tokio::test]
async fn a_small_upload_starts_over_after_a_failure() {
    let server = Scripted::start().await;
    server.script.write(WriteStep::After(1, Err(Status::unavailable("broken")))).write_ok();
    let source = chunks(vec![Bytes::from_static(b"con"), Bytes::from_static(b"tent")]);
    server.client().write_chunks(&digest(b"content"), source).await.unwrap();
    assert_eq!(server.script.upload_over(1).await.data(), b"content");
    let names: Vec<_> = server.script.uploads().iter().map(|u| u.messages[0].resource_name.clone()).collect();
    assert_ne!(names[0], names[1], "a new upload, not the continuation of the broken one");
}

#[tokio::test]
async fn a_wrong_small_blob_is_never_sent() {
    let server = Scripted::start().await;
    for wrong in ["other!!", "content and more", "cont", ""] {
        let source = chunks(vec![Bytes::from_static(wrong.as_bytes())]);
        let error = server.client().write_chunks(&digest(b"content"), source).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{wrong:?}");
    }
    let source = chunks(vec![Bytes::from_static(b"x")]);
    let error = server.client().write_chunks(&DigestFunction::Sha256.empty(), source).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    server.client().write_chunks(&DigestFunction::Sha256.empty(), chunks(vec![])).await.unwrap();
    assert_eq!(server.script.uploads().len(), 0);
}

#[tokio::test]
async fn a_wrong_large_blob_is_aborted_not_completed() {
    let (blob, pieces) = large();
    let mut longer = pieces.clone();
    longer.push(Bytes::from_static(b"!"));
    let mut other = pieces.clone();
    other.swap(0, 1);
    let mut server = Sink::start().await;
    let client = GrpcClient::new(impatient(&server.url)).unwrap();
    for wrong in [other, longer, pieces[..4].to_vec()] {
        let error = client.write_chunks(&blob.digest(), chunks(wrong)).await.unwrap_err();
        assert_eq!((error.kind(), error.digests()), (ErrorKind::Corrupt, &[blob.digest()][..]));
        assert_eq!(server.ends.recv().await, Some(End::Reset(Reason::CANCEL)));
    }
}

#[tokio::test]
async fn a_wrong_large_blob_is_never_finished() {
    let server = Scripted::start().await;
    server.script.write_ok();
    let (blob, pieces) = large();
    let error = server.client().write_chunks(&blob.digest(), chunks(pieces[..4].to_vec())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(!server.script.upload_over(0).await.finished());
}

/// A part of the blob, and then, once the server has got some of it, `next`.
fn interrupted(server: &Sink, part: Bytes, next: impl Future<Output = Result<Bytes>> + Send + 'static) -> Chunks {
    let begun = server.begun.clone();
    let next = async move {
        begun.acquire().await.unwrap().forget();
        next.await
    };
    stream::iter([Ok(part)]).chain(stream::once(next)).boxed()
}

// On several threads and often, because what is dropped first decides what the server sees first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_fails_aborts_the_upload() {
    let mut server = Sink::start().await;
    let client = GrpcClient::new(impatient(&server.url)).unwrap();
    let (blob, pieces) = large();
    for round in 0..60 {
        let failure = Error::new(ErrorKind::Io, "read", "disk on fire");
        let source = interrupted(&server, pieces[0].clone(), async { Err(failure) });
        let error = client.write_chunks(&blob.digest(), source).await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Io, "disk on fire"));
        assert_eq!(server.ends.recv().await, Some(End::Reset(Reason::CANCEL)), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_an_upload_aborts_it() {
    let mut server = Sink::start().await;
    let client = GrpcClient::new(impatient(&server.url)).unwrap();
    let (blob, pieces) = large();
    for round in 0..60 {
        let (begin, mut begun) = tokio::sync::mpsc::channel(1);
        let source = interrupted(&server, pieces[0].clone(), async move {
            begin.send(()).await.unwrap();
            std::future::pending().await
        });
        let (client, name) = (client.clone(), blob.digest());
        let task = tokio::spawn(async move { client.write_chunks(&name, source).await });
        begun.recv().await.unwrap();
        task.abort();
        assert_eq!(server.ends.recv().await, Some(End::Reset(Reason::CANCEL)), "round {round}");
    }
}

#[tokio::test]
async fn a_server_that_stops_taking_data_is_given_up() {
    let server = Scripted::start().await;
    server.script.write(WriteStep::Hang(1));
    let (blob, pieces) = large();
    let client = server.client_with(|config| config.timeouts.idle = Duration::from_millis(50));
    let error = client.write_chunks(&blob.digest(), chunks(pieces)).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Unavailable, "no progress for 50ms"));
}

#[tokio::test]
async fn a_server_that_never_confirms_is_given_up() {
    let server = Scripted::start().await;
    for _ in 0..3 {
        server.script.write(WriteStep::Hang(1));
    }
    let client = server.client_with(|config| config.timeouts.idle = Duration::from_millis(300));
    let source = chunks(vec![Bytes::from_static(b"content")]);
    let error = client.write_chunks(&digest(b"content"), source).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(server.script.uploads().len(), 3);
}
