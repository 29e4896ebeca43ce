//! `Operations`: looking at operations and cancelling them.

use reapi_proto::longrunning::operations_server::Operations;
use reapi_proto::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest, ListOperationsResponse,
    Operation,
};
use tonic::{Request, Response, Status, async_trait};

use super::{Service, execution, scheduler};
use crate::stats::Rpc;

/// Operations per page where the client does not say.
const DEFAULT_PAGE: usize = 100;

#[async_trait]
impl Operations for Service {
    /// In order of names; a page token is the last name of the page before.
    async fn list_operations(
        &self,
        request: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        let call = self.0.arrive(Rpc::ListOperations, &request).proceed(&self.0).await?;
        call.without_fault()?;
        let request = request.into_inner();
        if !request.filter.is_empty() {
            return Err(Status::unimplemented("filters are not supported"));
        }
        let page = match usize::try_from(request.page_size) {
            Ok(0) => DEFAULT_PAGE,
            Ok(n) => n,
            Err(_) => return Err(Status::invalid_argument("page_size is negative")),
        };
        let all = self.0.scheduler.operations();
        let rest: Vec<_> = all.iter().filter(|o| o.name > request.page_token).collect();
        let shown = rest.get(..page).unwrap_or(&rest);
        let next_page_token = match shown.last() {
            Some(last) if shown.len() < rest.len() => last.name.clone(),
            _ => String::new(),
        };
        let operations = shown.iter().map(|o| execution::present(&self.0, o)).collect();
        Ok(Response::new(ListOperationsResponse { operations, next_page_token }))
    }

    async fn get_operation(&self, request: Request<GetOperationRequest>) -> Result<Response<Operation>, Status> {
        let call = self.0.arrive(Rpc::GetOperation, &request).proceed(&self.0).await?;
        call.without_fault()?;
        let operation = self.find(&request.get_ref().name)?;
        Ok(Response::new(execution::present(&self.0, &operation)))
    }

    /// Forgets the operation; what it runs goes on.
    async fn delete_operation(&self, request: Request<DeleteOperationRequest>) -> Result<Response<()>, Status> {
        let call = self.0.arrive(Rpc::DeleteOperation, &request).proceed(&self.0).await?;
        call.without_fault()?;
        self.find(&request.get_ref().name)?;
        self.0.scheduler.forget(&request.get_ref().name);
        Ok(Response::new(()))
    }

    async fn cancel_operation(&self, request: Request<CancelOperationRequest>) -> Result<Response<()>, Status> {
        let call = self.0.arrive(Rpc::CancelOperation, &request).proceed(&self.0).await?;
        call.without_fault()?;
        let operation = self.find(&request.get_ref().name)?;
        self.0.cancel(&operation);
        Ok(Response::new(()))
    }
}

impl Service {
    fn find(&self, name: &str) -> Result<scheduler::Operation, Status> {
        self.0.scheduler.operation(name).ok_or_else(|| Status::not_found(format!("there is no operation {name:?}")))
    }
}
