//! FindMissing, batches and capabilities of the gRPC client against a scripted server.

use bytes::Bytes;
use cas_client::grpc::Access;
use cas_client::{Blob, BlobStore as _, ErrorKind, PerBlob};
use reapi_proto::{Digest, DigestFunction, rpc, v2};
use tonic::{Code, Status};

use crate::support::{Answer, Scripted, digest, piece, replies};

fn missing(digests: &[Digest]) -> v2::FindMissingBlobsResponse {
    v2::FindMissingBlobsResponse { missing_blob_digests: digests.iter().map(Into::into).collect() }
}

fn read_entry(digest: Digest, data: &[u8], code: Code) -> v2::batch_read_blobs_response::Response {
    v2::batch_read_blobs_response::Response {
        digest: Some(digest.into()),
        data: Bytes::copy_from_slice(data),
        status: Some(rpc::Status { code: code as i32, ..Default::default() }),
        compressor: 0,
    }
}

fn read_reply(entries: Vec<v2::batch_read_blobs_response::Response>) -> v2::BatchReadBlobsResponse {
    v2::BatchReadBlobsResponse { responses: entries }
}

fn update_entry(digest: Digest, code: Code) -> v2::batch_update_blobs_response::Response {
    let status = Some(rpc::Status { code: code as i32, message: "scripted".into(), ..Default::default() });
    v2::batch_update_blobs_response::Response { digest: Some(digest.into()), status }
}

fn blob(data: &[u8]) -> Blob {
    Blob::new(DigestFunction::Sha256, Bytes::copy_from_slice(data))
}

/// Everything asked for was written.
fn accept_all(request: v2::BatchUpdateBlobsRequest) -> Answer<v2::BatchUpdateBlobsResponse> {
    let entry = |r: v2::batch_update_blobs_request::Request| v2::batch_update_blobs_response::Response {
        digest: r.digest,
        status: None,
    };
    Ok(v2::BatchUpdateBlobsResponse { responses: request.requests.into_iter().map(entry).collect() })
}

/// What became of every blob, in order, with the kind of its error.
fn outcomes<T>(results: PerBlob<T>) -> Vec<(Digest, Result<T, ErrorKind>)> {
    results.into_iter().map(|(digest, result)| (digest, result.map_err(|e| e.kind()))).collect()
}

#[tokio::test]
async fn find_missing_asks_once_for_each_real_blob() {
    let server = Scripted::start().await;
    let (a, b, empty) = (digest(b"a"), digest(b"b"), DigestFunction::Sha256.empty());
    server.script.find_missing.then_ok(missing(&[b, a]));
    let client = server.client_with(|config| config.instance_name = "main".into());
    assert_eq!(client.find_missing(&[a, empty, b, a]).await.unwrap(), [a, b], "in the order of the question");
    let calls = server.script.find_missing.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].instance_name, "main");
    assert_eq!(calls[0].digest_function, v2::digest_function::Value::Sha256 as i32);
    assert_eq!(calls[0].blob_digests, [a.into(), b.into()]);
}

#[tokio::test]
async fn find_missing_of_nothing_calls_nobody() {
    let server = Scripted::start().await;
    let client = server.client();
    assert_eq!(client.find_missing(&[]).await.unwrap(), []);
    assert_eq!(client.find_missing(&[DigestFunction::Sha256.empty()]).await.unwrap(), []);
    let impossible = Digest::from_raw(DigestFunction::Sha256, digest(b"a").hash(), 0).unwrap();
    assert_eq!(client.find_missing(&[impossible]).await.unwrap(), [impossible], "no bytes have this name");
    assert_eq!(server.script.find_missing.calls().len(), 0);
}

#[tokio::test]
async fn find_missing_splits_large_questions() {
    let server = Scripted::start().await;
    let digests: Vec<Digest> = (0..20_001_u32).map(|n| digest(&n.to_le_bytes())).collect();
    for _ in 0..3 {
        server
            .script
            .find_missing
            .then(|request| Ok(v2::FindMissingBlobsResponse { missing_blob_digests: request.blob_digests }));
    }
    assert_eq!(server.client().find_missing(&digests).await.unwrap(), digests);
    let mut sizes: Vec<_> = server.script.find_missing.calls().iter().map(|c| c.blob_digests.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 10_000, 10_000]);
}

#[tokio::test]
async fn an_answer_about_something_else_breaks_the_protocol() {
    let server = Scripted::start().await;
    server.script.find_missing.then_ok(missing(&[digest(b"b")]));
    let malformed = v2::Digest { hash: "x".into(), size_bytes: 1 };
    server.script.find_missing.then_ok(v2::FindMissingBlobsResponse { missing_blob_digests: vec![malformed] });
    let client = server.client();
    for _ in 0..2 {
        let error = client.find_missing(&[digest(b"a")]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(error.to_string().contains(&server.url), "{error}");
    }
}

#[tokio::test]
async fn a_digest_of_another_function_is_refused_at_home() {
    let server = Scripted::start().await;
    let client = server.client();
    let foreign = DigestFunction::Sha512.digest(b"a");
    assert_eq!(client.find_missing(&[foreign]).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(client.read_blobs(&[foreign]).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(client.open_blob(&foreign).await.err().unwrap().kind(), ErrorKind::Invalid);
    assert_eq!(server.script.find_missing.calls().len(), 0);
}

#[tokio::test]
async fn every_blob_of_a_batch_is_judged_by_itself() {
    let server = Scripted::start().await;
    let (good, corrupt, absent, forgotten, compressed) =
        (digest(b"good"), digest(b"corrupt"), digest(b"absent"), digest(b"forgotten"), digest(b"compressed"));
    server.script.batch_read.then_ok(read_reply(vec![
        v2::batch_read_blobs_response::Response { compressor: 1, ..read_entry(compressed, b"compressed", Code::Ok) },
        read_entry(absent, b"", Code::NotFound),
        read_entry(corrupt, b"Corrupt", Code::Ok),
        read_entry(good, b"good", Code::Ok),
    ]));
    let empty = DigestFunction::Sha256.empty();
    let asked = [good, empty, corrupt, absent, good, forgotten, compressed];
    let results = outcomes(server.client().read_blobs(&asked).await.unwrap());
    assert_eq!(
        results,
        [
            (good, Ok(Bytes::from_static(b"good"))),
            (empty, Ok(Bytes::new())),
            (corrupt, Err(ErrorKind::Corrupt)),
            (absent, Err(ErrorKind::NotFound)),
            (forgotten, Err(ErrorKind::Protocol)),
            (compressed, Err(ErrorKind::Protocol)),
        ]
    );
    let calls = server.script.batch_read.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].digest_function, v2::digest_function::Value::Sha256 as i32);
}

#[tokio::test]
async fn duplicate_and_foreign_entries_break_the_protocol() {
    for stray in [digest(b"a"), digest(b"b")] {
        let server = Scripted::start().await;
        let entries = vec![read_entry(digest(b"a"), b"a", Code::Ok), read_entry(stray, b"a", Code::Ok)];
        server.script.batch_read.then_ok(read_reply(entries));
        let error = server.client().read_blobs(&[digest(b"a")]).await.unwrap_err();
        assert_eq!((error.kind(), error.digests()), (ErrorKind::Protocol, &[stray][..]));
        assert_eq!(server.script.batch_read.calls().len(), 1, "not retried");
    }
}

#[tokio::test]
async fn only_what_may_still_succeed_is_asked_for_again() {
    let server = Scripted::start().await;
    let (a, b, c) = (digest(b"a"), digest(b"b"), digest(b"c"));
    server.script.batch_read.then_ok(read_reply(vec![
        read_entry(a, b"a", Code::Ok),
        read_entry(b, b"", Code::Unavailable),
        read_entry(c, b"", Code::Unavailable),
    ]));
    server
        .script
        .batch_read
        .then_ok(read_reply(vec![read_entry(b, b"b", Code::Ok), read_entry(c, b"", Code::Unavailable)]));
    for _ in 0..2 {
        server.script.batch_read.then_ok(read_reply(vec![read_entry(c, b"", Code::Unavailable)]));
    }
    let results = outcomes(server.client().read_blobs(&[a, b, c]).await.unwrap());
    let expected =
        [(a, Ok(Bytes::from_static(b"a"))), (b, Ok(Bytes::from_static(b"b"))), (c, Err(ErrorKind::Unavailable))];
    assert_eq!(results, expected);
    let sizes: Vec<_> = server.script.batch_read.calls().iter().map(|call| call.digests.len()).collect();
    assert_eq!(sizes, [3, 2, 1, 1], "three attempts since the last progress");
}

#[tokio::test]
async fn a_refused_size_is_halved_and_at_last_streamed() {
    let server = Scripted::start().await;
    let (a, b) = (digest(b"a"), digest(b"bbb"));
    let refusal = || Status::resource_exhausted("grpc: received message larger than max (9 vs. 8)");
    server.script.batch_read.then_fail(refusal());
    server.script.batch_read.then(move |request| {
        assert_eq!(request.digests, [v2::Digest::from(b)], "the largest comes first");
        Err(refusal())
    });
    server.script.batch_read.then_ok(read_reply(vec![read_entry(a, b"a", Code::Ok)]));
    server.script.read.then_ok(replies(vec![piece(b"bb"), piece(b"b")]));
    let results = outcomes(server.client().read_blobs(&[a, b]).await.unwrap());
    assert_eq!(results, [(a, Ok(Bytes::from_static(b"a"))), (b, Ok(Bytes::from_static(b"bbb")))]);
    assert_eq!(server.script.read.calls()[0].resource_name, format!("blobs/{b}"));
}

#[tokio::test]
async fn a_reply_above_the_receive_limit_is_asked_for_in_parts() {
    let server = Scripted::start().await;
    let data: Vec<Vec<u8>> = (0..4).map(|n| vec![n; 600]).collect();
    let digests: Vec<Digest> = data.iter().map(|d| digest(d)).collect();
    for _ in 0..16 {
        let (digests, data) = (digests.clone(), data.clone());
        server.script.batch_read.then(move |request| {
            let entry = |wire: &v2::Digest| {
                let index = digests.iter().position(|d| v2::Digest::from(d) == *wire).unwrap();
                read_entry(digests[index], &data[index], Code::Ok)
            };
            Ok(read_reply(request.digests.iter().map(entry).collect()))
        });
    }
    let client = server.client_with(|config| config.limits.receive_bytes = 1500);
    let results = outcomes(client.read_blobs(&digests).await.unwrap());
    assert_eq!(
        results,
        digests.iter().zip(&data).map(|(d, data)| (*d, Ok(Bytes::copy_from_slice(data)))).collect::<Vec<_>>()
    );
    let sizes: Vec<_> = server.script.batch_read.calls().iter().map(|call| call.digests.len()).collect();
    assert_eq!(sizes, [4, 2, 2]);
}

#[tokio::test]
async fn what_fits_into_no_batch_is_streamed() {
    let server = Scripted::start().await;
    let large = vec![7; 5000];
    server.script.batch_read.then_ok(read_reply(vec![read_entry(digest(b"a"), b"a", Code::Ok)]));
    server.script.read.then_ok(replies(vec![piece(&large)]));
    server.script.batch_update.then(accept_all);
    server.script.write_ok();
    let client = server.client_with(|config| config.limits.batch_bytes = 4000);
    let results = outcomes(client.read_blobs(&[digest(&large), digest(b"a")]).await.unwrap());
    assert_eq!(results[0].1, Ok(Bytes::from(large.clone())));
    let results = outcomes(client.write_blobs(&[blob(b"a"), blob(&large)]).await.unwrap());
    assert_eq!(results, [(digest(b"a"), Ok(())), (digest(&large), Ok(()))]);
    assert_eq!(server.script.uploads()[0].data(), large);
}

#[tokio::test]
async fn every_blob_of_an_upload_is_judged_by_itself() {
    let server = Scripted::start().await;
    let names: [&[u8]; 6] = [b"new", b"old", b"quota", b"later", b"bad", b"forgotten"];
    let codes = [Code::Ok, Code::AlreadyExists, Code::ResourceExhausted, Code::Unavailable, Code::InvalidArgument];
    let entries = names.iter().zip(codes).map(|(name, code)| update_entry(digest(name), code)).collect();
    server.script.batch_update.then_ok(v2::BatchUpdateBlobsResponse { responses: entries });
    server.script.batch_update.then(accept_all);
    let blobs: Vec<Blob> = names.iter().chain([&&b""[..], &&b"new"[..]]).map(|name| blob(name)).collect();
    let results: Vec<_> = outcomes(server.client().write_blobs(&blobs).await.unwrap());
    let expected = [
        Ok(()),
        Ok(()),
        Err(ErrorKind::LimitExceeded),
        Ok(()),
        Err(ErrorKind::Invalid),
        Err(ErrorKind::Protocol),
        Ok(()),
    ];
    assert_eq!(results, blobs[..7].iter().map(Blob::digest).zip(expected).collect::<Vec<_>>());
    let calls = server.script.batch_update.calls();
    assert_eq!(calls.iter().map(|c| c.requests.len()).collect::<Vec<_>>(), [6, 1], "the empty blob is never sent");
    assert_eq!(calls[1].requests[0].digest, Some(digest(b"later").into()));
    assert_eq!(calls[0].digest_function, v2::digest_function::Value::Sha256 as i32);
}

#[tokio::test]
async fn a_read_only_client_sends_no_write() {
    let server = Scripted::start().await;
    let client = server.client_with(|config| config.access = Access::ReadOnly);
    assert_eq!(client.write_blobs(&[blob(b"a")]).await.unwrap_err().kind(), ErrorKind::Denied);
    let chunks = Box::pin(futures_util::stream::empty());
    assert_eq!(client.write_chunks(&digest(b"a"), chunks).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(server.script.batch_update.calls().len() + server.script.uploads().len(), 0);
}

fn with_limit(limit: i64) -> v2::ServerCapabilities {
    let cache = v2::CacheCapabilities { max_batch_total_size_bytes: limit, ..Default::default() };
    v2::ServerCapabilities { cache_capabilities: Some(cache), ..Default::default() }
}

#[tokio::test]
async fn a_blob_above_the_services_limit_is_refused_before_it_is_sent() {
    let server = Scripted::start().await;
    let cache = v2::CacheCapabilities { max_cas_blob_size_bytes: 3, ..Default::default() };
    let stated = v2::ServerCapabilities { cache_capabilities: Some(cache), ..Default::default() };
    server.script.capabilities.then(|_| Ok(stated));
    server.script.batch_update.then(accept_all);
    let client = server.client();
    let results = client.write_blobs(&[blob(b"abc"), blob(b"abcd")]).await.unwrap();
    assert!(results[0].1.is_ok());
    assert_eq!(results[1].1.as_ref().unwrap_err().kind(), ErrorKind::LimitExceeded);
    let chunks = Box::pin(futures_util::stream::empty());
    let error = client.write_chunks(&digest(b"abcd"), chunks).await.unwrap_err();
    assert_eq!((error.kind(), error.digests()), (ErrorKind::LimitExceeded, &[digest(b"abcd")][..]));
    assert_eq!(server.script.batch_update.calls().len(), 1);
    assert_eq!(server.script.uploads().len(), 0);
}

/// How 100 blobs of 100 bytes are distributed over batches under the given capabilities.
async fn batch_sizes(capabilities: Answer<v2::ServerCapabilities>) -> Vec<usize> {
    let server = Scripted::start().await;
    server.script.capabilities.then(|_| capabilities);
    for _ in 0..100 {
        server.script.batch_update.then(accept_all);
    }
    let blobs: Vec<Blob> = (0..100_u8).map(|n| blob(&[n; 100])).collect();
    let results = server.client().write_blobs(&blobs).await.unwrap();
    assert!(results.iter().all(|(_, result)| result.is_ok()));
    let calls = server.script.batch_update.calls();
    assert!(calls.iter().all(|call| prost::Message::encoded_len(call) <= 4 << 20));
    calls.iter().map(|call| call.requests.len()).collect()
}

#[tokio::test]
async fn batches_follow_the_stated_limit_and_nothing_stated_is_no_limit() {
    assert_eq!(batch_sizes(Ok(with_limit(0))).await, [100]);
    assert_eq!(batch_sizes(Err(Status::unimplemented("GetCapabilities"))).await, [100]);
    assert_eq!(batch_sizes(Ok(with_limit(i64::MAX))).await, [100]);
    let sizes = batch_sizes(Ok(with_limit(1000))).await;
    assert!(sizes.iter().all(|n| *n <= 5) && sizes.iter().sum::<usize>() == 100, "{sizes:?}");
}

#[tokio::test]
async fn capabilities_are_asked_for_once_even_at_once() {
    let server = Scripted::start().await;
    let client = server.client();
    let (a, b) = tokio::join!(client.capabilities(), client.capabilities());
    assert_eq!(a.unwrap(), b.unwrap());
    client.clone().capabilities().await.unwrap();
    assert_eq!(server.script.capabilities.calls().len(), 1);
}

#[tokio::test]
async fn a_service_with_other_digests_is_refused() {
    let server = Scripted::start().await;
    let functions = vec![v2::digest_function::Value::Blake3 as i32];
    let cache = v2::CacheCapabilities { digest_functions: functions, ..Default::default() };
    server
        .script
        .capabilities
        .then_ok(v2::ServerCapabilities { cache_capabilities: Some(cache), ..Default::default() });
    let error = server.client().write_blobs(&[blob(b"a")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.reason().contains("BLAKE3") && error.reason().contains("SHA256"), "{error}");
}
