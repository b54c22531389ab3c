//! `dkv generate`: what Prometheus and Grafana need to show a group of managers and its stores, made for it.

mod dashboard;

use crate::clustron::Spelling;
use crate::failure::Failure;
use crate::output;
use crate::reach::{self, ReachArgs};
use dkv_agent::coordinate;
use std::path::PathBuf;

/// What is to be made.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// A dashboard of Grafana for all that /metrics tells, on standard output
    #[command(after_help = "\
Examples:
  dkv generate grafana-dashboard > dkv-dashboard.json

Grafana takes it under Dashboards, New, Import. It asks for a Prometheus that scrapes all managers, as one does that runs with what
dkv generate prometheus-config says, and has choices of store, node and command.")]
    GrafanaDashboard {
        /// Title of the dashboard
        #[arg(long, env = "DKV_TITLE", default_value = "DKV", value_name = "TEXT")]
        title: String,
    },
    /// A configuration of Prometheus that scrapes all managers, on standard output
    #[command(after_help = "\
Examples:
  dkv generate prometheus-config > prometheus.yml
  dkv generate prometheus-config TestStore --bearer-token-file /etc/prometheus/dkv.token

With the name of a store only its machines are scraped, and what they tell of other stores is dropped. The file of --bearer-token-file
has to be there, readable for Prometheus: dkv generate prometheus-token writes what belongs into it.")]
    PrometheusConfig {
        /// One store alone
        name: Option<String>,
        /// Where Prometheus finds the token
        #[arg(
            long,
            env = "DKV_BEARER_TOKEN_FILE",
            default_value = "/etc/prometheus/dkv.token",
            value_name = "FILE"
        )]
        bearer_token_file: PathBuf,
        /// Seconds between two scrapes
        #[arg(long, env = "DKV_SCRAPE_INTERVAL_SEC", default_value_t = 15, value_name = "SECONDS",
            value_parser = clap::value_parser!(u32).range(1..=3600))]
        scrape_interval_sec: u32,
        #[command(flatten)]
        reach: Box<ReachArgs>,
    },
    /// The token by which Prometheus may read /metrics of every manager of the group, and do nothing else
    #[command(after_help = "\
Examples:
  dkv generate prometheus-token > dkv.token

It is made of the token of the managers, which cannot be made of it. Who has it can read the metrics from any machine.")]
    PrometheusToken {
        #[command(flatten)]
        reach: Box<ReachArgs>,
    },
}

/// Runs it.
pub(crate) fn run(command: &Command, spelling: Spelling) -> Result<u8, Failure> {
    match command {
        Command::GrafanaDashboard { title } => output::json(&dashboard::dashboard(title)),
        Command::PrometheusConfig { name, bearer_token_file, scrape_interval_sec, reach } => {
            let managers = managers(name.as_deref(), reach, spelling)?;
            let token_file = bearer_token_file.to_string_lossy();
            let config = config(name.as_deref(), &managers, &token_file, *scrape_interval_sec);
            output::write(config.as_bytes());
        }
        Command::PrometheusToken { reach } => {
            output::line(&reach::token(reach)?.metrics_token());
        }
    }
    Ok(0)
}

/// The managers of the group, or those of the machines of a store.
fn managers(
    name: Option<&str>,
    reach: &ReachArgs,
    spelling: Spelling,
) -> Result<Vec<String>, Failure> {
    let group = reach.group(None, spelling)?.group;
    let Some(name) = name else { return Ok(group.managers()) };
    let listing = coordinate::list(&group);
    let store = crate::commands::store::find(&listing, name)?;
    let mut machines: Vec<String> =
        store.nodes.iter().map(|node| node.record.machine.clone()).collect();
    machines.sort_unstable();
    machines.dedup();
    Ok(machines)
}

/// Text as YAML takes it in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn config(store: Option<&str>, managers: &[String], token_file: &str, interval_s: u32) -> String {
    use std::fmt::Write;
    let mut text = format!(
        "# Scrapes the managers of a DKV group, each of which tells of the nodes of its machine.\n\
         # The token: dkv generate prometheus-token > {token_file}\n\
         scrape_configs:\n  - job_name: dkv\n    scrape_interval: {interval_s}s\n    metrics_path: /metrics\n    \
         authorization:\n      type: Bearer\n      credentials_file: {}\n    static_configs:\n      - targets:\n",
        quoted(token_file)
    );
    // Writing to a string cannot fail.
    for manager in managers {
        let _ = writeln!(text, "          - {}", quoted(manager));
    }
    if let Some(store) = store {
        // What speaks of no store, as of the manager itself, stays.
        let _ = write!(
            text,
            "    metric_relabel_configs:\n      - source_labels: [store]\n        regex: {}\n        action: keep\n",
            quoted(&format!("({})?", literal(store)))
        );
    }
    text
}

/// A pattern that matches this text alone.
fn literal(text: &str) -> String {
    let mut pattern = String::new();
    for c in text.chars() {
        if !c.is_ascii_alphanumeric() && c != '_' && c != '-' {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_names_all_managers_and_keeps_one_store() {
        let managers = ["10.0.0.11:7801".to_owned(), "[fd00::1]:7801".to_owned()];
        let all = config(None, &managers, "/etc/it's", 15);
        assert!(
            all.contains("          - '10.0.0.11:7801'\n          - '[fd00::1]:7801'\n"),
            "{all}"
        );
        assert!(all.contains("      credentials_file: '/etc/it''s'\n"), "{all}");
        assert!(!all.contains("metric_relabel_configs"), "{all}");
        let one = config(Some("a.b"), &managers, "t", 5);
        assert!(one.contains("    scrape_interval: 5s\n"), "{one}");
        assert!(one.ends_with("        regex: '(a\\.b)?'\n        action: keep\n"), "{one}");
    }
}
