//! A pseudo-terminal with a program on it, and what somebody would see there: enough of a VT100 for programs that draw on a screen.

use crate::machine::{Machine, until};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::Child;
use std::sync::{Arc, Mutex};

/// What was written so far, and the screen that came of it.
#[derive(Debug, Default)]
struct Seen {
    raw: Vec<u8>,
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// The furthest to the right that anything was ever written.
    widest: usize,
    /// What a sequence has brought of it.
    sequence: Option<String>,
    text: Vec<u8>,
}

/// See the module. The program is killed with it.
pub struct Terminal {
    child: Child,
    keys: File,
    seen: Arc<Mutex<Seen>>,
}

impl Terminal {
    /// Runs a program on a machine with a terminal of this size.
    #[track_caller]
    pub fn new(machine: &Machine, program: &str, args: &[&str], rows: u16, columns: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("there are pseudo-terminals");
        grantpt(&master).expect("it is ours");
        unlockpt(&master).expect("it is ours");
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("it is a terminal");
        let path = ptsname(&master, Vec::new()).expect("it has a name");
        let path = path.into_string().expect("a plain path");
        let side = || {
            let side = OpenOptions::new().read(true).write(true).open(&path);
            side.expect("the other side opens")
        };
        let mut command = machine.command(program, args);
        command.env("TERM", "xterm-256color").stdin(side()).stdout(side()).stderr(side());
        let child = command.spawn().expect("ip (Debian: iproute2) is installed");
        drop(command);
        let keys = File::from(master);
        let mut reader = keys.try_clone().expect("a second handle");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let drawn = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // It fails when the other side is closed.
            while let Ok(read) = reader.read(&mut bytes) {
                if read == 0 {
                    break;
                }
                drawn.lock().expect("nobody panics with it").draw(&bytes[..read]);
            }
        });
        Self { child, keys, seen }
    }

    /// Presses keys.
    #[track_caller]
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// What the screen shows, a line for each row.
    pub fn screen(&self) -> String {
        let seen = self.seen.lock().expect("nobody panics with it");
        let line = |cells: &Vec<char>| cells.iter().collect::<String>().trim_end().to_owned();
        seen.cells.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// All that was ever written, as it came.
    pub fn raw(&self) -> String {
        let seen = self.seen.lock().expect("nobody panics with it");
        String::from_utf8_lossy(&seen.raw).into_owned()
    }

    /// The furthest to the right that anything was ever written, in columns.
    pub fn widest(&self) -> usize {
        self.seen.lock().expect("nobody panics with it").widest
    }

    /// Waits until the screen is as wanted.
    #[track_caller]
    pub fn shows(&self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> String {
        let mut screen = String::new();
        until(what, || {
            screen = self.screen();
            wanted(&screen)
        });
        screen
    }

    /// Waits for the end of the program and gives its exit code.
    #[track_caller]
    pub fn ends(&mut self) -> i32 {
        let mut status = None;
        until("the program on the terminal ends", || {
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status.and_then(|status| status.code()).unwrap_or(-1)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Seen {
    fn draw(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
        self.text.extend_from_slice(bytes);
        // A character may be cut between two reads.
        let whole = match std::str::from_utf8(&self.text) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let text: Vec<u8> = self.text.drain(..whole).collect();
        for c in String::from_utf8_lossy(&text).chars() {
            self.character(c);
        }
    }

    fn character(&mut self, c: char) {
        if let Some(sequence) = &mut self.sequence {
            sequence.push(c);
            let is_over = if sequence.starts_with('[') {
                sequence.len() > 1 && ('@'..='~').contains(&c)
            } else {
                true
            };
            if is_over {
                let sequence = std::mem::take(sequence);
                self.sequence = None;
                self.control(&sequence);
            }
            return;
        }
        match c {
            '\x1b' => self.sequence = Some(String::new()),
            '\r' => self.column = 0,
            '\n' => self.row += 1,
            c if c.is_control() => {}
            c => {
                while self.cells.len() <= self.row {
                    self.cells.push(Vec::new());
                }
                let row = &mut self.cells[self.row];
                while row.len() <= self.column {
                    row.push(' ');
                }
                row[self.column] = c;
                self.column += 1;
                self.widest = self.widest.max(self.column);
            }
        }
    }

    fn control(&mut self, sequence: &str) {
        let Some(what) = sequence.chars().last() else { return };
        let numbers: Vec<usize> = sequence
            .trim_start_matches('[')
            .trim_end_matches(what)
            .split(';')
            .map(|n| n.parse().unwrap_or(0))
            .collect();
        match what {
            'H' => {
                self.row = numbers[0].max(1) - 1;
                self.column = numbers.get(1).copied().unwrap_or(1).max(1) - 1;
            }
            'K' => {
                if let Some(row) = self.cells.get_mut(self.row) {
                    row.truncate(self.column);
                }
            }
            'J' => {
                self.cells.truncate(self.row + 1);
                if let Some(row) = self.cells.get_mut(self.row) {
                    row.truncate(self.column);
                }
            }
            // Another screen, empty.
            'h' | 'l' if sequence.contains("?1049") => self.cells.clear(),
            _ => {}
        }
    }
}
