use reapi_proto::{Digest, v2};
use testbed::{ActionCacheUpdates, Completeness, ServerConfig};
use tonic::Code;

use crate::rig::{Rig, missing_of, shell};

fn file(path: &str, digest: Digest) -> v2::OutputFile {
    v2::OutputFile { path: path.to_owned(), digest: Some(digest.into()), ..Default::default() }
}

async fn update(rig: &Rig, action: Digest, result: v2::ActionResult) -> Result<v2::ActionResult, tonic::Status> {
    let request = v2::UpdateActionResultRequest {
        action_digest: Some(action.into()),
        action_result: Some(result),
        ..Default::default()
    };
    Ok(rig.cache().update_action_result(request).await?.into_inner())
}

#[tokio::test]
async fn results_are_stored_and_counted_as_hits() {
    let rig = Rig::new().await;
    let action = rig.action(&shell("true", &["o"]), &[]);
    assert_eq!(rig.lookup(action).await.unwrap_err().code(), Code::NotFound);
    let output = rig.server.store().put("output");
    let result = v2::ActionResult { output_files: vec![file("o", output)], ..Default::default() };
    update(&rig, action, result.clone()).await.unwrap();
    assert_eq!(rig.lookup(action).await.unwrap(), result);
    let stats = rig.server.stats();
    assert_eq!((stats.hits, stats.misses), (vec![action], vec![action]));
}

#[tokio::test]
async fn a_result_whose_outputs_are_gone_is_a_miss_unless_configured_otherwise() {
    for (completeness, expected) in
        [(Completeness::Checked, Err(Code::NotFound)), (Completeness::Unchecked, Ok("o".to_owned()))]
    {
        let rig = Rig::with(ServerConfig { completeness, ..Default::default() }).await;
        let action = rig.action(&shell("true", &["o"]), &[]);
        let output = rig.server.store().put("output");
        let result = v2::ActionResult { output_files: vec![file("o", output)], ..Default::default() };
        update(&rig, action, result).await.unwrap();
        assert!(rig.server.store().forget(&output));
        let found = rig.lookup(action).await.map(|r| r.output_files[0].path.clone()).map_err(|s| s.code());
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn updates_need_their_blobs() {
    let rig = Rig::new().await;
    let action = rig.action(&shell("true", &["o"]), &[]);
    let absent = reapi_proto::DigestFunction::Sha256.digest(b"absent");
    let result = v2::ActionResult { output_files: vec![file("o", absent)], ..Default::default() };
    let status = update(&rig, action, result).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(missing_of(&status), [format!("blobs/{absent}")]);
    let status = update(&rig, absent, v2::ActionResult::default()).await.unwrap_err();
    assert_eq!(missing_of(&status), [format!("blobs/{absent}")], "the Action itself");
}

#[tokio::test]
async fn updates_can_be_refused() {
    let config = ServerConfig { action_cache_updates: ActionCacheUpdates::Refused, ..Default::default() };
    let rig = Rig::with(config).await;
    let action = rig.action(&shell("true", &[]), &[]);
    let status = update(&rig, action, v2::ActionResult::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn standard_output_is_inlined_on_request() {
    let rig = Rig::new().await;
    let action = rig.action(&shell("true", &[]), &[]);
    let stdout = rig.server.store().put("hello");
    let result = v2::ActionResult { stdout_digest: Some(stdout.into()), ..Default::default() };
    update(&rig, action, result).await.unwrap();
    assert_eq!(rig.lookup(action).await.unwrap().stdout_raw, "");
    let request =
        v2::GetActionResultRequest { action_digest: Some(action.into()), inline_stdout: true, ..Default::default() };
    assert_eq!(rig.cache().get_action_result(request).await.unwrap().into_inner().stdout_raw, "hello");
}
