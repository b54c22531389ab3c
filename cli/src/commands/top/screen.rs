//! The terminal that `dkv top` draws on: taken over as a whole, and given back as it was, whatever ends the command.

use super::view::{Line, Style};
use crate::failure::Failure;
use crate::interrupt;
use crate::output;
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, queue};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Left,
    Right,
    Up,
    Down,
    Enter,
    /// Out of where one is.
    Back,
    Reverse,
    Metrics,
    Help,
    Quit,
    /// Nobody pressed anything; the terminal has another size.
    Resized,
}

/// The terminal while it is taken over.
pub(super) struct Screen;

impl Screen {
    /// Whether somebody looks, and has keys.
    pub(super) fn is_there() -> bool {
        output::is_terminal() && io::stdin().is_terminal()
    }

    /// Columns of the terminal; none where it is none.
    pub(super) fn width() -> Option<usize> {
        let there = io::stdout().is_terminal();
        terminal::size().ok().filter(|_| there).map(|(columns, _)| columns.into())
    }

    /// Takes it over.
    pub(super) fn open() -> Result<Self, Failure> {
        // An interruption from elsewhere than its keys ends the command at once.
        interrupt::before_the_end(give_back);
        terminal::enable_raw_mode().map_err(|error| failure(&error))?;
        let screen = Self;
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)
            .map_err(|error| failure(&error))?;
        Ok(screen)
    }

    /// Draws lines over what was there; those for which there is no room are left out.
    pub(super) fn draw(&mut self, lines: &[Line]) -> Result<(), Failure> {
        self.try_draw(lines).map_err(|error| failure(&error))
    }

    #[expect(clippy::unused_self, reason = "only who has taken the terminal over may draw on it")]
    fn try_draw(&mut self, lines: &[Line]) -> io::Result<()> {
        let height = usize::from(terminal::size().map_or(24, |(_, rows)| rows));
        let mut out = io::stdout().lock();
        for (row, line) in lines.iter().take(height).enumerate() {
            queue!(out, cursor::MoveTo(0, row as u16))?;
            match line.style {
                Style::Plain => {}
                Style::Head => queue!(out, SetAttribute(Attribute::Bold))?,
                Style::Picked => queue!(out, SetAttribute(Attribute::Reverse))?,
                Style::Bad => queue!(out, SetForegroundColor(Color::Red))?,
            }
            queue!(
                out,
                Print(output::printable(&line.text)),
                SetAttribute(Attribute::Reset),
                ResetColor,
                Clear(ClearType::UntilNewLine)
            )?;
        }
        if lines.len() < height {
            queue!(out, cursor::MoveTo(0, lines.len() as u16), Clear(ClearType::FromCursorDown))?;
        }
        out.flush()
    }

    /// What somebody wants within a time; none: nothing.
    #[expect(
        clippy::unused_self,
        reason = "only who has taken the terminal over may read its keys"
    )]
    pub(super) fn key(&mut self, most: Duration) -> Result<Option<Key>, Failure> {
        let next = || -> io::Result<Option<Key>> {
            if !event::poll(most)? {
                return Ok(None);
            }
            // What means nothing draws the same again.
            Ok(Some(meaning(&event::read()?).unwrap_or(Key::Resized)))
        };
        next().map_err(|error| failure(&error))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    // There is nobody to tell where this fails.
    let _ = execute!(io::stdout(), LeaveAlternateScreen, cursor::Show);
    let _ = terminal::disable_raw_mode();
}

fn failure(error: &io::Error) -> Failure {
    Failure::failed(format!("the terminal cannot be used: {error}"), "dkv top --count 10 | cat")
}

fn meaning(event: &Event) -> Option<Key> {
    let Event::Key(KeyEvent { code, modifiers, kind, .. }) = event else { return None };
    if *kind == KeyEventKind::Release {
        return None;
    }
    Some(match code {
        KeyCode::Char('c' | 'd') if modifiers.contains(KeyModifiers::CONTROL) => Key::Quit,
        KeyCode::Char('q' | 'Q') => Key::Quit,
        KeyCode::Left | KeyCode::Char('<') => Key::Left,
        KeyCode::Right | KeyCode::Char('>') => Key::Right,
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc | KeyCode::Backspace => Key::Back,
        KeyCode::Char('r') => Key::Reverse,
        KeyCode::Char('m') => Key::Metrics,
        KeyCode::Char('?' | 'h') => Key::Help,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_other_tools_taught() {
        let plain = |code| meaning(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)));
        assert_eq!(plain(KeyCode::Char('q')), Some(Key::Quit));
        assert_eq!(plain(KeyCode::Down), Some(Key::Down));
        assert_eq!(plain(KeyCode::Char('c')), None);
        let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(meaning(&Event::Key(control)), Some(Key::Quit));
        assert_eq!(meaning(&Event::Resize(20, 5)), None);
    }
}
