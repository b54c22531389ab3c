//! Cases of the translation as data: a line as it is typed, and the native line or the error it becomes.

use super::*;

/// Words of a line; `'…'` keeps blanks together.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    parts
        .flat_map(|(n, part)| -> Vec<String> {
            if n % 2 == 1 {
                vec![part.to_owned()]
            } else {
                part.split_whitespace().map(str::to_owned).collect()
            }
        })
        .collect()
}

#[test]
fn cmdlets_become_native_commands() {
    let cases = [
        (
            "Connect-DkvManager -Managers 10.0.0.11:7801,10.0.0.12:7801",
            "connect --managers=10.0.0.11:7801,10.0.0.12:7801",
        ),
        ("Connect-DkvManager -Servers a, b -Force", "connect --managers=a,b --force"),
        ("connect-dkvmanager a,b -port 7802", "connect --managers=a,b --port=7802"),
        (
            "New-DkvStore -Name TestStore -InstancePrefix node -InstanceCount 2 -ClustronPort 7811 -ClientPort 7861",
            "store create --instance-prefix=node --instance-count=2 --clustron-port=7811 --client-port=7861 -- TestStore",
        ),
        (
            "NEW-DKVSTORE TestStore -instanceprefix node -WhatIf",
            "store create --instance-prefix=node --dry-run -- TestStore",
        ),
        (
            "New-DkvStore -Nam S -InstanceP node -InstanceC 3 -Clus 7811 -Clie 7861",
            "store create --instance-prefix=node --instance-count=3 --clustron-port=7811 --client-port=7861 -- S",
        ),
        (
            "New-DkvStore -Name:S -InstancePrefix:n -Parallel:$false",
            "store create --instance-prefix=n -- S",
        ),
        (
            "New-DkvStore S -InstancePrefix n -Parallel -FailFast -TimeoutSec 5",
            "store create --instance-prefix=n --timeout-sec=5 --parallel --fail-fast -- S",
        ),
        ("Get-DkvStore", "store list"),
        ("Watch-DkvStoreMetrics -StoreName S -RefreshSec 2", "top --interval-sec=2 -- S"),
        ("Get-DkvStore TestStore -Detailed", "store list --detailed -- TestStore"),
        ("Get-DkvStore -o json", "store list --output=json"),
        ("Start-DkvStore TestStore", "store start -- TestStore"),
        ("Start-DkvStore -Name T -InstanceName node1", "store start --instance=node1 -- T"),
        ("Stop-DkvStore T -Force", "store stop --force -- T"),
        (
            "Add-DkvInstance -StoreName T -InstanceName node3 -ClustronPort 7813 -ClientPort 7863",
            "store add-instance --instance=node3 --clustron-port=7813 --client-port=7863 -- T",
        ),
        (
            "Connect-DkvStore TestStore 127.0.0.1:7861,127.0.0.1:7862 -TimeoutSec 3",
            "kv connect --timeout-sec=3 --output=table -- TestStore 127.0.0.1:7861 127.0.0.1:7862",
        ),
        ("Disconnect-DkvStore", "kv disconnect --output=table"),
        ("Get-DkvConnection", "kv connection --output=table"),
        ("Test-DkvConnection S h:1", "kv ping --store=S --endpoint=h:1 --output=table"),
        (
            "Test-DkvLatency S -Iterations 1000 -ObjectSizeBytes 64",
            "bench latency --store=S --iterations=1000 --object-size=64",
        ),
        (
            "Test-DkvThroughput -StoreName S -DurationSec 5 -Concurrency 8",
            "bench throughput --store=S --duration-sec=5 --concurrency=8",
        ),
        (
            "Benchmark-DkvStore S -Profile ReadHeavy -Concurrency 8",
            "bench profile --store=S --concurrency=8 -- ReadHeavy",
        ),
        (
            "Stress-DkvStore S -DurationSec 5 -Concurrency 8 -Output json",
            "bench stress --store=S --duration-sec=5 --concurrency=8 --output=json",
        ),
        ("Set-DkvItem a 1", "kv set --output=table -- a 1"),
        ("Set-DkvItem -Key a -Value -5", "kv set --output=table -- a -5"),
        ("Set-DkvItem -Value '-x y' -Key a", "kv set --output=table -- a '-x y'"),
        (
            "Set-DkvItem a 1 -ExpireAfterSec 60 -WhatIf",
            "kv set --ttl=60 --dry-run --output=table -- a 1",
        ),
        ("Get-DkvItem a", "kv get --output=table -- a"),
        ("Get-DkvItem a -Output json", "kv get --output=json -- a"),
        ("Get-DkvItems -Keys a,b , c", "kv mget --output=table -- a b c"),
        ("Set-DkvItems -Items a=1,b=2", "kv mset --output=table -- a 1 b 2"),
        ("Set-DkvItems '@{a=1; \"b c\"=x=y}'", "kv mset --output=table -- a 1 'b c' x=y"),
        ("Set-DkvItem a x, -ExpireAfterSec 60", "kv set --ttl=60 --output=table -- a x,"),
        ("Set-DkvItem a 1 -Confirm:$false", "kv set --output=table -- a 1"),
        ("Remove-DkvItem a", "kv del --output=table -- a"),
        ("Remove-DkvItems a,b", "kv del --output=table -- a b"),
        ("Refresh-DkvItem a", "kv refresh --output=table -- a"),
        ("Set-DkvItemExpiration a 00:05:00", "kv expire --output=table -- a 00:05:00"),
        ("Get-DkvItemMetadata a", "kv metadata --output=table -- a"),
        ("Test-DkvItem a", "kv exists -- a"),
        ("Test-DkvItem a -Detailed", "kv exists --detailed --output=table -- a"),
        ("Get-DkvCounter c", "counter get --output=table -- c"),
        ("Set-DkvCounter c -7", "counter set --output=table -- c -7"),
        ("Increment-DkvCounter c", "counter incr --output=table -- c"),
        ("Decrement-DkvCounter -Key c -Delta 5", "counter decr --output=table -- c 5"),
    ];
    let mut seen = std::collections::BTreeSet::new();
    for (typed, expected) in cases {
        let typed_words = words(typed);
        seen.insert(typed_words[0].to_ascii_lowercase());
        assert_eq!(translate(&typed_words), Ok(Translated::Command(words(expected))), "{typed}");
    }
    let missing: Vec<_> =
        CMDLETS.iter().filter(|c| !seen.contains(&c.name.to_ascii_lowercase())).collect();
    assert!(missing.is_empty(), "cmdlets without a case: {missing:?}");
}

#[test]
fn what_makes_no_sense_is_refused_and_never_ignored() {
    let cases = [
        ("New-DkvStore", "New-DkvStore needs -Name"),
        ("New-DkvStore -Name S", "New-DkvStore needs -InstancePrefix"),
        ("New-DkvStore S -Inst node", "-Inst may mean -InstancePrefix or -InstanceCount"),
        ("New-DkvStore S -InstancePrefix n -Colour 2", "New-DkvStore has no parameter -Colour"),
        ("New-DkvStore S T -InstancePrefix n", "New-DkvStore has no place for \"T\""),
        ("New-DkvStore S -Name T", "New-DkvStore has no place for \"S\""),
        ("New-DkvStore -Name S -Name T", "-Name is given twice"),
        ("New-DkvStore -Name -InstancePrefix n", "-Name needs a value"),
        ("New-DkvStore S -InstancePrefix", "-InstancePrefix needs a value"),
        ("Stop-DkvStore S -Force:maybe", "-Force is a switch and \"maybe\" is no answer to it"),
        ("Set-DkvItem a 1 -LeaseId x", "-LeaseId is not offered: there are no leases"),
        ("Set-DkvItem a 1 -Confirm", "-Confirm is not offered: nothing is asked back"),
        ("Add-DkvInstance S -Nodes x", "-Nodes is not offered: add one instance at a time"),
        ("Set-DkvItems a", "\"a\" is not key=value"),
        ("Watch-DkvKey a", "there is no cmdlet Watch-DkvKey"),
        ("Get-DkvItem", "Get-DkvItem needs -Key"),
    ];
    for (typed, expected) in cases {
        let failure = translate(&words(typed)).expect_err(typed);
        assert!(failure.what.starts_with(expected), "{typed}: {failure}");
        assert_eq!(failure.exit, crate::failure::Exit::Usage, "{typed}");
    }
}

#[test]
fn help_names_every_parameter() {
    let Ok(Translated::Help(text)) = translate(&words("New-DkvStore -?")) else {
        panic!("no help")
    };
    for name in [
        "-Name",
        "-InstancePrefix",
        "-ClientPort",
        "-WhatIf",
        "-Managers",
        "dkv store create --help",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
}

#[test]
fn every_cmdlet_becomes_a_line_that_the_native_parser_accepts() {
    use clap::CommandFactory;
    for cmdlet in CMDLETS {
        let mut command = crate::args::Cli::command();
        for word in cmdlet.native {
            command =
                command.find_subcommand(word).unwrap_or_else(|| panic!("{}", cmdlet.name)).clone();
        }
        for parameter in parameters(cmdlet) {
            if let Becomes::Flag(native) | Becomes::Option(native) = parameter.becomes {
                let long = native.trim_start_matches("--");
                let argument = command.get_arguments().find(|a| a.get_long() == Some(long));
                let argument =
                    argument.unwrap_or_else(|| panic!("{} has no {native}", cmdlet.name));
                let takes_value = argument.get_action().takes_values();
                assert_eq!(
                    takes_value,
                    matches!(parameter.becomes, Becomes::Option(_)),
                    "{} {native}",
                    cmdlet.name
                );
            }
        }
    }
}
