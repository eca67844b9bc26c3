//! What differs between architectures; the same items in each.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::*;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;

/// What the kernel saves of a thread beyond its general registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExtendedState {
    /// State components, by their bits in XCR0.
    pub(crate) features: u64,
    /// Bytes that they take, uncompacted.
    pub(crate) bytes: u32,
}
