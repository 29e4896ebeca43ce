//! What every call goes through: shows the token, and guards the stubs against replies that would make them panic.

use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Error};
use tower::Service;

/// The header that carries a status's details. tonic 0.14 takes it for granted
/// that servers encode it properly and panics otherwise.
const STATUS_DETAILS: &str = "grpc-status-details-bin";

/// A channel whose calls show a token, if there is one, and whose replies have
/// no malformed status details: those are left out.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    channel: Channel,
    /// Knows that it is a secret.
    authorization: Option<HeaderValue>,
}

impl Transport {
    pub(super) fn new(channel: Channel, authorization: Option<HeaderValue>) -> Self {
        Self { channel, authorization }
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Response<Body>, Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(value) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        self.channel.call(request).map(|reply| reply.map(guard)).boxed()
    }
}

/// Guards the headers now and the trailers when they come.
fn guard(mut reply: Response<Body>) -> Response<Body> {
    clean(reply.headers_mut());
    reply.map(|body| {
        Body::new(body.map_frame(|mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                clean(trailers);
            }
            frame
        }))
    })
}

fn clean(headers: &mut HeaderMap) {
    if !headers.contains_key(STATUS_DETAILS) {
        return;
    }
    let mut metadata = MetadataMap::from_headers(std::mem::take(headers));
    let malformed = metadata.get_all_bin(STATUS_DETAILS).iter().any(|value| value.to_bytes().is_err());
    if malformed {
        tracing::debug!("malformed status details");
        metadata.remove_bin(STATUS_DETAILS);
    }
    *headers = metadata.into_headers();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tonic::Status;

    /// What becomes of a status with this header.
    fn details(value: &[u8]) -> Option<Vec<u8>> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", "9".parse().unwrap());
        headers.insert(STATUS_DETAILS, HeaderValue::from_bytes(value).unwrap());
        headers.insert("other", "kept".parse().unwrap());
        clean(&mut headers);
        assert!(headers.contains_key("other") && headers.contains_key("grpc-status"));
        let kept = headers.contains_key(STATUS_DETAILS);
        let status = Status::from_header_map(&headers).unwrap();
        kept.then(|| status.details().to_vec())
    }

    #[test]
    fn well_formed_details_are_kept() {
        assert_eq!(details(b"YWJj"), Some(b"abc".to_vec()));
        assert_eq!(details(b"YWI="), Some(b"ab".to_vec()));
        assert_eq!(details(b"YWI"), Some(b"ab".to_vec()), "padding is optional");
        assert_eq!(details(b""), Some(vec![]));
    }

    #[test]
    fn malformed_details_are_left_out() {
        for value in [&b"%"[..], b"A", b"YWJj=", b"YWK", b"AB-_", b"\xff"] {
            assert_eq!(details(value), None, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn no_details_panic(value in "[ -~]{0,12}") {
            let _ = details(value.as_bytes());
        }
    }
}
