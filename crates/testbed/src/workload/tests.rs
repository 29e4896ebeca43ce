use std::collections::{BTreeMap, HashSet};

use cas_client::{ActionCache as _, BlobStore as _, FileStore, InMemory};
use prost::Message as _;
use reapi_proto::v2::{self, Action, Command, Directory};

use super::*;

/// Figures that the sizes are meant to have: file nodes, directory visits, unique directories, their mean size.
const MEANT: [(Size, [u64; 4]); 3] = [
    (Size::Small, [3_247, 1_580, 530, 223]),
    (Size::Medium, [285_755, 41_350, 12_168, 405]),
    (Size::Large, [2_074_699, 223_685, 65_217, 486]),
];

/// Blobs from several places, the first that has one wins.
struct Sources<'a>(Vec<&'a Blobs>);

impl Sources<'_> {
    fn read(&self, digest: &Digest) -> &Bytes {
        self.0.iter().find_map(|blobs| blobs.get(digest)).unwrap_or_else(|| panic!("{digest} is nowhere"))
    }

    fn decode<M: prost::Message + Default>(&self, digest: &Digest) -> M {
        M::decode(self.read(digest).as_ref()).expect("a message of that type")
    }

    /// Every file of a tree by path. Checks the canonical form of each directory on the way.
    fn files(&self, root: &Digest) -> BTreeMap<String, (Digest, bool)> {
        let mut files = BTreeMap::new();
        let mut pending = vec![(String::new(), *root)];
        while let Some((path, digest)) = pending.pop() {
            let directory: Directory = self.decode(&digest);
            assert_eq!(directory.encode_to_vec(), self.read(&digest).as_ref(), "not canonical: {path}");
            assert!(directory.files.is_sorted_by(|a, b| a.name < b.name), "{path}");
            assert!(directory.directories.is_sorted_by(|a, b| a.name < b.name), "{path}");
            assert!(!directory.files.is_empty() || !directory.directories.is_empty(), "{path}");
            for file in directory.files {
                files.insert(format!("{path}{}", file.name), (parsed(file.digest.as_ref()), file.is_executable));
            }
            for child in directory.directories {
                pending.push((format!("{path}{}/", child.name), parsed(child.digest.as_ref())));
            }
        }
        files
    }

    fn inputs(&self, action: &Digest) -> BTreeMap<String, (Digest, bool)> {
        let action: Action = self.decode(action);
        self.files(&parsed(action.input_root_digest.as_ref()))
    }
}

fn parsed(digest: Option<&v2::Digest>) -> Digest {
    Digest::try_from(digest).expect("a digest")
}

#[test]
fn equal_seeds_give_equal_workloads_in_every_run() {
    let check = |seed: u64, fingerprint: &str| {
        assert_eq!(Workload::generate(Size::Small, seed).fingerprint().to_hex(), fingerprint, "seed {seed}");
    };
    check(1, "ff9996e7b5cc12d151a50aa06644beb698531317f233da4ff96ba11347da5974");
    check(2, "947615de740307ac1696ab2ff32c603142dc24c16c380eca2e98884c80880fc7");
}

#[test]
fn totals_are_within_a_tenth_of_what_they_are_meant_to_be() {
    // The largest is left to the benchmark, which checks the same in an optimised build.
    for (size, meant) in &MEANT[..2] {
        let totals = Workload::generate(*size, 1).totals();
        let found =
            [totals.file_nodes, totals.directory_visits, totals.unique_directories, totals.mean_directory_bytes()];
        for (found, meant) in found.into_iter().zip(*meant) {
            assert!(found.abs_diff(meant) * 10 <= meant, "{size}: {found} is not near {meant} ({totals})");
        }
    }
}

#[test]
fn the_old_state_is_complete_and_every_blob_has_its_own_name() {
    let workload = Workload::generate(Size::Small, 1);
    for (digest, bytes) in workload.blobs() {
        assert!(digest.matches(bytes), "{digest}");
    }
    let sources = Sources(vec![workload.blobs()]);
    let elements: Vec<_> =
        workload.elements().iter().flat_map(|element| [Some(element.sources), element.artifact]).collect();
    let element_files = elements.iter().flatten().flat_map(|root| sources.files(root));
    let input_files = workload.base_actions().flat_map(|action| sources.inputs(&action));
    for (path, (digest, _)) in element_files.chain(input_files) {
        assert!(workload.blobs().contains_key(&digest), "{path}");
    }
    for (action, result) in workload.action_results() {
        let action: Action = sources.decode(action);
        let command: Command = sources.decode(&parsed(action.command_digest.as_ref()));
        let [output] = result.output_files.as_slice() else { panic!("one output, not {result:?}") };
        assert_eq!(command.output_paths.as_slice(), std::slice::from_ref(&output.path));
        assert!(workload.blobs().contains_key(&parsed(output.digest.as_ref())));
    }
}

#[test]
fn contents_repeat_on_purpose() {
    let workload = Workload::generate(Size::Small, 1);
    let next = workload.next(Variant::One);
    let sources = Sources(vec![workload.blobs(), next.blobs(), next.needed()]);
    let (own, staged) = (format!("{}/vendor/dep00/core.h", layout::WORKING_DIRECTORY), "usr/include/dep00/core.h");
    let mut seen = 0;
    for expected in next.expected() {
        let (before, after) = (sources.inputs(&expected.base), sources.inputs(&expected.next));
        if let (Some(vendored), Some(installed)) = (before.get(&own), before.get(staged)) {
            assert_eq!(vendored, installed);
            assert_eq!(after.get(&own), Some(vendored));
            assert_ne!(after.get(staged), Some(installed));
            seen += 1;
        }
    }
    assert!(seen > 0, "no action sees the vendored copy");
    let mut paths: BTreeMap<Digest, HashSet<String>> = BTreeMap::new();
    for (path, (digest, _)) in workload.base_actions().flat_map(|action| sources.inputs(&action)) {
        paths.entry(digest).or_default().insert(path);
    }
    let count = |digest: Digest| paths.get(&digest).map_or(0, HashSet::len);
    assert!(count(DIGEST_FUNCTION.empty()) > 10);
    assert!(count(DIGEST_FUNCTION.digest(layout::STUB.as_bytes())) > 5);
    let shared: Vec<usize> = paths
        .values()
        .filter(|places| places.iter().any(|path| path.ends_with("/platform.h")))
        .map(HashSet::len)
        .collect();
    assert_eq!(shared, [3]);
}

/// The expected actions against the definition: the recorded files, with what is staged from the dependencies'
/// present artifacts and what the changed actions put out.
#[test]
fn expected_actions_see_present_artifacts_and_present_outputs() {
    let workload = Workload::generate(Size::Small, 3);
    for variant in Variant::ALL {
        let next = workload.next(variant);
        let sources = Sources(vec![workload.blobs(), next.blobs(), next.needed(), next.output_blobs()]);
        let mut present = BTreeMap::new();
        for root in next.elements().iter().filter_map(|element| element.artifact) {
            present.extend(sources.files(&root));
        }
        for (_, result) in next.action_results() {
            for output in &result.output_files {
                let path = format!("{}/{}", layout::WORKING_DIRECTORY, output.path);
                present.insert(path, (parsed(output.digest.as_ref()), output.is_executable));
            }
        }
        for expected in next.expected() {
            let mut files = sources.inputs(&expected.base);
            for (path, file) in &mut files {
                if let Some(now) = present.get(path) {
                    *file = *now;
                }
            }
            assert_eq!(sources.inputs(&expected.next), files, "{variant} {expected:?}");
            let (before, after): (Action, Action) = (sources.decode(&expected.base), sources.decode(&expected.next));
            assert_eq!(Action { input_root_digest: None, ..before }, Action { input_root_digest: None, ..after });
        }
    }
}

#[test]
fn needed_is_exactly_what_the_expected_actions_add() {
    let workload = Workload::generate(Size::Small, 1);
    for variant in Variant::ALL {
        let next = workload.next(variant);
        let sources = Sources(vec![workload.blobs(), next.blobs(), next.needed()]);
        let reached = |chained_too: bool| {
            let mut reached = HashSet::new();
            for action in next.expected().iter().filter(|action| chained_too || !action.is_chained) {
                let message: Action = sources.decode(&action.next);
                reached.extend([action.next, parsed(message.command_digest.as_ref())]);
                let mut pending = vec![parsed(message.input_root_digest.as_ref())];
                while let Some(digest) = pending.pop() {
                    reached.insert(digest);
                    let directory: Directory = sources.decode(&digest);
                    pending.extend(directory.directories.iter().map(|child| parsed(child.digest.as_ref())));
                }
            }
            reached.retain(|digest| !workload.blobs().contains_key(digest) && !next.blobs().contains_key(digest));
            reached
        };
        assert_eq!(next.needed().keys().copied().collect::<HashSet<_>>(), reached(true), "{variant}");
        assert_eq!(next.needed_before_results().map(|(d, _)| *d).collect::<HashSet<_>>(), reached(false), "{variant}");
    }
}

#[test]
fn the_graphs_say_what_is_cached() {
    let workload = Workload::generate(Size::Small, 1);
    let cached = |graph: &serde_json::Value| -> Vec<bool> {
        let elements = graph["elements"].as_array().expect("elements");
        elements.iter().map(|element| element["cached"] == true && element["artifact"].is_string()).collect()
    };
    let old = workload.graph();
    assert_eq!(cached(&old), [true; 7]);
    assert_eq!(old["elements"][6]["subactions"].as_array().map(Vec::len), Some(53));
    let next = workload.next(Variant::One);
    assert_eq!(cached(&next.graph()), [true, true, true, true, true, true, false]);
    let record = DIGEST_FUNCTION.digest(b"record");
    assert_eq!(next.graph_with_record(&record)["elements"][6]["speculative_actions"], record.to_string());
    for (before, after) in workload.elements().iter().zip(next.elements()) {
        let rebuilt = before.name == "dep00.bst";
        assert_eq!(before.weak_key != after.weak_key, rebuilt, "{}", before.name);
        assert_eq!(before.strong_key != after.strong_key, rebuilt || before.name == "app.bst", "{}", before.name);
    }
}

#[test]
fn names_round_trip() {
    for size in Size::ALL {
        assert_eq!(size.name().parse(), Ok(size));
    }
    for variant in Variant::ALL {
        assert_eq!(variant.to_string().parse(), Ok(variant));
    }
    assert_eq!("tiny".parse::<Size>(), Err(UnknownName("tiny".into())));
}

#[tokio::test]
async fn every_way_of_writing_leaves_the_same_store() {
    let workload = Workload::generate(Size::Small, 1);
    let next = workload.next(Variant::Ten);
    let memory = InMemory::new();
    workload.store(&memory, &memory).await.expect("stored");
    next.store(&memory).await.expect("stored");
    next.store_executed(&memory, &memory).await.expect("stored");

    let directory = tempfile::tempdir().expect("a directory");
    workload.write_directory(directory.path()).expect("written");
    next.write_directory(directory.path()).expect("written");
    next.write_results_directory(directory.path()).expect("written");
    let disk = FileStore::open(directory.path()).expect("casd's layout");

    let digests: Vec<Digest> =
        memory.digests().into_iter().filter(|digest| !next.needed().contains_key(digest)).collect();
    assert_eq!(disk.find_missing(&digests).await.expect("an answer"), []);
    for (_, bytes) in disk.read_blobs(&digests).await.expect("an answer") {
        bytes.expect("every blob");
    }
    let table = Results::new(workload.action_results().iter().chain(next.action_results()));
    for (action, result) in workload.action_results().iter().chain(next.action_results()) {
        assert_eq!(memory.fetch_action_result(action).await.expect("an answer").as_ref(), Some(result));
        assert_eq!(disk.fetch_action_result(action).await.expect("an answer").as_ref(), Some(result));
        assert_eq!(table.fetch_action_result(action).await.expect("an answer").as_ref(), Some(result));
    }
    for name in ["graph.json", "graph-ten.json", "expected-ten.json"] {
        let text = std::fs::read(directory.path().join(name)).expect("written");
        assert!(serde_json::from_slice::<serde_json::Value>(&text).expect("JSON").is_object(), "{name}");
    }
}
