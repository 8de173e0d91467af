//! A moment as people and programs write it: `2026-11-22T10:46:00.25Z` (RFC 3339).

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::Moment;

const SECOND: u64 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;

/// Not a moment.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no time: write it as in 2026-11-22T10:46:00Z or 2026-11-22T11:46:00+01:00")]
pub struct MomentError(String);

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        parse(text).ok_or_else(|| MomentError(text.to_owned()))
    }
}

impl fmt::Display for Moment {
    /// In UTC, to the millisecond.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.as_nanos() / SECOND, self.as_nanos() % SECOND / 1_000_000);
        // A u64 of nanoseconds ends in the year 2554.
        let (days, second) = (seconds.cast_signed().div_euclid(DAY_SECONDS), seconds % DAY_SECONDS.cast_unsigned());
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3_600, second % 3_600 / 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

fn parse(text: &str) -> Option<Moment> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone);
    let offset_minutes = match zone {
        "Z" | "z" => 0,
        _ => {
            let [hours, minutes] = numbers(&zone[1..], ':', [2, 2])?;
            let offset = 60 * hours + minutes;
            if hours > 23 || minutes > 59 {
                return None;
            }
            if zone.starts_with('-') { -offset } else { offset }
        }
    };
    let (clock, fraction) = clock.split_once('.').map_or((clock, None), |(clock, fraction)| (clock, Some(fraction)));
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let sound = (1..=12).contains(&month) && (1..=month_days(year, month)).contains(&day);
    if !sound || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let nanos = match fraction {
        None => 0,
        Some(digits) if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) => return None,
        Some(digits) => format!("{digits:0<9.9}").parse::<u64>().ok()?,
    };
    let seconds = days(year, month, day) * DAY_SECONDS + 3_600 * hour + 60 * minute + second - 60 * offset_minutes;
    let seconds = u64::try_from(seconds).ok()?;
    Some(Moment::from_nanos(seconds.checked_mul(SECOND)?.checked_add(nanos)?))
}

/// Numbers of so many digits each, with a separator between them, and nothing else.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part =
            parts.next().filter(|part| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, counted in years that begin in March, so that the leap day
/// is their last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + of_year - 719_468
}

/// The date so many days after 1970-01-01: the inverse of [`days`].
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (400 * era + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_is_read_in_any_zone_and_written_in_utc() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-22T10:46:00Z", 1_795_344_360),
            ("2026-11-22T11:46:00+01:00", 1_795_344_360),
            ("2026-11-22 05:16:00-05:30", 1_795_344_360),
        ] {
            assert_eq!(text.parse(), Ok(Moment::from_nanos(seconds * SECOND)), "{text}");
        }
        let fraction: Moment = "2026-11-22T10:46:00.25Z".parse().unwrap();
        assert_eq!(fraction.to_string(), "2026-11-22T10:46:00.250Z");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "10:46",
            "2026-11-22",
            "2026-11-22T10:46:00",
            "2026-11-22T10:46Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T10:46:00.Z",
            "2026-11-22T10:46:00+1:00",
            "1969-12-31T23:59:59Z",
            "2026-1é-22T10:46:00Z",
            "9999-01-01T00:00:00Z",
        ] {
            assert_eq!(text.parse::<Moment>(), Err(MomentError(text.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(millis in 0..18_446_744_073_709_u64) {
            let moment = Moment::from_nanos(millis * 1_000_000);
            prop_assert_eq!(moment.to_string().parse(), Ok(moment));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,40}", noise in "[0-9TZ:+. -]{0,30}") {
            drop(text.parse::<Moment>());
            drop(noise.parse::<Moment>());
        }
    }
}
