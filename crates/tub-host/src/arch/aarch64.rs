//! aarch64: compiles, and has nothing to say yet; restoring is refused elsewhere.

use super::ExtendedState;

/// None: SVE and SME will need their own description.
pub(crate) fn extended_state() -> ExtendedState {
    ExtendedState::default()
}

/// No feature is compared yet.
pub(crate) fn is_used_by_code(_feature: &str) -> bool {
    true
}
