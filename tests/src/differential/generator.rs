//! Draws commands from the grammar by a seed, and spoils some of them.

use super::grammar::{Arg, COMMANDS, Command, PAYLOADS};
use dkv_protocol::slots::slot_of;

/// Of a thousand commands so many are spoilt: an argument is dropped, doubled, added or exchanged.
const SPOILT_PERMILLE: u64 = 120;
const TAGS: &[&str] = &["{a}", "{b}", "{c}", "{d}", "{e}"];
const KEYS_PER_TAG: u64 = 5;

/// Numbers by chance, the same for the same seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Chance(pub u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// A command that was drawn.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// Where it comes from.
    pub command: &'static Command,
    /// Its words.
    pub words: Vec<Vec<u8>>,
}

/// Draws a command.
pub fn draw(chance: &mut Chance) -> Drawn {
    loop {
        let drawn = draw_any(chance);
        // A spoilt command may have keys of several slots where they must be of one; Redis knows no slots here.
        let fits = drawn.command.anywhere || drawn.is_of_one_slot();
        if fits && !drawn.wraps() && !drawn.expires_soon() {
            return drawn;
        }
    }
}

fn draw_any(chance: &mut Chance) -> Drawn {
    let total: u32 = COMMANDS.iter().map(|command| command.weight).sum();
    let mut at = chance.below(total.into()) as u32;
    let mut chosen = &COMMANDS[0];
    for command in COMMANDS {
        if at < command.weight {
            chosen = command;
            break;
        }
        at -= command.weight;
    }
    let tag = chance.pick(TAGS);
    let mut words: Vec<Vec<u8>> =
        chosen.words.iter().map(|word| in_some_case(chance, word)).collect();
    let mut drawer = Drawer { chance, tag: (!chosen.anywhere).then_some(tag), words: &mut words };
    drawer.all(chosen.args);
    if chance.below(1000) < SPOILT_PERMILLE {
        spoil(chance, tag, chosen.words.len(), &mut words);
    }
    Drawn { command: chosen, words }
}

fn in_some_case(chance: &mut Chance, word: &str) -> Vec<u8> {
    match chance.below(4) {
        0 => word.to_ascii_lowercase().into_bytes(),
        1 => word
            .bytes()
            .enumerate()
            .map(|(i, b)| if i % 2 == 0 { b.to_ascii_lowercase() } else { b })
            .collect(),
        _ => word.as_bytes().to_vec(),
    }
}

impl Drawn {
    /// Whether Redis would add a time to live to the calendar's and wrap, answer OK and store nothing. DKV says that it is
    /// none.
    fn wraps(&self) -> bool {
        let ttl =
            self.words.get(2).and_then(|word| std::str::from_utf8(word).ok()?.parse::<i64>().ok());
        self.command.words[0] == "RESTORE" && ttl.is_some_and(|ttl| ttl > i64::MAX / 2)
    }

    /// Whether a spoilt command lets a key expire while commands are compared: the two sides do not execute them at the
    /// same moment.
    fn expires_soon(&self) -> bool {
        let is = |at: usize, word: &str| {
            self.words.get(at).is_some_and(|one| one.eq_ignore_ascii_case(word.as_bytes()))
        };
        let soon = |word: &Vec<u8>| {
            let number = std::str::from_utf8(word).ok().and_then(|text| text.parse::<i64>().ok());
            number.is_some_and(|number| (1..50_000_000).contains(&number))
        };
        match self.command.words[0] {
            "SETEX" | "PSETEX" | "EXPIRE" | "PEXPIRE" | "RESTORE" => {
                self.words.get(2).is_some_and(soon)
            }
            "SET" | "GETEX" => {
                let spans = (1..self.words.len()).filter(|at| is(at - 1, "EX") || is(at - 1, "PX"));
                spans.into_iter().any(|at| soon(&self.words[at]))
            }
            _ => false,
        }
    }

    fn is_of_one_slot(&self) -> bool {
        let several: &[(&str, usize, usize, usize)] = &[
            ("MSETNX", 1, usize::MAX, 2),
            ("LCS", 1, 2, 1),
            ("RENAME", 1, 2, 1),
            ("RENAMENX", 1, 2, 1),
            ("COPY", 1, 2, 1),
            ("BITOP", 2, usize::MAX, 1),
        ];
        let name = self.command.words[0];
        let Some((_, first, last, step)) = several.iter().find(|row| row.0 == name) else {
            return true;
        };
        let keys = self.words.iter().take(last.saturating_add(1)).skip(*first).step_by(*step);
        let mut slots = keys.map(|key| slot_of(key));
        let first = slots.next();
        slots.all(|slot| Some(slot) == first)
    }

    /// As one would type it.
    pub fn shown(&self) -> String {
        let words: Vec<String> =
            self.words.iter().map(|word| format!("\"{}\"", word.escape_ascii())).collect();
        words.join(" ")
    }
}

struct Drawer<'a> {
    chance: &'a mut Chance,
    tag: Option<&'static str>,
    words: &'a mut Vec<Vec<u8>>,
}

impl Drawer<'_> {
    fn all(&mut self, args: &[Arg]) {
        for arg in args {
            self.one(*arg);
        }
    }

    fn one(&mut self, arg: Arg) {
        let chance = &mut *self.chance;
        let word = match arg {
            Arg::Key => {
                let tag = self.tag.unwrap_or_else(|| chance.pick(TAGS));
                key(chance, tag)
            }
            Arg::Value => value(chance),
            Arg::Integer => integer(chance),
            Arg::Fitting => fitting(chance),
            Arg::Float => float(chance),
            Arg::Offset => offset(chance),
            Arg::Span => span(chance),
            Arg::Moment => match chance.below(6) {
                0 => b"1".to_vec(),
                1 => integer(chance),
                // Seconds or milliseconds of the year 2100 and later.
                _ => format!("{}", 4_102_444_800_000 + chance.below(1_000_000_000)).into_bytes(),
            },
            Arg::Word(list) if std::ptr::eq(list, PAYLOADS) => from_hex(chance.pick(list)),
            Arg::Word(list) => {
                let word = chance.pick(list);
                if word.contains(['{', '*']) {
                    word.as_bytes().to_vec()
                } else {
                    in_some_case(chance, word)
                }
            }
            Arg::OneOf(list) => {
                let args = list[chance.below(list.len() as u64) as usize];
                return self.all(args);
            }
            Arg::Maybe(args) => {
                if chance.below(2) == 0 {
                    self.all(args);
                }
                return;
            }
            Arg::Many(args, most) => {
                for _ in 0..=chance.below(most as u64) {
                    self.all(args);
                }
                return;
            }
        };
        self.words.push(word);
    }
}

fn key(chance: &mut Chance, tag: &str) -> Vec<u8> {
    format!("{tag}{}", chance.below(KEYS_PER_TAG)).into_bytes()
}

fn value(chance: &mut Chance) -> Vec<u8> {
    match chance.below(12) {
        0 => Vec::new(),
        1 => integer(chance),
        2 => float(chance),
        3 => (0..chance.below(24)).map(|_| chance.below(256) as u8).collect(),
        // Beyond a small record, and beyond where values are kept apart.
        4 => vec![b'a' + chance.below(26) as u8; 600 + chance.below(4000) as usize],
        5 if chance.below(4) == 0 => vec![b'0'; 17_000 + chance.below(3000) as usize],
        6 => b"line\r\nbreak\n".to_vec(),
        _ => (0..=chance.below(20)).map(|_| b'a' + chance.below(4) as u8).collect(),
    }
}

fn integer(chance: &mut Chance) -> Vec<u8> {
    let text = match chance.below(14) {
        0 => chance
            .pick(&["", "-0", "+1", " 1", "1 ", "01", "abc", "1.0", "0x1", "1e3", "-"])
            .to_owned(),
        1 => i64::MAX.to_string(),
        2 => i64::MIN.to_string(),
        3 => "9223372036854775808".to_owned(),
        4 => (chance.next() as i64).to_string(),
        5 | 6 => format!("-{}", chance.below(20)),
        7 => (chance.next() as i32).to_string(),
        _ => chance.below(40).to_string(),
    };
    text.into_bytes()
}

fn fitting(chance: &mut Chance) -> Vec<u8> {
    let drawn = integer(chance);
    let number = std::str::from_utf8(&drawn).ok().and_then(|text| text.parse::<i64>().ok());
    if number.is_some_and(|number| number < i64::MIN / 2) {
        return (i64::MIN / 2).to_string().into_bytes();
    }
    drawn
}

fn float(chance: &mut Chance) -> Vec<u8> {
    let text = match chance.below(12) {
        0 => chance
            .pick(&[
                "", "inf", "-inf", "nan", "1e", "e1", ".", "1e5000", "1e-5000", " 1", "1 ", "+3",
                "0x10", "0x1p-3", "infinity", "1e4931", "-1e4931", "1,5", "1..2", "0x", "1e+3",
                "5.", ".5", "-.25e2", "1e-17", "0e9",
            ])
            .to_owned(),
        1 => format!("{}e{}", chance.below(1000), chance.below(60)),
        2 => format!("{}e-{}", chance.below(1000), chance.below(25)),
        3 => format!("-{}.{}", chance.below(100_000), chance.below(1_000_000)),
        4 => format!("0.{:020}", chance.next()),
        5 => integer(chance).escape_ascii().to_string(),
        _ => format!("{}.{}", chance.below(1000), chance.below(1000)),
    };
    text.into_bytes()
}

fn offset(chance: &mut Chance) -> Vec<u8> {
    let text = match chance.below(40) {
        0 => "-1".to_owned(),
        1 => "4294967296".to_owned(),
        2 => "536870912".to_owned(),
        3 => "9223372036854775807".to_owned(),
        4 => integer(chance).escape_ascii().to_string(),
        5 => chance.below(200_000).to_string(),
        6..=9 => format!("#{}", chance.below(40)),
        _ => chance.below(300).to_string(),
    };
    text.into_bytes()
}

fn span(chance: &mut Chance) -> Vec<u8> {
    let text = match chance.below(10) {
        0 => "0".to_owned(),
        1 => format!("-{}", chance.below(1000)),
        2 => chance
            .pick(&["abc", "", "9223372036854775807", "-9223372036854775808", "1.5"])
            .to_owned(),
        _ => (100_000_000 + chance.below(100_000_000)).to_string(),
    };
    text.into_bytes()
}

/// Digits of bytes; what stands between them is left out, and what is no digit is nothing.
fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn spoil(chance: &mut Chance, tag: &str, fixed: usize, words: &mut Vec<Vec<u8>>) {
    let at = chance.below(words.len() as u64) as usize;
    let from = fixed.min(words.len());
    let free = from + chance.below((words.len() - from) as u64 + 1) as usize;
    match chance.below(6) {
        0 if words.len() > 1 => {
            words.remove(at.max(1));
        }
        1 => words.insert(free, integer(chance)),
        2 => words.insert(free, key(chance, tag)),
        3 if free < words.len() => words[free] = value(chance),
        4 => words.push(b"KEEPTTL".to_vec()),
        _ => {
            let again = words[at.max(1).min(words.len() - 1)].clone();
            words.push(again);
        }
    }
}
