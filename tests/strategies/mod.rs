//! Random links and profiles for property tests. Every link that a topology can describe may occur.
//!
//! The unit tests of the encoders and the tests on a real kernel use this module.

use netemctl::{
    plan::{LineRate, Profile},
    topology::{
        BitRate, Bytes, Chance, Delay, Distribution, Jitter, Link, Loss, LossModel, Probability, Rate, RatePer,
        Reorder, Slot, Spacing, TableId, Tables, Undelayed,
    },
};
use proptest::{option, prelude::*, sample::select};

/// The profile of a random link.
pub(crate) fn profiles() -> impl Strategy<Value = Profile> {
    links().prop_filter_map("a link without parameters has no profile", |link| Profile::of(&link, LineRate::UNKNOWN))
}

/// A random link.
pub(crate) fn links() -> impl Strategy<Value = Link> {
    let delay = times(0, Delay::MAX);
    let randomness = (option::of(jitters()), option::of(losses()), option::of(chances()), option::of(chances()));
    let (limit, seed) = (option::of(1..=u32::MAX), option::of(any::<u64>()));
    (delay, randomness, option::of(reorders()), option::of(rates()), option::of(slots()), limit, seed).prop_map(
        |(delay, (jitter, loss, corrupt, duplicate), reorder, rate, slot, limit, seed)| {
            let rate_per = RatePer::Node;
            Link { delay, jitter, loss, corrupt, duplicate, reorder, rate, rate_per, slot, limit, seed }
        },
    )
}

/// The user's distribution tables that [`distributions`] refers to.
pub(crate) fn tables() -> Tables {
    [(TABLES[0], vec![-8_192, 8_192].into()), (TABLES[1], (-16_000..16_000).step_by(7).collect())].into()
}

const TABLES: [TableId; 2] = [TableId::new(0), TableId::new(u32::MAX)];

/// A random distribution: a built-in one, or one of [`tables`].
pub(crate) fn distributions() -> impl Strategy<Value = Distribution> {
    use Distribution::{Normal, Pareto, ParetoNormal, Table, Uniform};
    select(vec![Uniform, Normal, Pareto, ParetoNormal, Table(TABLES[0]), Table(TABLES[1])])
}

fn jitters() -> impl Strategy<Value = Jitter> {
    (times(1, Jitter::MAX), shares(), distributions()).prop_map(|(amount, correlation, distribution)| Jitter {
        amount,
        correlation,
        distribution,
    })
}

fn losses() -> impl Strategy<Value = Loss> {
    let [p, r, bad, good] = [(); 4].map(|()| shares());
    let [p13, p31, p32, p23, p14] = [(); 5].map(|()| shares());
    let model = prop_oneof![
        chances().prop_map(LossModel::Random),
        (p13, p31, p32, p23, p14).prop_map(|(p13, p31, p32, p23, p14)| LossModel::State { p13, p31, p32, p23, p14 }),
        (p, r, bad, good).prop_map(|(p, r, bad, good)| LossModel::GeModel { p, r, bad, good }),
    ];
    (model, any::<bool>()).prop_map(|(model, ecn)| Loss { model, ecn })
}

fn reorders() -> impl Strategy<Value = Reorder> {
    let undelayed = (chances(), 1..=u32::MAX).prop_map(|(chance, gap)| Reorder::Undelayed(Undelayed { chance, gap }));
    prop_oneof![Just(Reorder::Jitter), undelayed]
}

fn rates() -> impl Strategy<Value = Rate> {
    let bits = (1..=BitRate::MAX.bytes_per_second()).prop_map(BitRate::from_bytes_per_second);
    let overhead = || prop_oneof![Just(0), -i32::MAX..=i32::MAX].prop_map(Bytes::new);
    let cell_size = prop_oneof![Just(0), 1..=i32::MAX].prop_map(Bytes::new);
    (bits, overhead(), cell_size, overhead()).prop_map(|(bits, packet_overhead, cell_size, cell_overhead)| Rate {
        bits,
        packet_overhead,
        cell_size,
        cell_overhead,
    })
}

fn slots() -> impl Strategy<Value = Slot> {
    let range = (0..=Jitter::MAX.as_nanos(), 1..=Jitter::MAX.as_nanos())
        .prop_map(|(a, b)| Spacing::Range { min: Delay::from_nanos(a.min(b)), max: Delay::from_nanos(a.max(b)) });
    let half = Delay::from_nanos(Jitter::MAX.as_nanos() / 2);
    let distributed = (times(0, half), times(1, half), distributions())
        .prop_map(|(delay, jitter, distribution)| Spacing::Distributed { delay, jitter, distribution });
    let most = || prop_oneof![Just(0), Just(i32::MAX), 1..=i32::MAX];
    (prop_oneof![range, distributed], most(), most()).prop_map(|(spacing, packets, bytes)| Slot {
        spacing,
        packets: packets.cast_unsigned(),
        bytes: Bytes::new(bytes),
    })
}

fn chances() -> impl Strategy<Value = Chance> {
    let probability = prop_oneof![Just(Probability::ONE), (1..=u32::MAX).prop_map(Probability::from_parts)];
    (probability, shares()).prop_map(|(probability, correlation)| Chance { probability, correlation })
}

/// A random probability; 0 and 1 are frequent.
fn shares() -> impl Strategy<Value = Probability> {
    prop_oneof![Just(Probability::ZERO), Just(Probability::ONE), any::<u32>().prop_map(Probability::from_parts)]
}

fn times(least: u64, most: Delay) -> impl Strategy<Value = Delay> {
    prop_oneof![Just(least.max(1_000_000)), least..=most.as_nanos()].prop_map(Delay::from_nanos)
}
