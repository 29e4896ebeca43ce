//! What a service says it can do (`Capabilities.GetCapabilities`).

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use reapi_proto::v2::capabilities_client::CapabilitiesClient;
use reapi_proto::{Digest, DigestFunction, v2};
use tokio::sync::OnceCell;

use super::GrpcClient;
use super::client::Rpc;
use crate::{Error, ErrorKind, Result};

const METHOD: &str = "GetCapabilities";

/// The major version of the protocol that this client speaks.
const API_MAJOR: i32 = 2;

/// What a service says about itself. `None` and empty lists stand for what it leaves unsaid.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ServerCapabilities {
    /// Wire numbers of the digest functions of its cache, computable here or not.
    pub cache_digest_functions: Vec<i32>,
    /// Wire numbers of the digest functions of its execution service.
    pub execution_digest_functions: Vec<i32>,
    /// Largest batch that it accepts, in bytes. A stated 0 means no limit of its own, hence `None`.
    pub max_batch_total_size_bytes: Option<u64>,
    /// Largest blob that it stores, in bytes; `None` where it states none.
    pub max_cas_blob_size_bytes: Option<u64>,
    /// Whether it lets somebody write action results.
    pub action_cache_update: Option<bool>,
    /// Whether it executes actions.
    pub execution: Option<bool>,
    /// Execution priorities that it accepts.
    pub execution_priorities: Vec<RangeInclusive<i32>>,
    /// Whether symbolic links to absolute paths are allowed in input trees and outputs.
    pub absolute_symlinks: Option<bool>,
    /// Wire numbers of the compressors of its byte streams.
    pub stream_compressors: Vec<i32>,
    /// Wire numbers of the compressors that it accepts in batch uploads.
    pub batch_update_compressors: Vec<i32>,
    /// Lowest and highest protocol version that it speaks, as (major, minor, patch).
    pub api_versions: Option<RangeInclusive<(i32, i32, i32)>>,
}

impl ServerCapabilities {
    fn from_wire(message: v2::ServerCapabilities) -> Self {
        let cache = message.cache_capabilities.unwrap_or_default();
        let execution = message.execution_capabilities;
        let version = |v: reapi_proto::semver::SemVer| (v.major, v.minor, v.patch);
        let (legacy_function, stated_functions) =
            execution.as_ref().map_or((0, &[][..]), |e| (e.digest_function, &e.digest_functions[..]));
        Self {
            execution_digest_functions: match stated_functions {
                [] if legacy_function != 0 => vec![legacy_function],
                stated => stated.to_vec(),
            },
            execution: execution.as_ref().map(|e| e.exec_enabled),
            execution_priorities: execution
                .and_then(|e| e.execution_priority_capabilities)
                .map(|p| p.priorities.into_iter().map(|r| r.min_priority..=r.max_priority).collect())
                .unwrap_or_default(),
            cache_digest_functions: cache.digest_functions,
            max_batch_total_size_bytes: u64::try_from(cache.max_batch_total_size_bytes).ok().filter(|n| *n > 0),
            max_cas_blob_size_bytes: u64::try_from(cache.max_cas_blob_size_bytes).ok().filter(|n| *n > 0),
            action_cache_update: cache.action_cache_update_capabilities.map(|u| u.update_enabled),
            absolute_symlinks: match v2::symlink_absolute_path_strategy::Value::try_from(
                cache.symlink_absolute_path_strategy,
            ) {
                Ok(v2::symlink_absolute_path_strategy::Value::Allowed) => Some(true),
                Ok(v2::symlink_absolute_path_strategy::Value::Disallowed) => Some(false),
                Ok(v2::symlink_absolute_path_strategy::Value::Unknown) | Err(_) => None,
            },
            stream_compressors: cache.supported_compressors,
            batch_update_compressors: cache.supported_batch_update_compressors,
            api_versions: message
                .low_api_version
                .zip(message.high_api_version)
                .map(|(low, high)| version(low)..=version(high)),
        }
    }

    /// `priority`, or the nearest one that the service accepts.
    #[must_use]
    pub fn clamp_priority(&self, priority: i32) -> i32 {
        self.execution_priorities
            .iter()
            .filter(|range| range.start() <= range.end())
            .map(|range| priority.clamp(*range.start(), *range.end()))
            .min_by_key(|candidate| candidate.abs_diff(priority))
            .unwrap_or(priority)
    }

    /// Why a client with `function` cannot work with this service, if so.
    fn objection(&self, function: DigestFunction) -> Option<String> {
        let functions = &self.cache_digest_functions;
        if !functions.is_empty() && !functions.contains(&function.wire_value()) {
            let names: Vec<_> = functions.iter().map(|f| function_name(*f)).collect();
            return Some(format!("the service has no {function} digests, only {}", names.join(", ")));
        }
        let versions = self.api_versions.as_ref()?;
        if versions.start().0 > API_MAJOR || versions.end().0 < API_MAJOR {
            let (low, high) = (versions.start().0, versions.end().0);
            return Some(format!(
                "the service speaks protocol versions {low} to {high}, this client version {API_MAJOR}"
            ));
        }
        None
    }
}

fn function_name(wire: i32) -> String {
    v2::digest_function::Value::try_from(wire).map_or_else(|_| format!("number {wire}"), |v| v.as_str_name().to_owned())
}

/// The answer of the service as of one connection. Asked for at most once at a time.
#[derive(Debug, Default)]
pub(super) struct CapabilitiesCache(Mutex<Slot>);

#[derive(Debug, Default)]
struct Slot {
    times_opened: u64,
    cell: Arc<OnceCell<Arc<ServerCapabilities>>>,
}

impl CapabilitiesCache {
    fn lock(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cell of the connection that was opened as the given number.
    fn cell(&self, times_opened: u64) -> Arc<OnceCell<Arc<ServerCapabilities>>> {
        let mut slot = self.lock();
        if slot.times_opened != times_opened {
            *slot = Slot { times_opened, cell: Arc::default() };
        }
        Arc::clone(&slot.cell)
    }

    /// The answer in `cell` is about the connection opened as the given number.
    fn belongs(&self, cell: &Arc<OnceCell<Arc<ServerCapabilities>>>, times_opened: u64) {
        let mut slot = self.lock();
        if Arc::ptr_eq(&slot.cell, cell) {
            slot.times_opened = times_opened;
        }
    }
}

impl GrpcClient {
    /// What the service says it can do. Asked once per connection and
    /// remembered; a service without this method counts as saying nothing.
    ///
    /// # Errors
    /// `Unsupported` when the service does not know the configured digest
    /// function or speaks another major version of the protocol; any failure to get an answer.
    pub async fn capabilities(&self) -> Result<Arc<ServerCapabilities>> {
        let cache = self.capabilities_cache();
        let cell = cache.cell(self.calls().times_opened());
        let capabilities = cell
            .get_or_try_init(|| async {
                let answer = self.ask_capabilities().await?;
                // The question itself may have opened the connection.
                cache.belongs(&cell, self.calls().times_opened());
                Ok(Arc::new(answer))
            })
            .await?;
        match capabilities.objection(self.function()) {
            None => Ok(Arc::clone(capabilities)),
            Some(reason) => Err(self.error(ErrorKind::Unsupported, METHOD, reason)),
        }
    }

    /// Why the service will not store a blob of this size, if so; known before a byte of it is sent.
    pub(super) async fn size_objection(&self, method: &'static str, digest: &Digest) -> Result<Option<Error>> {
        let limit = self.capabilities().await?.max_cas_blob_size_bytes;
        Ok(limit.filter(|limit| digest.size_bytes() > *limit).map(|limit| {
            let reason = format!("the service stores no blob above {limit} bytes");
            self.error(ErrorKind::LimitExceeded, method, reason).with_digest(*digest)
        }))
    }

    async fn ask_capabilities(&self) -> Result<ServerCapabilities> {
        let rpc = Rpc { method: METHOD, deadline: self.config().timeouts.capabilities, action: None };
        let request = v2::GetCapabilitiesRequest { instance_name: self.instance() };
        let answer = self
            .call(rpc, request, |channel, request| async move {
                CapabilitiesClient::new(channel).get_capabilities(request).await
            })
            .await;
        match answer {
            Ok(message) => Ok(ServerCapabilities::from_wire(message)),
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(ServerCapabilities::default()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_are_clamped_to_the_nearest_range() {
        let mut capabilities = ServerCapabilities::default();
        assert_eq!(capabilities.clamp_priority(7), 7, "nothing said");
        capabilities.execution_priorities = vec![-10..=0, 5..=6, RangeInclusive::new(9, 8)];
        for (priority, expected) in [(-20, -10), (-3, -3), (1, 0), (4, 5), (7, 6), (i32::MAX, 6), (i32::MIN, -10)] {
            assert_eq!(capabilities.clamp_priority(priority), expected, "{priority}");
        }
    }

    #[test]
    fn zero_and_negative_limits_mean_unstated() {
        for limit in [0, -1] {
            let cache = v2::CacheCapabilities { max_batch_total_size_bytes: limit, ..Default::default() };
            let message = v2::ServerCapabilities { cache_capabilities: Some(cache), ..Default::default() };
            assert_eq!(ServerCapabilities::from_wire(message).max_batch_total_size_bytes, None);
        }
    }

    #[test]
    fn the_legacy_execution_function_is_a_fallback() {
        let functions = |legacy, list: &[i32]| {
            let execution = v2::ExecutionCapabilities {
                digest_function: legacy,
                digest_functions: list.to_vec(),
                ..Default::default()
            };
            let message = v2::ServerCapabilities { execution_capabilities: Some(execution), ..Default::default() };
            ServerCapabilities::from_wire(message).execution_digest_functions
        };
        assert_eq!(functions(1, &[]), [1]);
        assert_eq!(functions(1, &[6, 5]), [6, 5]);
        assert_eq!(functions(0, &[]), [0; 0]);
    }

    #[test]
    fn foreign_functions_and_versions_are_objected_to() {
        let mut capabilities = ServerCapabilities::default();
        assert_eq!(capabilities.objection(DigestFunction::Sha256), None);
        capabilities.cache_digest_functions = vec![9, 77];
        let reason = capabilities.objection(DigestFunction::Sha256).unwrap();
        assert!(reason.contains("BLAKE3") && reason.contains("77"), "{reason}");
        capabilities.cache_digest_functions.push(1);
        capabilities.api_versions = Some((2, 0, 0)..=(2, 3, 0));
        assert_eq!(capabilities.objection(DigestFunction::Sha256), None);
        capabilities.api_versions = Some((3, 0, 0)..=(4, 0, 0));
        assert!(capabilities.objection(DigestFunction::Sha256).is_some());
    }
}
