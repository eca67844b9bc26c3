//! Facts about the host that decide whether an image can live on another one.

use alloc::{string::String, vec::Vec};

/// What the host of a checkpoint was, as far as a restored process can tell the difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// `uname -m`: `"x86_64"`.
    pub arch: String,
    /// `uname -r`, for messages; never compared.
    pub kernel_release: String,
    /// `/proc/sys/kernel/random/boot_id`: tells whether the monotonic clock is the same one.
    pub boot_id: String,
    /// Page size in bytes.
    pub page_bytes: u64,
    /// Processor model, for messages; never compared.
    pub cpu_model: String,
    /// Processor features by the names of `/proc/cpuinfo`, sorted. JIT code relies on them.
    pub cpu_features: Vec<String>,
    /// XCR0: the state components that the kernel saves (Intel SDM vol. 1, 13.3).
    pub xsave_features: u64,
    /// Bytes of an uncompacted xsave area with those components (CPUID 0xD, ECX=0, EBX).
    pub xsave_bytes: u32,
    /// The kernel's vdso, whose code the process has cached addresses of.
    pub vdso: VdsoFacts,
}

/// Shape and content of the mappings that the kernel puts into every process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VdsoFacts {
    /// XXH3-64 of the bytes of `[vdso]`.
    pub hash: u64,
    /// Bytes from the start of `[vvar]` to the end of `[vdso]`.
    pub span_bytes: u64,
    /// Bytes from the start of `[vvar]` to the start of `[vdso]`.
    pub vvar_bytes: u64,
    /// The functions in it, sorted by name.
    pub functions: Vec<VdsoFunction>,
}

/// A function of the vdso, by which a C library saves itself a system call (vdso(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VdsoFunction {
    /// `"__vdso_clock_gettime"`.
    pub name: String,
    /// Bytes from the start of `[vdso]` to its first instruction.
    pub offset_bytes: u64,
}
