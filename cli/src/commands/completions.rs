//! `dkv completions`: a script for the shell, made from the tree of commands.

use crate::output;
use clap_complete::Shell;

/// The flags of `dkv completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dkv completions bash > /etc/bash_completion.d/dkv
  dkv completions zsh > ~/.zfunc/_dkv
  dkv completions fish > ~/.config/fish/completions/dkv.fish")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Known,
}

/// The shells that are served.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

/// Writes the script.
pub(crate) fn run(args: &Args, tree: &mut clap::Command) {
    let shell = match args.shell {
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, tree, "dkv", &mut script);
    output::write(&script);
}
