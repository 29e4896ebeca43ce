//! The one method of LocalCAS that is scripted, and the many that are not.

use reapi_proto::buildgrid::local_content_addressable_storage_server::LocalContentAddressableStorage;
use reapi_proto::buildgrid::*;
use tonic::{Request, Response, Status, Streaming};

use super::{Answer, Replies, Service};

#[tonic::async_trait]
impl LocalContentAddressableStorage for Service {
    type StageTreeStream = Replies<StageTreeResponse>;

    async fn get_local_server_details(
        &self,
        request: Request<GetLocalServerDetailsRequest>,
    ) -> Answer<Response<LocalServerDetails>> {
        self.0.local_details.next(request).map(Response::new)
    }

    async fn stage_tree(&self, _: Request<Streaming<StageTreeRequest>>) -> Answer<Response<Self::StageTreeStream>> {
        Err(Status::unimplemented("StageTree"))
    }

    async fn fetch_missing_blobs(
        &self,
        _: Request<FetchMissingBlobsRequest>,
    ) -> Answer<Response<FetchMissingBlobsResponse>> {
        Err(Status::unimplemented("FetchMissingBlobs"))
    }

    async fn upload_missing_blobs(
        &self,
        _: Request<UploadMissingBlobsRequest>,
    ) -> Answer<Response<UploadMissingBlobsResponse>> {
        Err(Status::unimplemented("UploadMissingBlobs"))
    }

    async fn fetch_tree(&self, _: Request<FetchTreeRequest>) -> Answer<Response<FetchTreeResponse>> {
        Err(Status::unimplemented("FetchTree"))
    }

    async fn upload_tree(&self, _: Request<UploadTreeRequest>) -> Answer<Response<UploadTreeResponse>> {
        Err(Status::unimplemented("UploadTree"))
    }

    async fn capture_tree(&self, _: Request<CaptureTreeRequest>) -> Answer<Response<CaptureTreeResponse>> {
        Err(Status::unimplemented("CaptureTree"))
    }

    async fn capture_files(&self, _: Request<CaptureFilesRequest>) -> Answer<Response<CaptureFilesResponse>> {
        Err(Status::unimplemented("CaptureFiles"))
    }

    async fn get_instance_name_for_remote(
        &self,
        _: Request<GetInstanceNameForRemoteRequest>,
    ) -> Answer<Response<GetInstanceNameForRemoteResponse>> {
        Err(Status::unimplemented("GetInstanceNameForRemote"))
    }

    async fn get_instance_name_for_remotes(
        &self,
        _: Request<GetInstanceNameForRemotesRequest>,
    ) -> Answer<Response<GetInstanceNameForRemotesResponse>> {
        Err(Status::unimplemented("GetInstanceNameForRemotes"))
    }

    async fn get_instance_name_for_namespace(
        &self,
        _: Request<GetInstanceNameForNamespaceRequest>,
    ) -> Answer<Response<GetInstanceNameForNamespaceResponse>> {
        Err(Status::unimplemented("GetInstanceNameForNamespace"))
    }

    async fn get_local_disk_usage(
        &self,
        _: Request<GetLocalDiskUsageRequest>,
    ) -> Answer<Response<GetLocalDiskUsageResponse>> {
        Err(Status::unimplemented("GetLocalDiskUsage"))
    }
}
