//! Units of other tools, and what a value in them is in ours. Only for advice: nothing is ever taken for what it may mean.

use super::decimal;

/// What a rate in a unit that is none of ours would be in ours: `None` if nobody can tell.
pub(super) fn rate(text: &str) -> Option<String> {
    let (number, unit) = decimal(text)?;
    let unit = unit.trim();
    let (unit, per) = match ["/s", "/sec", "ps"].iter().find_map(|per| Some((unit.strip_suffix(per)?, *per))) {
        Some((unit, per)) => (unit, per),
        None => (unit, ""),
    };
    let base = unit.trim_start_matches(['k', 'K', 'm', 'M', 'g', 'G', 't', 'T', 'i']);
    let prefix = unit.strip_suffix(base)?.to_ascii_lowercase();
    let (power, step) = match prefix.strip_suffix('i') {
        Some(prefix) => (power_of(prefix)?, 1_024),
        None => (power_of(&prefix)?, 1_000),
    };
    let times = |factor: u128| in_bits(number, factor * u128::pow(step, power));
    let (bits, bytes) = (times(1)?, times(8)?);
    match base {
        "bit" | "bits" | "Bit" | "Bits" => Some(format!("write \"{bits}\"")),
        // Two letters that tc takes for bytes, and everybody else for bits.
        "b" if per == "ps" => {
            Some(format!("`{unit}ps` means bits to most people, and bytes to tc: write \"{bits}\" or \"{bytes}\""))
        }
        "b" => Some(format!("if these are bits, write \"{bits}\"; if bytes, \"{bytes}\"")),
        "B" | "byte" | "bytes" | "Byte" | "Bytes" => {
            Some(format!("a rate is of bits, and a byte has 8: write \"{bytes}\""))
        }
        "" if power > 0 => Some(format!("write \"{bits}\"")),
        _ => None,
    }
}

/// Which power of the step a prefix stands for.
fn power_of(prefix: &str) -> Option<u32> {
    ["", "k", "m", "g", "t"].iter().position(|known| *known == prefix).and_then(|power| u32::try_from(power).ok())
}

/// A number times a factor, in the largest of our units that leaves it whole.
fn in_bits((digits, decimals): (u128, u32), factor: u128) -> Option<String> {
    let scaled = digits.checked_mul(factor)?;
    let divisor = 10_u128.checked_pow(decimals)?;
    let bits = (scaled % divisor == 0).then_some(scaled / divisor)?;
    let (unit, scale) = [("tbit", 12), ("gbit", 9), ("mbit", 6), ("kbit", 3), ("bit", 0)]
        .into_iter()
        .find(|(_, scale)| bits > 0 && bits % 10_u128.pow(*scale) == 0)?;
    Some(format!("{}{unit}", bits / 10_u128.pow(scale)))
}

/// What a time in a unit that is none of ours is in ours.
pub(super) fn time(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = (&text[..end], text[end..].trim().to_lowercase());
    let ours = match &*unit {
        "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "ms" | "msec" | "msecs" | "milli" | "millis" | "millisecond" | "milliseconds" => "ms",
        "us" | "usec" | "usecs" | "micro" | "micros" | "microsecond" | "microseconds" => "us",
        "ns" | "nsec" | "nsecs" | "nano" | "nanos" | "nanosecond" | "nanoseconds" => "ns",
        _ => return None,
    };
    Some(format!("{number}{ours}"))
}

/// What a share of 1 is in percent, if the number can be one: `0.01` is `1`.
pub(super) fn percent(number: &str) -> Option<String> {
    let ((digits, decimals), "") = decimal(number)? else { return None };
    let whole = 10_u128.checked_pow(decimals)?;
    if digits == 0 || digits > whole {
        return None;
    }
    let hundredfold = digits * 100;
    let (percent, rest) = (hundredfold / whole, hundredfold % whole);
    let fraction = format!("{rest:0width$}", width = decimals as usize);
    let fraction = if rest == 0 { String::new() } else { format!(".{}", fraction.trim_end_matches('0')) };
    Some(format!("{percent}{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_in_another_unit_is_said_in_ours_and_never_guessed() {
        for (text, ours) in [
            ("100Mbit", "write \"100mbit\""),
            ("100 Mbit/s", "write \"100mbit\""),
            ("1.5G", "write \"1500mbit\""),
            ("100Mbps", "`Mbps` means bits to most people, and bytes to tc: write \"100mbit\" or \"800mbit\""),
            ("64kbps", "`kbps` means bits to most people, and bytes to tc: write \"64kbit\" or \"512kbit\""),
            ("10MB/s", "a rate is of bits, and a byte has 8: write \"80mbit\""),
            ("10MBps", "a rate is of bits, and a byte has 8: write \"80mbit\""),
            ("1MiB/s", "a rate is of bits, and a byte has 8: write \"8388608bit\""),
            ("1mibit", "write \"1048576bit\""),
            ("10Mb", "if these are bits, write \"10mbit\"; if bytes, \"80mbit\""),
        ] {
            assert_eq!(rate(text).as_deref(), Some(ours), "{text}");
        }
        for text in ["", "5", "5 parsecs", "0Mbps", "5mm", "5 mph", "1 furlong/s"] {
            assert_eq!(rate(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_in_another_spelling_is_said_in_ours() {
        assert_eq!(time("75msec").as_deref(), Some("75ms"));
        assert_eq!(time("1.5 Seconds").as_deref(), Some("1.5s"));
        assert_eq!(time("75MS").as_deref(), Some("75ms"));
        for text in ["75", "1h", "1 lightyear", "m"] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn a_share_of_one_is_said_in_percent() {
        for (share, ours) in [("0.01", "1"), ("0.005", "0.5"), ("1", "100"), ("0.12345", "12.345"), ("0.10", "10")] {
            assert_eq!(percent(share).as_deref(), Some(ours), "{share}");
        }
        for number in ["5", "0", "1.01", "x", ""] {
            assert_eq!(percent(number), None, "{number}");
        }
    }
}
