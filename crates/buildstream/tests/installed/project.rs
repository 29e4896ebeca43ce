//! What BuildStream says about a project, compared with what its own commands print.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use buildstream::introspect::{KNOWN_VERSIONS, SourcePolicy, VersionPolicy};
use buildstream::{
    CacheState, Installation, IntrospectError, Introspection, Invocation, Request, Strictness, introspect,
};

use crate::world::{World, element, files_below};

fn names<'a>(elements: impl IntoIterator<Item = &'a buildstream::ElementState>) -> Vec<&'a str> {
    elements.into_iter().map(|element| element.name.as_str()).collect()
}

/// Strong key and state of every element, as `bst show` prints them.
fn as_shown(found: &Introspection) -> BTreeMap<String, (String, bool)> {
    let key = |element: &buildstream::ElementState| {
        element.strong_key.as_ref().map_or_else(|| "?".repeat(64), ToString::to_string)
    };
    let shown = |e: &buildstream::ElementState| (e.name.clone(), (key(e), e.cache == CacheState::Cached));
    found.elements.iter().map(shown).collect()
}

fn shown(world: &World, invocation: &Invocation) -> BTreeMap<String, (String, bool)> {
    let shown = world.show(invocation).into_iter();
    shown.map(|(name, (key, state))| (name, (key, state == "cached"))).collect()
}

#[tokio::test]
async fn a_project_is_what_bst_show_says() {
    let Some(world) = World::new() else { return };
    let request = Request { versions: VersionPolicy::Refuse, ..world.request() };
    let started = Instant::now();
    let found = world.ask(&request).await;
    println!("BuildStream {} answered within {:?}", found.versions.buildstream, started.elapsed());
    assert_eq!((found.project.name.as_str(), found.project.directory.as_path()), ("demo", world.path("").as_path()));
    assert_eq!(found.targets, ["deep/app.bst"]);
    assert_eq!(found.warnings, [""; 0]);
    assert_eq!((found.configuration.cachedir.as_path(), found.configuration.strict), (&*world.path("cache"), true));
    assert_eq!(found.configuration.logdir, world.path("cache-logs"));
    assert_eq!(found.configuration.file, request.invocation.config);
    assert_eq!(found.servers.keys().collect::<Vec<_>>(), ["demo", "sub"]);
    assert_eq!(names(&found.elements), ["tool.bst", "sub.bst:base.bst", "lib.bst", "stack.bst", "deep/app.bst"]);
    assert_eq!(as_shown(&found), shown(&world, &request.invocation));
    assert!(found.elements.iter().all(|element| element.cache == CacheState::Absent));

    let base = element(&found, "sub.bst:base.bst");
    assert_eq!((base.project.as_str(), base.local_name.as_str(), base.kind.as_str()), ("sub", "base.bst", "import"));
    let weak = base.weak_artifact.as_ref().unwrap();
    assert_eq!((weak.element().to_string().as_str(), Some(weak.key())), ("sub/base", base.weak_key.as_ref()));
    assert_eq!(names(found.element_of("sub", "base.bst")), ["sub.bst:base.bst"]);
    // Nothing that lib was made with is staged for app.
    let staged = world.bst(&request.invocation, &["show", "--deps", "build", "--format", "%{name}", "deep/app.bst"]);
    assert_eq!(names(found.staged("deep/app.bst")), staged.lines().collect::<Vec<_>>());
    assert!(!staged.contains("tool.bst"));
    let graph = found.to_graph().unwrap();
    let closure: Vec<_> = graph.closure("deep/app.bst").into_iter().map(|e| e.name.as_str()).collect();
    assert!(staged.lines().all(|name| closure.contains(&name)), "{closure:?}");
}

#[tokio::test]
async fn states_follow_builds_and_changes() {
    use CacheState::{Absent, Cached};
    let Some(world) = World::new() else { return };
    world.build();
    let request = world.request();
    let built = world.ask(&request).await;
    assert_eq!(as_shown(&built), shown(&world, &request.invocation));
    assert!(built.elements.iter().all(|element| element.cache == Cached && element.sources.is_some()));
    let lib = element(&built, "lib.bst");
    assert!(lib.files.is_some() && lib.files == lib.sources, "an import's artifact is its sources");
    let read = built.configuration.source_refs().read(lib.sources_key.as_ref().unwrap()).unwrap();
    assert_eq!(read.map(|sources| sources.files), lib.sources);
    let refs = built.configuration.artifact_refs();
    for name in [lib.weak_artifact.clone().unwrap(), lib.strong_artifact().unwrap()] {
        assert_eq!(refs.read(&name).unwrap().unwrap().files().unwrap(), lib.files);
    }

    world.write("files/lib/lib.h", "#define LIB 2\n");
    let changed = world.ask(&request).await;
    assert_eq!(as_shown(&changed), shown(&world, &request.invocation));
    let states: Vec<_> = changed.elements.iter().map(|element| element.cache).collect();
    assert_eq!(states, [Cached, Cached, Absent, Absent, Absent]);
    let app = |found: &Introspection| element(found, "deep/app.bst").weak_key.clone();
    assert_eq!(app(&changed), app(&built));
    assert_ne!(element(&changed, "lib.bst").weak_key, lib.weak_key);
    assert_eq!(element(&changed, "lib.bst").sources, None, "not staged, as nobody asked for it");
    let staged = world.ask(&Request { sources: SourcePolicy::Stage, ..request.clone() }).await;
    let new_sources = element(&staged, "lib.bst").sources;
    assert!(new_sources.is_some() && new_sources != lib.sources);

    // Where an artifact with the right weak key will do, only lib is built.
    let loose = Invocation { strictness: Strictness::NotStrict, ..request.invocation.clone() };
    let found = world.ask(&Request { invocation: loose.clone(), ..request.clone() }).await;
    assert!(!found.configuration.strict);
    assert_eq!(as_shown(&found), shown(&world, &loose));
    let states: Vec<_> = found.elements.iter().map(|element| element.cache).collect();
    assert_eq!(states, [Cached, Cached, Absent, Cached, Cached]);

    world.build();
    let rebuilt = world.ask(&request).await;
    assert_eq!(element(&rebuilt, "lib.bst").files, new_sources);
    assert_eq!(element(&rebuilt, "lib.bst").strong_key, element(&changed, "lib.bst").strong_key);

    let other = Invocation { options: vec![("flavour".into(), "b".into())], ..request.invocation.clone() };
    let found = world.ask(&Request { invocation: other, ..request }).await;
    assert_ne!(element(&found, "lib.bst").weak_key, element(&rebuilt, "lib.bst").weak_key);
}

#[tokio::test]
async fn asking_leaves_nothing_behind() {
    let Some(world) = World::new() else { return };
    world.build();
    let (real, temporary) = (world.installation(), world.path("t"));
    std::fs::create_dir(&temporary).unwrap();
    let mut arguments: Vec<OsString> =
        vec![format!("TMPDIR={}", temporary.display()).into(), real.interpreter().into()];
    arguments.extend(real.arguments().iter().cloned());
    let installation = Installation::with_interpreter(real.bst(), "env", arguments);

    let folders = ["cache", "cache-logs", "cache-sources", "t"];
    let before = folders.map(|folder| files_below(&world.path(folder)));
    let found = introspect(&installation, &world.request()).await.unwrap();
    assert!(found.elements.iter().all(|element| element.cache == CacheState::Cached));
    // Neither does giving up halfway, wherever that is.
    let mut given_up = 0;
    for milliseconds in [1, 200, 300, 400, 500, 600] {
        let hasty = Request { timeout: Duration::from_millis(milliseconds), ..world.request() };
        match introspect(&installation, &hasty).await {
            Ok(_) => {}
            Err(IntrospectError::TimedOut(_)) => given_up += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(given_up > 0);
    let after = folders.map(|folder| files_below(&world.path(folder)));
    for (before, after) in before.iter().zip(&after) {
        let differs = |path: &&PathBuf| before.get(*path) != after.get(*path);
        let gone: Vec<_> = before.keys().filter(differs).collect();
        let left: Vec<_> = after.keys().filter(differs).collect();
        assert!(gone.is_empty() && left.is_empty(), "gone or changed: {gone:?}, left or changed: {left:?}");
    }
    assert_eq!(std::fs::read_dir(temporary).unwrap().count(), 0);
}

#[tokio::test]
async fn what_does_not_load_is_told_in_buildstreams_words() {
    let Some(world) = World::new() else { return };
    let refused = async |request: Request| match introspect(world.installation(), &request).await {
        Err(IntrospectError::Refused { message, .. }) => message,
        other => panic!("{other:?}"),
    };
    let about = |invocation: Invocation, name: &str| Request::new(invocation, [name]);
    let cache = world.invocation("cache");
    let message = refused(about(cache.clone(), "none.bst")).await;
    assert!(message.contains("none.bst"), "{message}");
    let message = refused(about(Invocation { directory: "/".into(), ..cache.clone() }, "deep/app.bst")).await;
    assert!(message.contains("project.conf"), "{message}");
    let message = refused(about(world.invocation("none"), "deep/app.bst")).await;
    assert!(message.contains("none.conf"), "{message}");
    let options = vec![("colour".to_owned(), "b".to_owned())];
    let message = refused(about(Invocation { options, ..cache.clone() }, "deep/app.bst")).await;
    assert!(message.contains("colour"), "{message}");
    world.write("elements/broken.bst", "kind: import\nsources: 5\n");
    let message = refused(about(cache, "broken.bst")).await;
    assert!(message.contains("broken.bst"), "{message}");
}

#[tokio::test]
async fn an_interpreter_without_buildstream_is_told_from_one_with_it() {
    let Some(world) = World::new() else { return };
    let real = world.installation();
    let arguments = real.arguments().iter().cloned().chain(["-I".into(), "-S".into()]);
    let bare = Installation::with_interpreter(real.bst(), real.interpreter(), arguments);
    let error = introspect(&bare, &world.request()).await.unwrap_err();
    assert!(matches!(&error, IntrospectError::Absent { message, .. } if message.contains("buildstream")), "{error}");
    assert!(KNOWN_VERSIONS.contains(&(2, 8)));
}
