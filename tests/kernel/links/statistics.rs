//! What a sample says: its moments, its shape, and how far chance may take it from what is true.
//!
//! Bands are five standard errors wide on each side: by chance alone a test fails once in two million runs.

use std::ops::RangeInclusive;

/// How many standard errors a measurement may be from what is expected.
pub(crate) const SIGMAS: f64 = 5.0;

/// The chance of being that far off, on either side.
const FIVE_SIGMA_CHANCE: f64 = 5.7e-7;

/// The mean.
pub(crate) fn mean(sample: &[f64]) -> f64 {
    sample.iter().sum::<f64>() / sample.len() as f64
}

/// The standard deviation.
pub(crate) fn deviation(sample: &[f64]) -> f64 {
    central_moment(sample, 2).sqrt()
}

fn central_moment(sample: &[f64], order: i32) -> f64 {
    let mean = mean(sample);
    sample.iter().map(|value| (value - mean).powi(order)).sum::<f64>() / sample.len() as f64
}

/// The standard error of the mean of `count` draws from `population`.
pub(crate) fn error_of_mean(population: &[f64], count: usize) -> f64 {
    deviation(population) / (count as f64).sqrt()
}

/// The standard error of the standard deviation of `count` draws from `population`, heavy tails included.
pub(crate) fn error_of_deviation(population: &[f64], count: usize) -> f64 {
    let variance = central_moment(population, 2);
    let error_of_variance = ((central_moment(population, 4) - variance * variance) / count as f64).sqrt();
    error_of_variance / (2.0 * variance.sqrt())
}

/// The value that this share of a sample lies below.
pub(crate) fn quantile(sample: &[f64], share: f64) -> f64 {
    assert!(!sample.is_empty(), "nothing was measured");
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len() - 1;
    let position = share * last as f64;
    let below = (0..last).take_while(|index| (index + 1) as f64 <= position).count();
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
}

/// The median.
pub(crate) fn median(sample: &[f64]) -> f64 {
    quantile(sample, 0.5)
}

/// The largest distance between the distribution functions of a sample and of a population (Kolmogorov and Smirnov).
pub(crate) fn ks_distance(sample: &[f64], population: &[f64]) -> f64 {
    let (mut one, mut other) = (sample.to_vec(), population.to_vec());
    one.sort_by(f64::total_cmp);
    other.sort_by(f64::total_cmp);
    let (mut i, mut j, mut farthest) = (0, 0, 0_f64);
    while i < one.len() && j < other.len() {
        let value = one[i].min(other[j]);
        i += one[i..].iter().take_while(|x| **x <= value).count();
        j += other[j..].iter().take_while(|x| **x <= value).count();
        let distance = (i as f64 / one.len() as f64 - j as f64 / other.len() as f64).abs();
        farthest = farthest.max(distance);
    }
    farthest
}

/// The distance that `count` independent draws from a population keep within, by Kolmogorov's limit:
/// `P(D > d) ≈ 2 exp(-2 n d²)`.
pub(crate) fn ks_critical(count: usize) -> f64 {
    ((2.0 / FIVE_SIGMA_CHANCE).ln() / (2.0 * count as f64)).sqrt()
}

/// The share of `count` draws that come true if each does so with this chance, by itself.
pub(crate) fn binomial_band(chance: f64, count: usize) -> RangeInclusive<f64> {
    let count = count as f64;
    // Half a draw for the steps in which a share goes.
    let width = SIGMAS * (chance * (1.0 - chance) / count).sqrt() + 0.5 / count;
    chance - width..=chance + width
}

/// The share of draws that came true.
pub(crate) fn share(draws: &[bool]) -> f64 {
    draws.iter().filter(|drawn| **drawn).count() as f64 / draws.len() as f64
}

/// The standard error of [`share`] if draws depend on those shortly before them: by the means of 50 batches.
pub(crate) fn error_of_share(draws: &[bool]) -> f64 {
    const BATCHES: usize = 50;
    let means: Vec<f64> = draws.chunks_exact(draws.len() / BATCHES).map(share).collect();
    deviation(&means) / ((means.len() - 1) as f64).sqrt()
}

/// The lengths of the runs of draws that came true, one after the other.
pub(crate) fn runs(draws: &[bool]) -> Vec<f64> {
    draws.split(|drawn| !drawn).map(|run| run.len() as f64).filter(|length| *length > 0.0).collect()
}

/// How much each value tells of the next: 0 nothing, 1 everything.
pub(crate) fn autocorrelation(sample: &[f64]) -> f64 {
    let mean = mean(sample);
    let products = sample.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean));
    let covariance = products.sum::<f64>() / (sample.len() - 1) as f64;
    covariance / central_moment(sample, 2)
}

/// Checks that a figure is within a distance of what it should be, and says both if not.
#[track_caller]
pub(crate) fn assert_near(what: &str, measured: f64, expected: f64, distance: f64) {
    assert!((measured - expected).abs() <= distance, "{what}: {measured} is not {expected} ± {distance}");
}

/// Checks that a figure is within a band, and says both if not.
#[track_caller]
pub(crate) fn assert_within(what: &str, measured: f64, band: &RangeInclusive<f64>) {
    assert!(band.contains(&measured), "{what}: {measured} is not within {band:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator whose numbers are always the same (Steele and others' `SplitMix64`), from 0 to 1.
    fn draws(count: usize) -> Vec<f64> {
        let next = |state: &u64| Some(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mix = |state: u64| {
            let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (state ^ (state >> 31)) as f64 / u64::MAX as f64
        };
        std::iter::successors(Some(1), next).map(mix).take(count).collect()
    }

    fn even(count: u32) -> Vec<f64> {
        (0..count).map(|step| f64::from(step) / f64::from(count - 1)).collect()
    }

    #[test]
    fn moments_are_those_of_the_textbook() {
        let sample = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        assert_near("mean", mean(&sample), 5.0, 1e-12);
        assert_near("deviation", deviation(&sample), 2.0, 1e-12);
        assert_near("median", median(&sample), 4.5, 1e-12);
        assert_near("quantile", quantile(&[0.0, 10.0, 20.0], 0.75), 15.0, 1e-12);
        assert_near("last", quantile(&[0.0, 10.0, 20.0], 1.0), 20.0, 1e-12);
    }

    #[test]
    fn the_errors_of_an_even_distribution_are_known() {
        // Its deviation is 1/√12, its fourth moment 1/80.
        let population = even(100_001);
        assert_near("mean", error_of_mean(&population, 10_000), 0.002_886_7, 1e-6);
        let expected = ((1.0 / 80.0 - 1.0 / 144.0) / 10_000_f64).sqrt() / (2.0 / 12_f64.sqrt());
        assert_near("deviation", error_of_deviation(&population, 10_000), expected, 1e-6);
    }

    #[test]
    fn the_distance_of_distributions_is_the_largest_step_between_them() {
        assert_near("same", ks_distance(&[1.0, 2.0, 2.0, 3.0], &[3.0, 2.0, 2.0, 1.0]), 0.0, 1e-12);
        assert_near("apart", ks_distance(&[1.0, 2.0], &[3.0, 4.0]), 1.0, 1e-12);
        assert_near("half", ks_distance(&[1.0, 2.0], &[2.0, 3.0]), 0.5, 1e-12);
        // A population moved by a tenth of its width.
        let moved: Vec<f64> = even(1001).iter().map(|value| value + 0.1).collect();
        assert_near("moved", ks_distance(&moved, &even(1001)), 0.1, 2e-3);
    }

    #[test]
    fn draws_keep_within_the_critical_distance_and_others_do_not() {
        let (sample, population) = (draws(4_000), even(8_193));
        let critical = ks_critical(sample.len());
        assert_near("critical", critical, 0.0434, 1e-3);
        assert!(ks_distance(&sample, &population) < critical / 1.5);
        let squeezed: Vec<f64> = sample.iter().map(|value| value.powf(1.15)).collect();
        assert!(ks_distance(&squeezed, &population) > critical);
    }

    #[test]
    fn shares_keep_within_their_band() {
        let lost: Vec<bool> = draws(10_000).iter().map(|value| *value < 0.01).collect();
        let band = binomial_band(0.01, lost.len());
        assert_within("share", share(&lost), &band);
        assert_near("the band's width", band.end() - band.start(), 0.01, 2e-4);
        assert!(!band.contains(&0.02));
        assert_near("batches agree with the formula", error_of_share(&lost), 0.000_995, 3e-4);
    }

    #[test]
    fn runs_are_counted_whole() {
        let draws = [true, true, false, true, false, false, true, true, true].to_vec();
        assert_eq!(runs(&draws), [2.0, 1.0, 3.0]);
        assert_eq!(runs(&[false, false]), [0.0; 0]);
    }

    #[test]
    fn a_batch_of_dependent_draws_has_a_larger_error() {
        // Each draw counts ten times.
        let lost: Vec<bool> = draws(2_000).iter().flat_map(|value| [*value < 0.1; 10]).collect();
        assert_near("error", error_of_share(&lost), (0.09_f64 / 2_000.0).sqrt(), 2e-3);
    }

    #[test]
    fn correlation_is_seen_and_its_absence_too() {
        let independent = draws(10_000);
        assert!(autocorrelation(&independent).abs() < 0.05);
        let mut last = 0.0;
        let smooth: Vec<f64> = independent
            .iter()
            .map(|value| {
                last = 0.75 * last + 0.25 * value;
                last
            })
            .collect();
        assert_near("smoothed", autocorrelation(&smooth), 0.75, 0.05);
    }
}
