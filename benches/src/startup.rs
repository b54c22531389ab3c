//! A stopwatch: from the start of a server's process to its first PONG.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dkv_io::cpu;

/// Longest start.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts `command` on one CPU, with `input` on its standard input, knocks on `target` from another until it answers a
/// PING, and ends it. The time from just before the process is made, so fork and exec are in it.
///
/// # Errors
/// It ends, or does not answer in time.
pub fn first_pong(
    command: &[String],
    input: &[u8],
    target: SocketAddr,
    (server_cpu, own_cpu): (usize, usize),
) -> Result<Duration, String> {
    let (program, arguments) = command.split_first().ok_or("there is no command")?;
    // A child runs where its parent did.
    cpu::pin(server_cpu).map_err(|error| error.to_string())?;
    let start = Instant::now();
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.map_err(|error| format!("{program}: {error}"))?;
    let pinned = cpu::pin(own_cpu).map_err(|error| error.to_string());
    if let Some(mut stdin) = child.stdin.take() {
        // A server that does not read it is known by its silence.
        let _ = stdin.write_all(input);
    }
    let result = loop {
        if answers(target) {
            break Ok(start.elapsed());
        }
        if let Ok(Some(status)) = child.try_wait() {
            break Err(format!("{program} ended before it answered: {status}"));
        }
        if start.elapsed() > PATIENCE {
            break Err(format!("{program} does not answer on {target} after {PATIENCE:?}"));
        }
    };
    // One that has ended already cannot be killed.
    let _ = child.kill();
    let _ = child.wait();
    pinned.and(result)
}

fn answers(target: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(target)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"PING\r\n")?;
        let mut reply = [0; 7];
        stream.read_exact(&mut reply)?;
        Ok(reply == *b"+PONG\r\n")
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ends_is_not_waited_for() {
        let cpus = cpu::available().expect("affinity can be read");
        let (first, last) = (cpus[0], cpus[cpus.len() - 1]);
        let nowhere = ([127, 0, 0, 1], 1).into();
        let error = first_pong(&["true".into()], b"", nowhere, (first, last)).expect_err("no pong");
        assert!(error.contains("ended before"), "{error}");
    }
}
