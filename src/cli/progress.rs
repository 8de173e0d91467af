//! Prints on stderr what a command waits for, if the command takes longer than a second.

use std::{
    cell::RefCell,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval_at};

use super::{output::talk_raw, render::columns};

/// The time before the first message, and the interval between messages.
const INTERVAL: Duration = Duration::from_secs(1);

/// The activity of the command at this moment; `None`: no messages.
pub(super) struct Progress(RefCell<Option<Activity>>);

struct Activity {
    label: String,
    since: Instant,
    /// The earliest end of the activity, if known.
    until: Option<Instant>,
    /// True if the label has been printed on a line of its own.
    is_said: bool,
}

impl Activity {
    fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), since: Instant::now(), until: None, is_said: false }
    }
}

impl Progress {
    pub(super) fn new(label: Option<&str>) -> Self {
        Self(RefCell::new(label.map(Activity::new)))
    }

    /// Begins another activity.
    pub(super) fn begin(&self, label: impl Into<String>) {
        // A progress without an activity never prints messages.
        if let Some(activity) = &mut *self.0.borrow_mut() {
            *activity = Activity::new(label);
        }
    }

    /// Sets the label and the minimum time left of the activity. The label may stay the same.
    pub(super) fn expects(&self, label: String, left: Duration) {
        if let Some(activity) = &mut *self.0.borrow_mut() {
            if activity.label != label {
                *activity = Activity { since: activity.since, ..Activity::new(label) };
            }
            activity.until = Some(Instant::now() + left);
        }
    }

    /// Waits for `work`, and prints the activity every second.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut ticks = interval_at((Instant::now() + INTERVAL).into(), INTERVAL);
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
        let mut activity = self.0.borrow_mut();
        let Some(Activity { label, since, until, is_said }) = activity.as_mut() else { return false };
        let seconds = since.elapsed().as_secs();
        if seconds == 0 {
            return false;
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()).as_secs() + 1);
        let left = left.map(|left| format!(", at least {left} s left")).unwrap_or_default();
        let on_terminal = io::stderr().is_terminal();
        if on_terminal {
            let passed = format!(" … {seconds} s{left}");
            // A line that continues in the next row of the terminal could not be erased.
            let room = columns(io::stderr()).map_or(usize::MAX, |all| all.saturating_sub(passed.chars().count() + 1));
            let label: String = label.chars().take(room).collect();
            talk_raw(&format!("\r{label}{passed}\x1b[K"));
        } else if !std::mem::replace(is_said, true) {
            talk_raw(&format!("{label}{left} …\n"));
        }
        on_terminal
    }
}
