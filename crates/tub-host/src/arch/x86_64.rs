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

/// Whether compiled code may rely on the feature with that name in `/proc/cpuinfo`.
///
/// Many names there describe the kernel's own means (`smep`), mitigations (`ibpb`) or the virtual
/// machine (`hypervisor`): they come and go with kernels and harm nobody. A name that is in neither
/// list counts as used: to refuse wrongly is a nuisance, to run code without its instructions is
/// not.
///
/// KERNEL(since 6.18): the names are those of `arch/x86/include/asm/cpufeatures.h`.
pub(crate) fn is_used_by_code(feature: &str) -> bool {
    let kernels_own = KERNELS_OWN.binary_search(&feature).is_ok()
        || KERNELS_OWN_PREFIXES.iter().any(|prefix| feature.starts_with(prefix));
    !kernels_own
}

/// Families: performance counters, quality of service, mitigations, virtual machines.
const KERNELS_OWN_PREFIXES: [&str; 20] = [
    "amd_",
    "arch_",
    "bhi_",
    "cat_",
    "cdp_",
    "cqm",
    "ept",
    "hwp",
    "ibpb",
    "ibrs",
    "intel_",
    "mb",
    "perfctr_",
    "retpoline",
    "rsb_",
    "sev",
    "ssb",
    "stibp",
    "svm",
    "tsc_",
];

/// Sorted.
const KERNELS_OWN: [&str; 106] = [
    "acpi",
    "aperfmperf",
    "apic",
    "arat",
    "art",
    "auto_ibrs",
    "avic",
    "bpext",
    "bts",
    "cmp_legacy",
    "constant_tsc",
    "cpb",
    "cpuid",
    "cpuid_fault",
    "cr8_legacy",
    "dca",
    "de",
    "debug_swap",
    "decodeassists",
    "ds_cpl",
    "dtes64",
    "dtherm",
    "dts",
    "epb",
    "est",
    "extapic",
    "extd_apicid",
    "flexpriority",
    "flush_l1d",
    "flushbyasid",
    "ht",
    "hw_pstate",
    "hypervisor",
    "ibs",
    "ida",
    "invpcid",
    "invpcid_single",
    "lbrv",
    "lm",
    "mca",
    "mce",
    "md_clear",
    "monitor",
    "msr",
    "mtrr",
    "nodeid_msr",
    "nonstop_tsc",
    "npt",
    "nrip_save",
    "nx",
    "osvw",
    "overflow_recov",
    "pae",
    "pat",
    "pausefilter",
    "pbe",
    "pcid",
    "pconfig",
    "pdcm",
    "pdpe1gb",
    "pebs",
    "pfthreshold",
    "pge",
    "pln",
    "proc_feedback",
    "pse",
    "pse36",
    "pti",
    "pts",
    "rapl",
    "rdt_a",
    "rep_good",
    "sdbg",
    "sep",
    "skinit",
    "smap",
    "smca",
    "sme",
    "smep",
    "smx",
    "split_lock_detect",
    "ss",
    "succor",
    "tm",
    "tm2",
    "topoext",
    "tpr_shadow",
    "umip",
    "v_spec_ctrl",
    "v_vmsave_vmload",
    "vgif",
    "vmcb_clean",
    "vme",
    "vmmcall",
    "vmx",
    "vnmi",
    "vpid",
    "wbnoinvd",
    "wdt",
    "x2apic",
    "x2avic",
    "xsaveerptr",
    "xsaves",
    "xtopology",
    "xtpr",
    "zen",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted() {
        assert!(KERNELS_OWN.is_sorted() && KERNELS_OWN_PREFIXES.is_sorted());
        assert!(is_used_by_code("avx512_vnni") && is_used_by_code("zz_of_tomorrow"));
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
