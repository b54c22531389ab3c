//! The table: each cmdlet with its parameters, and what each becomes.
//!
//! A parameter of a feature that does not exist is in the table as refused, with the reason: it is never ignored.

/// One cmdlet.
#[derive(Debug)]
pub(crate) struct Cmdlet {
    /// As `New-DkvStore`.
    pub(crate) name: &'static str,
    /// The native command, as `["store", "create"]`.
    pub(crate) native: &'static [&'static str],
    /// Its own parameters, in the order of the native command's arguments.
    pub(crate) parameters: &'static [Parameter],
    /// Parameters that it shares with others.
    pub(crate) shared: &'static [Parameter],
}

/// One parameter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameter {
    /// As `InstanceCount`.
    pub(crate) name: &'static str,
    /// Other names for it.
    pub(crate) aliases: &'static [&'static str],
    /// Whether it must be given.
    pub(crate) required: bool,
    /// Its place when it is given without a name.
    pub(crate) position: Option<usize>,
    /// What it becomes.
    pub(crate) becomes: Becomes,
}

/// What a parameter becomes in the native command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Becomes {
    /// No value: this flag.
    Flag(&'static str),
    /// A value: this option.
    Option(&'static str),
    /// A value: an argument.
    Argument,
    /// A comma list: as many arguments.
    Arguments,
    /// A comma list of `key=value`: two arguments for each.
    Pairs,
    /// Refused, because.
    Refused(&'static str),
}

const fn option(name: &'static str, native: &'static str) -> Parameter {
    Parameter {
        name,
        aliases: &[],
        required: false,
        position: None,
        becomes: Becomes::Option(native),
    }
}

const fn flag(name: &'static str, native: &'static str) -> Parameter {
    Parameter {
        name,
        aliases: &[],
        required: false,
        position: None,
        becomes: Becomes::Flag(native),
    }
}

const fn refused(name: &'static str, why: &'static str) -> Parameter {
    Parameter {
        name,
        aliases: &[],
        required: false,
        position: None,
        becomes: Becomes::Refused(why),
    }
}

/// A required parameter that may be given by place.
const fn at(position: usize, name: &'static str, becomes: Becomes) -> Parameter {
    Parameter { name, aliases: &[], required: true, position: Some(position), becomes }
}

const fn required(parameter: Parameter) -> Parameter {
    Parameter { required: true, ..parameter }
}

const fn optional(parameter: Parameter) -> Parameter {
    Parameter { required: false, ..parameter }
}

const fn alias(parameter: Parameter, aliases: &'static [&'static str]) -> Parameter {
    Parameter { aliases, ..parameter }
}

use Becomes::{Argument, Arguments, Pairs};

/// Of every cmdlet that talks to managers.
const ADMIN: &[Parameter] = &[
    alias(option("Managers", "--managers"), &["Servers"]),
    option("Port", "--port"),
    option("TimeoutSec", "--timeout-sec"),
    flag("Parallel", "--parallel"),
    flag("FailFast", "--fail-fast"),
    option("TokenFile", "--token-file"),
    option("DataDir", "--data-dir"),
    option("Context", "--context"),
    option("Output", "--output"),
];

/// Of those that always ask all managers at once.
const ONLOOKER: &[Parameter] = &[
    alias(option("Managers", "--managers"), &["Servers"]),
    option("Port", "--port"),
    option("TimeoutSec", "--timeout-sec"),
    option("TokenFile", "--token-file"),
    option("DataDir", "--data-dir"),
    option("Context", "--context"),
    option("Output", "--output"),
];

/// Of every cmdlet that talks to a store.
const CLIENT: &[Parameter] = &[
    option("User", "--user"),
    option("PasswordFile", "--password-file"),
    option("Output", "--output"),
];

/// Of those that put load on a store, which they find through its managers or by its nodes.
const LOAD: &[Parameter] = &[
    alias(option("Endpoints", "--endpoint"), &["Servers"]),
    option("Managers", "--managers"),
    option("TokenFile", "--token-file"),
    option("DataDir", "--data-dir"),
    option("Context", "--context"),
    option("TimeoutSec", "--timeout-sec"),
    option("User", "--user"),
    option("PasswordFile", "--password-file"),
    option("Output", "--output"),
];

/// Of those that only read what is remembered.
const LOCAL: &[Parameter] = &[option("Output", "--output")];

const NO_LEASES: Becomes =
    Becomes::Refused("there are no leases in this version; -ExpireAfterSec gives a time to live");
const NO_CONFIRM: Parameter =
    refused("Confirm", "nothing is asked back here; -WhatIf shows what would be done");

/// Every cmdlet that exists.
pub(crate) const CMDLETS: &[Cmdlet] = &[
    Cmdlet {
        name: "Connect-DkvManager",
        native: &["connect"],
        parameters: &[
            alias(
                Parameter { position: Some(0), ..required(option("Managers", "--managers")) },
                &["Servers"],
            ),
            flag("Force", "--force"),
        ],
        shared: ADMIN,
    },
    Cmdlet {
        name: "New-DkvStore",
        native: &["store", "create"],
        parameters: &[
            at(0, "Name", Argument),
            required(option("InstancePrefix", "--instance-prefix")),
            option("InstanceCount", "--instance-count"),
            alias(option("ClustronPort", "--clustron-port"), &["ClusterPort"]),
            option("ClientPort", "--client-port"),
            option("Cpus", "--cpus"),
            option("MaxMemory", "--max-memory"),
            alias(option("Eviction", "--eviction"), &["EvictionPolicy"]),
            option("Io", "--io"),
            option("Replicas", "--replicas"),
            option("Ack", "--ack"),
            option("MinInsync", "--min-insync"),
            option("Read", "--read"),
            option("OnTotalLoss", "--on-total-loss"),
            option("Durability", "--durability"),
            option("PasswordFile", "--password-file"),
            flag("NoProtectedMode", "--no-protected-mode"),
            flag("WhatIf", "--dry-run"),
            NO_CONFIRM,
        ],
        shared: ADMIN,
    },
    Cmdlet {
        name: "Add-DkvInstance",
        native: &["store", "add-instance"],
        parameters: &[
            at(0, "StoreName", Argument),
            alias(option("InstanceName", "--instance"), &[]),
            alias(option("ClustronPort", "--clustron-port"), &["ClusterPort"]),
            option("ClientPort", "--client-port"),
            option("Machine", "--machine"),
            refused(
                "Nodes",
                "add one instance at a time, with -InstanceName -ClustronPort -ClientPort",
            ),
        ],
        shared: ADMIN,
    },
    Cmdlet {
        name: "Start-DkvStore",
        native: &["store", "start"],
        parameters: &[at(0, "Name", Argument), option("InstanceName", "--instance")],
        shared: ADMIN,
    },
    Cmdlet {
        name: "Stop-DkvStore",
        native: &["store", "stop"],
        parameters: &[
            at(0, "Name", Argument),
            option("InstanceName", "--instance"),
            flag("Force", "--force"),
        ],
        shared: ADMIN,
    },
    Cmdlet {
        name: "Get-DkvStore",
        native: &["store", "list"],
        parameters: &[optional(at(0, "Name", Argument)), flag("Detailed", "--detailed")],
        shared: ADMIN,
    },
    Cmdlet {
        name: "Connect-DkvStore",
        native: &["kv", "connect"],
        parameters: &[
            at(0, "StoreName", Argument),
            alias(at(1, "Endpoints", Arguments), &["Servers"]),
            option("TimeoutSec", "--timeout-sec"),
            flag("Force", "--force"),
        ],
        shared: CLIENT,
    },
    Cmdlet {
        name: "Disconnect-DkvStore",
        native: &["kv", "disconnect"],
        parameters: &[],
        shared: LOCAL,
    },
    Cmdlet {
        name: "Get-DkvConnection",
        native: &["kv", "connection"],
        parameters: &[],
        shared: LOCAL,
    },
    Cmdlet {
        name: "Test-DkvConnection",
        native: &["kv", "ping"],
        parameters: &[
            Parameter { position: Some(0), ..option("StoreName", "--store") },
            alias(
                Parameter { position: Some(1), ..option("Endpoints", "--endpoint") },
                &["Servers"],
            ),
            option("TimeoutSec", "--timeout-sec"),
        ],
        shared: CLIENT,
    },
    Cmdlet {
        name: "Set-DkvItem",
        native: &["kv", "set"],
        parameters: &[
            at(0, "Key", Argument),
            at(1, "Value", Argument),
            option("ExpireAfterSec", "--ttl"),
            flag("WhatIf", "--dry-run"),
            Parameter {
                name: "LeaseId",
                aliases: &[],
                required: false,
                position: None,
                becomes: NO_LEASES,
            },
            NO_CONFIRM,
        ],
        shared: CLIENT,
    },
    Cmdlet {
        name: "Get-DkvItem",
        native: &["kv", "get"],
        parameters: &[at(0, "Key", Argument)],
        shared: CLIENT,
    },
    Cmdlet {
        name: "Get-DkvItems",
        native: &["kv", "mget"],
        parameters: &[at(0, "Keys", Arguments)],
        shared: CLIENT,
    },
    Cmdlet {
        name: "Set-DkvItems",
        native: &["kv", "mset"],
        parameters: &[at(0, "Items", Pairs), flag("WhatIf", "--dry-run"), NO_CONFIRM],
        shared: CLIENT,
    },
    Cmdlet {
        name: "Remove-DkvItem",
        native: &["kv", "del"],
        parameters: &[at(0, "Key", Argument)],
        shared: CLIENT,
    },
    Cmdlet {
        name: "Remove-DkvItems",
        native: &["kv", "del"],
        parameters: &[at(0, "Keys", Arguments)],
        shared: CLIENT,
    },
    Cmdlet {
        name: "Refresh-DkvItem",
        native: &["kv", "refresh"],
        parameters: &[at(0, "Key", Argument)],
        shared: CLIENT,
    },
    Cmdlet {
        name: "Set-DkvItemExpiration",
        native: &["kv", "expire"],
        parameters: &[at(0, "Key", Argument), at(1, "TimeToLive", Argument)],
        shared: CLIENT,
    },
    Cmdlet {
        name: "Watch-DkvStoreMetrics",
        native: &["top"],
        parameters: &[
            alias(at(0, "StoreName", Argument), &["Name"]),
            option("RefreshSec", "--interval-sec"),
            option("Count", "--count"),
        ],
        shared: ONLOOKER,
    },
    Cmdlet {
        name: "Get-DkvItemMetadata",
        native: &["kv", "metadata"],
        parameters: &[at(0, "Key", Argument)],
        shared: CLIENT,
    },
    Cmdlet {
        name: "Test-DkvItem",
        native: &["kv", "exists"],
        parameters: &[at(0, "Key", Argument), flag("Detailed", "--detailed")],
        shared: CLIENT,
    },
    Cmdlet {
        name: "Get-DkvCounter",
        native: &["counter", "get"],
        parameters: &[at(0, "Key", Argument)],
        shared: CLIENT,
    },
    Cmdlet {
        name: "Set-DkvCounter",
        native: &["counter", "set"],
        parameters: &[at(0, "Key", Argument), at(1, "Value", Argument)],
        shared: CLIENT,
    },
    Cmdlet {
        name: "Increment-DkvCounter",
        native: &["counter", "incr"],
        parameters: &[at(0, "Key", Argument), optional(at(1, "Delta", Argument))],
        shared: CLIENT,
    },
    Cmdlet {
        name: "Decrement-DkvCounter",
        native: &["counter", "decr"],
        parameters: &[at(0, "Key", Argument), optional(at(1, "Delta", Argument))],
        shared: CLIENT,
    },
    Cmdlet {
        name: "Test-DkvLatency",
        native: &["bench", "latency"],
        parameters: &[
            Parameter { position: Some(0), ..required(option("StoreName", "--store")) },
            required(option("Iterations", "--iterations")),
            option("ObjectSizeBytes", "--object-size"),
        ],
        shared: LOAD,
    },
    Cmdlet {
        name: "Test-DkvThroughput",
        native: &["bench", "throughput"],
        parameters: &[
            Parameter { position: Some(0), ..required(option("StoreName", "--store")) },
            required(option("DurationSec", "--duration-sec")),
            required(option("Concurrency", "--concurrency")),
            option("ObjectSizeBytes", "--object-size"),
        ],
        shared: LOAD,
    },
    Cmdlet {
        name: "Benchmark-DkvStore",
        native: &["bench", "profile"],
        parameters: &[
            Parameter { position: Some(0), ..required(option("StoreName", "--store")) },
            Parameter { position: None, ..at(0, "Profile", Argument) },
            option("DurationSec", "--duration-sec"),
            option("Concurrency", "--concurrency"),
            option("ObjectSizeBytes", "--object-size"),
        ],
        shared: LOAD,
    },
    Cmdlet {
        name: "Stress-DkvStore",
        native: &["bench", "stress"],
        parameters: &[
            Parameter { position: Some(0), ..required(option("StoreName", "--store")) },
            required(option("DurationSec", "--duration-sec")),
            required(option("Concurrency", "--concurrency")),
            option("ObjectSizeBytes", "--object-size"),
        ],
        shared: LOAD,
    },
];
