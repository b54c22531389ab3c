//! `cargo run -p xtask`: the project's rules, checked over the whole tree. The same checks run as tests, each with a
//! planted violation, so that a check that can no longer fail is noticed.

mod imports;
mod sources;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let root = sources::root();
    let mut found = imports::check(&imports::workspace(&root));
    let files = sources::read(&root);
    found.extend(tidy::check(&files));
    for violation in &found {
        println!("{violation}");
    }
    if found.is_empty() {
        println!("{} files checked, no violation", files.len());
        return ExitCode::SUCCESS;
    }
    println!("{} violations", found.len());
    ExitCode::FAILURE
}
