//! The options for the times of a partition: `--for 30s`, `--flap 5s/10s`, `--at +5s`.

use std::{
    process,
    time::{Duration, SystemTime},
};

use super::{Exit, Failure, overlays::time};
use crate::{
    plan::{Dice, Flap, MIN_FLAP_TIME, Moment, TIMES, Timing},
    topology::{Delay, QuantityMistake},
};

/// The options for the times of a partition.
#[derive(Debug, clap::Args)]
pub(super) struct TimingOptions {
    /// Heal after this time: 500ms, 30s, 5m, 1h
    ///
    /// The time counts from the beginning of the partition. Each agent ends the partition by its own clock.
    #[arg(long = "for", value_name = "TIME", value_parser = time_limit)]
    lasts: Option<Duration>,

    /// Cut for DOWN, heal for UP, repeat
    #[arg(long, value_name = "DOWN/UP", value_parser = flap)]
    flap: Option<(Duration, Duration)>,

    /// Randomise the times of --flap by up to this share
    ///
    /// At most 50% of DOWN or UP, whichever is shorter.
    #[arg(long, value_name = "PERCENT", requires = "flap", value_parser = spread)]
    spread: Option<u8>,

    /// Begin at this time: +5s, or 2026-11-22T10:46:00Z
    ///
    /// All nodes begin at the same wall-clock time.
    #[arg(long, value_name = "TIME", value_parser = at)]
    at: Option<At>,
}

/// The value of `--at`: a time from now, or a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    In(Duration),
    On(Moment),
}

impl TimingOptions {
    /// True if the times have a random part.
    pub(super) fn is_random(&self) -> bool {
        self.spread.is_some_and(|spread| spread > 0)
    }

    /// The times of a partition; `None`: the partition begins at its commit and has no time limit.
    ///
    /// Without `--at`, `begins` is `now`, and the partition begins at its commit. With `--at`, `begins` must be at
    /// least `lead` ahead, because the nodes need this time to prepare.
    pub(super) fn timing(&self, now: Moment, lead: Duration, seed: u64) -> Result<Option<Timing>, Failure> {
        let Self { lasts, flap, spread, at } = self;
        if lasts.is_none() && flap.is_none() && at.is_none() {
            return Ok(None);
        }
        let begins = match at {
            None => now,
            Some(At::In(time)) => now.after(*time),
            Some(At::On(moment)) => *moment,
        };
        if at.is_some() && begins < now.after(lead) {
            let when = match now.since(begins) {
                Some(ago) => format!("in the past ({} ago)", time(ago.as_secs_f64())),
                None => format!("in {}", time(begins.since(now).unwrap_or_default().as_secs_f64())),
            };
            let give = format!("give a time at least {} ahead", time(lead.as_secs_f64()));
            let failure = Failure::new(Exit::Usage, format!("--at is {when}; {give}"));
            return Err(failure.hint("omit --at to begin at once"));
        }
        let flap = flap.map(|(down, up)| Flap { down, up, spread: spread.unwrap_or(0), seed });
        Ok(Some(Timing { begins, lasts: *lasts, flap }))
    }
}

/// Dice with a seed from the time and the process ID.
pub(super) fn dice() -> Dice {
    Dice::new(Moment::from(SystemTime::now()).as_nanos() ^ u64::from(process::id()) << 32)
}

fn at(text: &str) -> Result<At, String> {
    match text.strip_prefix('+') {
        Some(time) => time_limit(time).map(At::In),
        None => {
            text.parse().map(At::On).map_err(|_| format!("{text} is not a time; write +5s, or 2026-11-22T10:46:00Z"))
        }
    }
}

fn flap(text: &str) -> Result<(Duration, Duration), String> {
    let (down, up) = text.split_once('/').ok_or("write DOWN/UP, as in 5s/10s")?;
    let (down, up) = (time_limit(down)?, time_limit(up)?);
    if down.min(up) < MIN_FLAP_TIME {
        return Err(format!("the shortest flap is {} ms down and {0} ms up", MIN_FLAP_TIME.as_millis()));
    }
    Ok((down, up))
}

fn spread(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').ok_or("write a percentage, as in 20%")?;
    match number.trim_end().parse() {
        Ok(percent @ 0..=50) => Ok(percent),
        _ => Err("write a whole percentage between 0% and 50%".to_owned()),
    }
}

/// The units that topology files do not have, in seconds.
const LONG_UNITS: [(char, u32); 2] = [('m', 60), ('h', 3_600)];

/// Parses a duration in a unit of topology files, in minutes, or in hours.
pub(super) fn time_limit(text: &str) -> Result<Duration, String> {
    let long = LONG_UNITS.into_iter().find_map(|(unit, seconds)| {
        let number = text.strip_suffix(unit)?.trim_end();
        let is_number = number.ends_with(|last: char| last.is_ascii_digit());
        is_number.then(|| (format!("{number}s"), seconds))
    });
    let (text, times) = long.unwrap_or_else(|| (text.to_owned(), 1));
    let time = text.parse::<Delay>().map_err(|error| match error.mistake() {
        QuantityMistake::NoUnit => format!("a unit is missing: write {text}s"),
        _ => format!("{error}; the units are ms, s, m and h"),
    })?;
    match Duration::from(time).checked_mul(times) {
        Some(time) if TIMES.contains(&time) => Ok(time),
        _ => Err("the time must be between 1ms and 8760h (365 days)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_limit_may_be_in_minutes_and_hours() {
        let millis = |text: &str| time_limit(text).unwrap().as_millis();
        assert_eq!(
            ["90s", "5m", "1h", "1.5h", "500ms", "2 m"].map(millis),
            [90_000, 300_000, 3_600_000, 5_400_000, 500, 120_000]
        );
        assert_eq!(time_limit("30").unwrap_err(), "a unit is missing: write 30s");
        assert_eq!(time_limit("8760h").unwrap(), *TIMES.end());
        for bad in ["", "m", "5d", "5usm", "-5s", "0s", "999us", "8761h", "99999999999h", "1:30", "é"] {
            assert!(time_limit(bad).is_err(), "{bad}");
        }
    }

    const NOW: Moment = Moment::from_nanos(1_000_000_000_000);
    const LEAD: Duration = Duration::from_millis(500);
    const NOTHING: TimingOptions = TimingOptions { lasts: None, flap: None, spread: None, at: None };

    #[test]
    fn without_time_options_there_is_no_timing_and_without_at_it_begins_now() {
        assert_eq!(NOTHING.timing(NOW, LEAD, 7).unwrap(), None);
        let lasts = Some(Duration::from_secs(30));
        let timing = TimingOptions { lasts, ..NOTHING }.timing(NOW, LEAD, 7).unwrap();
        assert_eq!(timing, Some(Timing { begins: NOW, lasts, flap: None }));
        let second = Duration::from_secs(1);
        let flapping = TimingOptions { flap: Some((second, 2 * second)), spread: Some(20), ..NOTHING };
        let flap = Flap { down: second, up: 2 * second, spread: 20, seed: 7 };
        assert_eq!(flapping.timing(NOW, LEAD, 7).unwrap().and_then(|timing| timing.flap), Some(flap));
    }

    #[test]
    fn at_sets_the_beginning_if_the_nodes_have_time_to_prepare() {
        let begins = |text: &str| {
            let options = TimingOptions { at: Some(at(text).unwrap()), ..NOTHING };
            options.timing(NOW, LEAD, 0).map(|timing| timing.map(|timing| timing.begins))
        };
        assert_eq!(begins("+5s").unwrap(), Some(NOW.after(Duration::from_secs(5))));
        assert_eq!(begins("1970-01-01T00:20:00Z").unwrap(), Some(Moment::from_nanos(1_200_000_000_000)));
        let late = begins("1970-01-01T00:16:00Z").unwrap_err();
        assert_eq!(late.message, "--at is in the past (40 s ago); give a time at least 0.5 s ahead");
        let soon = begins("+100ms").unwrap_err();
        assert_eq!(soon.message, "--at is in 0.1 s; give a time at least 0.5 s ahead");
    }

    #[test]
    fn a_flap_has_a_time_down_and_a_time_up() {
        let ms = Duration::from_millis;
        assert_eq!(flap("5s/10s"), Ok((ms(5_000), ms(10_000))));
        assert_eq!(flap("100ms/1m"), Ok((ms(100), ms(60_000))));
        for bad in ["5s", "5/10", "5s/", "5s/10s/5s", "1ms/10s", "5s/9ms"] {
            assert!(flap(bad).is_err(), "{bad}");
        }
        assert_eq!(spread("20%"), Ok(20));
        for bad in ["20", "51%", "-1%", "2.5%", "%"] {
            assert!(spread(bad).is_err(), "{bad}");
        }
        for bad in ["5s", "+5", "now", "10:46"] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }
}
