//! The generic action: pass, drop, go to another chain (`tc-actions(8)`, `include/uapi/linux/tc_act/tc_gact.h`).

use rtnetlink::packet_core::{DefaultNla, Nla};
use rtnetlink::packet_route::tc::{TcAction, TcActionAttribute, TcActionOption};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Verdict {
    /// It goes on, past the filters that come after.
    Pass,
    /// It is dropped. At a classful root and at ingress the sender is told nothing; at clsact egress it would be.
    Drop,
    /// The filters of another chain decide.
    GotoChain(u32),
}

const TCA_GACT_PARMS: u16 = 2;
const TCA_GACT_PROB: u16 = 3;
const TC_ACT_OK: u32 = 0;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_GOTO_CHAIN: u32 = 0x2000_0000;
const TC_ACT_EXT_VAL_MASK: u32 = 0x0fff_ffff;

/// The action as the only one of a filter.
pub(super) fn encode(verdict: Verdict) -> Vec<TcAction> {
    let code = match verdict {
        Verdict::Pass => TC_ACT_OK,
        Verdict::Drop => TC_ACT_SHOT,
        Verdict::GotoChain(chain) => TC_ACT_GOTO_CHAIN | (chain & TC_ACT_EXT_VAL_MASK),
    };
    // struct tc_gact: index, capab, action, refcnt, bindcnt.
    let parms = [0, 0, code, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
    let mut action = TcAction::default();
    action.tab = 1;
    action.attributes = vec![
        TcActionAttribute::Kind("gact".to_owned()),
        TcActionAttribute::Options(vec![TcActionOption::Other(DefaultNla::new(TCA_GACT_PARMS, parms))]),
    ];
    vec![action]
}

/// The verdict of a filter's actions, or `None` if they are anything but one gact of those above.
pub(super) fn decode(actions: &[TcAction]) -> Option<Verdict> {
    let [action] = actions else { return None };
    let is_gact = action.attributes.iter().any(|attribute| match attribute {
        TcActionAttribute::Kind(kind) => kind == "gact",
        _ => false,
    });
    let options = action.attributes.iter().find_map(|attribute| match attribute {
        TcActionAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    // `random`: another verdict for some of the packets.
    if options.iter().any(|option| option.kind() == TCA_GACT_PROB) {
        return None;
    }
    let parms = options.iter().find(|option| option.kind() == TCA_GACT_PARMS)?;
    let mut bytes = vec![0; parms.value_len()];
    parms.emit_value(&mut bytes);
    let code = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
    match code {
        _ if !is_gact => None,
        TC_ACT_OK => Some(Verdict::Pass),
        TC_ACT_SHOT => Some(Verdict::Drop),
        _ if code & !TC_ACT_EXT_VAL_MASK == TC_ACT_GOTO_CHAIN => Some(Verdict::GotoChain(code & TC_ACT_EXT_VAL_MASK)),
        _ => None,
    }
}
