use std::time::Duration;

use overlay::{Mode, Origin, PathId};
use reapi_proto::raw::Node;

use super::toy::*;
use crate::Layout;

#[tokio::test]
async fn own_files_are_from_the_sources_at_their_own_path() {
    let p = Project::new().await;
    let all = p.generate(Mode::Full, &["app.bst"]).await;
    let record = p.toys.record(report(&all, "app.bst"));
    let main = |path: &str| origins(&record, &p.app_main, &format!("{APP}/{path}"));
    assert_eq!(main("main.c"), ["source main.c of app.bst"]);
    assert_eq!(main("a/stub.h"), ["source a/stub.h of app.bst"]);
    assert_eq!(main("b/stub.h"), ["source b/stub.h of app.bst"]);
    assert_eq!(origins(&record, &p.app_util, &format!("{APP}/a/util.c")), ["source a/util.c of app.bst"]);
}

#[tokio::test]
async fn a_local_file_at_a_path_of_the_sources_with_other_content_is_not_from_there() {
    let p = Project::new().await;
    let all = p.generate(Mode::Full, &["app.bst"]).await;
    let record = p.toys.record(report(&all, "app.bst"));
    assert_eq!(origins(&record, &p.app_main, &format!("{APP}/config.h")), [LOCAL]);
}

#[tokio::test]
async fn staged_files_are_from_artifacts_and_what_is_behind_them() {
    let p = Project::new().await;
    let all = p.generate(Mode::Full, &["lib.bst", "app.bst"]).await;
    let record = p.toys.record(report(&all, "app.bst"));
    let main = |path: &str| origins(&record, &p.app_main, path);
    assert_eq!(
        main("usr/include/lib.h"),
        ["usr/include/lib.h in the artifact of lib.bst", "source include/lib.h of lib.bst"]
    );
    assert_eq!(main("usr/include/gen.h"), ["usr/include/gen.h in the artifact of lib.bst"]);
    assert_eq!(
        main("usr/include/empty.h"),
        ["usr/include/empty.h in the artifact of lib.bst", "source empty.h of lib.bst"]
    );
    // An import's sources are known before its artifact.
    assert_eq!(
        main("usr/include/std.h"),
        ["usr/include/std.h in the artifact of base.bst", "source usr/include/std.h of base.bst"]
    );
}

#[tokio::test]
async fn outputs_of_earlier_actions_are_told_apart_by_path() {
    let p = Project::new().await;
    let all = p.generate(Mode::Full, &["lib.bst", "app.bst"]).await;
    let record = p.toys.record(report(&all, "app.bst"));
    let link = |path: &str| origins(&record, &p.app_link, path);
    assert_eq!(link(&format!("{APP}/main.o")), [output("main.o", &p.app_main, "app.bst")]);
    assert_eq!(link(&format!("{APP}/a/util.o")), [output("util.o", &p.app_util, "app.bst")]);
    assert_eq!(link(&format!("{APP}/pic/util.o")), [output("../pic/util.o", &p.app_util, "app.bst")]);
    assert_eq!(
        link("usr/lib/lib.so"),
        ["usr/lib/lib.so in the artifact of lib.bst".to_owned(), output(".libs/lib.so", &p.lib_link, "lib.bst")]
    );
}

#[tokio::test]
async fn platform_properties_that_are_artifacts_are_inputs() {
    let p = Project::new().await;
    let all = p.generate(Mode::Full, &["app.bst"]).await;
    let record = p.toys.record(report(&all, "app.bst"));
    for action in &record.actions {
        let [property] = action.properties[..] else { panic!("one property is an artifact") };
        assert_eq!(record.paths.name(property.name), "chrootRootDigest");
        let input = record.input(property.input);
        assert_eq!(input.recorded.whole(), Some(&Node::Directory { digest: p.base }));
        let [origin] = input.origins[..] else { panic!("one origin") };
        let Origin::Artifact { element, path: PathId::ROOT } = record.origin(origin) else { panic!("an artifact") };
        assert_eq!(record.element(*element).name, "base.bst");
    }
}

#[tokio::test]
async fn the_own_artifact_is_explained() {
    let p = Project::new().await;
    let all = p.generate(Mode::Full, &["lib.bst"]).await;
    let record = p.toys.record(report(&all, "lib.bst"));
    let mut found: Vec<_> = (record.artifact_overlays.iter())
        .map(|o| (record.paths.display(o.path), record.describe(record.origin(o.origin))))
        .collect();
    found.sort();
    let expected = [
        ("usr/include/empty.h".to_owned(), "source empty.h of lib.bst".to_owned()),
        ("usr/include/lib.h".to_owned(), "source include/lib.h of lib.bst".to_owned()),
        ("usr/lib/lib.so".to_owned(), output(".libs/lib.so", &p.lib_link, "lib.bst")),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn the_record_says_what_it_is_of_and_what_its_actions_cost() {
    let p = Project::new().await;
    let all = p.generate(Mode::Full, &["lib.bst", "app.bst"]).await;
    let app = report(&all, "app.bst");
    let record = p.toys.record(app);
    assert_eq!(record.weak_key.as_deref(), Some("weak app.bst"));
    let element = p.graph.get("app.bst").unwrap();
    let own = &record.elements[0];
    assert_eq!((own.name.as_str(), own.sources, own.artifact), ("app.bst", element.sources, element.artifact));
    assert_eq!(record.actions.iter().map(|a| a.base).collect::<Vec<_>>(), [p.app_main, p.app_util, p.app_link]);
    assert_eq!(record.actions[0].duration, Some(Duration::from_millis(1500)));
    assert_eq!(record.actions[0].output_bytes, Some("main object".len() as u64));
    assert_eq!((app.listed, app.actions, app.copies), (Some(3), 3, 0));
    assert!(app.skipped.is_empty(), "{:?}", app.skipped);
}

#[tokio::test]
async fn outputs_in_directories_are_known_file_by_file() {
    let toys = Toys::default();
    let making = Run { working_directory: "w", inputs: toys.files(&[("w/x.y", "grammar")]), ..Run::default() };
    let made = toys.run(&making).await;
    let directory = toys.output_directory("gen", &[("x.c", "parser"), ("x.h", "tokens")]);
    toys.result(made, &[], vec![directory]).await;
    let used = Run { working_directory: "w", inputs: toys.files(&[("w/gen/x.c", "parser")]), ..Run::default() };
    let used = toys.run(&Run { outputs: Some(&[("x.o", "object")]), ..used }).await;
    let element = overlay::graph::Element {
        subactions: Some(vec![made, used]),
        sources: Some(toys.tree(&[("x.y", "grammar")])),
        ..overlay::graph::Element::new("e")
    };
    let all = toys.generate(Mode::IntraElement, &graph(vec![element]), &["e"]).await;
    let record = toys.record(&all.elements[0]);
    assert_eq!(origins(&record, &used, "w/gen/x.c"), [output("gen/x.c", &made, "e")]);
    assert_eq!(record.actions[0].output_bytes, Some(12));
    assert_eq!(all.elements[0].unread_outputs, 0);
}

#[tokio::test]
async fn equal_runs_write_equal_bytes() {
    let p = Project::new().await;
    let first = p.generate(Mode::Full, &["app.bst", "lib.bst"]).await;
    let again = Project::new().await.generate(Mode::Full, &["lib.bst", "app.bst"]).await;
    let digests = |all: &crate::GenerateReport| {
        all.elements.iter().map(|e| (e.name.clone(), e.speculative_actions)).collect::<Vec<_>>()
    };
    assert_eq!(digests(&first), digests(&again));
    assert_eq!(first.elements[0].name, "lib.bst");
}

#[tokio::test]
async fn the_reference_layout_is_written_on_request() {
    let p = Project::new().await;
    let generator = p.toys.generator().with_layout(Layout::Reference);
    let all = generator.generate(&p.graph, &["lib.bst", "app.bst"]).await.unwrap();
    let bytes = p.toys.store.peek(&report(&all, "app.bst").speculative_actions.unwrap()).unwrap();
    let overlay::layout::Stored::Reference(record) = overlay::layout::decode(&bytes).unwrap() else {
        panic!("not the reference layout")
    };
    assert_eq!(record.actions.len(), 3);
    assert!(record.overlay_count() > 0);
}
