//! Progress on stderr: the work that a command waits for, once a second has passed.

use std::{
    cell::{Cell, RefCell},
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval_at};

use super::{output::talk_raw, render::columns};

/// How long something may take before it says that it is at work.
const SILENCE: Duration = Duration::from_secs(1);

/// What is under way at this moment.
pub(super) struct Progress {
    /// `None`: nothing is said of it.
    label: RefCell<Option<String>>,
    since: Cell<Instant>,
    /// When it is over at the earliest, if that is known.
    until: Cell<Option<Instant>>,
    /// Whether the label has been printed as a line of its own.
    is_said: Cell<bool>,
}

impl Progress {
    pub(super) fn new(label: Option<&str>) -> Self {
        let label = RefCell::new(label.map(ToOwned::to_owned));
        Self { label, since: Cell::new(Instant::now()), until: Cell::new(None), is_said: Cell::new(false) }
    }

    /// From now on something else is under way.
    pub(super) fn says(&self, label: impl Into<String>) {
        // Where nothing is to be said, that stays so.
        if let Some(old) = &mut *self.label.borrow_mut() {
            *old = label.into();
            self.since.set(Instant::now());
            self.until.set(None);
            self.is_said.set(false);
        }
    }

    /// The same goes on, by another label perhaps, and takes so long yet at the least.
    pub(super) fn expects(&self, label: impl Into<String>, left: Duration) {
        let (label, since) = (label.into(), self.since.get());
        if self.label.borrow().as_ref() != Some(&label) {
            self.says(label);
            self.since.set(since);
        }
        self.until.set(Some(Instant::now() + left));
    }

    /// Waits for `work`, and says every second what is under way.
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

    /// Answers whether there is something to be wiped away in the end.
    fn draw(&self) -> bool {
        let seconds = self.since.get().elapsed().as_secs();
        let label = self.label.borrow();
        let Some(label) = label.as_deref().filter(|_| seconds > 0) else { return false };
        let left = self.until.get().map(|until| until.saturating_duration_since(Instant::now()).as_secs() + 1);
        let left = left.map(|left| format!(", at least {left} s left")).unwrap_or_default();
        let on_terminal = io::stderr().is_terminal();
        if on_terminal {
            let passed = format!(" … {seconds} s{left}");
            // A line that goes on in the next row of the terminal would not be wiped away.
            let room = columns(io::stderr()).map_or(usize::MAX, |all| all.saturating_sub(passed.chars().count() + 1));
            let label: String = label.chars().take(room).collect();
            talk_raw(&format!("\r{label}{passed}\x1b[K"));
        } else if !self.is_said.replace(true) {
            talk_raw(&format!("{label}{left} …\n"));
        }
        on_terminal
    }
}
