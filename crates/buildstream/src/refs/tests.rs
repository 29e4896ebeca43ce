use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use prost::Message;
use reapi_proto::buildstream;
use tempfile::{NamedTempFile, TempDir};

use super::*;
use crate::artifact::tests::{message, sha};

pub(crate) fn key(digit: char) -> CacheKey {
    digit.to_string().repeat(64).parse().unwrap()
}

/// A cache directory, made by hand.
pub(crate) struct Cache {
    folder: TempDir,
}

impl Cache {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn refs(&self) -> ArtifactRefs {
        ArtifactRefs::of_cache(self.folder.path())
    }

    /// Stores a build as BuildStream does: under both keys.
    pub(crate) fn build(&self, element: &ElementRef, strong: char, weak: char) -> ArtifactName {
        let message = message(key(strong).as_str(), key(weak).as_str());
        for key in [key(strong), key(weak)] {
            self.write(&element.artifact(key), &message);
        }
        element.artifact(key(strong))
    }

    pub(crate) fn write(&self, name: &ArtifactName, message: &buildstream::Artifact) {
        let path = self.refs().path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // A new file, as BuildStream writes refs: an old one may be linked under two names.
        let mut file = NamedTempFile::new_in(path.parent().unwrap()).unwrap();
        file.write_all(&message.encode_to_vec()).unwrap();
        file.persist(path).unwrap();
    }

    /// Sets the age of a ref, in hours.
    pub(crate) fn age(&self, name: &ArtifactName, hours: u32) {
        let when = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000) - Duration::from_secs(3600) * hours;
        fs::File::options().write(true).open(self.refs().path(name)).unwrap().set_modified(when).unwrap();
    }
}

pub(crate) fn element(name: &str) -> ElementRef {
    ElementRef::new("demo", name).unwrap()
}

fn record_of(cache: &Cache, name: &ArtifactName) -> Option<Digest> {
    cache.refs().read(name).unwrap().unwrap().speculative_actions().unwrap()
}

#[test]
fn a_record_is_attached_under_both_keys_and_only_once() {
    let cache = Cache::new();
    let app = element("sub/app.bst");
    let strong = cache.build(&app, 'a', 'b');
    let weak = app.artifact(key('b'));
    let before = cache.refs().read(&strong).unwrap().unwrap();

    let attached = cache.refs().attach(&strong, &sha("record")).unwrap();
    assert_eq!(attached, Attachment { strong: Attached::Written, weak: Attached::Written });
    for name in [&strong, &weak] {
        assert_eq!(record_of(&cache, name), Some(sha("record")));
        let after = cache.refs().read(name).unwrap().unwrap();
        assert_eq!(after.with_speculative_actions(None).unwrap(), before, "every other byte is kept");
    }
    let attached = cache.refs().attach(&strong, &sha("record")).unwrap();
    assert_eq!(attached, Attachment { strong: Attached::Unchanged, weak: Attached::Unchanged });
    cache.refs().attach(&strong, &sha("newer")).unwrap();
    assert_eq!(record_of(&cache, &weak), Some(sha("newer")));
    let folder = cache.refs().folder().join("demo/sub-app");
    assert_eq!(fs::read_dir(folder).unwrap().count(), 2, "nothing is left beside");
}

#[test]
fn the_weak_key_of_a_later_build_is_left_alone() {
    let cache = Cache::new();
    let app = element("app.bst");
    let first = cache.build(&app, 'a', 'b');
    let second = cache.build(&app, 'c', 'b');
    let attached = cache.refs().attach(&first, &sha("first")).unwrap();
    assert_eq!(attached, Attachment { strong: Attached::Written, weak: Attached::OtherBuild });
    assert_eq!(record_of(&cache, &app.artifact(key('b'))), None);
    cache.refs().attach(&second, &sha("second")).unwrap();
    assert_eq!(record_of(&cache, &first), Some(sha("first")));
    assert_eq!(record_of(&cache, &app.artifact(key('b'))), Some(sha("second")));
}

#[test]
fn refs_that_are_absent_or_one_and_the_same() {
    let cache = Cache::new();
    let app = element("app.bst");
    let missing = app.artifact(key('a'));
    assert!(matches!(cache.refs().attach(&missing, &sha("r")), Err(RefError::NotFound(name)) if name == missing));
    assert_eq!(cache.refs().read(&missing).unwrap(), None);
    assert_eq!(cache.refs().list(&app).unwrap(), []);

    cache.write(&missing, &message(key('a').as_str(), key('b').as_str()));
    let attached = cache.refs().attach(&missing, &sha("r")).unwrap();
    assert_eq!(attached, Attachment { strong: Attached::Written, weak: Attached::Absent });
    let both = cache.build(&app, 'c', 'c');
    let attached = cache.refs().attach(&both, &sha("r")).unwrap();
    assert_eq!(attached, Attachment { strong: Attached::Written, weak: Attached::Written });
}

#[test]
fn a_file_that_is_linked_twice_is_replaced_twice() {
    let cache = Cache::new();
    let app = element("app.bst");
    let strong = cache.build(&app, 'a', 'b');
    let [strong_path, weak_path] = [key('a'), key('b')].map(|key| cache.refs().path(&app.artifact(key)));
    // As BuildStream leaves it after a pull.
    fs::remove_file(&weak_path).unwrap();
    fs::hard_link(&strong_path, &weak_path).unwrap();
    fs::set_permissions(&strong_path, fs::Permissions::from_mode(0o640)).unwrap();
    cache.refs().attach(&strong, &sha("r")).unwrap();
    assert_eq!(record_of(&cache, &strong), Some(sha("r")));
    assert_eq!(record_of(&cache, &app.artifact(key('b'))), Some(sha("r")));
    let [strong, weak] = [strong_path, weak_path].map(|path| fs::metadata(path).unwrap());
    assert_eq!([strong.mode() & 0o777, weak.mode() & 0o777], [0o640; 2]);
    assert_ne!(strong.ino(), weak.ino());
}

#[test]
fn refs_are_listed_by_last_use() {
    let cache = Cache::new();
    let app = element("app.bst");
    for (strong, weak) in [('1', '2'), ('3', '4')] {
        cache.build(&app, strong, weak);
    }
    for (digit, hours) in [('1', 3), ('2', 1), ('3', 2), ('4', 1)] {
        cache.age(&app.artifact(key(digit)), hours);
    }
    fs::write(cache.refs().folder().join("demo/app/tmpcafebabe"), "half").unwrap();
    let listed = cache.refs().list(&app).unwrap();
    let keys: Vec<_> = listed.iter().map(|entry| entry.name.key().clone()).collect();
    assert_eq!(keys, ['2', '4', '3', '1'].map(key));
}

#[test]
fn damaged_refs_are_named() {
    let cache = Cache::new();
    let app = element("app.bst");
    let strong = cache.build(&app, 'a', 'b');
    let path = cache.refs().path(&strong);
    fs::write(&path, b"\x0a").unwrap();
    let error = cache.refs().read(&strong).unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()) && error.contains("not an Artifact"), "{error}");
    assert!(cache.refs().attach(&strong, &sha("r")).is_err());

    // Without a weak key it is not known where else the record belongs.
    cache.write(&strong, &message(key('a').as_str(), "../../elsewhere"));
    let error = cache.refs().attach(&strong, &sha("r")).unwrap_err();
    assert!(matches!(error, RefError::Unusable { source: MessageError::Key { field: "weak_key", .. }, .. }), "{error}");
    assert_eq!(record_of(&cache, &strong), None);

    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(MAX_REF_BYTES + 1).unwrap();
    assert!(matches!(cache.refs().read(&strong), Err(RefError::TooLarge { .. })));
}

#[test]
fn sources_are_read_by_their_key() {
    let cache = Cache::new();
    let refs = SourceRefs::of_cache(cache.folder.path());
    assert_eq!(refs.read(&key('a')).unwrap(), None);
    let folder = cache.folder.path().join("elementsources");
    fs::create_dir(&folder).unwrap();
    let source = buildstream::Source { version: 0, files: Some(sha("sources").into()) };
    fs::write(folder.join(key('a').as_str()), source.encode_to_vec()).unwrap();
    assert_eq!(refs.read(&key('a')).unwrap(), Some(Sources { files: sha("sources") }));
    fs::write(folder.join(key('b').as_str()), b"\x12\x00").unwrap();
    assert!(refs.read(&key('b')).is_err());
}
