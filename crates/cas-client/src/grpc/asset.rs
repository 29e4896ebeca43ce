//! Names of blobs (Remote Asset API, `Fetch` and `Push`).

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use prost_types::Timestamp;
use reapi_proto::asset::fetch_client::FetchClient;
use reapi_proto::asset::push_client::PushClient;
use reapi_proto::asset::{FetchBlobRequest, FetchBlobResponse, PushBlobRequest};
use reapi_proto::{Digest, DigestFunction};
use tonic::Code;

use super::client::Rpc;
use super::wire::from_wire;
use super::{GrpcClient, status};
use crate::{AssetIndex, Error, ErrorKind, PushRequest, Result};

const FETCH: &str = "FetchBlob";
const PUSH: &str = "PushBlob";

#[async_trait]
impl AssetIndex for GrpcClient {
    async fn fetch_blob(&self, uris: &[String]) -> Result<Option<Digest>> {
        if uris.is_empty() {
            return Err(self.error(ErrorKind::Invalid, FETCH, "no URI was given"));
        }
        // No qualifiers: some services make them part of the name.
        let request = FetchBlobRequest {
            instance_name: self.instance(),
            uris: uris.to_vec(),
            digest_function: self.function().wire_value(),
            ..FetchBlobRequest::default()
        };
        let rpc = Rpc { method: FETCH, deadline: self.config().timeouts.call, action: None };
        let answer = self
            .call(rpc, request, |channel, request| async move { FetchClient::new(channel).fetch_blob(request).await })
            .await;
        match answer {
            Ok(reply) => read_reply(self.function(), &reply).map_err(|e| e.at(&self.config().endpoint)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn push_blob(&self, request: &PushRequest) -> Result<()> {
        self.check_writable(PUSH)?;
        let PushRequest { uris, blob, references_blobs, references_directories, lifetime } = request;
        if uris.is_empty() {
            return Err(self.error(ErrorKind::Invalid, PUSH, "no URI was given"));
        }
        self.check_function(PUSH, [blob].into_iter().chain(references_blobs).chain(references_directories))?;
        let message = PushBlobRequest {
            instance_name: self.instance(),
            uris: uris.clone(),
            qualifiers: Vec::new(),
            expire_at: lifetime.and_then(|lifetime| expiry(SystemTime::now(), lifetime)),
            blob_digest: Some(blob.into()),
            references_blobs: references_blobs.iter().map(Into::into).collect(),
            references_directories: references_directories.iter().map(Into::into).collect(),
            digest_function: self.function().wire_value(),
        };
        let rpc = Rpc { method: PUSH, deadline: self.config().timeouts.call, action: None };
        self.call(rpc, message, |channel, request| async move { PushClient::new(channel).push_blob(request).await })
            .await
            .map(drop)
            .map_err(|error| error.with_digest(*blob))
    }
}

/// An unknown name shows as a status inside of the reply, too.
fn read_reply(function: DigestFunction, reply: &FetchBlobResponse) -> Result<Option<Digest>> {
    if let Some(status) = reply.status.as_ref().filter(|s| !status::is_ok(Some(s))) {
        return match Code::from_i32(status.code) {
            Code::NotFound => Ok(None),
            _ => Err(status::inner_failure(FETCH, status).error),
        };
    }
    // Unlike in requests, an unset function means SHA-256 whatever was asked for.
    let found = match reply.digest_function {
        0 => DigestFunction::Sha256.wire_value(),
        stated => stated,
    };
    if found != function.wire_value() {
        let reason = format!("the index answers with digests of function number {found}, not {function}");
        return Err(Error::new(ErrorKind::Protocol, FETCH, reason));
    }
    from_wire(FETCH, function, reply.blob_digest.as_ref()).map(Some)
}

/// The time at which a name that lives for `lifetime` expires; `None`, the service's default, beyond all calendars.
fn expiry(now: SystemTime, lifetime: Duration) -> Option<Timestamp> {
    /// The last second of the year 9999, the latest time that a `Timestamp` may hold.
    const LATEST_SECOND: i64 = 253_402_300_799;
    let since_epoch = now.checked_add(lifetime)?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let seconds = i64::try_from(since_epoch.as_secs()).ok().filter(|s| *s <= LATEST_SECOND)?;
    Some(Timestamp { seconds, nanos: since_epoch.subsec_nanos().cast_signed() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use reapi_proto::rpc;

    fn reply(code: i32, digest_function: i32) -> FetchBlobResponse {
        let status = (code >= 0).then(|| rpc::Status { code, ..Default::default() });
        let blob_digest = Some(DigestFunction::Sha256.digest(b"x").into());
        FetchBlobResponse { status, blob_digest, digest_function, ..Default::default() }
    }

    #[test]
    fn replies_are_read() {
        let digest = DigestFunction::Sha256.digest(b"x");
        let read = |code, function| read_reply(DigestFunction::Sha256, &reply(code, function)).map_err(|e| e.kind());
        assert_eq!(read(-1, 0), Ok(Some(digest)), "no status means OK");
        assert_eq!(read(0, 1), Ok(Some(digest)));
        assert_eq!(read(Code::NotFound as i32, 0), Ok(None));
        assert_eq!(read(Code::PermissionDenied as i32, 0), Err(ErrorKind::Denied));
        assert_eq!(read(0, 9), Err(ErrorKind::Protocol), "another function");
        let unset = read_reply(DigestFunction::Sha512, &reply(0, 0)).map_err(|e| e.kind());
        assert_eq!(unset, Err(ErrorKind::Protocol), "unset means SHA-256");
        let without = FetchBlobResponse { blob_digest: None, ..reply(0, 0) };
        assert_eq!(read_reply(DigestFunction::Sha256, &without).map_err(|e| e.kind()), Err(ErrorKind::Protocol));
    }

    #[test]
    fn expiry_is_a_point_in_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(expiry(now, Duration::new(5, 7)), Some(Timestamp { seconds: 105, nanos: 7 }));
        assert_eq!(expiry(now, Duration::from_secs(1 << 40)), None);
        assert_eq!(expiry(now, Duration::MAX), None);
    }
}
