//! What becomes of a packet that a filter matches: the generic action (pass, drop, go to another chain) and the sample
//! before a drop (`tc-actions(8)`, `tc-sample(8)`, `include/uapi/linux/tc_act/tc_gact.h`, `tc_sample.h`).

use rtnetlink::packet_core::{DefaultNla, Nla};
use rtnetlink::packet_route::tc::{TcAction, TcActionAttribute, TcActionOption};

use super::stats;
use crate::plan::{SAMPLE_GROUP, SAMPLE_LENGTH, Tally};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Verdict {
    /// It goes on, past the filters that come after.
    Pass,
    /// It is dropped. At a classful root and at ingress the sender is told nothing; at clsact egress it would be.
    Drop,
    /// Its first bytes go to whoever listens to our samples, and it is dropped all the same.
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

/// What a sample is like, in the order in which `tc` writes it: every packet, our group, so much of it.
const SAMPLE: [(u16, u32); 3] =
    [(TCA_SAMPLE_RATE, 1), (TCA_SAMPLE_PSAMPLE_GROUP, SAMPLE_GROUP), (TCA_SAMPLE_TRUNC_SIZE, SAMPLE_LENGTH)];

/// The actions of a filter with this verdict.
pub(super) fn encode(verdict: Verdict) -> Vec<TcAction> {
    let code = match verdict {
        Verdict::Pass => TC_ACT_OK,
        Verdict::Drop | Verdict::SampleAndDrop => TC_ACT_SHOT,
        Verdict::GotoChain(chain) => TC_ACT_GOTO_CHAIN | (chain & TC_ACT_EXT_VAL_MASK),
    };
    let sample = (verdict == Verdict::SampleAndDrop).then(|| {
        let options = SAMPLE.map(|(kind, value)| (kind, value.to_ne_bytes().to_vec()));
        ("sample", [(TCA_SAMPLE_PARMS, parms(TC_ACT_PIPE))].into_iter().chain(options).collect())
    });
    let actions = sample.into_iter().chain([("gact", vec![(TCA_GACT_PARMS, parms(code))])]);
    // They are numbered in the order in which they are taken.
    (1..).zip(actions).map(|(number, (kind, options))| action(number, kind, options)).collect()
}

/// The verdict of a filter's actions, or `None` if they are anything but those above.
pub(super) fn decode(actions: &[TcAction]) -> Option<Verdict> {
    match actions {
        [action] => generic(action),
        [first, last] if is_sample(first) && generic(last) == Some(Verdict::Drop) => Some(Verdict::SampleAndDrop),
        _ => None,
    }
}

/// What the last of a filter's actions has seen, which is all that the filter matched.
pub(super) fn tally(actions: &[TcAction]) -> Tally {
    let attributes = actions.last().map(|action| action.attributes.as_slice()).unwrap_or_default();
    let stats = attributes.iter().find_map(|attribute| match attribute {
        TcActionAttribute::Stats(stats) => Some(stats.as_slice()),
        _ => None,
    });
    stats::tally(stats.unwrap_or_default())
}

fn generic(action: &TcAction) -> Option<Verdict> {
    let options = options(action, "gact")?;
    // `random`: another verdict for some of the packets.
    if options.iter().any(|(kind, _)| *kind == TCA_GACT_PROB) {
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
    // Besides, when it was used, which is not what it does.
    let is_known = |kind: &u16| {
        [TCA_SAMPLE_TM, TCA_SAMPLE_PARMS, TCA_SAMPLE_PAD].contains(kind) || SAMPLE.iter().any(|(own, _)| own == kind)
    };
    goes_on && is_ours && options.iter().all(|(kind, _)| is_known(kind))
}

fn action(number: u16, kind: &str, options: Vec<(u16, Vec<u8>)>) -> TcAction {
    let options = options.into_iter().map(|(kind, value)| TcActionOption::Other(DefaultNla::new(kind, value)));
    let mut action = TcAction::default();
    action.tab = number;
    action.attributes = vec![TcActionAttribute::Kind(kind.to_owned()), TcActionAttribute::Options(options.collect())];
    action
}

/// `tc_gen` of `include/uapi/linux/pkt_cls.h`: index, capab, action, refcnt, bindcnt.
fn parms(code: u32) -> Vec<u8> {
    [0, 0, code, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// What is to be done, from such a structure.
fn code(parms: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(parms.get(8..12)?.try_into().ok()?))
}

/// The options of an action of this kind.
fn options(action: &TcAction, kind: &str) -> Option<Vec<(u16, Vec<u8>)>> {
    let is_kind = action.attributes.iter().any(|attribute| match attribute {
        TcActionAttribute::Kind(other) => other == kind,
        _ => false,
    });
    let options = action.attributes.iter().find_map(|attribute| match attribute {
        TcActionAttribute::Options(options) => Some(options),
        _ => None,
    });
    let bytes = |option: &TcActionOption| {
        let mut bytes = vec![0; option.value_len()];
        option.emit_value(&mut bytes);
        (option.kind(), bytes)
    };
    options.filter(|_| is_kind).map(|options| options.iter().map(bytes).collect())
}

fn find(options: &[(u16, Vec<u8>)], kind: u16) -> Option<&[u8]> {
    options.iter().find(|(other, _)| *other == kind).map(|(_, value)| value.as_slice())
}
