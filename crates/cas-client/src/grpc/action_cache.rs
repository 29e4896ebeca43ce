//! Results of actions (`ActionCache`).

use async_trait::async_trait;
use reapi_proto::Digest;
use reapi_proto::v2::action_cache_client::ActionCacheClient;
use reapi_proto::v2::{ActionResult, GetActionResultRequest, UpdateActionResultRequest};

use super::GrpcClient;
use super::client::Rpc;
use super::transport::Transport;
use crate::{ActionCache, ActionCacheWriter, ErrorKind, Result};

const GET: &str = "GetActionResult";
const UPDATE: &str = "UpdateActionResult";

#[async_trait]
impl ActionCache for GrpcClient {
    async fn fetch_action_result(&self, action: &Digest) -> Result<Option<ActionResult>> {
        self.check_function(GET, [action])?;
        let request = GetActionResultRequest {
            instance_name: self.instance(),
            action_digest: Some(action.into()),
            digest_function: self.function().wire_value(),
            ..GetActionResultRequest::default()
        };
        let rpc = Rpc { method: GET, deadline: self.config().timeouts.call, action: Some(action) };
        let answer = self
            .call(rpc, request, |channel, request| {
                let mut cache = self.action_cache(channel);
                async move { cache.get_action_result(request).await }
            })
            .await;
        match answer {
            Ok(result) => Ok(Some(result)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.with_digest(*action)),
        }
    }
}

#[async_trait]
impl ActionCacheWriter for GrpcClient {
    async fn store_action_result(&self, action: &Digest, result: &ActionResult) -> Result<()> {
        self.check_writable(UPDATE)?;
        self.check_function(UPDATE, [action])?;
        if self.capabilities().await?.action_cache_update == Some(false) {
            let reason = "the service does not accept action results from clients";
            return Err(self.error(ErrorKind::Denied, UPDATE, reason).with_digest(*action));
        }
        let request = UpdateActionResultRequest {
            instance_name: self.instance(),
            action_digest: Some(action.into()),
            action_result: Some(without_inlined(result)),
            results_cache_policy: None,
            digest_function: self.function().wire_value(),
        };
        let rpc = Rpc { method: UPDATE, deadline: self.config().timeouts.call, action: Some(action) };
        self.call(rpc, request, |channel, request| {
            let mut cache = self.action_cache(channel);
            async move { cache.update_action_result(request).await }
        })
        .await
        .map(drop)
        .map_err(|error| error.with_digest(*action))
    }
}

impl GrpcClient {
    fn action_cache(&self, channel: Transport) -> ActionCacheClient<Transport> {
        ActionCacheClient::new(channel).max_decoding_message_size(self.config().limits.receive_bytes)
    }
}

/// The result without contents that it also names by digest: those are for
/// replies only (Remote Execution API, `ActionResult.stdout_raw`).
fn without_inlined(result: &ActionResult) -> ActionResult {
    let mut result = result.clone();
    if result.stdout_digest.is_some() {
        result.stdout_raw.clear();
    }
    if result.stderr_digest.is_some() {
        result.stderr_raw.clear();
    }
    for file in &mut result.output_files {
        file.contents.clear();
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use reapi_proto::{DigestFunction, v2};

    #[test]
    fn only_redundant_contents_are_removed() {
        let digest = Some(v2::Digest::from(DigestFunction::Sha256.digest(b"x")));
        let result = ActionResult {
            stdout_raw: "x".into(),
            stdout_digest: digest.clone(),
            stderr_raw: "only here".into(),
            output_files: vec![v2::OutputFile { digest, contents: "x".into(), ..Default::default() }],
            ..Default::default()
        };
        let sent = without_inlined(&result);
        assert!(sent.stdout_raw.is_empty() && sent.output_files[0].contents.is_empty());
        assert_eq!(sent.stderr_raw, "only here");
    }
}
