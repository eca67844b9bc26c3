//! One mapping of this process, without the list of all of them.
//!
//! In: an address. Out: what is mapped there. Invariant: nothing is changed.
//!
//! The kernel takes a third of a millisecond to write the list of a JVM's mappings down, while the
//! processors have the first requests to answer.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// A mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Whether it is one that is read and written, and shared.
    pub(crate) is_shared_writable: bool,
    /// As `/proc/PID/maps` has it (proc_pid_maps(5)); empty where it has no name.
    pub(crate) path: String,
}

/// `struct procmap_query` (linux/fs.h).
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

/// `_IOWR('f', 17, struct procmap_query)`.
const PROCMAP_QUERY: libc::c_ulong = 0xc068_6611;
/// `PROCMAP_QUERY_VMA_READABLE`, `_WRITABLE`, `_EXECUTABLE` and `_SHARED`.
const RIGHTS: u64 = 0xf;
const SHARED_WRITABLE: u64 = 1 | 2 | 8;
/// Room for a path (linux/limits.h).
const PATH_MAX: u32 = 4096;

/// What is mapped at `address`, if anything is.
///
/// # Errors
///
/// Where the kernel cannot be asked this: KERNEL(since 6.11).
pub(crate) fn at(address: u64) -> io::Result<Option<Mapping>> {
    let maps = File::open("/proc/self/maps")?;
    let mut path = vec![0u8; PATH_MAX as usize];
    let mut query = Query {
        size: size_of::<Query>() as u64,
        query_addr: address,
        vma_name_size: PATH_MAX,
        vma_name_addr: path.as_mut_ptr() as u64,
        ..Query::default()
    };
    // SAFETY: the kernel writes at most `size` bytes to the query, and at most `vma_name_size` to `path`,
    // which both outlive the call.
    let result = unsafe { libc::ioctl(maps.as_raw_fd(), PROCMAP_QUERY, &raw mut query) };
    if result != 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENOENT) { Ok(None) } else { Err(error) };
    }
    // With the NUL at its end; 0 where there is no name.
    path.truncate(usize::try_from(query.vma_name_size).unwrap_or(0).saturating_sub(1));
    Ok(Some(Mapping {
        start: query.vma_start,
        end: query.vma_end,
        is_shared_writable: query.vma_flags & RIGHTS == SHARED_WRITABLE,
        path: String::from_utf8_lossy(&path).into_owned(),
    }))
}

const _: () = assert!(size_of::<Query>() == 104);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_as_the_list_has_it() {
        let here = a_mapping_is_as_the_list_has_it as *const () as u64;
        let found = match at(here) {
            Ok(found) => found.unwrap(),
            Err(error) => return eprintln!("skipped: this kernel cannot be asked ({error})"),
        };
        let text = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = format!("{:x}-{:x} r-xp", found.start, found.end);
        let line = text.lines().find(|text| text.starts_with(&line)).unwrap();
        assert!(line.ends_with(&found.path) && !found.path.is_empty(), "{line} {found:?}");
        assert!(!found.is_shared_writable);
        assert_eq!(at(8).unwrap(), None);
    }
}
