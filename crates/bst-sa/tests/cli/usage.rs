//! Help, completions, and arguments that are wrong.

use crate::support::{Program, Ran};

const COMMANDS: [&str; 10] =
    ["demo", "generate", "instantiate", "prime", "simulate", "show", "graph", "exec", "doctor", "completions"];

#[tokio::test]
async fn every_command_explains_itself_with_examples() {
    let help = Program::new(["--help"]).done().await.stdout;
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not listed: {help}");
        let help = Program::new([command, "--help"]).done().await.stdout;
        let (_, examples) = help.split_once("\nExamples:\n").unwrap_or_else(|| panic!("{command}: {help}"));
        assert!(examples.starts_with(&format!("  bst-sa {command}")), "{command}: {examples}");
    }
}

/// The examples are taken at their word: each parses.
#[tokio::test]
async fn examples_are_accepted() {
    for command in COMMANDS {
        let help = Program::new([command, "--help"]).done().await.stdout;
        for line in help.lines().filter_map(|line| line.strip_prefix("  bst-sa ")) {
            let arguments = line.split(" | ").next().unwrap_or_default().split(" > ").next().unwrap_or_default();
            // After the words of the example, so that only parsing takes place.
            let words = arguments.split_whitespace().take_while(|word| *word != "--");
            let ran = Program::new(words.chain(["--help"])).run().await;
            assert_eq!(ran.code, Some(0), "{line}: {ran:#?}");
        }
    }
}

#[tokio::test]
async fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Program::new(["completions", shell]).done().await.stdout;
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: no {command}");
        }
        assert!(script.contains("--reference-layout") || script.contains("reference-layout"), "{shell}");
    }
}

/// As with `| head -1`.
#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    for arguments in [&["completions", "bash"][..], &["doctor"], &["--help"]] {
        let mut child = Program::new(arguments).start();
        drop(child.stdout.take());
        let ran = Ran::of(child, &[]).await;
        assert_eq!((ran.code, &*ran.stderr), (Some(0), ""), "{arguments:?}");
    }
}

/// Shells that are not installed check nothing; bash is wherever tests run in CI.
#[tokio::test]
async fn completions_parse() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Program::new(["completions", shell]).done().await.stdout;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("script");
        std::fs::write(&file, script).unwrap();
        match tokio::process::Command::new(shell).arg("-n").arg(&file).output().await {
            Ok(output) => assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => eprintln!("{shell} is not installed, its script was not parsed: {error}"),
        }
    }
}

#[tokio::test]
async fn wrong_arguments_end_with_two() {
    for arguments in [
        &["primed"][..],
        &["prime", "--graph"],
        &["prime", "--graph", "g.json", "--jobs", "many"],
        &["instantiate", "--graph", "g.json", "--lookup", "strong"],
        &["show"],
        &["show", "--file", "f", "--digest", "d"],
        &["generate", "--graph", "g.json", "--config", "buildstream.conf"],
        &["graph", "--option", "arch"],
        &["doctor", "--server", "https://host", "--tls-cert", "own.crt"],
        &["doctor", "--server", "https://host", "--tls-key", "own.key"],
        &["show", "--file", "f", "--json", "--dot"],
        &["exec", "--env", "=x", "--", "true"],
        &["exec", "--platform", "no-value", "--", "true"],
        &["exec"],
        &["completions", "tcsh"],
    ] {
        let ran = Program::new(arguments).run().await;
        ran.expect_code(2);
        assert!(ran.stdout.is_empty() && ran.stderr.contains("--help"), "{arguments:?}: {ran:#?}");
    }
}

/// Without a graph file, the elements are those of a BuildStream project.
#[tokio::test]
async fn without_a_graph_buildstream_is_asked() {
    for arguments in [&["generate", "app.bst"][..], &["prime", "app.bst"], &["show", "app.bst"], &["graph", "app.bst"]]
    {
        let ran = Program::new(arguments).env("PATH", "/nowhere").run().await;
        ran.expect_failure(1, &["BuildStream was not found", "--graph FILE"]);
    }
}

#[tokio::test]
async fn urls_that_are_none_are_refused() {
    let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855/0";
    for url in ["ftp://host", "127.0.0.1:50051", "http://", ""] {
        let ran = Program::new(["show", "--digest", digest, "--server", url]).run().await;
        ran.expect_failure(2, &[url, "unix:"]);
    }
}
