//! Computes the distribution tables of netem: normal, Pareto, and a mixture of both.
//!
//! For each packet, the kernel picks a random value of the table. All values are equally likely. The kernel adds the
//! value to the delay, in units of 1/8192 of the jitter (`tabledist` of `sch_netem.c`).
//!
//! A table has 4,096 quantiles in ascending order, clamped to 16 bits (four standard deviations). After clamping, the
//! mean of the table is 0 and the standard deviation is 8192. So for every distribution, `delay` is the mean and
//! `jitter` is one standard deviation. The files `pareto.dist` and `paretonormal.dist` of iproute2 do not have this
//! property, because iproute2 clamps the values after scaling.
//!
//! The computed values are the same on every machine.

use std::sync::LazyLock;

use crate::topology::Distribution;

/// The number of values in a table.
const LEN: u32 = 4_096;

/// One standard deviation in the units of a table (`NETEM_DIST_SCALE`).
const SCALE: f64 = 8_192.0;

/// The exponent (shape) of the Pareto distribution.
const SHAPE: f64 = 3.0;

/// The number of bisection steps. The remaining error is below the resolution of a table.
const HALVINGS: usize = 40;

/// The number of times that the scale is corrected for clamping. The remaining error is below a table's resolution.
const ROUNDS: usize = 60;

static NORMAL: LazyLock<Vec<i16>> = LazyLock::new(|| table(normal));
static PARETO: LazyLock<Vec<i16>> = LazyLock::new(|| table(pareto));
static PARETO_NORMAL: LazyLock<Vec<i16>> = LazyLock::new(|| {
    // Each value is the sum of 25 % of the normal value and 75 % of the Pareto value. Both tables have the same scale.
    let mix = |(normal, pareto): (&i16, &i16)| 0.25 * f64::from(*normal) + 0.75 * f64::from(*pareto);
    scaled(&NORMAL.iter().zip(PARETO.iter()).map(mix).collect::<Vec<_>>())
});

/// The table of a built-in distribution. `None` for the uniform distribution and for custom tables.
pub fn distribution_table(distribution: Distribution) -> Option<&'static [i16]> {
    match distribution {
        Distribution::Normal => Some(&NORMAL),
        Distribution::Pareto => Some(&PARETO),
        Distribution::ParetoNormal => Some(&PARETO_NORMAL),
        Distribution::Uniform | Distribution::Table(_) => None,
    }
}

/// The table of the distribution with this quantile function.
fn table(quantile: fn(f64) -> f64) -> Vec<i16> {
    let middle = |index: u32| (f64::from(index) + 0.5) / f64::from(LEN);
    scaled(&(0..LEN).map(|index| quantile(middle(index))).collect::<Vec<_>>())
}

/// The quantile function of the standard normal distribution.
fn normal(share: f64) -> f64 {
    // The probability beyond eight standard deviations is far below 1/4096, the share of one value of a table.
    bisect(-8.0, 8.0, |x| 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2) < share)
}

/// The quantile function of the Pareto distribution with the minimum 1.
fn pareto(share: f64) -> f64 {
    libm::pow(1.0 - share, -1.0 / SHAPE)
}

/// Shifts, scales and clamps values. The result has the mean 0 and the standard deviation [`SCALE`].
fn scaled(values: &[f64]) -> Vec<i16> {
    let (mut centre, mut factor) = (0.0, 1.0);
    for _ in 0..ROUNDS {
        let mean = mean(clamped(values, centre, factor));
        let variance = self::mean(clamped(values, centre, factor).map(|value| (value - mean) * (value - mean)));
        centre += mean / factor;
        factor *= SCALE / variance.sqrt();
    }
    #[expect(clippy::cast_possible_truncation, reason = "the value is clamped to i16")]
    clamped(values, centre, factor).map(|value| value.round() as i16).collect()
}

fn clamped(values: &[f64], centre: f64, factor: f64) -> impl Iterator<Item = f64> {
    values.iter().map(move |value| ((value - centre) * factor).clamp(f64::from(i16::MIN), f64::from(i16::MAX)))
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    values.sum::<f64>() / f64::from(LEN)
}

/// The point at which `is_below` changes from true to false.
fn bisect(mut low: f64, mut high: f64, is_below: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        *(if is_below(middle) { &mut low } else { &mut high }) = middle;
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    const ALL: [Distribution; 3] = [Distribution::Normal, Distribution::Pareto, Distribution::ParetoNormal];

    #[test]
    fn every_table_ascends_with_mean_0_and_standard_deviation_8192() {
        for distribution in ALL {
            let table = distribution_table(distribution).unwrap();
            assert_eq!(table.len(), 4_096);
            assert!(table.is_sorted());
            let mean = table.iter().copied().map(f64::from).sum::<f64>() / 4_096.0;
            let variance = table.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / 4_096.0 - mean * mean;
            assert!(mean.abs() < 0.1, "{distribution}: mean {mean}");
            assert!((variance.sqrt() - 8_192.0).abs() < 0.1, "{distribution}: deviation {}", variance.sqrt());
        }
    }

    #[test]
    fn the_normal_table_has_the_quantiles_of_the_normal_distribution() {
        let table = distribution_table(Distribution::Normal).unwrap();
        // The quantiles are in standard deviations.
        for (share, quantile) in [(0.5, 0.0), (0.841_345, 1.0), (0.025, -1.959_964), (0.975, 1.959_964)] {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of the table")]
            let value = table[(share * 4_096.0) as usize];
            assert!((f64::from(value) / 8_192.0 - quantile).abs() < 0.01, "{share}: {value}");
        }
        assert!(table.iter().zip(table.iter().rev()).all(|(low, high)| (low + high).abs() <= 1), "symmetric table");
    }

    #[test]
    fn the_pareto_tables_have_a_short_tail_below_and_a_long_tail_above() {
        let pareto = distribution_table(Distribution::Pareto).unwrap();
        let mixed = distribution_table(Distribution::ParetoNormal).unwrap();
        assert_eq!((pareto[4_095], mixed[4_095]), (i16::MAX, i16::MAX));
        assert!(pareto[0] > -8_192, "all values are above -8192: {}", pareto[0]);
        assert!(mixed[0] < pareto[0] && mixed[0] > -2 * 8_192, "{}", mixed[0]);
        assert!(pareto[2_047] < mixed[2_047] && mixed[2_047] < 0, "the median is below the mean");
    }

    #[test]
    fn the_tables_are_the_same_bytes_on_every_machine() {
        let digest = |distribution| {
            let table = distribution_table(distribution).unwrap();
            let digest = Sha256::digest(table.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>());
            digest.first_chunk::<4>().copied().map(u32::from_be_bytes)
        };
        assert_eq!(ALL.map(digest), [Some(0x1b43_c8f8), Some(0x6707_69ac), Some(0xd35e_4030)]);
    }
}
