//! What the documents say of this repository is true.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The Markdown files at the root.
fn documents() -> Vec<(String, String)> {
    let names = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".md")).map(|name| (name.clone(), read(&name))).collect()
}

/// Everything that stands in single backticks, outside of fenced blocks.
fn quoted(text: &str) -> Vec<String> {
    let prose: Vec<&str> = text.split("```").step_by(2).collect();
    prose.iter().flat_map(|part| part.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// Quotes that name a file or a folder of this repository, with the function after `::`, if there is one.
fn named_paths(text: &str) -> Vec<(String, Option<String>)> {
    let quotes = quoted(text).into_iter().filter(|quote| quote.contains('/') && !quote.contains([' ', ':']));
    let functions = quoted(text).into_iter().filter(|quote| quote.contains(".rs::"));
    let split = functions.filter_map(|quote| {
        quote.split_once("::").map(|(path, function)| (path.to_owned(), Some(function.to_owned())))
    });
    quotes.map(|path| (path, None)).chain(split).collect()
}

#[test]
fn every_path_and_function_that_a_document_names_exists() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (document, text) in documents() {
        for (path, function) in named_paths(&text) {
            // In an adapter, whichever.
            let path = if path.starts_with("tests/") { format!("actornot-sqlite/{path}") } else { path };
            let file = root().join(&path);
            let found = match &function {
                None => file.exists(),
                Some(function) => fs::read_to_string(&file).is_ok_and(|text| {
                    text.contains(&format!("fn {function}(")) || text.contains(&format!("fn {function}<"))
                }),
            };
            checked += 1;
            if !found {
                wrong.push(format!("{document} names {path} {function:?}, which is not there"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 50, "only {checked} paths were found: backticks are not paired");
}

#[test]
fn every_link_to_this_repository_leads_somewhere() {
    let mut wrong = Vec::new();
    for (document, text) in documents() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap();
            if !link.contains("://") && !root().join(path).exists() {
                wrong.push(format!("{document} links to {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_architecture_leaves_no_file_of_core_out() {
    let named: Vec<String> =
        named_paths(&read("ARCHITECTURE.md")).into_iter().map(|(path, _)| path).collect();
    let mut missing = Vec::new();
    for entry in fs::read_dir(root().join("actornot-core/src")).unwrap() {
        let path = format!("actornot-core/src/{}", entry.unwrap().file_name().to_string_lossy());
        if !named.contains(&path) {
            missing.push(path);
        }
    }
    assert!(missing.is_empty(), "ARCHITECTURE.md does not name {missing:?}");
}

#[test]
fn the_documents_name_the_rust_version_of_the_manifest() {
    let manifest = read("Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    let version = version.trim_matches('"');
    assert!(read("README.md").contains(&format!("Rust {version} or newer")));
    assert!(read("CONTRIBUTING.md").contains(&format!("({version} or newer)")));
}

#[test]
fn every_crate_forbids_unsafe_code() {
    let manifest = read("Cargo.toml");
    assert!(manifest.contains("unsafe_code = \"forbid\""));
    let members = manifest.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    for member in members.split('"').skip(1).step_by(2) {
        let lints = read(&format!("{member}/Cargo.toml"));
        assert!(lints.contains("[lints]\nworkspace = true"), "{member} does not take the workspace's lints");
    }
}

#[test]
fn ci_runs_the_test_command_of_the_readme() {
    assert!(read("README.md").contains("cargo xtask test "));
    let ci = read(".ci/run");
    assert!(ci.contains("\ncargo xtask check\n") && ci.contains("\ncargo xtask test\n"));
}
