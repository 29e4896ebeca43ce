//! Which builds the artifacts of a project come from.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use record::Sessions;

use crate::artifact::Artifact;
use crate::daemon::Log;
use crate::names::ElementRef;
use crate::project::{ElementState, Introspection};

/// How an element came by an artifact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Past {
    /// On top of an earlier buildtree: it had a workspace.
    Incremental,
    /// Here, from scratch, by this time.
    Built(SystemTime),
    /// Its log is not here: it was pulled.
    Elsewhere,
    /// There is no artifact, or it does not say.
    Unknown,
}

impl Introspection {
    /// Which of casd's logs, by position, tell of the builds that the elements have their artifacts from.
    ///
    /// An artifact names the log of its build, `LOGDIR/PROJECT/ELEMENT/KEY-build.TIME.log`.
    /// That file was last written when the build ended, so what casd did for
    /// it is in the newest log that was begun before. Without that, the log of
    /// another state of the element would pass for it: of one that was built
    /// later, when the element went back to a state that was cached. Blocks on the file system.
    #[must_use]
    pub fn sessions(&self, logs: &[Log]) -> BTreeMap<String, Sessions> {
        let begun = |by: SystemTime| {
            let rows = logs.iter().enumerate().filter(move |(_, log)| log.started.is_none_or(|start| start <= by));
            rows.map(|(row, _)| row).collect()
        };
        let sessions = |state: &ElementState| match self.past(state) {
            Past::Incremental => Some(Sessions::All),
            Past::Built(by) => Some(Sessions::NewestOf(begun(by))),
            Past::Elsewhere => Some(Sessions::NewestOf(Vec::new())),
            Past::Unknown => None,
        };
        self.elements.iter().filter_map(|state| Some((state.name.clone(), sessions(state)?))).collect()
    }

    fn past(&self, state: &ElementState) -> Past {
        let Some(name) = state.strong_artifact() else { return Past::Unknown };
        match self.configuration.artifact_refs().read(&name) {
            Ok(Some(artifact)) => past(&self.configuration.logdir, name.element(), &artifact),
            Ok(None) => Past::Unknown,
            Err(error) => {
                tracing::warn!(artifact = %name, %error, "the artifact does not say when it was built");
                Past::Unknown
            }
        }
    }
}

fn past(logdir: &Path, element: &ElementRef, artifact: &Artifact) -> Past {
    if artifact.message().was_workspaced {
        return Past::Incremental;
    }
    let folder = logdir.join(element.project()).join(element.name());
    // It may come from a server: a name that leads elsewhere is none.
    let mut names = artifact.message().logs.iter().map(|log| log.name.as_str()).filter(|name| !name.contains('/'));
    let Some(name) = names.next_back() else { return Past::Unknown };
    match fs::metadata(folder.join(name)).and_then(|metadata| metadata.modified()) {
        Ok(written) => Past::Built(written),
        Err(_) => Past::Elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prost::Message;
    use reapi_proto::buildstream::{self, artifact::LogFile};
    use tempfile::TempDir;

    use super::*;
    use crate::artifact::tests::message;
    use crate::project::tests::introspection;
    use crate::refs::tests::{Cache, key};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn an_artifact_tells_when_it_was_built_by_the_log_that_it_names() {
        let logdir = TempDir::new().unwrap();
        let element = ElementRef::new("demo", "sub/app.bst").unwrap();
        let folder = logdir.path().join("demo/sub-app");
        fs::create_dir_all(&folder).unwrap();
        fs::File::create(folder.join("here.log")).unwrap().set_modified(at(7)).unwrap();
        fs::File::create(logdir.path().join("demo/outside.log")).unwrap();
        let check = |names: &[&str], workspaced, expected| {
            let logs = names.iter().map(|name| LogFile { name: (*name).to_owned(), digest: None }).collect();
            let message = buildstream::Artifact { logs, was_workspaced: workspaced, ..message("s", "w") };
            let artifact = Artifact::parse(message.encode_to_vec()).unwrap();
            assert_eq!(past(logdir.path(), &element, &artifact), expected, "{names:?}");
        };
        check(&["here.log"], false, Past::Built(at(7)));
        check(&["here.log"], true, Past::Incremental);
        check(&["not-here.log"], false, Past::Elsewhere);
        check(&["../outside.log"], false, Past::Unknown);
        check(&[], false, Past::Unknown);
    }

    #[test]
    fn sessions_that_began_after_a_build_do_not_count() {
        let cache = Cache::new();
        let mut project = introspection(cache.path(), &[("app.bst", '2', &[]), ("new.bst", '4', &[])]);
        project.elements[0].strong_key = Some(key('1'));
        cache.build(&ElementRef::new("demo", "app.bst").unwrap(), '1', '2');
        let folder = project.configuration.logdir.join("demo/app");
        fs::create_dir_all(&folder).unwrap();
        fs::File::create(folder.join("build.log")).unwrap().set_modified(at(20)).unwrap();
        let log = |started: Option<u64>| Log { path: "x.log".into(), started: started.map(at) };
        let logs = [log(Some(10)), log(None), log(Some(20)), log(Some(21))];
        let expected = [("app.bst".to_owned(), Sessions::NewestOf(vec![0, 1, 2]))];
        assert_eq!(project.sessions(&logs), expected.into());
    }
}
