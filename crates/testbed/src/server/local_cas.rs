//! `LocalContentAddressableStorage`: where the files are, if the server is told to say so, and nothing else.

use reapi_proto::buildgrid::local_content_addressable_storage_server::LocalContentAddressableStorage;
use reapi_proto::buildgrid::*;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::Service;
use super::shared::Replies;
use crate::stats::Rpc;

fn not_served<T>(method: &str) -> Result<Response<T>, Status> {
    Err(Status::unimplemented(format!("{method} is not served")))
}

#[async_trait]
impl LocalContentAddressableStorage for Service {
    type StageTreeStream = Replies<StageTreeResponse>;

    async fn get_local_server_details(
        &self,
        request: Request<GetLocalServerDetailsRequest>,
    ) -> Result<Response<LocalServerDetails>, Status> {
        let Some(files) = &self.0.config.local_files else { return not_served("GetLocalServerDetails") };
        let call = self.0.arrive(Rpc::GetLocalServerDetails, &request).proceed(&self.0).await?;
        call.without_fault()?;
        self.0.instance(&request.get_ref().instance_name)?;
        Ok(Response::new(LocalServerDetails {
            hostname: files.hostname.clone(),
            process_uid: 0,
            storage_root: files.storage_root.to_string_lossy().into_owned(),
        }))
    }

    async fn fetch_missing_blobs(
        &self,
        _: Request<FetchMissingBlobsRequest>,
    ) -> Result<Response<FetchMissingBlobsResponse>, Status> {
        not_served("FetchMissingBlobs")
    }

    async fn upload_missing_blobs(
        &self,
        _: Request<UploadMissingBlobsRequest>,
    ) -> Result<Response<UploadMissingBlobsResponse>, Status> {
        not_served("UploadMissingBlobs")
    }

    async fn fetch_tree(&self, _: Request<FetchTreeRequest>) -> Result<Response<FetchTreeResponse>, Status> {
        not_served("FetchTree")
    }

    async fn upload_tree(&self, _: Request<UploadTreeRequest>) -> Result<Response<UploadTreeResponse>, Status> {
        not_served("UploadTree")
    }

    async fn stage_tree(
        &self,
        _: Request<Streaming<StageTreeRequest>>,
    ) -> Result<Response<Self::StageTreeStream>, Status> {
        not_served("StageTree")
    }

    async fn capture_tree(&self, _: Request<CaptureTreeRequest>) -> Result<Response<CaptureTreeResponse>, Status> {
        not_served("CaptureTree")
    }

    async fn capture_files(&self, _: Request<CaptureFilesRequest>) -> Result<Response<CaptureFilesResponse>, Status> {
        not_served("CaptureFiles")
    }

    async fn get_instance_name_for_remote(
        &self,
        _: Request<GetInstanceNameForRemoteRequest>,
    ) -> Result<Response<GetInstanceNameForRemoteResponse>, Status> {
        not_served("GetInstanceNameForRemote")
    }

    async fn get_instance_name_for_remotes(
        &self,
        _: Request<GetInstanceNameForRemotesRequest>,
    ) -> Result<Response<GetInstanceNameForRemotesResponse>, Status> {
        not_served("GetInstanceNameForRemotes")
    }

    async fn get_instance_name_for_namespace(
        &self,
        _: Request<GetInstanceNameForNamespaceRequest>,
    ) -> Result<Response<GetInstanceNameForNamespaceResponse>, Status> {
        not_served("GetInstanceNameForNamespace")
    }

    async fn get_local_disk_usage(
        &self,
        _: Request<GetLocalDiskUsageRequest>,
    ) -> Result<Response<GetLocalDiskUsageResponse>, Status> {
        not_served("GetLocalDiskUsage")
    }
}
