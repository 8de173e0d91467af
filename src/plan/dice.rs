//! Repeatable random numbers: [`Dice`]. A seed gives the same numbers on every machine.

/// The increment of the state: the golden ratio in 64 bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The random number generator splitmix64 (Steele, Lea, Flood 2014). It draws partitions and spreads packets over time. It
/// is not for secrets.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// A generator with this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The generator of a seed after a number of throws.
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

    /// A number in 0..1.
    pub fn roll(&mut self) -> f64 {
        (self.throw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A uniform number in 0..`end`; 0 if the range is empty.
    pub fn below(&mut self, end: usize) -> usize {
        // The bias is at most `end` in 2^64.
        let scaled = (u128::from(self.throw()) * end as u128) >> 64;
        usize::try_from(scaled).unwrap_or_default()
    }

    /// Shuffles a slice uniformly (Fisher and Yates).
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
    fn the_throws_are_those_of_splitmix64() {
        // As the reference implementation (splitmix64.c, Vigna 2015) has them.
        let mut dice = Dice::new(1_234_567);
        let throws = [(); 3].map(|()| dice.throw());
        assert_eq!(throws, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn dice_can_be_had_after_any_number_of_throws() {
        let mut dice = Dice::new(7);
        for throws in 0..5 {
            assert_eq!(Dice::after(7, throws).throw(), dice.throw());
        }
    }

    #[test]
    fn every_order_of_three_comes_about_equally_often() {
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
    fn below_stays_below() {
        let mut dice = Dice::new(1);
        let mut seen = [false; 5];
        (0..200).for_each(|_| seen[dice.below(5)] = true);
        assert_eq!(seen, [true; 5]);
        assert_eq!(dice.below(0), 0);
    }
}
