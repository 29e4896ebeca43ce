//! `Capabilities`.

use reapi_proto::v2::capabilities_server::Capabilities;
use reapi_proto::{semver, v2};
use tonic::{Request, Response, Status, async_trait};

use super::{ActionCacheUpdates, Service};
use crate::faults::Fault;
use crate::stats::Rpc;

#[async_trait]
impl Capabilities for Service {
    async fn get_capabilities(
        &self,
        request: Request<v2::GetCapabilitiesRequest>,
    ) -> Result<Response<v2::ServerCapabilities>, Status> {
        let call = self.0.arrive(Rpc::GetCapabilities, &request).proceed(&self.0).await?;
        if let Some(Fault::Capabilities(other)) = call.fault {
            return Ok(Response::new(*other));
        }
        call.without_fault()?;
        let instance = self.0.instance(&request.get_ref().instance_name)?;
        let config = &self.0.config;
        let function = instance.function().wire_value();
        let version = |minor| semver::SemVer { major: 2, minor, patch: 0, prerelease: String::new() };
        let any_priority = v2::PriorityCapabilities {
            priorities: vec![v2::priority_capabilities::PriorityRange {
                min_priority: i32::MIN,
                max_priority: i32::MAX,
            }],
        };
        Ok(Response::new(v2::ServerCapabilities {
            cache_capabilities: Some(v2::CacheCapabilities {
                digest_functions: vec![function],
                action_cache_update_capabilities: Some(v2::ActionCacheUpdateCapabilities {
                    update_enabled: config.action_cache_updates == ActionCacheUpdates::Accepted,
                }),
                max_batch_total_size_bytes: i64::try_from(config.max_batch_bytes).unwrap_or(i64::MAX),
                symlink_absolute_path_strategy: v2::symlink_absolute_path_strategy::Value::Allowed.into(),
                ..Default::default()
            }),
            execution_capabilities: Some(v2::ExecutionCapabilities {
                digest_function: function,
                exec_enabled: true,
                execution_priority_capabilities: Some(any_priority),
                digest_functions: vec![function],
                ..Default::default()
            }),
            low_api_version: Some(version(0)),
            high_api_version: Some(version(3)),
            ..Default::default()
        }))
    }
}
