use bytes::Bytes;
use cas_client::TreeBudget;
use overlay::Mode;
use overlay::graph::{Element, Graph};
use reapi_proto::raw::{Node, encode_directory};
use reapi_proto::{Digest, DigestFunction};

use super::toy::*;
use crate::{Budget, GenerateReport};

impl Toys {
    /// `depth` directories inside each other, every one `width` times in its parent.
    fn nested(&self, depth: usize, width: usize) -> Digest {
        let mut digest = self.tree(&[("leaf", "leaf")]);
        for _ in 0..depth {
            let entries = (0..width).map(|i| (Bytes::from(format!("d{i}")), Node::Directory { digest }));
            digest = self.store.put(encode_directory(entries).unwrap());
        }
        digest
    }

    /// An element with one action on each tree, and the action that nothing is wrong with.
    async fn on_trees(&self, trees: &[Digest]) -> (Graph, Digest) {
        let mut subactions = Vec::new();
        for tree in trees {
            let inputs = vec![("deep".to_owned(), Node::Directory { digest: *tree })];
            subactions.push(self.run(&Run { inputs, outputs: Some(&[]), ..Run::default() }).await);
        }
        let inputs = self.files(&[("main.c", "main")]);
        let good = self.run(&Run { inputs, outputs: Some(&[]), ..Run::default() }).await;
        subactions.push(good);
        let sources = Some(self.tree(&[("main.c", "main")]));
        (graph(vec![Element { subactions: Some(subactions), sources, ..Element::new("e") }]), good)
    }

    /// Exactly the good action is recorded.
    fn check_spared(&self, all: &GenerateReport, good: &Digest, kind: &'static str, skipped: usize) {
        assert_eq!(all.skips(), [(kind, skipped)].into());
        let record = self.record(&all.elements[0]);
        assert_eq!(record.actions.len(), 1);
        assert_eq!(origins(&record, good, "main.c"), ["source main.c of e"]);
    }
}

#[tokio::test]
async fn a_tree_of_a_billion_paths_spoils_nothing() {
    let toys = Toys::default();
    let (graph, good) = toys.on_trees(&[toys.nested(30, 2), toys.nested(10, 100)]).await;
    let all = toys.generate(Mode::Full, &graph, &["e"]).await;
    toys.check_spared(&all, &good, "limit exceeded", 2);
    assert!(all.elements[0].skipped[0].reason.to_string().contains("paths"), "{:?}", all.elements[0].skipped);
}

#[tokio::test]
async fn a_tree_without_bottom_spoils_nothing() {
    let toys = Toys::default();
    let (graph, good) = toys.on_trees(&[toys.nested(300, 1)]).await;
    let all = toys.generate(Mode::Full, &graph, &["e"]).await;
    toys.check_spared(&all, &good, "limit exceeded", 1);
}

#[tokio::test]
async fn a_directory_that_claims_an_absurd_size_is_not_asked_for() {
    let toys = Toys::default();
    let huge = Digest::from_raw(DigestFunction::Sha256, &[7; 32], 1 << 50).unwrap();
    let (graph, good) = toys.on_trees(&[huge]).await;
    let all = toys.generate(Mode::Full, &graph, &["e"]).await;
    toys.check_spared(&all, &good, "limit exceeded", 1);
}

#[tokio::test]
async fn a_digest_of_another_function_is_not_asked_for() {
    let toys = Toys::default();
    let (graph, good) = toys.on_trees(&[DigestFunction::Sha512.digest(b"x")]).await;
    let all = toys.generate(Mode::Full, &graph, &["e"]).await;
    toys.check_spared(&all, &good, "unusable", 1);
}

#[tokio::test]
async fn one_tree_beyond_the_budget_does_not_use_up_that_of_the_others() {
    let toys = Toys::default();
    let wide: Vec<_> = (0..40).map(|i| (format!("d{i}/f"), toys.file(&format!("{i}")))).collect();
    let (graph, good) = toys.on_trees(&[toys.tree_of(&wide)]).await;
    let trees = TreeBudget { max_directories: 32, ..TreeBudget::default() };
    let budget = Budget { trees, ..Budget::default() };
    let all = toys.generator().with_budget(budget).generate(&graph, &["e"]).await.unwrap();
    toys.check_spared(&all, &good, "limit exceeded", 1);
}

#[tokio::test]
async fn messages_are_limited_one_by_one_and_together() {
    let p = Project::new().await;
    let largest = p.app_main.size_bytes();
    let budget = Budget { max_message_bytes: 8, ..Budget::default() };
    let all = p.toys.generator().with_budget(budget).generate(&p.graph, &["app.bst"]).await.unwrap();
    assert_eq!((all.elements[0].actions, all.skips()), (0, [("limit exceeded", 3)].into()));
    let budget = Budget { max_messages_bytes: largest + 1, ..Budget::default() };
    let all = p.toys.generator().with_budget(budget).generate(&p.graph, &["app.bst"]).await.unwrap();
    assert_eq!((all.elements[0].actions, all.skips()), (1, [("limit exceeded", 2)].into()));
}

#[tokio::test]
async fn an_absurd_output_directory_is_not_expanded() {
    let toys = Toys::default();
    let (graph, good) = toys.on_trees(&[]).await;
    let directory = reapi_proto::v2::OutputDirectory {
        path: "out".into(),
        root_directory_digest: Some(toys.nested(30, 2).into()),
        ..Default::default()
    };
    toys.result(good, &[], vec![directory]).await;
    let all = toys.generate(Mode::Full, &graph, &["e"]).await;
    assert_eq!((all.elements[0].actions, all.elements[0].unread_outputs), (1, 1));
}
