//! Encodes and decodes the actions of filters: gact (pass, drop, go to another chain), and a sample before a drop.
//!
//! See `tc-actions(8)`, `tc-sample(8)` and `include/uapi/linux/tc_act/` (`tc_gact.h`, `tc_sample.h`).

use rtnetlink::packet_core::{DefaultNla, Nla};
use rtnetlink::packet_route::tc::{TcAction, TcActionAttribute, TcActionOption};

use super::stats;
use crate::{
    kernel::bytes::{Attribute, find, first, u32_at, value, words},
    plan::{SAMPLE_GROUP, SAMPLE_LENGTH, Tally},
};

/// The decision of a filter about its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Verdict {
    /// The packet skips the later filters.
    Pass,
    /// The packet is dropped, and the sender gets no error. Only a drop at clsact's egress reports an error.
    Drop,
    /// The listeners of our sample group get the beginning of the packet, and the packet is dropped.
    SampleAndDrop,
    /// The filters of another chain decide.
    GotoChain(u32),
}

const TCA_GACT_PARMS: u16 = 2;
const TCA_GACT_PROB: u16 = 3;
const TCA_SAMPLE_TM: u16 = 1;
const TCA_SAMPLE_PARMS: u16 = 2;
const TCA_SAMPLE_RATE: u16 = 3;
const TCA_SAMPLE_TRUNC_SIZE: u16 = 4;
const TCA_SAMPLE_PSAMPLE_GROUP: u16 = 5;
const TCA_SAMPLE_PAD: u16 = 6;
const TC_ACT_OK: u32 = 0;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_PIPE: u32 = 3;
const TC_ACT_GOTO_CHAIN: u32 = 0x2000_0000;
const TC_ACT_EXT_VAL_MASK: u32 = 0x0fff_ffff;

/// The parameters of our samples, in the order of `tc`: every packet, our group, the length.
const SAMPLE: [(u16, u32); 3] =
    [(TCA_SAMPLE_RATE, 1), (TCA_SAMPLE_PSAMPLE_GROUP, SAMPLE_GROUP), (TCA_SAMPLE_TRUNC_SIZE, SAMPLE_LENGTH)];

/// The actions of a filter with this verdict. `counter`: the index of an existing last action, whose counter the filter
/// shares.
pub(super) fn encode(verdict: Verdict, counter: Option<u32>) -> Vec<TcAction> {
    let code = match verdict {
        Verdict::Pass => TC_ACT_OK,
        Verdict::Drop | Verdict::SampleAndDrop => TC_ACT_SHOT,
        Verdict::GotoChain(chain) => TC_ACT_GOTO_CHAIN | (chain & TC_ACT_EXT_VAL_MASK),
    };
    let sample = (verdict == Verdict::SampleAndDrop).then(|| {
        let options = SAMPLE.map(|(kind, value)| (kind, words(&[value])));
        ("sample", [(TCA_SAMPLE_PARMS, parms(0, TC_ACT_PIPE))].into_iter().chain(options).collect())
    });
    let actions = sample.into_iter().chain([("gact", vec![(TCA_GACT_PARMS, parms(counter.unwrap_or(0), code))])]);
    // The kernel runs the actions in the order of their numbers.
    (1..).zip(actions).map(|(number, (kind, options))| action(number, kind, options)).collect()
}

/// The verdict of a filter's actions. `None`: the actions are foreign.
pub(super) fn decode(actions: &[TcAction]) -> Option<Verdict> {
    match actions {
        [action] => generic(action),
        [first, last] if is_sample(first) && generic(last) == Some(Verdict::Drop) => Some(Verdict::SampleAndDrop),
        _ => None,
    }
}

/// The counters of the last action, which sees all packets of the filter.
pub(super) fn tally(actions: &[TcAction]) -> Tally {
    let stats = actions.last().and_then(|action| first!(action.attributes, TcActionAttribute::Stats(stats) => stats));
    stats::tally(stats.map_or(&[], Vec::as_slice))
}

/// The index of the last action. `None`: the kernel has not made the action yet.
pub(super) fn counter(actions: &[TcAction]) -> Option<u32> {
    u32_at(find(&options(actions.last()?, "gact")?, TCA_GACT_PARMS)?, 0).filter(|index| *index != 0)
}

fn generic(action: &TcAction) -> Option<Verdict> {
    let options = options(action, "gact")?;
    // `random`: some packets get another verdict.
    if find(&options, TCA_GACT_PROB).is_some() {
        return None;
    }
    match code(find(&options, TCA_GACT_PARMS)?)? {
        TC_ACT_OK => Some(Verdict::Pass),
        TC_ACT_SHOT => Some(Verdict::Drop),
        code if code & !TC_ACT_EXT_VAL_MASK == TC_ACT_GOTO_CHAIN => {
            Some(Verdict::GotoChain(code & TC_ACT_EXT_VAL_MASK))
        }
        _ => None,
    }
}

fn is_sample(action: &TcAction) -> bool {
    let Some(options) = options(action, "sample") else { return false };
    let goes_on = find(&options, TCA_SAMPLE_PARMS).and_then(code) == Some(TC_ACT_PIPE);
    let is_ours = SAMPLE.iter().all(|(kind, value)| find(&options, *kind) == Some(&value.to_ne_bytes()));
    // TCA_SAMPLE_TM has the times of use.
    let is_known = |kind: &u16| {
        [TCA_SAMPLE_TM, TCA_SAMPLE_PARMS, TCA_SAMPLE_PAD].contains(kind) || SAMPLE.iter().any(|(own, _)| own == kind)
    };
    goes_on && is_ours && options.iter().all(|(kind, _)| is_known(kind))
}

fn action(number: u16, kind: &str, options: Vec<Attribute>) -> TcAction {
    let options = options.into_iter().map(|(kind, value)| TcActionOption::Other(DefaultNla::new(kind, value)));
    let mut action = TcAction::default();
    action.tab = number;
    action.attributes = vec![TcActionAttribute::Kind(kind.to_owned()), TcActionAttribute::Options(options.collect())];
    action
}

/// `tc_gen` of `include/uapi/linux/pkt_cls.h`: index, capab, action, refcnt, bindcnt.
///
/// With the index 0, the kernel makes a new action.
fn parms(index: u32, code: u32) -> Vec<u8> {
    words(&[index, 0, code, 0, 0])
}

/// The action code of a `tc_gen`.
fn code(parms: &[u8]) -> Option<u32> {
    u32_at(parms, 8)
}

/// The options of an action, if the action is of this kind.
fn options(action: &TcAction, kind: &str) -> Option<Vec<Attribute>> {
    first!(action.attributes, TcActionAttribute::Kind(other) if other == kind => ())?;
    let options = first!(action.attributes, TcActionAttribute::Options(options) => options)?;
    Some(options.iter().map(|option| (option.kind(), value(option))).collect())
}
