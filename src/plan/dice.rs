//! Generates repeatable random numbers ([`Dice`]). A seed gives the same numbers on every machine.

/// The increment of the state: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The random number generator splitmix64 (Steele, Lea, Flood 2014).
///
/// The numbers are predictable, so do not use this generator for secrets.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// A generator with this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator with this seed that has already made this number of throws.
    pub const fn after(seed: u64, throws: u64) -> Self {
        Self(seed.wrapping_add(throws.wrapping_mul(STEP)))
    }

    /// 64 random bits.
    pub const fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A uniform number from 0 to below 1.
    pub fn roll(&mut self) -> f64 {
        (self.throw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A uniform number from 0 to below `end`. Returns 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        // The probability of each number is wrong by less than 2^-64.
        let scaled = (u128::from(self.throw()) * end as u128) >> 64;
        usize::try_from(scaled).unwrap_or_default()
    }

    /// Shuffles a slice: all orders are equally likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_throws_equal_the_reference_implementation_of_splitmix64() {
        // The reference implementation is splitmix64.c (Vigna 2015).
        let mut dice = Dice::new(1_234_567);
        let throws = [(); 3].map(|()| dice.throw());
        assert_eq!(throws, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn dice_after_a_number_of_throws_continue_the_sequence() {
        let mut dice = Dice::new(7);
        for throws in 0..5 {
            assert_eq!(Dice::after(7, throws).throw(), dice.throw());
        }
    }

    #[test]
    fn a_shuffle_makes_all_orders_about_equally_often() {
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..6_000 {
            let mut things = [1, 2, 3];
            Dice::new(seed).shuffle(&mut things);
            *counts.entry(things).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }

    #[test]
    fn below_returns_each_number_below_the_end() {
        let mut dice = Dice::new(1);
        let mut seen = [false; 5];
        (0..200).for_each(|_| seen[dice.below(5)] = true);
        assert_eq!(seen, [true; 5]);
        assert_eq!(dice.below(0), 0);
    }
}
