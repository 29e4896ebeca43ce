//! A server below gRPC, for what gRPC servers do not tell apart.

use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

/// How a client's half of a call ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Properly: the client has sent everything that it wants to send.
    Stream,
    /// By an abort.
    Reset(Reason),
}

/// A server that has no capabilities, takes every other call's data, never answers, and reports how they ended.
pub(crate) struct Sink {
    pub(crate) url: String,
    pub(crate) ends: mpsc::UnboundedReceiver<End>,
    /// Released once for every call that has sent something.
    pub(crate) begun: Arc<Semaphore>,
}

impl Sink {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (report, ends) = mpsc::unbounded_channel();
        let begun = Arc::new(Semaphore::new(0));
        let signal = Arc::clone(&begun);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (report, signal) = (report.clone(), Arc::clone(&signal));
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(serve(request, respond, report.clone(), Arc::clone(&signal)));
                    }
                });
            }
        });
        Self { url, ends, begun }
    }
}

async fn serve(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    report: mpsc::UnboundedSender<End>,
    begun: Arc<Semaphore>,
) {
    if request.uri().path().ends_with("/GetCapabilities") {
        let response = Response::builder().header("content-type", "application/grpc").header("grpc-status", "12");
        respond.send_response(response.body(()).unwrap(), true).unwrap();
        return;
    }
    let mut body = request.into_body();
    let mut received = 0;
    let end = loop {
        match body.data().await {
            None => break End::Stream,
            Some(Ok(data)) => {
                if received == 0 && !data.is_empty() {
                    begun.add_permits(1);
                }
                received += data.len();
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            Some(Err(error)) => break End::Reset(error.reason().unwrap()),
        }
    };
    let _ = report.send(end);
}

/// Where a status stands in a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Headers,
    Trailers,
}

/// A server that refuses every call with FAILED_PRECONDITION and the given
/// `grpc-status-details-bin`, which may be nonsense. Returns its URL.
pub(crate) async fn refuse(details: &'static str, place: Place) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let status = [("grpc-status", "9"), ("grpc-status-details-bin", details)];
                    let status = status.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
                    let status = http::HeaderMap::from_iter(status);
                    let mut response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                    match place {
                        Place::Headers => {
                            response.headers_mut().extend(status);
                            respond.send_response(response, true).unwrap();
                        }
                        Place::Trailers => {
                            let mut stream = respond.send_response(response, false).unwrap();
                            stream.send_data(Bytes::new(), false).unwrap();
                            stream.send_trailers(status).unwrap();
                        }
                    }
                }
            });
        }
    });
    url
}
