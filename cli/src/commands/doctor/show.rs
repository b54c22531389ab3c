//! How findings are shown: a table and then what is wrong, where there is room; a list on narrow terminals; command lines
//! alone for `--fix`. Pure.

use super::judge::{Fix, Row, Severity};
use crate::output::printable;
use std::fmt::Write as _;

/// The findings as text: in lines of at most `width` columns, or as long as they are where nobody says (a pipe).
pub(super) fn report(rows: &[Row], width: Option<usize>) -> String {
    let mut text = table(rows);
    let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    if width.is_some_and(|width| widest > width) {
        text = list(rows, width.unwrap_or(usize::MAX).max(10));
    }
    for row in rows.iter().filter(|row| !row.why.is_empty()) {
        let _ = writeln!(text, "\n{}: {}", row.severity.word(), row.check);
        for (label, what) in [("why", row.why.as_str()), ("fix", row.fix.text())] {
            if !what.is_empty() {
                text.push_str(&wrapped(&format!("  {label}  "), what, width));
            }
        }
    }
    text
}

fn table(rows: &[Row]) -> String {
    let head = ["Check", "Result", "Found", "Wanted"].map(str::to_owned);
    let cells = |row: &Row| {
        [
            printable(&row.check),
            row.severity.word().to_owned(),
            printable(&row.found),
            printable(&row.wanted),
        ]
    };
    let lines: Vec<[String; 4]> = std::iter::once(head).chain(rows.iter().map(cells)).collect();
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let mut text = String::new();
    for (number, [check, result, found, wanted]) in lines.iter().enumerate() {
        let [a, b, c] = widths;
        let line = format!("{check:a$}  {result:b$}  {found:c$}  {wanted}");
        text.push_str(line.trim_end());
        text.push('\n');
        if number == 0 {
            text.push_str(&"-".repeat(a + b + c + width(3) + 6));
            text.push('\n');
        }
    }
    text
}

fn list(rows: &[Row], width: usize) -> String {
    let mut text = String::new();
    for row in rows {
        let line = format!("{} {}: {}", row.severity.word(), row.check, row.found);
        text.push_str(&wrapped("", &printable(&line), Some(width)));
        if row.severity > Severity::Ok && !row.wanted.is_empty() {
            text.push_str(&wrapped("  wanted ", &printable(&row.wanted), Some(width)));
        }
    }
    text
}

/// The text with the results that are not fine in colour: where a line begins with one, or a table has it as a cell.
pub(super) fn coloured(text: &str) -> String {
    const MARKS: [(&str, u8); 3] = [("warning", 33), ("fatal", 31), ("unknown", 33)];
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let at = |word: &str| {
            let cell = format!("  {word}  ");
            if line.starts_with(word) { Some(0) } else { line.find(&cell).map(|at| at + 2) }
        };
        match MARKS.iter().find_map(|(word, colour)| Some((at(word)?, word, colour))) {
            Some((at, word, colour)) => {
                let rest = &line[at + word.len()..];
                let _ = write!(out, "{}\x1b[{colour}m{word}\x1b[0m{rest}", &line[..at]);
            }
            None => out.push_str(line),
        }
    }
    out
}

/// A text behind a label, its later lines set in like the first; words are kept whole where they fit.
fn wrapped(label: &str, text: &str, width: Option<usize>) -> String {
    let label_width = label.chars().count();
    // A label that would leave no room for words gives way.
    let indent = width.map_or(label_width, |width| label_width.min(width / 3));
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(indent).max(4));
    let mut lines: Vec<String> = vec![String::new()];
    let mut used = if indent < label_width { room.min(label_width - indent) } else { 0 };
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let mut rest: Vec<char> = word.chars().collect();
        let gap = usize::from(lines.last().is_some_and(|line| !line.is_empty()));
        if used + gap + rest.len() > room && used > 0 {
            lines.push(String::new());
            used = 0;
        } else if gap == 1 {
            lines.last_mut().expect("there is always a line").push(' ');
            used += 1;
        }
        while rest.len() > room {
            let piece: String = rest.drain(..room).collect();
            lines.last_mut().expect("there is always a line").push_str(&piece);
            lines.push(String::new());
            used = 0;
        }
        used += rest.len();
        lines.last_mut().expect("there is always a line").extend(rest);
    }
    let mut out = String::new();
    for (number, line) in lines.iter().enumerate() {
        let start = if number == 0 { label.to_owned() } else { " ".repeat(indent) };
        out.push_str(format!("{start}{line}").trim_end());
        out.push('\n');
    }
    out
}

/// What to type, as a script that a person reads before running it: commands as they are, the rest as remarks.
pub(super) fn fixes(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows.iter().filter(|row| row.fix != Fix::None && row.severity != Severity::Unknown) {
        let _ =
            writeln!(text, "# {} ({}): {}", row.check, row.severity.word(), printable(&row.found));
        match &row.fix {
            Fix::Command(command) => text.push_str(command),
            Fix::Advice(advice) => {
                let _ = write!(text, "#   {advice}");
            }
            Fix::None => {}
        }
        text.push('\n');
    }
    if text.is_empty() {
        return "# nothing to fix\n".to_owned();
    }
    format!(
        "# Nothing of this was run. As root, until the next start of the machine; to keep a sysctl, put it into /etc/sysctl.d/90-dkv.conf.\n{text}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let row = |check: &str, severity, why: &str, fix| Row {
            check: check.into(),
            found: "60999 and some more words".into(),
            wanted: "less".into(),
            severity,
            why: why.into(),
            fix,
        };
        vec![
            row("cpus", Severity::Ok, "", Fix::None),
            row(
                "swap",
                Severity::Warning,
                "slow reads of what was swapped out",
                Fix::Command("swapoff -a".into()),
            ),
            row("steal", Severity::Warning, "others run", Fix::Advice("ask for\u{1b} CPUs".into())),
            row("quick", Severity::Unknown, "left out", Fix::Command("dkv doctor".into())),
        ]
    }

    #[test]
    fn findings_fit_every_terminal_and_say_the_same() {
        let wide = report(&rows(), None);
        assert!(wide.starts_with("Check "), "{wide}");
        assert!(
            wide.contains(
                "\nwarning: swap\n  why  slow reads of what was swapped out\n  fix  swapoff -a\n"
            ),
            "{wide}"
        );
        for width in [20, 34, 80, 200] {
            let text = report(&rows(), Some(width));
            for line in text.lines() {
                assert!(line.chars().count() <= width, "{width}: {line:?} in\n{text}");
            }
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            for word in words("slow reads of what was swapped out swapoff -a 60999") {
                assert!(words(&text).contains(&word), "{width}: {word} in\n{text}");
            }
        }
    }

    #[test]
    fn what_is_not_fine_is_coloured_and_nothing_else() {
        let text = coloured("warning: swap\nok x: a warning of it\ncpus  fatal    1\n");
        let wanted = "\x1b[33mwarning\x1b[0m: swap\nok x: a warning of it\ncpus  \x1b[31mfatal\x1b[0m    1\n";
        assert_eq!(text, wanted);
    }

    #[test]
    fn words_longer_than_a_line_are_broken() {
        assert_eq!(wrapped("  ", "abcdefghijkl mn", Some(8)), "  abcdef\n  ghijkl\n  mn\n");
        assert_eq!(wrapped("", "", Some(8)), "\n");
    }

    #[test]
    fn fixes_are_a_script_that_runs_commands_alone() {
        let text = fixes(&rows());
        let commands: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(commands, ["swapoff -a"], "{text}");
        assert!(text.contains("# swap (warning): 60999"), "{text}");
        assert!(text.starts_with("# Nothing of this was run."), "{text}");
        assert_eq!(fixes(&rows()[..1]), "# nothing to fix\n");
    }
}
