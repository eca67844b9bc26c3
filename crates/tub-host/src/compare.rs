//! Whether an image from one host can live on another.
//!
//! In: the facts of both. Out: every reason why not. Pure.
//! Not here: files, ports and ids that the process needs (`tub-restore`).

use crate::arch::is_used_by_code;
use std::fmt;
use tub_model::{HostFacts, VdsoFacts};

/// One reason why a process from there cannot go on here.
///
/// Its text names both values; the hosts are called `image` and `here`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mismatch {
    /// Another architecture.
    Architecture {
        /// The image's.
        image: String,
        /// Ours.
        here: String,
    },
    /// Another page size.
    PageSize {
        /// The image's, in bytes.
        image: u64,
        /// Ours.
        here: u64,
    },
    /// Features that compiled code may be using are missing here.
    CpuFeatures {
        /// Their names in `/proc/cpuinfo`, sorted.
        missing: Vec<String>,
        /// The image's processor.
        image: String,
        /// Ours.
        here: String,
    },
    /// Register state would not fit: the kernel here saves fewer components.
    StateComponents {
        /// The image's, as of XCR0.
        image: u64,
        /// Ours.
        here: u64,
    },
    /// The layout of saved registers differs.
    StateSize {
        /// The image's, in bytes.
        image: u32,
        /// Ours.
        here: u32,
    },
    /// The kernel's code in every process differs, and the image has cached addresses in it.
    Vdso {
        /// The image's kernel.
        image: String,
        /// Ours.
        here: String,
        /// Whether only the code differs, and not the size and place of the mappings.
        same_shape: bool,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Architecture { image, here } => {
                write!(f, "architecture is {image} in the image, {here} here")
            }
            Self::PageSize { image, here } => {
                write!(f, "page size is {image} bytes in the image, {here} here")
            }
            Self::CpuFeatures { missing, image, here } => write!(
                f,
                "processor ({here}) lacks {} that code from the image's ({image}) may use",
                missing.join(", ")
            ),
            Self::StateComponents { image, here } => {
                write!(f, "xsave components (XCR0) are {image:#x} in the image, {here:#x} here")
            }
            Self::StateSize { image, here } => {
                write!(f, "xsave area takes {image} bytes in the image, {here} here")
            }
            Self::Vdso { image, here, same_shape } => {
                let what = if *same_shape { "code" } else { "layout" };
                write!(f, "vdso {what} of kernel {here} differs from that of the image's, {image}")
            }
        }
    }
}

/// Every reason why a process from `image` cannot go on `here`, the gravest first.
pub fn compare(image: &HostFacts, here: &HostFacts) -> Vec<Mismatch> {
    let mut found = Vec::new();
    if image.arch != here.arch {
        // Whatever else differs follows from it.
        return vec![Mismatch::Architecture { image: image.arch.clone(), here: here.arch.clone() }];
    }
    if image.page_bytes != here.page_bytes {
        found.push(Mismatch::PageSize { image: image.page_bytes, here: here.page_bytes });
    }
    let is_missing = |feature: &&String| {
        is_used_by_code(feature) && here.cpu_features.binary_search(feature).is_err()
    };
    let missing: Vec<String> = image.cpu_features.iter().filter(is_missing).cloned().collect();
    if !missing.is_empty() {
        let (image, here) = (image.cpu_model.clone(), here.cpu_model.clone());
        found.push(Mismatch::CpuFeatures { missing, image, here });
    }
    if image.xsave_features & !here.xsave_features != 0 {
        let (image, here) = (image.xsave_features, here.xsave_features);
        found.push(Mismatch::StateComponents { image, here });
    } else if image.xsave_features == here.xsave_features && image.xsave_bytes != here.xsave_bytes {
        // The same components at other offsets: vendors leave different gaps.
        found.push(Mismatch::StateSize { image: image.xsave_bytes, here: here.xsave_bytes });
    }
    // Another vdso is bridged function by function, where it is known which ones the image's has.
    if image.vdso != here.vdso && image.vdso.functions.is_empty() {
        let shape = |vdso: &VdsoFacts| (vdso.span_bytes, vdso.vvar_bytes);
        found.push(Mismatch::Vdso {
            image: image.kernel_release.clone(),
            here: here.kernel_release.clone(),
            same_shape: shape(&image.vdso) == shape(&here.vdso),
        });
    }
    found
}

/// Features that compiled code may use `here`, and that the image's processor has not: no reason against a
/// restore, but code from the image makes no use of them.
pub fn unknown_to_image(image: &HostFacts, here: &HostFacts) -> Vec<String> {
    let is_new = |feature: &&String| {
        is_used_by_code(feature) && image.cpu_features.binary_search(feature).is_err()
    };
    here.cpu_features.iter().filter(is_new).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostFacts {
        HostFacts {
            arch: "x86_64".into(),
            kernel_release: "6.18.0".into(),
            boot_id: "one".into(),
            page_bytes: 4096,
            cpu_model: "Old CPU".into(),
            cpu_features: ["avx", "hypervisor", "sse2"].map(String::from).to_vec(),
            xsave_features: 7,
            xsave_bytes: 832,
            vdso: VdsoFacts {
                hash: 1,
                span_bytes: 0x8000,
                vvar_bytes: 0x6000,
                functions: Vec::new(),
            },
        }
    }

    #[test]
    fn what_only_serves_messages_is_not_compared() {
        let mut here = host();
        here.boot_id = "two".into();
        here.cpu_model = "New CPU".into();
        here.kernel_release = "6.19.0".into();
        here.cpu_features = ["avx", "avx2", "sse2"].map(String::from).to_vec();
        here.xsave_features = 0xe7;
        here.xsave_bytes = 2440;
        assert_eq!(compare(&host(), &here), []);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn what_the_image_does_not_know_is_what_code_may_use() {
        let mut here = host();
        assert_eq!(unknown_to_image(&host(), &here), Vec::<String>::new());
        // Another kernel on the same processor, which says more about itself.
        here.cpu_features = ["avx", "ibpb", "sse2"].map(String::from).to_vec();
        assert_eq!(unknown_to_image(&host(), &here), Vec::<String>::new());
        here.cpu_features = ["avx", "avx2", "sse2"].map(String::from).to_vec();
        assert_eq!(unknown_to_image(&host(), &here), ["avx2"]);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn every_reason_comes_at_once_with_both_values() {
        let mut here = host();
        here.page_bytes = 16384;
        here.cpu_model = "Older CPU".into();
        here.cpu_features = vec!["hypervisor".into()];
        here.xsave_features = 3;
        here.xsave_bytes = 576;
        here.kernel_release = "6.6.0".into();
        here.vdso.vvar_bytes = 0x4000;
        let texts: Vec<String> = compare(&host(), &here).iter().map(Mismatch::to_string).collect();
        assert_eq!(
            texts,
            [
                "page size is 4096 bytes in the image, 16384 here",
                "processor (Older CPU) lacks avx, sse2 that code from the image's (Old CPU) may use",
                "xsave components (XCR0) are 0x7 in the image, 0x3 here",
                "vdso layout of kernel 6.6.0 differs from that of the image's, 6.18.0",
            ]
        );
    }

    #[test]
    fn the_same_components_in_another_layout_do_not_fit() {
        let mut here = host();
        here.xsave_bytes = 1088;
        let texts: Vec<String> = compare(&host(), &here).iter().map(Mismatch::to_string).collect();
        assert_eq!(texts, ["xsave area takes 832 bytes in the image, 1088 here"]);
    }

    #[test]
    fn another_architecture_is_the_only_reason() {
        let mut here = host();
        here.arch = "aarch64".into();
        here.page_bytes = 65536;
        assert_eq!(compare(&host(), &here).len(), 1);
    }
}
