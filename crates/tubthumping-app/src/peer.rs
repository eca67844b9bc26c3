//! What every runtime tells an engine about itself in the same way.
//!
//! In: the peer of a conversation, the environment. Out: permission, and a rule.
//! Invariant: what the environment says goes before what a runtime would like.
//! Not here: conversations (`tub_control`).

use tub_control::{OpenRule, Peer};

/// Lets the engine trace this process where Yama asks for permission.
///
/// KERNEL(since 3.4): `Documentation/admin-guide/LSM/Yama.rst`; EINVAL without Yama. A peer in
/// another PID namespace has no number that could be named, so that any process of ours may then.
pub fn allow_tracing_by(peer: Peer) {
    let tracer = libc::c_ulong::try_from(peer.pid).ok().filter(|&pid| pid != 0);
    let any = libc::PR_SET_PTRACER_ANY;
    // SAFETY: prctl(PR_SET_PTRACER) takes a number and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, tracer.unwrap_or(any), 0, 0, 0) };
}

/// What becomes of what the application left open: `TUB_OPEN`, which `tub run` sets; where it is not
/// set, `unsaid`.
pub fn open_rule(unsaid: OpenRule) -> OpenRule {
    match std::env::var("TUB_OPEN").as_deref() {
        Ok("restore") => OpenRule::Restore,
        Err(_) => unsaid,
        _ => OpenRule::Refuse,
    }
}
