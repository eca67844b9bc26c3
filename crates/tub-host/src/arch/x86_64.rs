//! x86-64: state components, and which processor features code can come to rely on.

use super::ExtendedState;
use std::arch::x86_64::__cpuid_count;

/// What the kernel has enabled, from CPUID leaf 0xD.
///
/// XCR0 itself takes an instruction that safe Rust does not offer; the leaf says the same. Sub-leaf
/// 0 gives the supported components (EDX:EAX), the size with the enabled ones (EBX), and the size
/// with all supported ones (ECX): Intel SDM vol. 2A, CPUID; vol. 1, 13.2. A component that ends
/// beyond EBX is not enabled.
pub(crate) fn extended_state() -> ExtendedState {
    if __cpuid_count(0, 0).eax < XSTATE_LEAF {
        return ExtendedState { features: LEGACY_FEATURES, bytes: LEGACY_BYTES };
    }
    let leaf = __cpuid_count(XSTATE_LEAF, 0);
    let mut features = u64::from(leaf.eax) | u64::from(leaf.edx) << 32;
    if leaf.ebx < leaf.ecx {
        for component in 2..63 {
            let bit = 1 << component;
            let state = __cpuid_count(XSTATE_LEAF, component);
            // EAX is the length, EBX the offset.
            if features & bit != 0 && state.ebx.saturating_add(state.eax) > leaf.ebx {
                features &= !bit;
            }
        }
    }
    ExtendedState { features, bytes: leaf.ebx }
}

const XSTATE_LEAF: u32 = 0xd;

/// x87 and SSE.
const LEGACY_FEATURES: u64 = 0b11;

/// The legacy area and the header.
const LEGACY_BYTES: u32 = 512 + 64;

/// Whether compiled code can rely on the feature with that name in `/proc/cpuinfo`.
///
/// Most names there describe the kernel's own means (`smep`), mitigations (`ibpb`), or the virtual
/// machine (`hypervisor`): they come and go with kernels and harm nobody.
///
/// KERNEL(since 6.18): the names are those of `arch/x86/include/asm/cpufeatures.h`.
pub(crate) fn is_used_by_code(feature: &str) -> bool {
    USED_BY_CODE.binary_search(&feature).is_ok()
        || USED_PREFIXES.iter().any(|prefix| feature.starts_with(prefix))
}

/// Families that keep growing.
const USED_PREFIXES: [&str; 4] = ["amx_", "apx", "avx", "sse"];

/// Sorted.
const USED_BY_CODE: [&str; 59] = [
    "3dnow",
    "3dnowext",
    "3dnowprefetch",
    "abm",
    "adx",
    "aes",
    "bmi1",
    "bmi2",
    "cldemote",
    "clflush",
    "clflushopt",
    "clwb",
    "clzero",
    "cmov",
    "cmpccxadd",
    "cx16",
    "cx8",
    "enqcmd",
    "erms",
    "f16c",
    "fma",
    "fma4",
    "fpu",
    "fsgsbase",
    "fsrm",
    "fxsr",
    "gfni",
    "hle",
    "lahf_lm",
    "misalignsse",
    "mmx",
    "mmxext",
    "movbe",
    "movdir64b",
    "movdiri",
    "mwaitx",
    "ospke",
    "pclmulqdq",
    "pni",
    "popcnt",
    "prefetchi",
    "rdpid",
    "rdrand",
    "rdseed",
    "rdtscp",
    "rtm",
    "serialize",
    "sha512",
    "sha_ni",
    "sm3",
    "sm4",
    "ssse3",
    "tbm",
    "tsc",
    "user_shstk",
    "vaes",
    "vpclmulqdq",
    "waitpkg",
    "xop",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted() {
        assert!(USED_BY_CODE.is_sorted());
        assert!(is_used_by_code("avx512_vnni") && is_used_by_code("pni"));
        assert!(!is_used_by_code("hypervisor") && !is_used_by_code("ibpb"));
    }

    #[test]
    fn this_processor_agrees_with_what_the_library_detects() {
        let state = extended_state();
        assert_eq!(state.features & LEGACY_FEATURES, LEGACY_FEATURES);
        assert_eq!(state.features & 1 << 2 != 0, std::is_x86_feature_detected!("avx"));
        assert_eq!(state.features & 0b111 << 5 != 0, std::is_x86_feature_detected!("avx512f"));
        assert!(state.bytes >= LEGACY_BYTES);
    }
}
