//! Prints on stderr what a command waits for, if the command takes longer than a second.

use std::{
    cell::{Cell, RefCell},
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval_at};

use super::{output::talk_raw, render::columns};

/// The time before the first message, and the interval between messages.
const SILENCE: Duration = Duration::from_secs(1);

/// The activity of the command at this moment.
pub(super) struct Progress {
    /// The name of the activity; `None`: no messages.
    label: RefCell<Option<String>>,
    since: Cell<Instant>,
    /// The earliest end of the activity, if known.
    until: Cell<Option<Instant>>,
    /// True if the label has been printed on a line of its own.
    is_said: Cell<bool>,
}

impl Progress {
    pub(super) fn new(label: Option<&str>) -> Self {
        let label = RefCell::new(label.map(ToOwned::to_owned));
        Self { label, since: Cell::new(Instant::now()), until: Cell::new(None), is_said: Cell::new(false) }
    }

    /// Begins another activity.
    pub(super) fn says(&self, label: impl Into<String>) {
        // A progress without a label never prints messages.
        if let Some(old) = &mut *self.label.borrow_mut() {
            *old = label.into();
            self.since.set(Instant::now());
            self.until.set(None);
            self.is_said.set(false);
        }
    }

    /// Sets the least time left of the activity, and its label, which may be the same as before.
    pub(super) fn expects(&self, label: impl Into<String>, left: Duration) {
        let (label, since) = (label.into(), self.since.get());
        if self.label.borrow().as_ref() != Some(&label) {
            self.says(label);
            self.since.set(since);
        }
        self.until.set(Some(Instant::now() + left));
    }

    /// Waits for `work`, and prints the activity every second.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut ticks = interval_at((Instant::now() + SILENCE).into(), SILENCE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut has_drawn = false;
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => {
                    if has_drawn {
                        talk_raw("\r\x1b[K");
                    }
                    return result;
                }
                _ = ticks.tick() => has_drawn |= self.draw(),
            }
        }
    }

    /// Prints the activity.
    ///
    /// Returns true if the printed line must be erased at the end.
    fn draw(&self) -> bool {
        let seconds = self.since.get().elapsed().as_secs();
        let label = self.label.borrow();
        let Some(label) = label.as_deref().filter(|_| seconds > 0) else { return false };
        let left = self.until.get().map(|until| until.saturating_duration_since(Instant::now()).as_secs() + 1);
        let left = left.map(|left| format!(", at least {left} s left")).unwrap_or_default();
        let on_terminal = io::stderr().is_terminal();
        if on_terminal {
            let passed = format!(" … {seconds} s{left}");
            // A line that continues in the next row of the terminal could not be erased.
            let room = columns(io::stderr()).map_or(usize::MAX, |all| all.saturating_sub(passed.chars().count() + 1));
            let label: String = label.chars().take(room).collect();
            talk_raw(&format!("\r{label}{passed}\x1b[K"));
        } else if !self.is_said.replace(true) {
            talk_raw(&format!("{label}{left} …\n"));
        }
        on_terminal
    }
}
