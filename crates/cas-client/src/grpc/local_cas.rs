//! What only buildbox-casd offers: where its files are (`LocalContentAddressableStorage`).

use std::path::PathBuf;

use reapi_proto::buildgrid::GetLocalServerDetailsRequest;
use reapi_proto::buildgrid::local_content_addressable_storage_client::LocalContentAddressableStorageClient;

use super::GrpcClient;
use super::client::Rpc;
use crate::{ErrorKind, Result};

/// A storage service that shares a machine, perhaps this one, with its files.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LocalServerDetails {
    /// The machine's name, as the service sees it.
    pub hostname: String,
    /// The service's user id.
    pub process_uid: i64,
    /// Directory with `objects/HH/REST`; meaningful on that machine only, and
    /// not even there if the service lives in a container.
    pub storage_root: PathBuf,
}

impl GrpcClient {
    /// Where the service keeps its files, or `None` where it does not say: only buildbox-casd does.
    ///
    /// # Errors
    /// When the service cannot be reached.
    pub async fn local_server_details(&self) -> Result<Option<LocalServerDetails>> {
        let rpc = Rpc { method: "GetLocalServerDetails", deadline: self.config().timeouts.call, action: None };
        let request = GetLocalServerDetailsRequest { instance_name: self.instance() };
        let answer = self
            .call(rpc, request, |channel, request| async move {
                LocalContentAddressableStorageClient::new(channel).get_local_server_details(request).await
            })
            .await;
        match answer {
            Ok(reply) => Ok(Some(LocalServerDetails {
                hostname: reply.hostname,
                process_uid: reply.process_uid,
                storage_root: reply.storage_root.into(),
            })),
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(None),
            Err(error) => Err(error),
        }
    }
}
