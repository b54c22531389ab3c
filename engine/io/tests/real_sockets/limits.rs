//! What only a ring has: lockable memory that may be short, a completion queue that may overflow, descriptors of rings.

use std::os::unix::process::CommandExt;
use std::process::Command;

use dkv_io::{IoUnavailable, Options, Reactor, UringReactor, Wait, WakeHandle};
use rustix::process::getuid;

use super::echo::echo_under;
use super::rig::{in_child, is_child, options};

/// The user "nobody": without CAP_IPC_LOCK, and its counter of locked memory is hardly anybody else's.
const NOBODY: u32 = 65534;

/// Runs a test of this program under a limit of lockable memory, as a user to whom the limit applies.
fn with_lockable_memory(test: &str, kib: u64) {
    // The program is copied to where that user may run it.
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("program");
    std::fs::copy(std::env::current_exe().expect("has a path"), &program).expect("copies");
    in_child(test, |command| {
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut limited = Command::new("sh");
        let script = format!("ulimit -l {kib} && exec \"$@\"");
        limited.args(["-c", &script, "sh"]).arg(&program).args(arguments);
        limited.env("DKV_TEST_CHILD", test).current_dir("/");
        if getuid().is_root() {
            open_to_all(directory.path());
            limited.uid(NOBODY).gid(NOBODY);
        }
        *command = limited;
    });
}

fn open_to_all(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, mode).expect("sets the mode");
}

#[test]
fn no_lockable_memory_is_named_with_the_fix() {
    const NAME: &str = "uring::limits::no_lockable_memory_is_named_with_the_fix";
    if !is_child(NAME) {
        return with_lockable_memory(NAME, 0);
    }
    let error = match UringReactor::new(options()) {
        Err(error) => error,
        // A kernel that does not count rings as locked memory (5.12 up to about 6.13).
        Ok(reactor) => {
            assert!(reactor.describe().contains("sq=1024"));
            return;
        }
    };
    assert!(matches!(error, IoUnavailable::LockedMemory { limit_kib: 0, .. }), "{error:?}");
    let text = error.to_string();
    for part in ["--ulimit memlock=-1", "LimitMEMLOCK=infinity", "CAP_IPC_LOCK"] {
        assert!(text.contains(part), "{text}");
    }
    let report = dkv_io::probe();
    assert_eq!(report.result, Err(error));
    assert_eq!(report.memlock_limit_bytes, Some(0));
    assert!(!report.memlock_exempt);
}

#[test]
fn little_lockable_memory_makes_smaller_rings_that_work() {
    const NAME: &str = "uring::limits::little_lockable_memory_makes_smaller_rings_that_work";
    if !is_child(NAME) {
        // Enough for half of the full size, not for all of it.
        return with_lockable_memory(NAME, options().locked_bytes() / 1024 * 2 / 3);
    }
    let wake = WakeHandle::new().expect("an eventfd");
    let mut reactor = UringReactor::new(Options::new(wake.clone())).expect("a reactor");
    let described = reactor.describe();
    let full = described.contains("sq=1024");
    assert!(full || described.contains("sq=512") || described.contains("sq=256"), "{described}");
    dkv_io::self_test(&mut reactor, &wake).expect("works");
}

#[test]
fn the_declared_need_of_lockable_memory_is_enough() {
    const NAME: &str = "uring::limits::the_declared_need_of_lockable_memory_is_enough";
    if !is_child(NAME) {
        return with_lockable_memory(NAME, options().locked_bytes().div_ceil(1024));
    }
    let reactor = UringReactor::new(options()).expect("a reactor");
    assert!(reactor.describe().contains("sq=1024 cq=8192"), "{}", reactor.describe());
}

#[test]
fn rings_in_a_row_do_not_pile_up() {
    const NAME: &str = "uring::limits::rings_in_a_row_do_not_pile_up";
    if !is_child(NAME) {
        // Alone, because it counts the descriptors of the process.
        return in_child(NAME, |_| {});
    }
    for _ in 0..300 {
        let small = Options { sq_entries: 64, cq_entries: 128, buffers: 16, ..options() };
        let mut reactor = UringReactor::new(small).expect("a reactor");
        reactor.turn(Wait::Now, &mut Vec::new()).expect("works");
    }
    let open = std::fs::read_dir("/proc/self/fd").expect("reads").count();
    assert!(open < 20, "{open} descriptors are open");
}

#[test]
fn an_overflowing_completion_queue_loses_nothing() {
    let tiny = Options { sq_entries: 4, cq_entries: 8, ..options() };
    let echo = echo_under(tiny, 48, 150_000, 0);
    assert!(echo.reactor.counts().receives_cut > 0, "the test did not overflow the queue");
}
