//! Statistics of samples: moments, distribution functions, and standard errors.
//!
//! A band has five standard errors on each side. By chance alone, an assertion fails once in two million runs.

use std::ops::RangeInclusive;

/// The number of standard errors by which a measurement may differ from the expected value.
pub(crate) const SIGMAS: f64 = 5.0;

/// The probability of a difference of five standard errors or more, on either side.
const FIVE_SIGMA_PROBABILITY: f64 = 5.7e-7;

pub(crate) fn mean(sample: &[f64]) -> f64 {
    sample.iter().sum::<f64>() / sample.len() as f64
}

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

/// The value below which this share of a sample lies, interpolated linearly.
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

pub(crate) fn median(sample: &[f64]) -> f64 {
    quantile(sample, 0.5)
}

/// The Kolmogorov-Smirnov distance: the largest difference of the distribution functions of a sample and a population.
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

/// The largest [`ks_distance`] that `count` independent draws from a population may have. Kolmogorov's limit is
/// `P(D > d) ≈ 2 exp(-2 n d²)`.
pub(crate) fn ks_critical(count: usize) -> f64 {
    ((2.0 / FIVE_SIGMA_PROBABILITY).ln() / (2.0 * count as f64)).sqrt()
}

/// The band of the share of true draws among `count` independent draws with this probability.
pub(crate) fn binomial_band(probability: f64, count: usize) -> RangeInclusive<f64> {
    let count = count as f64;
    // Shares are multiples of `1 / count`, so half a step is added.
    let width = SIGMAS * (probability * (1.0 - probability) / count).sqrt() + 0.5 / count;
    probability - width..=probability + width
}

/// The share of true draws.
pub(crate) fn share(draws: &[bool]) -> f64 {
    draws.iter().filter(|drawn| **drawn).count() as f64 / draws.len() as f64
}

/// The standard error of [`share`] if each draw depends on recent draws. Computed from the means of 50 batches.
pub(crate) fn error_of_share(draws: &[bool]) -> f64 {
    const BATCHES: usize = 50;
    let means: Vec<f64> = draws.chunks_exact(draws.len() / BATCHES).map(share).collect();
    deviation(&means) / ((means.len() - 1) as f64).sqrt()
}

/// The lengths of the runs of true draws, in their order.
pub(crate) fn runs(draws: &[bool]) -> Vec<f64> {
    draws.split(|drawn| !drawn).map(|run| run.len() as f64).filter(|length| *length > 0.0).collect()
}

/// The correlation of successive values: 0 if they are independent, close to 1 if each is close to the next.
pub(crate) fn autocorrelation(sample: &[f64]) -> f64 {
    let mean = mean(sample);
    let products = sample.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean));
    let covariance = products.sum::<f64>() / (sample.len() - 1) as f64;
    covariance / central_moment(sample, 2)
}

/// Asserts that a value is within a distance of the expected value.
#[track_caller]
pub(crate) fn assert_near(what: &str, measured: f64, expected: f64, distance: f64) {
    assert!((measured - expected).abs() <= distance, "{what}: {measured} is not {expected} ± {distance}");
}

/// Asserts that a value is within a band.
#[track_caller]
pub(crate) fn assert_within(what: &str, measured: f64, band: &RangeInclusive<f64>) {
    assert!(band.contains(&measured), "{what}: {measured} is not within {band:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reproducible pseudo-random numbers from 0 to 1 (`SplitMix64`, Steele et al.).
    fn draws(count: usize) -> Vec<f64> {
        let next = |state: &u64| Some(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mix = |state: u64| {
            let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (state ^ (state >> 31)) as f64 / u64::MAX as f64
        };
        std::iter::successors(Some(1), next).map(mix).take(count).collect()
    }

    fn evenly_spaced(count: u32) -> Vec<f64> {
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
    fn standard_errors_for_a_uniform_distribution_are_those_of_the_textbook() {
        // The uniform distribution from 0 to 1 has a deviation of 1/√12 and a fourth central moment of 1/80.
        let population = evenly_spaced(100_001);
        assert_near("mean", error_of_mean(&population, 10_000), 0.002_886_7, 1e-6);
        let expected = ((1.0 / 80.0 - 1.0 / 144.0) / 10_000_f64).sqrt() / (2.0 / 12_f64.sqrt());
        assert_near("deviation", error_of_deviation(&population, 10_000), expected, 1e-6);
    }

    #[test]
    fn the_distance_of_distributions_is_the_largest_step_between_them() {
        assert_near("same", ks_distance(&[1.0, 2.0, 2.0, 3.0], &[3.0, 2.0, 2.0, 1.0]), 0.0, 1e-12);
        assert_near("apart", ks_distance(&[1.0, 2.0], &[3.0, 4.0]), 1.0, 1e-12);
        assert_near("half", ks_distance(&[1.0, 2.0], &[2.0, 3.0]), 0.5, 1e-12);
        // The same population, shifted by a tenth of its width.
        let moved: Vec<f64> = evenly_spaced(1001).iter().map(|value| value + 0.1).collect();
        assert_near("moved", ks_distance(&moved, &evenly_spaced(1001)), 0.1, 2e-3);
    }

    #[test]
    fn a_sample_is_within_the_critical_distance_of_its_own_population_only() {
        let (sample, population) = (draws(4_000), evenly_spaced(8_193));
        let critical = ks_critical(sample.len());
        assert_near("critical", critical, 0.0434, 1e-3);
        assert!(ks_distance(&sample, &population) < critical / 1.5);
        let squeezed: Vec<f64> = sample.iter().map(|value| value.powf(1.15)).collect();
        assert!(ks_distance(&squeezed, &population) > critical);
    }

    #[test]
    fn a_share_is_within_its_binomial_band() {
        let lost: Vec<bool> = draws(10_000).iter().map(|value| *value < 0.01).collect();
        let band = binomial_band(0.01, lost.len());
        assert_within("share", share(&lost), &band);
        assert_near("the band's width", band.end() - band.start(), 0.01, 2e-4);
        assert!(!band.contains(&0.02));
        assert_near("batches agree with the formula", error_of_share(&lost), 0.000_995, 3e-4);
    }

    #[test]
    fn runs_at_both_ends_of_a_sample_are_counted() {
        let draws = [true, true, false, true, false, false, true, true, true].to_vec();
        assert_eq!(runs(&draws), [2.0, 1.0, 3.0]);
        assert_eq!(runs(&[false, false]), [0.0; 0]);
    }

    #[test]
    fn a_batch_of_dependent_draws_has_a_larger_error() {
        // Each draw is repeated ten times.
        let lost: Vec<bool> = draws(2_000).iter().flat_map(|value| [*value < 0.1; 10]).collect();
        assert_near("error", error_of_share(&lost), (0.09_f64 / 2_000.0).sqrt(), 2e-3);
    }

    #[test]
    fn autocorrelation_distinguishes_independent_and_smoothed_values() {
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
