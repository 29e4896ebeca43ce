use bytes::Bytes;
use prost::Message;
use reapi_proto::DigestFunction;
use reapi_proto::raw::{Node, encode_directory};
use reapi_proto::v2::{Action, Command, OutputDirectory, OutputFile, Tree};

use super::*;
use crate::{ActionCache, ActionCacheExt, ActionCacheWriter, InMemory, Lookup};

fn digest(data: &[u8]) -> Digest {
    DigestFunction::Sha256.digest(data)
}

/// An action in the store, and a way to give it any result.
struct Case {
    store: InMemory,
    action: Digest,
}

impl Case {
    fn new() -> Self {
        let store = InMemory::new();
        let action = action(&store, "case");
        Self { store, action }
    }

    async fn look_up(&self, result: ActionResult) -> Result<Lookup> {
        self.store.keep_action_result(&self.action, &result);
        self.store.fetch_usable_result(&self.store, &self.action).await
    }

    async fn hit(&self, result: ActionResult) {
        let lookup = self.look_up(result.clone()).await.unwrap();
        assert_eq!(lookup, Lookup::Hit(Box::new(result)));
    }

    async fn dangling(&self, result: ActionResult, expected: &[Digest]) {
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(self.look_up(result).await.unwrap(), Lookup::Dangling { missing: expected });
    }

    async fn unusable(&self, result: ActionResult, kind: ErrorKind, text: &str) {
        let error = self.look_up(result).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.reason().contains(text), "{error}");
    }
}

fn action(store: &InMemory, salt: &'static str) -> Digest {
    let command = store.put_message(&Command { arguments: vec!["true".into()], ..Command::default() });
    store.put_message(&Action {
        command_digest: Some(command.into()),
        input_root_digest: Some(DigestFunction::Sha256.empty().into()),
        salt: salt.into(),
        ..Action::default()
    })
}

fn file(path: &str, digest: Digest) -> ActionResult {
    let file = OutputFile { path: path.into(), digest: Some(digest.into()), ..OutputFile::default() };
    ActionResult { output_files: vec![file], ..ActionResult::default() }
}

fn directory(tree: Option<Digest>, root: Option<Digest>) -> ActionResult {
    let directory = OutputDirectory {
        path: "out".into(),
        tree_digest: tree.map(Into::into),
        root_directory_digest: root.map(Into::into),
        ..OutputDirectory::default()
    };
    ActionResult { output_directories: vec![directory], ..ActionResult::default() }
}

/// `out/sub/f` with the given contents: the messages of `out` and `sub`.
fn nested(contents: Digest) -> (Bytes, Bytes) {
    let sub = encode_directory([("f".into(), Node::File { digest: contents, executable: false })]).unwrap();
    let root = encode_directory([("sub".into(), Node::Directory { digest: digest(&sub) })]).unwrap();
    (root, sub)
}

fn tree(root: &Bytes, children: &[&Bytes]) -> Vec<u8> {
    let decode = |bytes: &Bytes| reapi_proto::v2::Directory::decode(bytes.clone()).unwrap();
    Tree { root: Some(decode(root)), children: children.iter().map(|c| decode(c)).collect() }.encode_to_vec()
}

#[tokio::test]
async fn a_result_without_outputs_needs_nothing() {
    let case = Case::new();
    case.hit(ActionResult { exit_code: 1, ..ActionResult::default() }).await;
    assert_eq!(case.store.stats().find_missing.calls, 0);
    case.store.forget_action_result(&case.action);
    assert_eq!(case.store.fetch_usable_result(&case.store, &case.action).await.unwrap(), Lookup::Miss);
}

#[tokio::test]
async fn files_and_streams_must_be_there() {
    let case = Case::new();
    let (out, err) = (digest(b"stdout"), digest(b"stderr"));
    let result = ActionResult {
        stdout_digest: Some(out.into()),
        stderr_digest: Some(err.into()),
        ..file("a.o", digest(b"object"))
    };
    case.dangling(result.clone(), &[digest(b"object"), out, err]).await;
    for data in ["object", "stdout", "stderr"] {
        case.store.put(data);
    }
    case.hit(result).await;
    case.hit(file("empty", DigestFunction::Sha256.empty())).await;
}

#[tokio::test]
async fn contents_sent_along_are_verified_and_still_needed() {
    let case = Case::new();
    let mut result = file("a.o", digest(b"object"));
    result.output_files[0].contents = "object".into();
    case.dangling(result.clone(), &[digest(b"object")]).await;
    result.output_files[0].contents = "another".into();
    case.unusable(result, ErrorKind::Corrupt, "a.o").await;
    let lying = ActionResult {
        stdout_raw: "lies".into(),
        stdout_digest: Some(case.store.put("stdout").into()),
        ..ActionResult::default()
    };
    case.unusable(lying, ErrorKind::Corrupt, "stdout").await;
    case.hit(ActionResult { stdout_raw: "alone".into(), ..ActionResult::default() }).await;
}

#[tokio::test]
async fn a_tree_leads_to_its_files() {
    let case = Case::new();
    let contents = digest(b"contents");
    let (root, sub) = nested(contents);
    let message = tree(&root, &[&sub]);
    let result = directory(Some(digest(&message)), None);
    case.dangling(result.clone(), &[digest(&message)]).await;
    case.store.put(message.clone());
    case.dangling(result.clone(), &[contents]).await;
    case.store.put("contents");
    case.hit(result).await;

    // A result that names the root as well promises the directories one by one.
    let both = directory(Some(digest(&message)), Some(digest(&root)));
    case.dangling(both.clone(), &[digest(&root), digest(&sub)]).await;
    case.store.put(root);
    case.store.put(sub);
    case.hit(both).await;
}

#[tokio::test]
async fn a_root_leads_to_its_directories_and_files() {
    let case = Case::new();
    let contents = digest(b"contents");
    let (root, sub) = nested(contents);
    let result = directory(None, Some(digest(&root)));
    case.dangling(result.clone(), &[digest(&root)]).await;
    case.store.put(root);
    case.dangling(result.clone(), &[digest(&sub)]).await;
    case.store.put(sub);
    case.dangling(result.clone(), &[contents]).await;
    case.store.put("contents");
    case.hit(result).await;
}

#[tokio::test]
async fn a_tree_that_contradicts_itself_is_unusable() {
    let case = Case::new();
    let (root, sub) = nested(case.store.put("contents"));
    let whole = case.store.put(tree(&root, &[&sub]));
    let lacking = case.store.put(tree(&root, &[]));
    let text = case.store.put("no tree at all");
    case.unusable(directory(Some(whole), Some(digest(&sub))), ErrorKind::Corrupt, "another root").await;
    case.unusable(directory(Some(lacking), None), ErrorKind::Protocol, "lacks its directory").await;
    case.unusable(directory(Some(text), None), ErrorKind::Protocol, "not a Tree").await;
    case.unusable(directory(None, Some(text)), ErrorKind::Protocol, "").await;
    case.store.corrupt(&whole, "damaged");
    case.unusable(directory(Some(whole), None), ErrorKind::Corrupt, "").await;
}

#[tokio::test]
async fn many_results_cost_one_question_and_fail_one_by_one() {
    let store = InMemory::new();
    let actions: Vec<_> = ["hit", "gone", "miss", "bad", "tree"].map(|salt| action(&store, salt)).into();
    let (root, sub) = nested(store.put("contents"));
    let message = store.put(tree(&root, &[&sub]));
    store.keep_action_result(&actions[0], &file("a", store.put("a")));
    store.keep_action_result(&actions[1], &file("b", digest(b"gone")));
    store.keep_action_result(&actions[3], &file("/absolute", digest(b"c")));
    store.keep_action_result(&actions[4], &directory(Some(message), None));
    store.take_stats();
    let asked: Vec<_> = actions.iter().chain(&actions).copied().collect();
    let lookups = store.fetch_usable_results(&store, &asked).await.unwrap();
    assert!(lookups.iter().map(|(action, _)| action).eq(&actions));
    let outcomes: Vec<_> = lookups.into_iter().map(|(_, l)| l).collect();
    assert!(matches!(outcomes[0], Ok(Lookup::Hit(_))));
    assert!(matches!(&outcomes[1], Ok(Lookup::Dangling { missing }) if *missing == [digest(b"gone")]));
    assert!(matches!(outcomes[2], Ok(Lookup::Miss)));
    assert!(matches!(&outcomes[3], Err(e) if e.kind() == ErrorKind::Protocol));
    assert!(matches!(outcomes[4], Ok(Lookup::Hit(_))));
    let stats = store.stats();
    assert_eq!((stats.fetch_action_result.calls, stats.find_missing.calls, stats.read_blobs.calls), (5, 1, 1));
}

#[tokio::test]
async fn an_entry_that_would_dangle_is_not_stored() {
    let store = InMemory::new();
    let made = action(&store, "made");
    let absent = digest(b"no action");
    let check = async |action: Digest, result: ActionResult, kind: ErrorKind, text: &str| {
        let error = store.store_action_result(&action, &result).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.reason().contains(text), "{error}");
        assert_eq!(store.fetch_action_result(&action).await.unwrap(), None);
    };
    check(absent, ActionResult::default(), ErrorKind::NotFound, "Action").await;
    check(store.put("text"), ActionResult::default(), ErrorKind::Invalid, "no Action").await;
    check(made, file("a", digest(b"gone")), ErrorKind::NotFound, "outputs").await;
    let no_command = store.put_message(&Action {
        command_digest: Some(digest(b"no command").into()),
        input_root_digest: Some(DigestFunction::Sha256.empty().into()),
        ..Action::default()
    });
    check(no_command, ActionResult::default(), ErrorKind::NotFound, "Command").await;
    store.store_action_result(&made, &file("a", store.put("a"))).await.unwrap();
    assert_eq!(store.stats().find_missing.calls, 0, "the store's own checks are not counted");
}
