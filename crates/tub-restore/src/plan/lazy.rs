//! Whether a task's pages may be mapped from the image, where they would come back after
//! `MADV_DONTNEED` rather than be zeros.
//!
//! In: the mode, a task. Out: a decision and its reason. Pure.
//! Invariant: `auto` is lazy only where everything that may discard pages is known to bear it
//! (design decision E6).

use super::MemoryMode;
use std::fmt;
use tub_model::{Backing, DiscardKind, Discarder, Task};

/// How the memory of a task is restored, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryDecision {
    /// Whether pages are mapped from the image, to arrive when they are touched.
    pub lazy: bool,
    /// Why, for people.
    pub reason: String,
}

impl fmt::Display for MemoryDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", if self.lazy { "lazy" } else { "exact" }, self.reason)
    }
}

/// Programs and libraries whose calls of `madvise` were looked through, by file name up to a dot or
/// the end: none reads a page that it has discarded and takes it for zeros.
///
/// The C libraries are not in the list, since they import nothing: glibc clears what `calloc` gives
/// but for memory beyond what an arena ever reached, and musl but for mappings of their own.
const VETTED: [&str; 12] = [
    // HotSpot maps anew what it gives back, and clears what it takes.
    "libjvm",
    // `MappedByteBuffer.load`: MADV_WILLNEED on mapped files.
    "libnio",
    // V8 takes discarded pages to hold anything, and maps anew where it wants zeros.
    "node",
    "libnode",
    // CPython's module where it is not built in: only calls that the program itself makes.
    "mmap",
    // NumPy: MADV_HUGEPAGE on large arrays.
    "_multiarray_umath",
    // OpenSSL: MADV_DONTDUMP on its secure heap.
    "libcrypto",
    // MADV_DONTDUMP on guarded allocations.
    "libsodium",
    // The stacks of compiled patterns, which are written before they are read.
    "libpcre2-8",
    "libpcre2-16",
    // BoringSSL: MADV_WIPEONFORK on a page of its own.
    "libconscrypt_openjdk_jni",
    "libnetty_tcnative_linux_x86_64",
];

/// Decides for `task`.
///
/// KERNEL(since 2.6): what is mapped from a file system mounted noexec can never be made executable
/// (`do_mmap` takes VM_MAYEXEC away), which V8 does with the code it has written. HotSpot's has all
/// rights from the start, and such mappings are not the image's there.
pub(super) fn decide(mode: MemoryMode, task: &Task, store_is_noexec: bool) -> MemoryDecision {
    let asked = || "as asked for".to_owned();
    match mode {
        MemoryMode::Lazy => MemoryDecision { lazy: true, reason: asked() },
        MemoryMode::Eager => MemoryDecision { lazy: false, reason: asked() },
        MemoryMode::Auto => match auto_memory(task) {
            decision if decision.lazy && store_is_noexec && !has_jvm(task) => MemoryDecision {
                lazy: false,
                reason: "the image lies on a file system mounted noexec".to_owned(),
            },
            decision => decision,
        },
    }
}

/// What [`MemoryMode::Auto`] means for `task`.
pub fn auto_memory(task: &Task) -> MemoryDecision {
    let exact = |reason| MemoryDecision { lazy: false, reason };
    let Some(runtime) = mapped_paths(task).find(|path| is_runtime(file_name(path))) else {
        return exact(format!("nothing is known of {}", task.exe.path));
    };
    if let Some(openj9) = mapped_paths(task).find(|path| file_name(path).starts_with("libj9")) {
        return exact(format!("nothing is known of {openj9}"));
    }
    if let Some(Discarder { path, kind }) = task.discarders.iter().find(|one| !is_vetted(one)) {
        return exact(match kind {
            DiscardKind::Imports => format!("{path} calls madvise and may count on zeros"),
            DiscardKind::Allocator => format!("{path} is an allocator and may count on zeros"),
            DiscardKind::Static => format!("{path} is linked statically, with any allocator"),
            DiscardKind::Unknown => format!("{path} could not be looked into"),
        });
    }
    MemoryDecision { lazy: true, reason: format!("{runtime} bears it") }
}

fn is_vetted(discarder: &Discarder) -> bool {
    let name = file_name(&discarder.path);
    let is = |vetted: &&str| {
        name.strip_prefix(*vetted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    // What comes with an allocator, or may, is not what was looked through under that name.
    discarder.kind == DiscardKind::Imports && (is_python(name) || VETTED.iter().any(is))
}

fn has_jvm(task: &Task) -> bool {
    mapped_paths(task).any(|path| file_name(path) == "libjvm.so")
}

/// Runtimes that do not rely on discarded pages being zeros.
fn is_runtime(name: &str) -> bool {
    name == "libjvm.so" || name == "node" || name.starts_with("libnode.so") || is_python(name)
}

/// CPython, but for builds without the global lock, whose objects are mimalloc's (`python3.13t`).
fn is_python(name: &str) -> bool {
    let version = name.strip_prefix("lib").unwrap_or(name).strip_prefix("python3");
    version.is_some_and(|rest| {
        !rest
            .trim_start_matches(['.', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
            .starts_with('t')
    })
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn mapped_paths(task: &Task) -> impl Iterator<Item = &str> {
    task.vmas.iter().filter_map(|vma| match &vma.backing {
        Backing::PrivateFile { file, .. } => Some(file.path.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discarder_is_vetted_by_its_whole_name() {
        let vetted = |path: &str, kind| is_vetted(&Discarder { path: path.to_owned(), kind });
        for path in ["/usr/bin/node", "/j/libjvm.so", "/l/libcrypto.so.3", "/usr/bin/python3.11"] {
            assert!(vetted(path, DiscardKind::Imports), "{path}");
            for kind in [DiscardKind::Allocator, DiscardKind::Static, DiscardKind::Unknown] {
                assert!(!vetted(path, kind), "{path}");
            }
        }
        assert!(vetted("/x/mmap.cpython-311-x86_64-linux-gnu.so", DiscardKind::Imports));
        let others = [
            "/usr/bin/nodejemalloc",
            "/l/libjvmti.so",
            "/node/libfast.so",
            "/usr/lib/libjemalloc.so.2",
            "/usr/bin/python3.13t",
        ];
        for path in others {
            assert!(!vetted(path, DiscardKind::Imports), "{path}");
        }
    }
}
