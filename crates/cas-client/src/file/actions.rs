//! The action cache of a directory.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use async_trait::async_trait;
use prost::Message;
use reapi_proto::v2::ActionResult;
use reapi_proto::{Digest, DigestFunction};

use super::layout::Layout;
use super::store::blocking;
use super::{FileStore, write};
use crate::batch::require_function;
use crate::closure;
use crate::{ActionCache, ActionCacheWriter, Error, ErrorKind, Result};

/// The largest action result that is read. The names of its outputs make up its
/// size, and a result of 100,000 outputs with long names stays below this.
const MAX_RESULT_BYTES: u64 = 64 << 20;

fn read(layout: &Layout, action: &Digest) -> Result<Option<ActionResult>> {
    let failed = |e| layout.error("fetch_action_result", e).with_digest(*action);
    let file = match File::open(layout.results.path(action)) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut encoded = Vec::new();
    file.take(MAX_RESULT_BYTES + 1).read_to_end(&mut encoded).map_err(failed)?;
    if encoded.len() as u64 > MAX_RESULT_BYTES {
        let reason = format!("an action result of more than {MAX_RESULT_BYTES} bytes");
        return Err(Error::new(ErrorKind::LimitExceeded, "fetch_action_result", reason)
            .with_digest(*action)
            .at(layout));
    }
    ActionResult::decode(&*encoded).map(Some).map_err(|e| {
        Error::corrupt("fetch_action_result", *action, "the file holds no ActionResult").at(layout).caused_by(e)
    })
}

#[async_trait]
impl ActionCache for FileStore {
    async fn fetch_action_result(&self, action: &Digest) -> Result<Option<ActionResult>> {
        require_function("fetch_action_result", DigestFunction::Sha256, [action])?;
        let (layout, action) = (Arc::clone(&self.layout), *action);
        blocking(move || read(&layout, &action)).await
    }
}

#[async_trait]
impl ActionCacheWriter for FileStore {
    async fn store_action_result(&self, action: &Digest, result: &ActionResult) -> Result<()> {
        require_function("store_action_result", DigestFunction::Sha256, [action])?;
        closure::require_complete(self, action, result).await?;
        let (layout, action, encoded) = (Arc::clone(&self.layout), *action, result.encode_to_vec());
        blocking(move || write::write_result(&layout, &action, &encoded)).await
    }
}
