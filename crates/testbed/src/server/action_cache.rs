//! `ActionCache`.

use cas_client::{ActionCache as _, ActionCacheWriter, BlobStore};
use reapi_proto::v2::action_cache_server::ActionCache;
use reapi_proto::{Digest, v2};
use tonic::{Request, Response, Status, async_trait};

use super::shared::{Instance, Shared};
use super::{ActionCacheUpdates, Completeness, Service, inputs, wire};
use crate::faults::Fault;
use crate::stats::Rpc;

/// Standard output and error are returned inline up to this many bytes each.
const MAX_INLINE_BYTES: u64 = 1 << 20;

#[async_trait]
impl ActionCache for Service {
    async fn get_action_result(
        &self,
        request: Request<v2::GetActionResultRequest>,
    ) -> Result<Response<v2::ActionResult>, Status> {
        let call = self.0.arrive(Rpc::GetActionResult, &request).proceed(&self.0).await?;
        let request = request.into_inner();
        let instance = self.0.instance(&request.instance_name)?;
        wire::check_function(request.digest_function, instance.function())?;
        let action = wire::required("action_digest", request.action_digest.as_ref(), instance.function())?;
        let Some(mut result) = usable_result(&self.0, instance, &action).await? else {
            self.0.counters.update(|s| s.misses.push(action));
            return Err(Status::not_found(format!("no result of {action}")));
        };
        self.0.counters.update(|s| s.hits.push(action));
        inline(instance, &mut result, request.inline_stdout, request.inline_stderr);
        match call.fault {
            None => {}
            Some(Fault::Pad(bytes)) => {
                result.execution_metadata.get_or_insert_default().worker = "x".repeat(bytes);
            }
            Some(ref other) => return Err(call.does_not_apply(other)),
        }
        Ok(Response::new(result))
    }

    async fn update_action_result(
        &self,
        request: Request<v2::UpdateActionResultRequest>,
    ) -> Result<Response<v2::ActionResult>, Status> {
        let call = self.0.arrive(Rpc::UpdateActionResult, &request).proceed(&self.0).await?;
        call.without_fault()?;
        let request = request.into_inner();
        let instance = self.0.instance(&request.instance_name)?;
        if self.0.config.action_cache_updates == ActionCacheUpdates::Refused {
            return Err(Status::permission_denied("clients may not write this action cache"));
        }
        wire::check_function(request.digest_function, instance.function())?;
        let action = wire::required("action_digest", request.action_digest.as_ref(), instance.function())?;
        let result = request.action_result.ok_or_else(|| Status::invalid_argument("action_result is absent"))?;
        let mut needed = inputs::output_blobs(instance, &result)?;
        needed.push(action);
        if let Some(message) = inputs::action(instance, &action)? {
            needed.push(wire::required("Action.command_digest", message.command_digest.as_ref(), instance.function())?);
        }
        let missing = instance.store.find_missing(&needed).await.map_err(|e| wire::status(&e))?;
        if !missing.is_empty() {
            return Err(crate::faults::missing_blobs(&missing));
        }
        instance.store.store_action_result(&action, &result).await.map_err(|e| wire::status(&e))?;
        Ok(Response::new(result))
    }
}

/// The stored result of an action, if there is one that may be handed out.
pub(super) async fn usable_result(
    shared: &Shared,
    instance: &Instance,
    action: &Digest,
) -> Result<Option<v2::ActionResult>, Status> {
    let result = instance.store.fetch_action_result(action).await.map_err(|e| wire::status(&e))?;
    let Some(result) = result else { return Ok(None) };
    if shared.config.completeness == Completeness::Unchecked {
        return Ok(Some(result));
    }
    let outputs = inputs::output_blobs(instance, &result)?;
    let missing = instance.store.find_missing(&outputs).await.map_err(|e| wire::status(&e))?;
    Ok(missing.is_empty().then_some(result))
}

/// Adds standard output and error to a result where the client asks for them.
pub(super) fn inline(instance: &Instance, result: &mut v2::ActionResult, stdout: bool, stderr: bool) {
    let read = |wanted: bool, digest: &Option<v2::Digest>| {
        let digest = Digest::try_from(digest).ok().filter(|d| wanted && d.size_bytes() <= MAX_INLINE_BYTES)?;
        instance.store.peek(&digest)
    };
    if let Some(data) = read(stdout, &result.stdout_digest) {
        result.stdout_raw = data;
    }
    if let Some(data) = read(stderr, &result.stderr_digest) {
        result.stderr_raw = data;
    }
}
