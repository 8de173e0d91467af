//! Computes the statistics of a measurement: quantiles, the standard deviation, and the interval of a share.

/// The quantile of the standard normal distribution for an interval with 95 % confidence.
const Z_95: f64 = 1.959_964;

/// The median of ascending values. The median of an even number of values is the mean of the middle two.
pub(super) fn median(ascending: &[u64]) -> Option<u64> {
    let last = ascending.len().checked_sub(1)?;
    Some(ascending[last / 2].midpoint(ascending[last.div_ceil(2)]))
}

/// The quantile of ascending values: the smallest value that at least this percentage of the values does not exceed
/// (RFC 2330 section 11.3). 0 %: the smallest value.
pub(crate) fn percentile<T: Copy>(ascending: &[T], percent: usize) -> Option<T> {
    ascending.get((ascending.len() * percent).div_ceil(100).saturating_sub(1)).copied()
}

/// The standard deviation of a sample, in the unit of the values; `None`: fewer than two values.
pub(super) fn deviation(values: &[u64]) -> Option<u64> {
    if values.len() < 2 {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().map(|value| *value as f64).sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (*value as f64 - mean).powi(2)).sum();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the largest value")]
    Some((squares / (count - 1.0)).sqrt().round() as u64)
}

/// The Wilson score interval with 95 % confidence: the shares that explain `some` of `all` independent trials. Both
/// shares are from 0 to 1. No trial: `[0, 1]`.
pub(super) fn share_interval(some: u64, all: u64) -> [f64; 2] {
    if all == 0 {
        return [0.0, 1.0];
    }
    let (all, share) = (all as f64, some.min(all) as f64 / all as f64);
    let squared = Z_95 * Z_95;
    let centre = share + squared / (2.0 * all);
    let reach = Z_95 * (share * (1.0 - share) / all + squared / (4.0 * all * all)).sqrt();
    let bound = |bound: f64| (bound / (1.0 + squared / all)).clamp(0.0, 1.0);
    [bound(centre - reach), bound(centre + reach)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_sample() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!([1, 50, 99, 100].map(|percent| percentile(&hundred, percent)), [1, 50, 99, 100].map(Some));
        assert_eq!([1, 99].map(|percent| percentile(&[7, 8, 9], percent)), [Some(7), Some(9)]);
        assert_eq!([0, 1, 50, 99, 100].map(|percent| percentile(&[1, 2, 3, 4], percent)), [1, 1, 2, 4, 4].map(Some));
        assert_eq!(percentile::<u64>(&[], 50), None);
        assert_eq!([median(&[1, 2, 4]), median(&[1, 2, 4, 9]), median(&[])], [Some(2), Some(3), None]);
    }

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        assert_eq!(deviation(&[2, 4, 4, 4, 5, 5, 7, 9].map(|value| value * 1_000)), Some(2_138));
        assert_eq!([deviation(&[5, 5, 5]), deviation(&[5])], [Some(0), None]);
    }

    /// The values are those of R: `binom::binom.wilson`.
    #[test]
    fn the_interval_of_a_share_is_never_certain() {
        let near = |one: f64, other: f64| assert!((one - other).abs() < 1e-4, "{one} is not {other}");
        for ((some, all), [least, most]) in [
            ((0, 0), [0.0, 1.0]),
            ((0, 10), [0.0, 0.2775]),
            ((1, 10), [0.0179, 0.4042]),
            ((10, 10), [0.7225, 1.0]),
            ((50, 100), [0.4038, 0.5962]),
        ] {
            let interval = share_interval(some, all);
            near(interval[0], least);
            near(interval[1], most);
        }
    }
}
