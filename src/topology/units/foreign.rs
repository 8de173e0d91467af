//! Advice for values in units of other tools.
//!
//! The parsers refuse such values, because a user would not notice a wrong guess.

use super::{Decimal, RATE_UNITS, decimal, with_unit};

/// Advice for a rate in an unknown unit. `None` if the unit has no known meaning.
pub(super) fn rate(text: &str) -> Option<String> {
    let (number, unit) = Decimal::split(text)?;
    let unit = unit.trim();
    let (unit, per) =
        ["/s", "/sec", "ps"].iter().find_map(|per| Some((unit.strip_suffix(per)?, *per))).unwrap_or((unit, ""));
    let base = unit.trim_start_matches(['k', 'K', 'm', 'M', 'g', 'G', 't', 'T', 'i']);
    let prefix = unit.strip_suffix(base)?.to_ascii_lowercase();
    let (prefix, step) = prefix.strip_suffix('i').map_or((&*prefix, 1_000), |prefix| (prefix, 1_024));
    let power = u32::try_from(["", "k", "m", "g", "t"].iter().position(|known| *known == prefix)?).ok()?;
    let times = |factor: u128| in_bits(number, factor * u128::pow(step, power));
    let (bits, bytes) = (times(1)?, times(8)?);
    match base {
        "bit" | "bits" | "Bit" | "Bits" => Some(format!("write \"{bits}\"")),
        "b" if per == "ps" => {
            Some(format!("`{unit}ps` is bits to most tools and bytes to tc: write \"{bits}\" or \"{bytes}\""))
        }
        "b" => Some(format!("for bits write \"{bits}\", for bytes \"{bytes}\"")),
        "B" | "byte" | "bytes" | "Byte" | "Bytes" => Some(format!("a byte has 8 bits: write \"{bytes}\"")),
        "" if power > 0 => Some(format!("write \"{bits}\"")),
        _ => None,
    }
}

/// A positive number times a factor, as a rate. `None` if the product is not a whole number.
fn in_bits(number: Decimal, factor: u128) -> Option<String> {
    let (scaled, divisor) = (number.digits.checked_mul(factor)?, 10_u128.checked_pow(number.decimals)?);
    let bits = (scaled > 0 && scaled % divisor == 0).then_some(scaled / divisor)?;
    Some(with_unit(u64::try_from(bits).ok()?, RATE_UNITS))
}

/// Advice for a time with another spelling of a unit. `None` if the unit has no known meaning.
pub(super) fn time(text: &str) -> Option<String> {
    let (_, unit) = Decimal::split(text)?;
    let number = text.strip_suffix(unit)?;
    let ours = match &*unit.trim().to_lowercase() {
        "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "ms" | "msec" | "msecs" | "milli" | "millis" | "millisecond" | "milliseconds" => "ms",
        "us" | "usec" | "usecs" | "micro" | "micros" | "microsecond" | "microseconds" => "us",
        "ns" | "nsec" | "nsecs" | "nano" | "nanos" | "nanosecond" | "nanoseconds" => "ns",
        _ => return None,
    };
    Some(format!("write \"{number}{ours}\""))
}

/// Advice for a number without a percent sign, which may be a share of 1: `0.01` may mean `1%`.
pub(super) fn percent(text: &str) -> Option<String> {
    let (Decimal { digits, decimals, .. }, "") = Decimal::split(text)? else { return None };
    let is_share = digits > 0 && digits <= 10_u128.pow(decimals);
    is_share.then(|| format!("\"{}%\" if it is a share of 1", decimal(digits * 100, decimals)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_in_a_unit_of_another_tool_gets_advice() {
        for (text, ours) in [
            ("100Mbit", "write \"100mbit\""),
            ("100 Mbit/s", "write \"100mbit\""),
            ("1.5G", "write \"1.5gbit\""),
            ("100Mbps", "`Mbps` is bits to most tools and bytes to tc: write \"100mbit\" or \"800mbit\""),
            ("64kbps", "`kbps` is bits to most tools and bytes to tc: write \"64kbit\" or \"512kbit\""),
            ("10MB/s", "a byte has 8 bits: write \"80mbit\""),
            ("10MBps", "a byte has 8 bits: write \"80mbit\""),
            ("1MiB/s", "a byte has 8 bits: write \"8.388608mbit\""),
            ("1mibit", "write \"1.048576mbit\""),
            ("10Mb", "for bits write \"10mbit\", for bytes \"80mbit\""),
        ] {
            assert_eq!(rate(text).as_deref(), Some(ours), "{text}");
        }
        for text in ["", "5", "5 parsecs", "0Mbps", "5mm", "5 mph", "1 furlong/s"] {
            assert_eq!(rate(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_in_another_spelling_gets_advice() {
        assert_eq!(time("75msec").as_deref(), Some("write \"75ms\""));
        assert_eq!(time("1.5 Seconds").as_deref(), Some("write \"1.5s\""));
        assert_eq!(time("75MS").as_deref(), Some("write \"75ms\""));
        for text in ["75", "1h", "1 lightyear", "m"] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn a_share_of_one_gets_advice_in_percent() {
        for (share, ours) in [("0.01", "1"), ("0.005", "0.5"), ("1", "100"), ("0.12345", "12.345"), ("0.10", "10")] {
            assert_eq!(percent(share), Some(format!("\"{ours}%\" if it is a share of 1")), "{share}");
        }
        for number in ["5", "0", "1.01", "x", ""] {
            assert_eq!(percent(number), None, "{number}");
        }
    }
}
