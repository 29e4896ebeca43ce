//! What files that appear mean for the elements of a build.

use instantiate::Event;
use overlay::graph::{Element, Graph, GraphError};
use reapi_proto::{Digest, DigestFunction};
use rustc_hash::{FxHashMap, FxHashSet};

use super::Sighting;
use crate::artifact::Artifact;
use crate::names::{ArtifactName, CacheKey, ElementRef};
use crate::records::RefRecords;
use crate::refs::{ArtifactRefs, SourceRefs};
use crate::{CacheState, Introspection};

/// The elements of a project, kept up to date while it is built.
///
/// It begins with what BuildStream said, before the build or while it began,
/// and [takes in](Self::take) what appears from then on. Sightings may come in any order.
#[derive(Debug)]
pub struct LiveBuild {
    elements: Vec<Element>,
    rows: FxHashMap<ElementRef, Vec<usize>>,
    by_sources: FxHashMap<CacheKey, Vec<usize>>,
    /// The artifact that each element has, by its strong key.
    current: Vec<Option<String>>,
    started: FxHashSet<usize>,
    /// The artifact of each element that was taken in, by its strong key.
    taken: FxHashMap<usize, String>,
    /// Artifacts of elements that nothing has built here, as far as is known.
    pulled: FxHashMap<usize, Built>,
    artifact_refs: ArtifactRefs,
    source_refs: SourceRefs,
}

/// What a sighting means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// For the priming engine.
    Event(Event),
    /// An element was built, and its actions can be recorded.
    Built(Built),
}

/// An element that was built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Built {
    /// The element's name.
    pub element: String,
    /// Its new artifact.
    pub artifact: ArtifactName,
    /// Root of its build directory, where that was kept.
    pub buildtree: Option<Digest>,
    /// Whether it was built from a workspace, on top of its last build.
    pub incremental: bool,
}

impl LiveBuild {
    /// The elements as BuildStream has described them, with the records that refs name.
    /// Blocks on the file system.
    #[must_use]
    pub fn new(project: &Introspection) -> Self {
        let artifact_refs = project.configuration.artifact_refs();
        let mut elements = project.to_elements();
        RefRecords::new(artifact_refs.clone()).annotate(&mut elements);
        let mut rows: FxHashMap<ElementRef, Vec<usize>> = FxHashMap::default();
        let mut by_sources: FxHashMap<CacheKey, Vec<usize>> = FxHashMap::default();
        let mut current = Vec::with_capacity(elements.len());
        for (row, state) in project.elements.iter().enumerate() {
            if let Some(artifact) = &state.weak_artifact {
                rows.entry(artifact.element().clone()).or_default().push(row);
            }
            if let Some(key) = state.sources_key.as_ref().filter(|_| state.sources.is_none()) {
                by_sources.entry(key.clone()).or_default().push(row);
            }
            let key = state.strong_key.as_ref().filter(|_| state.cache == CacheState::Cached);
            current.push(key.map(ToString::to_string));
        }
        let source_refs = project.configuration.source_refs();
        Self {
            elements,
            rows,
            by_sources,
            current,
            started: FxHashSet::default(),
            taken: FxHashMap::default(),
            pulled: FxHashMap::default(),
            artifact_refs,
            source_refs,
        }
    }

    /// Under what the elements are filed: what to [watch](super::Watcher::start) for.
    pub fn element_refs(&self) -> impl Iterator<Item = ElementRef> {
        self.rows.keys().cloned()
    }

    /// The names of the elements that are filed under this.
    pub fn names(&self, element: &ElementRef) -> impl Iterator<Item = &str> {
        let rows = self.rows.get(element).map_or(&[][..], Vec::as_slice);
        rows.iter().map(|row| self.elements[*row].name.as_str())
    }

    /// The elements as they are now.
    ///
    /// # Errors
    /// [`GraphError`] where BuildStream's answer contradicts itself.
    pub fn graph(&self) -> Result<Graph, GraphError> {
        Graph::new(DigestFunction::Sha256, self.elements.clone())
    }

    /// The artifacts that elements have, by their strong keys, as far as is known; in no particular order.
    pub fn artifacts(&self) -> impl Iterator<Item = ArtifactName> {
        self.rows.iter().flat_map(|(element, rows)| {
            let keys = rows.iter().filter_map(|row| self.current[*row].as_deref()?.parse().ok());
            keys.map(|key: CacheKey| element.artifact(key))
        })
    }

    /// The elements that a build begins with: nothing that runs actions has to be built before. By name, in the order
    /// of the project.
    #[must_use]
    pub fn first(&self) -> Vec<String> {
        let Ok(graph) = self.graph() else { return Vec::new() };
        let mut first = Vec::new();
        // Dependencies come first.
        let mut awaited: FxHashSet<&str> = FxHashSet::default();
        for element in graph.elements().filter(|element| element.cached != Some(true)) {
            let waits = element.build_deps.iter().flatten().any(|below| awaited.contains(below.as_str()));
            if !waits {
                first.push(element.name.clone());
            }
            if waits || element.speculative_actions.is_some() {
                awaited.insert(&element.name);
            }
        }
        first
    }

    /// Notes the record of an element that was built.
    pub fn recorded(&mut self, element: &str, record: Digest) {
        if let Some(element) = self.elements.iter_mut().find(|e| e.name == element) {
            element.speculative_actions = Some(record);
        }
    }

    /// Takes in what was seen. Says what is new, if anything; blocks on the
    /// file system. A ref that cannot be read is logged, and nothing follows from it.
    pub fn take(&mut self, sighting: &Sighting) -> Vec<News> {
        match sighting {
            Sighting::Daemon(_) | Sighting::DaemonLog(_) => Vec::new(),
            Sighting::Requested(action) => vec![News::Event(Event::Requested { action: *action })],
            Sighting::Sources(key) => self.sources(key),
            Sighting::Started(element) => self.started(element),
            Sighting::Running(element) => self.running(element),
            Sighting::Artifact(name) => self.artifact(name),
        }
    }

    fn sources(&mut self, key: &CacheKey) -> Vec<News> {
        if !self.by_sources.contains_key(key) {
            return Vec::new();
        }
        let root = match self.source_refs.read(key) {
            Ok(Some(sources)) => sources.files,
            Ok(None) => return Vec::new(),
            Err(error) => {
                tracing::warn!(%key, %error, "the sources cannot be used");
                return Vec::new();
            }
        };
        let rows = self.by_sources.remove(key).unwrap_or_default();
        let news = |row: usize| {
            self.elements[row].sources = Some(root);
            News::Event(Event::SourcesAvailable { element: self.elements[row].name.clone(), root })
        };
        rows.into_iter().map(news).collect()
    }

    /// What is listed after the fact may tell of the artifact first.
    fn started(&mut self, element: &ElementRef) -> Vec<News> {
        let mut news = Vec::new();
        for row in self.rows.get(element).into_iter().flatten() {
            if self.started.insert(*row) && !self.taken.contains_key(row) {
                news.push(News::Event(Event::BuildStarted { element: self.elements[*row].name.clone() }));
            }
            news.extend(self.pulled.remove(row).map(News::Built));
        }
        news
    }

    /// The build has reached an element when it is about to ask for actions.
    /// While it stages the sandbox, priming may still be ahead.
    fn running(&self, element: &ElementRef) -> Vec<News> {
        let rows = self.rows.get(element).map_or(&[][..], Vec::as_slice);
        let reached = |row: &usize| News::Event(Event::BuildReached { element: self.elements[*row].name.clone() });
        rows.iter().map(reached).collect()
    }

    fn artifact(&mut self, name: &ArtifactName) -> Vec<News> {
        let Some(rows) = self.rows.get(name.element()) else { return Vec::new() };
        let artifact = match self.artifact_refs.read(name) {
            Ok(Some(artifact)) => artifact,
            Ok(None) => return Vec::new(),
            Err(error) => {
                tracing::warn!(artifact = %name, %error, "the artifact cannot be used");
                return Vec::new();
            }
        };
        // The ref of the weak key is another name for the same build.
        if !artifact.message().build_success || artifact.message().strong_key != name.key().as_str() {
            return Vec::new();
        }
        let mut news = Vec::new();
        for row in rows.clone() {
            news.extend(self.built(row, name, &artifact));
        }
        news
    }

    fn built(&mut self, row: usize, name: &ArtifactName, artifact: &Artifact) -> Vec<News> {
        let strong = name.key().as_str();
        // Other options or another state of the project give other weak keys.
        if self.elements[row].weak_key.as_deref() != Some(artifact.message().weak_key.as_str())
            || self.taken.get(&row).is_some_and(|taken| taken == strong)
        {
            return Vec::new();
        }
        let root = match artifact.files() {
            Ok(Some(root)) => root,
            Ok(None) => return Vec::new(),
            Err(error) => {
                tracing::warn!(artifact = %name, %error, "the artifact cannot be used");
                return Vec::new();
            }
        };
        self.taken.insert(row, strong.to_owned());
        let mut news = Vec::new();
        if self.current[row].as_deref() != Some(strong) {
            self.current[row] = Some(strong.to_owned());
            let element = &mut self.elements[row];
            element.strong_key = Some(strong.to_owned());
            element.cached = Some(true);
            element.artifact = Some(root);
            news.push(News::Event(Event::ArtifactAvailable { element: element.name.clone(), root }));
        }
        let buildtree = artifact.message().buildtree.as_ref().and_then(|digest| digest.try_into().ok());
        let built = Built {
            element: self.elements[row].name.clone(),
            artifact: name.clone(),
            buildtree,
            incremental: artifact.message().was_workspaced,
        };
        // What was pulled ran nothing here.
        if self.started.contains(&row) {
            news.push(News::Built(built));
        } else {
            self.pulled.insert(row, built);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use reapi_proto::buildstream::Source;

    use super::*;
    use crate::artifact::tests::{message, sha};
    use crate::project::tests::introspection;
    use crate::refs::tests::{Cache, key};

    /// `lib.bst` and `app.bst`, which needs it, both to be built: weak keys 1 and 2.
    fn build(cache: &Cache) -> LiveBuild {
        LiveBuild::new(&introspection(cache.path(), &[("lib.bst", '1', &[]), ("app.bst", '2', &["lib.bst"])]))
    }

    fn artifact(cache: &Cache, element: &str, strong: char, weak: char) -> Sighting {
        Sighting::Artifact(cache.build(&ElementRef::new("demo", element).unwrap(), strong, weak))
    }

    fn started(element: &str) -> Sighting {
        Sighting::Started(ElementRef::new("demo", element).unwrap())
    }

    #[test]
    fn an_element_that_was_built_is_news_once() {
        let cache = Cache::new();
        let mut live = build(&cache);
        let begun = News::Event(Event::BuildStarted { element: "lib.bst".into() });
        assert_eq!(live.take(&started("lib.bst")), [begun]);
        assert_eq!(live.take(&started("lib.bst")), []);
        let reached = News::Event(Event::BuildReached { element: "lib.bst".into() });
        assert_eq!(live.take(&Sighting::Running(ElementRef::new("demo", "lib.bst").unwrap())), [reached]);

        let sighting = artifact(&cache, "lib.bst", 'a', '1');
        let news = live.take(&sighting);
        let root = sha("files");
        assert_eq!(news[0], News::Event(Event::ArtifactAvailable { element: "lib.bst".into(), root }));
        assert!(matches!(&news[1], News::Built(built) if built.element == "lib.bst" && !built.incremental), "{news:?}");
        assert_eq!(live.take(&sighting), []);
        let graph = live.graph().unwrap();
        let lib = graph.get("lib.bst").unwrap();
        assert_eq!((lib.is_current(), lib.artifact), (true, Some(root)));

        live.recorded("lib.bst", sha("record"));
        assert_eq!(live.graph().unwrap().get("lib.bst").unwrap().speculative_actions, Some(sha("record")));
    }

    #[test]
    fn a_build_begins_where_no_recorded_actions_are_in_between() {
        let cache = Cache::new();
        let elements = [("lib.bst", '1', &[][..]), ("mid.bst", '2', &["lib.bst"]), ("app.bst", '3', &["mid.bst"])];
        let mut live = LiveBuild::new(&introspection(cache.path(), &elements));
        // None of them has anything to run, as far as is known.
        assert_eq!(live.first(), ["lib.bst", "mid.bst", "app.bst"]);
        live.recorded("mid.bst", sha("record"));
        assert_eq!(live.first(), ["lib.bst", "mid.bst"]);
        live.recorded("lib.bst", sha("record"));
        assert_eq!(live.first(), ["lib.bst"]);
        live.elements[0].cached = Some(true);
        assert_eq!(live.first(), ["mid.bst"]);
    }

    #[test]
    fn what_is_pulled_is_available_and_not_built() {
        let cache = Cache::new();
        let mut live = build(&cache);
        let news = live.take(&artifact(&cache, "lib.bst", 'a', '1'));
        assert!(matches!(news[..], [News::Event(Event::ArtifactAvailable { .. })]), "{news:?}");
    }

    #[test]
    fn what_was_built_while_buildstream_was_asked_is_told_whatever_is_seen_first() {
        let cache = Cache::new();
        let mut live = build(&cache);
        let sighting = artifact(&cache, "lib.bst", 'a', '1');
        live.take(&sighting);
        let news = live.take(&started("lib.bst"));
        assert!(matches!(&news[..], [News::Built(built)] if built.element == "lib.bst"), "{news:?}");
        assert_eq!(live.take(&sighting), []);
        assert_eq!(live.take(&started("lib.bst")), []);

        // It was built before the answer: the artifact is no news, its actions are.
        let mut live = build(&cache);
        live.current[0] = Some(key('a').to_string());
        assert_eq!(live.take(&sighting), []);
        let news = live.take(&started("lib.bst"));
        assert!(matches!(&news[..], [News::Built(_)]), "{news:?}");
    }

    #[test]
    fn refs_that_say_nothing_about_this_build_are_none_of_its_news() {
        let cache = Cache::new();
        let mut live = build(&cache);
        assert_eq!(live.take(&artifact(&cache, "lib.bst", 'a', '9')), [], "another state of the project");
        assert_eq!(live.take(&artifact(&cache, "other.bst", 'a', '1')), [], "another element");
        let lib = ElementRef::new("demo", "lib.bst").unwrap();
        cache.build(&lib, 'b', '1');
        assert_eq!(live.take(&Sighting::Artifact(lib.artifact(key('1')))), [], "the name of the weak key");
        assert_eq!(live.take(&Sighting::Artifact(lib.artifact(key('7')))), [], "gone already");
        let failed = reapi_proto::buildstream::Artifact {
            build_success: false,
            ..message(key('c').as_str(), key('1').as_str())
        };
        cache.write(&lib.artifact(key('c')), &failed);
        assert_eq!(live.take(&Sighting::Artifact(lib.artifact(key('c')))), [], "a failed build");
        assert_eq!(live.take(&started("other.bst")), []);
    }

    #[test]
    fn sources_become_available_once() {
        let cache = Cache::new();
        let mut live = build(&cache);
        let sources = Sighting::Sources(key('2'));
        assert_eq!(live.take(&sources), [], "not there yet");
        let folder = cache.path().join("elementsources");
        std::fs::create_dir_all(&folder).unwrap();
        let source = Source { files: Some(sha("sources").into()), ..Source::default() };
        std::fs::write(folder.join(key('2').as_str()), source.encode_to_vec()).unwrap();
        let event = Event::SourcesAvailable { element: "app.bst".into(), root: sha("sources") };
        assert_eq!(live.take(&sources), [News::Event(event)]);
        assert_eq!(live.take(&sources), []);
    }
}
