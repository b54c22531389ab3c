//! Who may import whom: the table of the architecture, held against what Cargo says the crates import.
//!
//! A crate that is not in the table is a violation too, so that a new one is decided upon and not slipped in.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// One crate of ours may import these crates of ours, and no other.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("dkv-protocol", &[]),
    ("dkv-table", &[]),
    ("dkv-io", &[]),
    ("dkv-cluster", &["dkv-protocol"]),
    ("dkv-shard", &["dkv-protocol", "dkv-table", "dkv-cluster"]),
    ("dkv-client", &["dkv-protocol", "dkv-node"]),
    ("dkv-node", &["dkv-shard", "dkv-cluster", "dkv-protocol", "dkv-io", "dkv-table"]),
    ("dkv-catalog", &["dkv-protocol"]),
    (
        "dkv-sim",
        &["dkv-shard", "dkv-cluster", "dkv-catalog", "dkv-protocol", "dkv-client", "dkv-table"],
    ),
    ("dkv-agent", &["dkv-catalog", "dkv-protocol", "dkv-client"]),
    ("dkv-bench", &["dkv-protocol", "dkv-client", "dkv-io"]),
    ("dkv-cli", &["dkv-agent", "dkv-node", "dkv-client", "dkv-bench", "dkv-protocol"]),
    ("xtask", &[]),
];

/// Tests may drive a crate from outside: these may be anybody's development dependency.
const TESTS_MAY_IMPORT: &[&str] = &["dkv-protocol", "dkv-client"];

/// The micro-benchmarks measure hot structures from inside, on the memory that a node gives them: what else may be the
/// development dependency of their crate.
const MICRO_BENCHMARKS_MAY_IMPORT: (&str, &[&str]) = ("dkv-bench", &["dkv-table", "dkv-node"]);

/// The crate of the tests of real processes: it may import whatever it tests, and nobody may import it.
const TESTS: &str = "dkv-tests";

/// One import between two crates of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Import {
    /// Who imports.
    pub(crate) from: String,
    /// What.
    pub(crate) to: String,
    /// Whether for tests alone.
    pub(crate) for_tests: bool,
}

/// The crates of the workspace and the imports between them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Workspace {
    /// Names of the crates.
    pub(crate) crates: BTreeSet<String>,
    /// Their imports of each other.
    pub(crate) imports: Vec<Import>,
}

/// Asks Cargo.
pub(crate) fn workspace(root: &Path) -> Workspace {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root)
        .output()
        .expect("cargo can be run: it runs this");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    parse(&serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON"))
}

fn parse(metadata: &serde_json::Value) -> Workspace {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let crates: BTreeSet<String> = packages.iter().map(|package| text(&package["name"])).collect();
    let mut imports = Vec::new();
    for package in &packages {
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = text(&dependency["name"]);
            if crates.contains(&to) {
                let for_tests = dependency["kind"] == "dev";
                imports.push(Import { from: text(&package["name"]), to, for_tests });
            }
        }
    }
    Workspace { crates, imports }
}

/// Every breach of the table, as a sentence.
pub(crate) fn check(workspace: &Workspace) -> Vec<String> {
    let allowed = |name: &str| MAY_IMPORT.iter().find(|(from, _)| *from == name).map(|row| row.1);
    let (micro, measured) = MICRO_BENCHMARKS_MAY_IMPORT;
    let mut found = Vec::new();
    for name in &workspace.crates {
        if name != TESTS && allowed(name).is_none() {
            found.push(format!("{name}: not in the table of who may import whom"));
        }
    }
    for Import { from, to, for_tests } in &workspace.imports {
        let fine = from == TESTS
            || allowed(from).is_some_and(|to_list| to_list.contains(&to.as_str()))
            || (*for_tests && TESTS_MAY_IMPORT.contains(&to.as_str()))
            || (*for_tests && from == micro && measured.contains(&to.as_str()));
        if !fine {
            found.push(format!("{from}: must not import {to}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_keeps_the_import_table() {
        let workspace = workspace(&crate::sources::root());
        assert!(workspace.crates.len() >= 9, "only saw {:?}", workspace.crates);
        assert!(workspace.imports.iter().any(|i| i.from == "dkv-cli" && i.to == "dkv-agent"));
        let found = check(&workspace);
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    #[test]
    fn a_planted_import_is_found() {
        let metadata = serde_json::json!({"packages": [
            {"name": "dkv-table", "dependencies": [{"name": "dkv-protocol", "kind": null}]},
            {"name": "dkv-protocol", "dependencies": []},
            {"name": "dkv-io", "dependencies": [{"name": "dkv-protocol", "kind": "dev"}, {"name": "libc", "kind": null}]},
            {"name": "dkv-extras", "dependencies": []},
        ]});
        assert_eq!(
            check(&parse(&metadata)),
            [
                "dkv-extras: not in the table of who may import whom",
                "dkv-table: must not import dkv-protocol"
            ]
        );
    }

    #[test]
    fn a_development_dependency_on_a_driver_crate_is_still_refused() {
        let metadata = serde_json::json!({"packages": [
            {"name": "dkv-shard", "dependencies": [{"name": "dkv-node", "kind": "dev"}]},
            {"name": "dkv-node", "dependencies": []},
        ]});
        assert_eq!(check(&parse(&metadata)), ["dkv-shard: must not import dkv-node"]);
    }
}
