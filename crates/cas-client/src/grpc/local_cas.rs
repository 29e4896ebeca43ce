//! What only buildbox-casd offers: where its files are (`LocalContentAddressableStorage`).

use std::path::PathBuf;

use reapi_proto::buildgrid::GetLocalServerDetailsRequest;
use reapi_proto::buildgrid::local_content_addressable_storage_client::LocalContentAddressableStorageClient;

use tonic::{Request, Response, Status};

use super::GrpcClient;
use super::client::Rpc;
use super::transport::Transport;
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
        let rpc = Rpc { method: METHOD, deadline: self.config().timeouts.call, action: None };
        understand(self.call(rpc, self.details_request(), ask).await)
    }

    /// The same in one attempt: for whoever can do without, and calls the service for something else right after.
    pub(super) async fn try_local_server_details(&self) -> Result<Option<LocalServerDetails>> {
        let rpc = Rpc { method: METHOD, deadline: self.config().timeouts.capabilities, action: None };
        understand(self.attempt(rpc, self.details_request(), ask).await.map_err(|failure| failure.error))
    }

    fn details_request(&self) -> GetLocalServerDetailsRequest {
        GetLocalServerDetailsRequest { instance_name: self.instance() }
    }
}

const METHOD: &str = "GetLocalServerDetails";

type Reply = reapi_proto::buildgrid::LocalServerDetails;

async fn ask(
    channel: Transport,
    request: Request<GetLocalServerDetailsRequest>,
) -> std::result::Result<Response<Reply>, Status> {
    LocalContentAddressableStorageClient::new(channel).get_local_server_details(request).await
}

fn understand(answer: Result<Reply>) -> Result<Option<LocalServerDetails>> {
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
