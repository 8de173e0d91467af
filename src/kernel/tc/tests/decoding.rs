//! Tests of the decoders: our objects round-trip, and similar objects are foreign.
//!
//! Each message is converted to bytes and parsed again, because the crate's parser changes the form of some
//! attributes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use rtnetlink::packet_core::{DefaultNla, NetlinkMessage, NetlinkPayload, NlaBuffer, NlasIterator};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{
        TcAction, TcActionAttribute, TcActionOption, TcAttribute, TcFilterFlowerOption as Key, TcHandle, TcMessage,
        TcOption,
    },
};

use super::super::{
    CLSACT_EGRESS, INGRESS, ROOT_HANDLE, Request, TCA_OPTIONS, action,
    filter::{self, Filter, Verdict},
    filter_info, message, netem, options, qdisc,
};
use crate::{
    plan::{
        Answer, ChainFilter, ClassMinor, Cut, CutFilter, Direction, LeafMark, MARK, ND_TYPES, Port, Profile, Protocol,
        Route, Traffic, distribution_table,
    },
    strategies::{distributions, profiles, tables},
    topology::{Delay, Distribution, Jitter, LossModel, Probability},
};

const INDEX: u32 = 7;

// include/uapi/linux/pkt_sched.h, pkt_cls.h
const TCA_FLOWER_ACT: u16 = 3;
const TCA_GACT_PROB: u16 = 3;
const TCA_HTB_RATE64: u16 = 6;
const TCA_HTB_CEIL64: u16 = 7;
const TCA_HTB_PARMS: u16 = 1;
const TCA_NETEM_CORR: u16 = 1;
const TCA_NETEM_DELAY_DIST: u16 = 2;
const TCA_NETEM_REORDER: u16 = 3;
const TCA_NETEM_CORRUPT: u16 = 4;
const TCA_NETEM_LOSS: u16 = 5;
const TCA_NETEM_RATE: u16 = 6;
const TCA_NETEM_ECN: u16 = 7;
const TCA_NETEM_JITTER64: u16 = 11;
const TCA_NETEM_SLOT: u16 = 12;
const TCA_NETEM_SLOT_DIST: u16 = 13;
const TCA_NETEM_PRNG_SEED: u16 = 14;

/// The length of `struct tc_netem_qopt`.
const QOPT: usize = 24;

/// 100 Gbit/s, in bytes per second.
const CLASS_RATE: u64 = 12_500_000_000;

/// 838 µs in ticks of 64 ns.
const BURSTS: [u32; 2] = [13_093; 2];

proptest! {
    #[test]
    fn our_filters_round_trip(filter in filters()) {
        prop_assert_eq!(Filter::decode(&read_back(&filter.add(INDEX))), Some(filter));
    }

    #[test]
    fn a_filter_with_an_additional_key_is_foreign(filter in filters(), key in foreign_keys()) {
        prop_assert_eq!(decoded_with_keys(filter, |keys| keys.push(key)), None);
    }

    #[test]
    fn a_filter_with_another_mask_is_foreign(filter in filters(), bits in 0..u8::MAX) {
        let decoded = decoded_with_keys(filter, |keys| for key in keys {
            match key {
                Key::Icmpv6TypeMask(mask) => *mask = bits,
                Key::Ipv4SrcMask(mask) | Key::Ipv4DstMask(mask) => *mask = Ipv4Addr::new(0xff, 0xff, 0xff, bits),
                Key::Ipv6SrcMask(mask) | Key::Ipv6DstMask(mask) => {
                    *mask = Ipv6Addr::from_bits(u128::MAX << 8 | u128::from(bits));
                }
                _ => {}
            }
        });
        // A gate has no mask.
        prop_assert_eq!(decoded, matches!(filter, Filter::Gate { .. }).then_some(filter));
    }

    #[test]
    fn a_port_has_no_mask_or_the_exact_mask(
        cut in cuts(),
        (bits, handle) in (prop_oneof![Just(u16::MAX), any::<u16>()], 1..u32::MAX),
    ) {
        let filter = cut_filter(1, cut, handle);
        let port = match cut.traffic {
            Traffic::All | Traffic::FragmentsOf { .. } => None,
            Traffic::ToPort { port: Port { protocol: Protocol::Tcp, .. } } => Some(Key::TcpDstMask(bits)),
            Traffic::ToPort { port: Port { protocol: Protocol::Udp, .. } } => Some(Key::UdpDstMask(bits)),
            Traffic::FromPort { port: Port { protocol: Protocol::Tcp, .. } } => Some(Key::TcpSrcMask(bits)),
            Traffic::FromPort { port: Port { protocol: Protocol::Udp, .. } } => Some(Key::UdpSrcMask(bits)),
        };
        let is_exact = port.is_none() || bits == u16::MAX;
        prop_assert_eq!(decoded_with_keys(filter, |keys| keys.extend(port)), is_exact.then_some(filter));
    }

    #[test]
    fn a_filter_with_another_action_is_foreign(filter in filters(), actions in foreign_actions()) {
        prop_assert_eq!(decoded_with_keys(filter, |keys| {
            keys.retain(|key| !matches!(key, Key::Actions(_)));
            keys.push(Key::Actions(actions));
        }), None);
    }

    #[test]
    fn a_filter_with_the_verdict_of_another_kind_is_foreign(filter in filters(), verdict in verdicts()) {
        let expected = match (filter, verdict) {
            (Filter::Pass { direction: Direction::Ingress, .. }, Verdict::Pass)
                => Some(filter),
            (Filter::InChain { filter: ChainFilter::Cut(cut), .. }, verdict) => match (cut.cut.answer, verdict) {
                (Answer::Silence, Verdict::Drop) | (Answer::Refusal, Verdict::SampleAndDrop) => Some(filter),
                _ => None,
            },
            (Filter::Gate { direction, .. }, Verdict::GotoChain(chain)) => Some(Filter::Gate { direction, chain }),
            _ => None,
        };
        prop_assert_eq!(decoded_with_keys(filter, |keys| {
            keys.retain(|key| !matches!(key, Key::Actions(_)));
            keys.push(Key::Actions(action::encode(verdict, None)));
        }), expected);
    }

    #[test]
    fn a_filter_to_a_class_of_another_qdisc_is_foreign(filter in filters(), major in 1..MARK, minor: u16) {
        let mut has_class = false;
        let decoded = decoded_with_keys(filter, |keys| for key in keys {
            if let Key::ClassId(id) = key {
                (*id, has_class) = (TcHandle { major, minor }.into(), true);
            }
        });
        prop_assert_eq!(decoded, (!has_class).then_some(filter));
    }

    #[test]
    fn a_filter_of_another_priority_or_protocol_is_foreign(filter in filters(), pref: u16, protocol: u16) {
        let info = filter_info(pref, protocol);
        let mut own = 0;
        let decoded = decoded_with_message(filter, |message| own = std::mem::replace(&mut message.header.info, info));
        prop_assert_eq!(decoded, (own == info).then_some(filter));
    }

    #[test]
    fn a_filter_at_another_hook_is_foreign(
        filter in filters(),
        parent in prop::sample::select(vec![ROOT_HANDLE, INGRESS, CLSACT_EGRESS, TcHandle { major: 1, minor: 0 }]),
    ) {
        let mut own = TcHandle::UNSPEC;
        let decoded =
            decoded_with_message(filter, |message| own = std::mem::replace(&mut message.header.parent, parent));
        let expected = match (filter, parent) {
            // A gate is the same at both hooks.
            (Filter::Gate { chain, .. }, ROOT_HANDLE) => Some(Filter::Gate { direction: Direction::Egress, chain }),
            (Filter::Gate { chain, .. }, INGRESS) => Some(Filter::Gate { direction: Direction::Ingress, chain }),
            _ => (own == parent).then_some(filter),
        };
        prop_assert_eq!(decoded, expected);
    }

    #[test]
    fn a_filter_in_an_unexpected_chain_is_foreign(filter in filters(), chain in 1..u32::MAX) {
        let chain = if matches!(filter, Filter::InChain { .. }) { 0 } else { chain };
        prop_assert_eq!(decoded_with_message(filter, |message| {
            message.attributes.retain(|attribute| !matches!(attribute, TcAttribute::Chain(_)));
            message.attributes.push(TcAttribute::Chain(chain));
        }), None);
    }

    #[test]
    fn only_cuts_and_routes_have_arbitrary_handles(filter in filters(), handle in 0x1_0000..u32::MAX) {
        let expected = match filter {
            Filter::Pass { .. } | Filter::Gate { .. } => None,
            Filter::InChain { chain, filter } => {
                let filter = match filter {
                    ChainFilter::Route(route) => ChainFilter::Route(Route { handle, ..route }),
                    ChainFilter::Cut(cut) => ChainFilter::Cut(CutFilter { handle, ..cut }),
                };
                Some(Filter::InChain { chain, filter })
            }
        };
        prop_assert_eq!(decoded_with_message(filter, |message| message.header.handle = handle.into()), expected);
    }

    #[test]
    fn our_leaves_round_trip(class: ClassMinor, profile in profiles()) {
        let mut options = options(&added(class, &profile)).unwrap();
        let mut attributes = attributes_of(&options.split_off(QOPT));
        // The kernel does not show the tables. The mark of the class identifies them.
        attributes.retain(|(kind, _)| ![TCA_NETEM_DELAY_DIST, TCA_NETEM_SLOT_DIST].contains(kind));
        let added = with_options("netem", [options, nested(&attributes)].concat());
        prop_assert_eq!(decode_netem(&added, profile.mark()), Some(profile));
        prop_assert_eq!(decode_netem(&changed(class, &profile), profile.mark()), Some(profile));
    }

    #[test]
    fn a_leaf_is_decoded_from_a_kernel_that_shows_zeros(profile in profiles(), drawn: u64) {
        prop_assert_eq!(decode_netem(&shown(&profile, drawn, |_, _| {}), profile.mark()), Some(profile));
    }

    #[test]
    fn a_leaf_with_another_mark_does_not_decode_to_its_profile(profile in profiles(), mark in marks(), drawn: u64) {
        prop_assume!(mark != profile.mark() && profile.seed != Some(drawn));
        let decoded = decode_netem(&shown(&profile, drawn, |_, _| {}), mark);
        prop_assert_ne!(decoded, Some(profile));
        prop_assert!(decoded.is_none_or(|decoded| decoded.mark() == mark));
    }

    #[test]
    fn a_leaf_without_a_seed_attribute_has_no_seed(profile in profiles(), seed: u64) {
        let profile = Profile { seed: Some(seed), ..profile };
        let without = shown(&profile, 0, |_, attributes| attributes.retain(|(kind, _)| *kind != TCA_NETEM_PRNG_SEED));
        prop_assert_eq!(decode_netem(&without, profile.mark()), Some(Profile { seed: None, ..profile }));
    }

    #[test]
    fn a_changed_byte_changes_the_decoded_profile(
        profile in profiles(),
        (kind, at, bits) in (0..16_u16, 0..40_usize, 1..=u8::MAX),
    ) {
        // One byte of the message is changed. The decoded profile must then be different or `None`. The 32-bit ticks
        // are not changed, because the 64-bit nanoseconds override them.
        let mut has_changed = false;
        let message = shown(&profile, 0, |qopt, attributes| {
            let value = match kind {
                0 => Some(qopt),
                _ => attributes.iter_mut().find(|(other, _)| *other == kind).map(|(_, value)| value),
            };
            let is_ticks = |at: usize| kind == 0 && !(4..20).contains(&at);
            if let Some(byte) = value.and_then(|value| value.get_mut(at)).filter(|_| !is_ticks(at)) {
                (*byte, has_changed) = (*byte ^ bits, true);
            }
        });
        let is_random_seed = kind == TCA_NETEM_PRNG_SEED && profile.seed.is_none();
        let is_same = decode_netem(&message, profile.mark()) == Some(profile);
        prop_assert_eq!(is_same, !has_changed || is_random_seed, "{} at {}", kind, at);
    }

    #[test]
    fn a_leaf_with_an_unknown_attribute_is_foreign(
        profile in profiles(),
        kind in 15..40_u16,
        value in prop::collection::vec(any::<u8>(), 4..24),
    ) {
        let is_nothing = value.iter().all(|byte| *byte == 0);
        let message = shown(&profile, 0, |_, attributes| attributes.push((kind, value)));
        prop_assert_eq!(decode_netem(&message, profile.mark()), is_nothing.then_some(profile));
    }

    #[test]
    fn a_change_has_all_parameters_but_the_tables(profile in profiles()) {
        let options = options(&changed(2, &profile)).unwrap();
        let kinds: Vec<u16> = attributes_of(&options[QOPT..]).into_iter().map(|(kind, _)| kind).collect();
        for kind in [TCA_NETEM_CORR, TCA_NETEM_REORDER, TCA_NETEM_CORRUPT, TCA_NETEM_RATE, TCA_NETEM_ECN, TCA_NETEM_SLOT] {
            prop_assert!(kinds.contains(&kind), "{} is missing, so the kernel would keep the old value", kind);
        }
        prop_assert!(!kinds.contains(&TCA_NETEM_DELAY_DIST) && !kinds.contains(&TCA_NETEM_SLOT_DIST));
        let has_model = profile.loss.is_some_and(|loss| !matches!(loss.model, LossModel::Random(_)));
        prop_assert_eq!(kinds.contains(&TCA_NETEM_LOSS), has_model);
        prop_assert_eq!(kinds.contains(&TCA_NETEM_PRNG_SEED), profile.seed.is_some());
    }

    #[test]
    fn a_new_leaf_has_the_tables_of_its_distributions(profile in profiles()) {
        let options = options(&added(2, &profile)).unwrap();
        let attributes = attributes_of(&options[QOPT..]);
        let mark = profile.mark();
        for (kind, distribution) in [(TCA_NETEM_DELAY_DIST, mark.delay), (TCA_NETEM_SLOT_DIST, mark.slot)] {
            let tables = tables();
            let table = match distribution {
                Distribution::Table(id) => Some(&*tables[&id]),
                _ => distribution_table(distribution),
            };
            let bytes = table.map(|table| table.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<_>>());
            let sent = attributes.iter().find(|(other, _)| *other == kind).map(|(_, value)| value.clone());
            prop_assert_eq!(sent, bytes);
        }
    }

    #[test]
    fn a_leaf_of_a_kernel_without_nanoseconds_is_decoded_from_ticks(
        ticks in 0..900_000_000_u32,
        jitter in 0..33_000_000_u32,
        limit: u32,
    ) {
        let body = words(&[ticks, limit, 0, 0, 0, jitter]);
        let nanos = |ticks| Delay::from_nanos(64 * u64::from(ticks));
        let correlation = Probability::ZERO;
        let jitter = Jitter { amount: nanos(jitter), correlation, distribution: Distribution::Uniform };
        let jitter = (jitter.amount > Delay::ZERO).then_some(jitter);
        let profile = Profile { jitter, ..Profile::plain(nanos(ticks), limit) };
        prop_assert_eq!(decode_netem(&with_options("netem", body), LeafMark::default()), Some(profile));
    }

    #[test]
    fn a_leaf_with_a_delay_beyond_the_limit_is_foreign(nanos in Delay::MAX.as_nanos() + 1.., limit: u32) {
        let profile = Profile::plain(Delay::from_nanos(nanos), limit);
        prop_assert_eq!(decode_netem(&shown(&profile, 0, |_, _| {}), profile.mark()), None);
    }

    #[test]
    fn a_class_is_ours_only_at_our_rate_and_ceiling(class: ClassMinor, rate: u64, ceil: u64) {
        let ours = qdisc::add_class(INDEX, class, LeafMark::default());
        prop_assert_eq!(qdisc::decode_class(&read_back(&ours)), Ok(LeafMark::default()));
        prop_assert_eq!(qdisc::decode_class(&htb_class(CLASS_RATE, CLASS_RATE, BURSTS)), Ok(LeafMark::default()));
        prop_assume!(rate != CLASS_RATE && ceil != CLASS_RATE);
        prop_assert!(qdisc::decode_class(&htb_class(rate, rate, BURSTS)).is_err());
        prop_assert!(qdisc::decode_class(&htb_class(rate, CLASS_RATE, BURSTS)).is_err());
        prop_assert!(qdisc::decode_class(&htb_class(CLASS_RATE, ceil, BURSTS)).is_err());
    }

    #[test]
    fn the_bursts_of_a_class_encode_its_mark(class in 2..MARK, mark in marks(), bursts: [u32; 2], off in 1..15_u32) {
        prop_assert_eq!(qdisc::decode_class(&read_back(&qdisc::add_class(INDEX, class, mark))), Ok(mark));
        let undelayed = qdisc::decode_class(&read_back(&qdisc::add_class(INDEX, 1, mark)));
        prop_assert_eq!(undelayed.is_ok(), mark == LeafMark::default());
        // A microsecond has more than 15 ticks, so most bursts are foreign.
        let ticks = |mark: LeafMark| mark.bursts().map(|burst| u32::try_from(u64::from(burst) * 1_000 / 64).unwrap());
        let [burst, cburst] = ticks(mark);
        for near in [[burst + off, cburst], [burst, cburst + off]] {
            let error = qdisc::decode_class(&htb_class(CLASS_RATE, CLASS_RATE, near)).unwrap_err();
            prop_assert!(error.contains("a burst of its own"), "{}", error);
        }
        if let Ok(mark) = qdisc::decode_class(&htb_class(CLASS_RATE, CLASS_RATE, bursts)) {
            prop_assert_eq!(ticks(mark), bursts);
        }
    }

    #[test]
    fn no_options_make_a_decoder_panic(
        kind in prop::sample::select(vec!["flower", "netem", "htb", "clsact", "matchall", "u32"]),
        parent in prop::sample::select(vec![ROOT_HANDLE, INGRESS]),
        options in prop_oneof![prop::collection::vec(any::<u8>(), 0..80), attributes()],
        mark in marks(),
    ) {
        let mut message = with_raw(kind, options);
        message.header.parent = parent;
        if let Some(message) = parse(&Request::add(RouteNetlinkMessage::NewTrafficFilter(message))) {
            prop_assert!(kind == "flower" || Filter::decode(&message).is_none());
            prop_assert!(kind == "htb" || qdisc::decode_class(&message).is_err());
            let decoded = decode_netem(&message, mark);
            prop_assert!(decoded.is_none_or(|profile| profile.delay <= Delay::MAX));
            prop_assert!(filter::describe(&message).starts_with("filter parent "));
            prop_assert_eq!(qdisc::queued(&message), 1, "a queue of unknown length is not empty");
        }
    }
}

#[test]
fn a_class_of_another_kind_or_without_options_is_foreign() {
    assert!(qdisc::decode_class(&with_options("hfsc", Vec::new())).is_err());
    assert!(qdisc::decode_class(&with_options("htb", Vec::new())).is_err());
    assert!(qdisc::decode_class(&TcMessage::default()).is_err());
}

fn decode_netem(leaf: &TcMessage, mark: LeafMark) -> Option<Profile> {
    netem::decode_netem(&options(leaf)?, mark)
}

fn traffics() -> impl Strategy<Value = Traffic> {
    let protocols = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp]);
    let ports = (protocols.clone(), 1..=u16::MAX).prop_map(|(protocol, number)| Port { protocol, number });
    prop_oneof![
        Just(Traffic::All),
        ports.clone().prop_map(|port| Traffic::ToPort { port }),
        ports.prop_map(|port| Traffic::FromPort { port }),
        protocols.prop_map(|protocol| Traffic::FragmentsOf { protocol })
    ]
}

fn cuts() -> impl Strategy<Value = Cut> {
    let answers = prop::sample::select(vec![Answer::Silence, Answer::Refusal]);
    (directions(), any::<IpAddr>(), traffics(), answers).prop_map(|(direction, address, traffic, answer)| Cut {
        direction,
        address,
        traffic,
        answer,
    })
}

fn directions() -> impl Strategy<Value = Direction> {
    prop::sample::select(vec![Direction::Egress, Direction::Ingress])
}

fn filters() -> impl Strategy<Value = Filter> {
    let (chain, class, handle) = (1..0x0fff_ffff_u32, 1..MARK, 1..u32::MAX);
    prop_oneof![
        (directions(), prop::sample::select(ND_TYPES.to_vec()))
            .prop_map(|(direction, icmp_type)| Filter::Pass { direction, icmp_type }),
        (directions(), chain.clone()).prop_map(|(direction, chain)| Filter::Gate { direction, chain }),
        (chain.clone(), cuts(), handle.clone()).prop_map(|(chain, cut, handle)| cut_filter(chain, cut, handle)),
        (chain, any::<IpAddr>(), class, handle).prop_map(|(chain, address, class, handle)| Filter::InChain {
            chain,
            filter: ChainFilter::Route(Route { address, class, handle })
        }),
    ]
}

fn cut_filter(chain: u32, cut: Cut, handle: u32) -> Filter {
    Filter::InChain { chain, filter: ChainFilter::Cut(CutFilter { cut, handle, counter: None }) }
}

fn marks() -> impl Strategy<Value = LeafMark> {
    (distributions(), distributions(), any::<bool>()).prop_map(|(delay, slot, seeded)| LeafMark { delay, slot, seeded })
}

fn verdicts() -> impl Strategy<Value = Verdict> {
    let chains = (1..0x0fff_ffff_u32).prop_map(Verdict::GotoChain);
    prop_oneof![Just(Verdict::Pass), Just(Verdict::Drop), Just(Verdict::SampleAndDrop), chains]
}

fn foreign_keys() -> impl Strategy<Value = Key> {
    prop::sample::select(vec![
        Key::InDev("eth1".to_owned()),
        Key::EthDst([2, 0, 0, 0, 0, 1]),
        Key::EthType(0x0800),
        Key::IpProto(6),
        Key::IpTos(0x10),
        Key::Ipv4Src(Ipv4Addr::LOCALHOST),
        Key::Ipv4Dst(Ipv4Addr::LOCALHOST),
        Key::Ipv6Src(Ipv6Addr::LOCALHOST),
        Key::Ipv6Dst(Ipv6Addr::LOCALHOST),
        Key::TcpDst(5432),
        Key::UdpSrc(53),
        Key::Icmpv6Code(0),
        Key::VlanId(7),
        Key::KeyFlags(1),
        Key::KeyFlags(3),
        Key::KeyFlagsMask(3),
        Key::CtMark(1),
        Key::Other(DefaultNla::new(200, vec![1])),
    ])
}

/// Lists of actions that netemctl never writes.
fn foreign_actions() -> impl Strategy<Value = Vec<TcAction>> {
    let code = |code: u32| action("gact", vec![(2, words(&[0, 0, code, 0, 0]))]);
    let drop = (2, words(&[0, 0, 2, 0, 0]));
    prop_oneof![
        Just(Vec::new()),
        verdicts().prop_map(|verdict| [action::encode(verdict, None), action::encode(verdict, None)].concat()),
        // TC_ACT_RECLASSIFY, PIPE, STOLEN, QUEUED, REPEAT, REDIRECT, TRAP; TC_ACT_JUMP over 1 action.
        prop::sample::select(vec![1, 3, 4, 5, 6, 7, 8, 0x1000_0001]).prop_map(move |other| vec![code(other)]),
        Just(vec![action("police", vec![drop.clone()])]),
        // `action drop random netrand pass 10`: struct tc_gact_p has ptype, pval and paction.
        Just(vec![action("gact", vec![drop, (TCA_GACT_PROB, words(&[0x000a_0001, 0]))])]),
        foreign_samples(),
        Just(vec![action("gact", vec![(2, vec![0; 6])])]),
        Just(vec![action("gact", Vec::new())]),
    ]
}

/// Samples that netemctl never writes: with another rate, group, length or code, or without a drop afterwards.
fn foreign_samples() -> impl Strategy<Value = Vec<TcAction>> {
    let [sample, drop] = action::encode(Verdict::SampleAndDrop, None).try_into().expect("two actions");
    let of = |code: u32, rate: u32, group: u32, length: u32| {
        let [rate, group, length] = [rate, group, length].map(|word| words(&[word]));
        action("sample", vec![(2, words(&[0, 0, code, 0, 0])), (3, rate), (5, group), (4, length)])
    };
    let with_drop = [of(3, 2, 20_094, 1_280), of(3, 1, 1, 1_280), of(3, 1, 20_094, 128), of(2, 1, 20_094, 1_280)];
    let with_drop = with_drop.map(|sample| vec![sample, drop.clone()]);
    let [pass] = action::encode(Verdict::Pass, None).try_into().expect("one action");
    let others = [vec![sample.clone()], vec![sample.clone(), pass], vec![drop, sample]];
    prop::sample::select(with_drop.into_iter().chain(others).collect::<Vec<_>>())
}

fn action(kind: &str, options: Vec<(u16, Vec<u8>)>) -> TcAction {
    let options = options.into_iter().map(|(kind, value)| TcActionOption::Other(DefaultNla::new(kind, value)));
    let mut action = TcAction::default();
    action.tab = 1;
    action.attributes =
        vec![TcActionAttribute::Kind(kind.to_owned()), TcActionAttribute::Options(options.collect::<Vec<_>>())];
    action
}

/// Random well-formed attributes, some of them nested, to reach the inner parsers.
fn attributes() -> impl Strategy<Value = Vec<u8>> {
    let raw = prop::collection::vec(any::<u8>(), 0..24);
    let tree = raw.prop_recursive(4, 32, 4, |inner| {
        let kind = prop_oneof![3 => 0..12_u16, 1 => 0..120_u16, 1 => Just(TCA_FLOWER_ACT)];
        prop::collection::vec((kind, inner), 0..4).prop_map(|all| nested(&all))
    });
    prop::collection::vec((0..110_u16, tree), 0..4).prop_map(|all| nested(&all))
}

/// The decoded filter after a change of its keys.
fn decoded_with_keys(filter: Filter, change: impl FnOnce(&mut Vec<Key>)) -> Option<Filter> {
    decoded_with_message(filter, |message| {
        let options = message.attributes.iter_mut().find_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        });
        let options = options.expect("a filter has options");
        let key = |option| match option {
            TcOption::Flower(key) => key,
            other => panic!("{other:?} in a flower filter"),
        };
        let mut keys = std::mem::take(options).into_iter().map(key).collect();
        change(&mut keys);
        *options = keys.into_iter().map(TcOption::Flower).collect();
    })
}

/// The decoded filter after a change of its message.
fn decoded_with_message(filter: Filter, change: impl FnOnce(&mut TcMessage)) -> Option<Filter> {
    let mut message = filter.message(INDEX);
    change(&mut message);
    Filter::decode(&read_back(&Request::add(RouteNetlinkMessage::NewTrafficFilter(message))))
}

fn added(class: ClassMinor, profile: &Profile) -> TcMessage {
    read_back(&netem::add_netem(INDEX, class, profile, &tables()).expect("the tables are known"))
}

fn changed(class: ClassMinor, profile: &Profile) -> TcMessage {
    read_back(&netem::change_netem(INDEX, class, profile))
}

/// A netem leaf in the form that `netem_dump` shows since Linux 6.6, changed by `alter`.
fn shown(profile: &Profile, drawn: u64, alter: impl FnOnce(&mut Vec<u8>, &mut Vec<(u16, Vec<u8>)>)) -> TcMessage {
    let mut qopt = options(&changed(2, profile)).expect("a leaf has options");
    let mut attributes = attributes_of(&qopt.split_off(QOPT));
    // The kernel shows these attributes only if they are not zero.
    let is_nothing = |value: &[u8]| value.iter().all(|byte| *byte == 0);
    attributes.retain(|(kind, value)| ![TCA_NETEM_ECN, TCA_NETEM_SLOT].contains(kind) || !is_nothing(value));
    if profile.jitter.is_none() {
        attributes.push((TCA_NETEM_JITTER64, vec![0; 8]));
    }
    if profile.seed.is_none() {
        attributes.push((TCA_NETEM_PRNG_SEED, drawn.to_ne_bytes().to_vec()));
    }
    alter(&mut qopt, &mut attributes);
    with_options("netem", [qopt, nested(&attributes)].concat())
}

fn attributes_of(bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let attribute = |attribute: NlaBuffer<&[u8]>| (attribute.kind(), attribute.value().to_vec());
    NlasIterator::new(bytes).map(|result| attribute(result.expect("a well-formed attribute"))).collect()
}

fn htb_class(rate: u64, ceil: u64, bursts: [u32; 2]) -> TcMessage {
    let mut parms = vec![0; 24];
    parms.extend(words(&bursts));
    parms.resize(44, 0);
    let rates = [(TCA_HTB_RATE64, rate.to_ne_bytes().to_vec()), (TCA_HTB_CEIL64, ceil.to_ne_bytes().to_vec())];
    with_options("htb", [nested(&[(TCA_HTB_PARMS, parms)]), nested(&rates)].concat())
}

fn with_options(kind: &str, options: Vec<u8>) -> TcMessage {
    read_back(&Request::add(RouteNetlinkMessage::NewQueueDiscipline(with_raw(kind, options))))
}

fn with_raw(kind: &str, options: Vec<u8>) -> TcMessage {
    let mut message = message(INDEX, TcHandle { major: 2, minor: 0 }, TcHandle { major: MARK, minor: 2 });
    message.attributes =
        vec![TcAttribute::Kind(kind.to_owned()), TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, options))];
    message
}

fn read_back(request: &Request) -> TcMessage {
    parse(request).expect("an encoded message can be parsed")
}

fn parse(request: &Request) -> Option<TcMessage> {
    let NetlinkPayload::InnerMessage(message) = NetlinkMessage::deserialize(&request.to_bytes(0)).ok()?.payload else {
        return None;
    };
    match message {
        RouteNetlinkMessage::NewQueueDiscipline(message)
        | RouteNetlinkMessage::NewTrafficClass(message)
        | RouteNetlinkMessage::NewTrafficFilter(message) => Some(message),
        _ => None,
    }
}

/// The bytes of attributes, each with its length and padded to four bytes.
fn nested(attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, value) in attributes {
        let length = u16::try_from(4 + value.len()).expect("a short attribute");
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
