//! Parses and prints moments as text of RFC 3339: `2026-11-22T10:46:00.25Z`.

use std::{fmt, str::FromStr};

use thiserror::Error;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::Moment;

/// The error for a text that is not a moment.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a time; write it as in 2026-11-22T10:46:00Z or 2026-11-22T11:46:00+01:00")]
pub struct MomentError(String);

impl FromStr for Moment {
    type Err = MomentError;

    /// Parses a moment between the years 1970 and 2554.
    fn from_str(text: &str) -> Result<Self, MomentError> {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok();
        let nanos = time.and_then(|time| u64::try_from(time.unix_timestamp_nanos()).ok());
        nanos.map(Self::from_nanos).ok_or_else(|| MomentError(text.to_owned()))
    }
}

impl fmt::Display for Moment {
    /// Writes the moment in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = OffsetDateTime::UNIX_EPOCH + std::time::Duration::from_nanos(self.as_nanos());
        let (hour, minute, second, milli) = time.to_hms_milli();
        write!(f, "{}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z", time.date())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_moment_is_parsed_in_any_time_zone_and_printed_in_utc() {
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
    fn a_text_that_is_not_a_moment_is_refused() {
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
        fn a_printed_moment_parses_to_the_same_moment(millis in 0..18_446_744_073_709_u64) {
            let moment = Moment::from_nanos(millis * 1_000_000);
            prop_assert_eq!(moment.to_string().parse(), Ok(moment));
        }

        #[test]
        fn no_text_makes_the_parser_of_moments_panic(text in ".{0,40}", noise in "[0-9TZ:+. -]{0,30}") {
            drop(text.parse::<Moment>());
            drop(noise.parse::<Moment>());
        }
    }
}
