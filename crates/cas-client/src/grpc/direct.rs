//! Reading the files of a service on this machine without asking it.

use std::fmt;
use std::net::IpAddr;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reapi_proto::{Digest, DigestFunction};
use tokio::sync::OnceCell;

use super::{Endpoint, GrpcClient, LocalServerDetails};
use crate::decorators::Nearby;
use crate::{Blob, BlobStore, BlobStoreExt, Chunks, ErrorKind, FileStore, PerBlob, Result};

/// Blobs up to this size are streamed from the directory: they are read and verified before the first piece is
/// handed out, as a stream of wrong bytes cannot be continued elsewhere.
const MAX_WHOLE_BYTES: u64 = 1 << 20;

/// A storage service whose files are read directly where they are on this machine.
///
/// buildbox-casd tells where its files are. Before the first read it is asked, once; where it names this host and
/// a directory that is there, blobs are read from that directory, and from the service only what is absent or
/// damaged there. Like [`Nearby`], it only makes reads faster: presence is what the service says, and writes go to the
/// service. Blobs that are to be streamed come from the service if they are larger than 1 MiB.
///
/// A service that cannot be on this machine, by its address or its digest function, is not asked at all. One that
/// does not answer is used as it is, and asked again before the next read.
pub struct Direct {
    client: GrpcClient,
    hostname: String,
    /// The way past the service; `None` inside if there is none.
    way: OnceCell<Option<Nearby<FileStore, GrpcClient>>>,
}

impl Direct {
    /// Reads past `client` if its service turns out to be on the machine that calls itself `hostname`, which is to be
    /// this one. The service is not called yet.
    #[must_use]
    pub fn new(client: GrpcClient, hostname: impl Into<String>) -> Self {
        let hostname = hostname.into();
        let possible = client.digest_function() == DigestFunction::Sha256
            && !hostname.is_empty()
            && may_be_here(&client.config().endpoint, &hostname);
        let way = if possible { OnceCell::new() } else { OnceCell::new_with(Some(None)) };
        Self { client, hostname, way }
    }

    async fn way(&self) -> Option<&Nearby<FileStore, GrpcClient>> {
        let ask = || async {
            let details = self.client.try_local_server_details().await?;
            Ok::<_, crate::Error>(details.and_then(|details| self.directory(&details)))
        };
        match self.way.get_or_try_init(ask).await {
            Ok(way) => way.as_ref(),
            Err(error) => {
                tracing::debug!(service = %self.client, %error, "it does not say where its files are");
                None
            }
        }
    }

    fn directory(&self, details: &LocalServerDetails) -> Option<Nearby<FileStore, GrpcClient>> {
        // A relative one would be relative to the service's working directory.
        if details.hostname != self.hostname || !details.storage_root.is_absolute() {
            return None;
        }
        let files = FileStore::open_blobs(&details.storage_root).ok()?;
        tracing::debug!(%files, service = %self.client, "blobs are read from the service's directory");
        Some(Nearby::new(files, self.client.clone()))
    }
}

/// Whether a service at this address can be one on this machine.
fn may_be_here(endpoint: &Endpoint, hostname: &str) -> bool {
    match endpoint {
        Endpoint::Unix { .. } => true,
        Endpoint::Tcp { host, .. } | Endpoint::Tls { host, .. } => {
            let is_name = ["localhost", hostname].iter().any(|name| host.eq_ignore_ascii_case(name));
            is_name || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
    }
}

/// What reads go through, as far as that is known: `Direct(Nearby(file:DIR, Grpc(…)))` or `Direct(Grpc(…))`.
impl fmt::Display for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.way.get() {
            Some(Some(way)) => write!(f, "Direct({way})"),
            _ => write!(f, "Direct({})", self.client),
        }
    }
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl BlobStore for Direct {
    fn digest_function(&self) -> DigestFunction {
        self.client.digest_function()
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.client.find_missing(digests).await
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        match self.way().await {
            Some(way) => way.read_blobs(digests).await,
            None => self.client.read_blobs(digests).await,
        }
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        self.client.write_blobs(blobs).await
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        match self.way().await {
            Some(way) if digest.size_bytes() <= MAX_WHOLE_BYTES => match way.read_blob(digest).await {
                Ok(data) => Ok(stream::iter([Ok(data)]).boxed()),
                Err(error) if error.kind() == ErrorKind::NotFound => Err(error),
                // Whatever it is, the service's own stream says it best.
                Err(_) => self.client.open_blob(digest).await,
            },
            _ => self.client.open_blob(digest).await,
        }
    }

    async fn write_chunks(&self, digest: &Digest, chunks: Chunks) -> Result<()> {
        self.client.write_chunks(digest, chunks).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_machine_are_asked_where_their_files_are() {
        let check = |url: &str, expected| assert_eq!(may_be_here(&url.parse().unwrap(), "this"), expected, "{url}");
        for url in ["unix:/run/casd.sock", "http://127.0.0.1:1", "http://[::1]:1", "https://LOCALHOST", "http://this:1"]
        {
            check(url, true);
        }
        for url in ["http://that:1", "https://192.0.2.1", "http://this.example"] {
            check(url, false);
        }
    }
}
