//! Parses `/proc/cpuinfo` as far as the first processor.
//!
//! In: bytes. Out: its model and features.

use crate::error::{Place, Result};
use crate::text::{lines, name};
use alloc::{string::String, vec::Vec};

/// The first processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuInfoRecord {
    /// `model name`; empty where the kernel names none.
    pub model: String,
    /// `flags` on x86, `Features` on aarch64: sorted, each once.
    pub features: Vec<String>,
}

/// Parses the first processor's paragraph.
///
/// # Errors
/// No line with features, or names that are not UTF-8.
pub fn parse(bytes: &[u8]) -> Result<CpuInfoRecord> {
    let mut model = String::new();
    for (place, line) in lines("cpuinfo", bytes) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let value = line[colon + 1..].trim_ascii();
        match line[..colon].trim_ascii_end() {
            b"model name" => model = name(place, "model name", value)?,
            b"flags" | b"Features" => {
                let text = name(place, "flags", value)?;
                let mut features: Vec<String> =
                    text.split_ascii_whitespace().map(String::from).collect();
                features.sort_unstable();
                features.dedup();
                return Ok(CpuInfoRecord { model, features });
            }
            _ => {}
        }
    }
    Err(Place::file("cpuinfo").missing("flags"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_and_features() {
        let text = include_bytes!("../../../tests/fixtures/proc/6.18/cpuinfo");
        let cpu = parse(text).unwrap();
        assert_eq!(cpu.model, "AMD EPYC");
        assert!(cpu.features.is_sorted());
        assert!(cpu.features.iter().any(|feature| feature == "avx2"));
        assert!(parse(b"processor: 0\n").is_err());
    }
}
