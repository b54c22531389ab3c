//! Every limit in one place, with its unit, its origin and the cost of raising it.

/// Slots of a store (Redis Cluster specification).
pub const SLOTS: u16 = 16384;
/// Slots in a range. Fixed: the range is eight bits of a SCAN cursor.
pub const SLOTS_PER_RANGE: u16 = 64;
/// Ranges of a store.
pub const RANGES: usize = (SLOTS / SLOTS_PER_RANGE) as usize;
/// Highest position of a range's log. It is the version of a record, which has 48 bits: they last for centuries, because
/// ranges begin at unix seconds << 16.
pub const INDEX_MAX: u64 = (1 << 48) - 1;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 64 * 1024;
/// Longest value, in bytes (Redis' own `proto-max-bulk-len`).
pub const VALUE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Most arguments of one command (Redis' own limit).
pub const ARGS_MAX: usize = 1024 * 1024;
/// Longest inline command and longest length line, in bytes (Redis' own limit).
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Before AUTH: most arguments, longest argument (Redis' own limits).
pub const UNAUTHENTICATED_ARGS_MAX: usize = 10;
/// Before AUTH: the longest argument, in bytes.
pub const UNAUTHENTICATED_BULK_BYTES_MAX: usize = 16 * 1024;
/// Before AUTH: the longest request, in bytes. Enough for any HELLO with AUTH; a stranger costs no more than this.
pub const UNAUTHENTICATED_REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Longest request, in bytes: one value of the greatest length with its key and options. Less than a cluster frame, so
/// that whatever a client can say can also be forwarded (an argument is never longer in a batch than in RESP).
pub const REQUEST_BYTES_MAX: usize = VALUE_BYTES_MAX + 512 * 1024;

/// Commands that one transaction may hold: some ten milliseconds in which nobody else on its shard has a turn.
pub const TRANSACTION_COMMANDS_MAX: usize = 64 * 1024;
/// Keys that one connection may watch: each is looked up again by EXEC.
pub const WATCHED_KEYS_MAX: usize = 1024;
/// Bytes that the commands and watched keys of one connection may take until EXEC: they travel to their shard as one request.
pub const TRANSACTION_BYTES_MAX: usize = REQUEST_BYTES_MAX;
/// Bytes that a transaction may have written before its next write, for the copies of its range; that one may write a
/// value of the greatest length.
pub const TRANSACTION_WRITTEN_BYTES_MAX: usize = VALUE_BYTES_MAX / 2;

/// Unsent reply bytes of one connection, above which its next command waits until the client has read half of them; a client
/// that reads too slowly is closed. One reply may exceed it. A link to another node holds its next replies back likewise.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Unsent reply bytes of all connections of one shard, above which none of them gets more before it has read what it has,
/// and the slow readers among them are closed.
pub const OUTPUT_TOTAL_BYTES_MAX: usize = 4 * OUTPUT_BYTES_MAX;
/// Unsent reply bytes of all connections of one shard, above which the one that has read nothing for the longest is
/// closed at once: four of the greatest values.
pub const OUTPUT_TOTAL_BYTES_HARD_MAX: usize = 4 * VALUE_BYTES_MAX;
/// Unsent reply bytes of one connection before AUTH.
pub const UNAUTHENTICATED_OUTPUT_BYTES_MAX: usize = 1024;
/// Commands of one connection that may wait for other shards; beyond it the connection is not read.
pub const WAITING_PER_CONNECTION_MAX: usize = 4096;
/// Channels and patterns that one connection may be subscribed to. Each is looked up when the connection ends.
pub const SUBSCRIPTIONS_PER_CONNECTION_MAX: usize = 64 * 1024;
/// Bytes that the subscriptions of all connections of one shard may take, the compiled patterns among them.
pub const SUBSCRIPTION_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Unsent bytes of one subscriber above which it is cut off (Redis' own default for its hard limit). A message goes to any
/// number of subscribers, so nobody waits for a slow one.
pub const SUBSCRIBER_OUTPUT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The same when it has had so many for [`SUBSCRIBER_OUTPUT_MS_MAX`] (Redis' own default for its soft limit).
pub const SUBSCRIBER_OUTPUT_BYTES_SOFT_MAX: usize = 8 * 1024 * 1024;
/// See [`SUBSCRIBER_OUTPUT_BYTES_SOFT_MAX`]; milliseconds.
pub const SUBSCRIBER_OUTPUT_MS_MAX: u64 = 60_000;
/// Bytes after which a line of MONITOR is cut.
pub const MONITOR_LINE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of lines of MONITOR that one shard writes in a turn; what is executed behind them is not shown.
pub const MONITOR_LINES_BYTES_MAX: usize = 256 * 1024;
/// Batches that one shard may have under way to another; beyond it the connections that want more are not read.
/// Mailboxes are sized from it, so that a push can never fail.
pub const BATCHES_UNDER_WAY_MAX: usize = 16;
/// Bytes after which a batch is closed and sent. One request may exceed it.
pub const BATCH_BYTES_SOFT_MAX: usize = 256 * 1024;
/// Bytes of requests that one shard may have queued or under way to another, whatever their number; beyond it the
/// connections that want more are not read. One request may exceed it.
pub const LINK_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of replies that one shard expects from another at a time, going by what its connections got last; beyond it the
/// connections that want more are not read, so that great values do not stand in the way of all others for long. One
/// reply may exceed it.
pub const REPLIES_EXPECTED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest cluster frame, in bytes: one value of the greatest length with its key and headers fits.
pub const FRAME_BYTES_MAX: usize = VALUE_BYTES_MAX + 1024 * 1024;

/// Levels of a reply that is read. Replies of commands have three or four; the state of a reader grows with it.
pub const REPLY_DEPTH_MAX: usize = 16;
/// Largest frame before a cluster link is proven, in bytes.
pub const HELLO_BYTES_MAX: usize = 4096;
/// Largest reply of one request that travels between shards, in bytes.
pub const REPLY_BYTES_MAX: usize = VALUE_BYTES_MAX + 64 * 1024;
/// Bytes of replies after which a batch of them is closed and sent, and the requests left go on in the next. One reply
/// may exceed it, and fits a frame behind so many bytes.
pub const REPLIES_BYTES_SOFT_MAX: usize = 512 * 1024;

/// Least memory limit of a node for each of its shards, in bytes: a table takes memory in pieces of 2 MiB and works with a
/// few of them.
pub const MEMORY_BYTES_PER_SHARD_MIN: u64 = 8 * 1024 * 1024;

/// Client connections of a node (Redis' own default for `maxclients`).
pub const CLIENTS_MAX: usize = 10_000;
/// Users of a store. All of them travel together, to every manager and node.
pub const USERS_MAX: usize = 1024;
/// Longest line of a user with its rules, in bytes.
pub const USER_LINE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the lines of all users of a store. The managers keep them in memory and in each snapshot of their log.
pub const USERS_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of the lines that are changed at once: one entry of the managers' log.
pub const USER_CHANGES_BYTES_MAX: usize = 256 * 1024;
/// Nodes of a store on one machine: as many as the documented client port range holds.
pub const NODES_PER_MACHINE_MAX: u32 = 39;

/// Default port of a manager.
pub const MANAGER_PORT: u16 = 7801;
/// Default base of the cluster ports and the documented range, inclusive.
pub const CLUSTER_PORT: u16 = 7811;
/// Last cluster port of the documented range.
pub const CLUSTER_PORT_LAST: u16 = 7860;
/// Default base of the client ports and the documented range, inclusive.
pub const CLIENT_PORT: u16 = 7861;
/// Last client port of the documented range.
pub const CLIENT_PORT_LAST: u16 = 7899;
/// First shard port; the manager gives them out from here up.
pub const SHARD_PORT: u16 = 7900;
/// Last shard port of the documented range.
pub const SHARD_PORT_LAST: u16 = 7999;

const _: () = assert!(RANGES == 256);
const _: () = assert!(REPLIES_BYTES_SOFT_MAX + REPLY_BYTES_MAX + 64 * 1024 <= FRAME_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(REQUEST_BYTES_MAX + INLINE_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(REQUEST_BYTES_MAX > VALUE_BYTES_MAX + KEY_BYTES_MAX + INLINE_BYTES_MAX);
const _: () = assert!((CLIENT_PORT_LAST - CLIENT_PORT + 1) as u32 == NODES_PER_MACHINE_MAX);
