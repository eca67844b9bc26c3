//! The facts that an image keeps.
//!
//! In: `uname`, CPUID, and five files of `/proc`. Out: [`HostFacts`].
//! Invariant: under 0.3 ms, since it may run at a restore: of `/proc/cpuinfo` only the first
//! processor is read, for the kernel makes up that file one processor a call.

use crate::Error;
use crate::arch::{ExtendedState, extended_state};
use nix::sys::utsname::uname;
use nix::unistd::{SysconfVar, sysconf};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSymbol, SymbolKind};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use tub_model::{HostFacts, VdsoFacts, VdsoFunction};
use tub_procfs::maps::MapsRecord;
use tub_procfs::{cpuinfo, maps};

/// What this host is.
///
/// # Errors
/// A file of `/proc` that cannot be read or understood, a process without a vdso among them.
pub fn facts() -> Result<HostFacts, Error> {
    let system = uname().map_err(|errno| Error::read("uname", errno.into()))?;
    let page_bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    let cpu = first_processor()?;
    let ExtendedState { features, bytes } = extended_state();
    Ok(HostFacts {
        arch: system.machine().to_string_lossy().into_owned(),
        kernel_release: system.release().to_string_lossy().into_owned(),
        boot_id: boot_id()?,
        page_bytes: page_bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
        cpu_model: cpu.model,
        cpu_features: cpu.features,
        xsave_features: features,
        xsave_bytes: bytes,
        vdso: vdso()?,
    })
}

/// What this host is, where `known` may have been told of it before. What a kernel says of itself and of
/// the processor it says once a boot, and to ask anew is a twentieth of what a restore takes. The
/// processor itself is asked all the same: clones of a virtual machine have one boot in common.
///
/// # Errors
/// As for [`facts`].
pub fn facts_since(known: &HostFacts) -> Result<HostFacts, Error> {
    if boot_id()? != known.boot_id {
        return facts();
    }
    let ExtendedState { features, bytes } = extended_state();
    Ok(HostFacts { xsave_features: features, xsave_bytes: bytes, ..known.clone() })
}

fn boot_id() -> Result<String, Error> {
    let id = std::fs::read_to_string(BOOT_ID).map_err(|error| Error::read(BOOT_ID, error))?;
    Ok(id.trim_end().to_owned())
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

fn first_processor() -> Result<cpuinfo::CpuInfoRecord, Error> {
    let mut file = File::open(CPUINFO).map_err(|error| Error::read(CPUINFO, error))?;
    // Longer than any processor's paragraph; one that is not complete makes for another round.
    let mut bytes = vec![0; 4096];
    let mut length = 0;
    loop {
        let read = file.read(&mut bytes[length..]).map_err(|error| Error::read(CPUINFO, error))?;
        length += read;
        let text = &bytes[..length];
        // The features must be there in whole, not only in part.
        let complete = text.windows(2).any(|pair| pair == b"\n\n");
        if complete || read == 0 {
            return cpuinfo::parse(text).map_err(|error| Error::parse(CPUINFO, error));
        }
        bytes.resize(length + 4096, 0);
    }
}

const CPUINFO: &str = "/proc/cpuinfo";

/// The kernel's mappings in ourselves are those of every process.
///
/// ```text
/// [vvar] [vvar_vclock] [vdso]
/// |<- vvar_bytes ---->|      |      vvar_vclock: KERNEL(since 6.13)
/// |<- span_bytes ----------->|
/// ```
fn vdso() -> Result<VdsoFacts, Error> {
    let text = std::fs::read(MAPS).map_err(|error| Error::read(MAPS, error))?;
    let maps = maps::parse(&text).map_err(|error| Error::parse(MAPS, error))?;
    let is_named = |map: &MapsRecord, name: &str| {
        map.path.as_deref().is_some_and(|path| path.starts_with(name))
    };
    let at = maps.iter().position(|map| is_named(map, "[vdso]"));
    let at = at.ok_or_else(|| Error::lacks(MAPS, "a vdso"))?;
    let code = maps[at].range;
    let mut start = code.start();
    for map in maps[..at].iter().rev() {
        if !is_named(map, "[vvar") || map.range.end() != start {
            break;
        }
        start = map.range.start();
    }
    let length = usize::try_from(code.len()).map_err(|_| Error::lacks(MAPS, "a sane vdso"))?;
    let mut bytes = vec![0; length];
    let memory = File::open(MEMORY).map_err(|error| Error::read(MEMORY, error))?;
    let read = memory.read_exact_at(&mut bytes, code.start());
    read.map_err(|error| Error::read(MEMORY, error))?;
    Ok(VdsoFacts {
        hash: xxhash_rust::xxh3::xxh3_64(&bytes),
        span_bytes: code.end() - start,
        vvar_bytes: code.start() - start,
        functions: functions(&bytes),
    })
}

/// The functions of a vdso; none where it is not understood.
fn functions(vdso: &[u8]) -> Vec<VdsoFunction> {
    let Ok(elf) = ElfFile64::<object::Endianness>::parse(vdso) else { return Vec::new() };
    let function = |symbol: object::read::elf::ElfSymbol64<'_, '_>| {
        let name = symbol.name().ok().filter(|_| symbol.kind() == SymbolKind::Text)?;
        // Each has a second name without this prefix. It is linked to address 0 (arch/x86/entry/
        // vdso/vdso-layout.lds.S), so addresses are offsets.
        name.starts_with("__vdso_")
            .then(|| VdsoFunction { name: name.to_owned(), offset_bytes: symbol.address() })
    };
    let mut functions: Vec<_> = elf.dynamic_symbols().filter_map(function).collect();
    functions.sort_by(|one, other| one.name.cmp(&other.name));
    functions
}

const MAPS: &str = "/proc/self/maps";
const MEMORY: &str = "/proc/self/mem";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare;

    #[test]
    fn this_host_is_like_itself() {
        let (one, other) = (facts().unwrap(), facts().unwrap());
        assert_eq!(one, other);
        assert_eq!(compare(&one, &other), []);
    }

    #[test]
    fn what_was_told_since_the_same_boot_is_believed_and_nothing_else() {
        let mut known = facts().unwrap();
        known.cpu_model = "somebody's".to_owned();
        assert_eq!(facts_since(&known).unwrap(), known);
        let other = HostFacts { xsave_features: 0, xsave_bytes: 0, ..known.clone() };
        assert_eq!(facts_since(&other).unwrap(), known);
        known.boot_id = "another".to_owned();
        assert_eq!(facts_since(&known).unwrap(), facts().unwrap());
    }

    #[test]
    fn the_facts_are_those_of_this_host() {
        let facts = facts().unwrap();
        assert_eq!(facts.arch, std::env::consts::ARCH);
        assert_eq!(facts.page_bytes, 4096);
        assert_eq!(facts.boot_id.len(), 36);
        assert!(facts.cpu_features.len() > 20 && facts.cpu_features.is_sorted());
        assert!(facts.vdso.vvar_bytes > 0 && facts.vdso.span_bytes > facts.vdso.vvar_bytes);
        let names: Vec<_> = facts.vdso.functions.iter().map(|one| one.name.as_str()).collect();
        assert!(names.is_sorted(), "{names:?}");
        assert!(facts.arch != "x86_64" || names.contains(&"__vdso_clock_gettime"), "{names:?}");
        assert!(facts.vdso.hash != 0 && facts.xsave_bytes >= 576);
    }
}
