//! What no image can hold.

use super::{check, check_long, owned};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::atomic::AtomicU8;

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    owned(libc::c_int::try_from(check_long(result)?).expect("a descriptor is an int"))
}

/// unshare(2) of the calling thread.
pub(crate) fn unshare(what: i32) -> io::Result<()> {
    // SAFETY: takes an integer; the threads of subjects count on nothing that they share this way.
    check(unsafe { libc::unshare(what) }).map(drop)
}

/// mq_open(3) of a queue that has no name any more, as nobody would remove it.
pub(crate) fn message_queue() -> io::Result<OwnedFd> {
    let name = CString::new(format!("tub-{}", std::process::id()))?;
    let (flags, none) = (libc::O_RDWR | libc::O_CREAT, null::<libc::c_void>());
    // SAFETY: a string, integers, and no attributes.
    let queue = unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, 0o600, none) };
    let queue = descriptor(queue)?;
    // SAFETY: takes a string.
    check_long(unsafe { libc::syscall(libc::SYS_mq_unlink, name.as_ptr()) })?;
    Ok(queue)
}

/// memfd_secret(2), mapped and touched.
pub(crate) fn secret_memory() -> io::Result<()> {
    // SAFETY: takes an integer.
    let fd = descriptor(unsafe { libc::syscall(libc::SYS_memfd_secret, 0) })?;
    // SAFETY: takes integers.
    check(unsafe { libc::ftruncate(fd.as_raw_fd(), 4096) })?;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let (shared, fd) = (libc::MAP_SHARED, fd.as_raw_fd());
    // SAFETY: without MAP_FIXED, mmap touches no existing mapping.
    let at = unsafe { libc::mmap(null_mut(), 4096, rights, shared, fd, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the page was mapped a moment ago, and nobody else knows it.
    unsafe { at.cast::<u8>().write(7) };
    Ok(())
}

/// shmat(2) of a segment that ends with its last user.
pub(crate) fn attach_shared() -> io::Result<()> {
    // SAFETY: takes integers.
    let id = check(unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, 0o600) })?;
    // SAFETY: without an address, no existing mapping is touched.
    let at = unsafe { libc::shmat(id, null(), 0) };
    // SAFETY: removal takes no argument.
    check(unsafe { libc::shmctl(id, libc::IPC_RMID, null_mut()) })?;
    if at.addr() == usize::MAX { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// io_setup(2).
pub(crate) fn asynchronous_io() -> io::Result<()> {
    let mut context = 0_usize;
    // SAFETY: the kernel writes one word.
    check_long(unsafe { libc::syscall(libc::SYS_io_setup, 8, &raw mut context) }).map(drop)
}

/// userfaultfd(2), for faults of user code only, which takes no right.
pub(crate) fn userfaultfd() -> io::Result<OwnedFd> {
    const UFFD_USER_MODE_ONLY: i32 = 1;
    // SAFETY: takes an integer.
    descriptor(unsafe { libc::syscall(libc::SYS_userfaultfd, UFFD_USER_MODE_ONLY) })
}

/// A range of memory registered with a userfaultfd of its own (ioctl_userfaultfd(2)).
pub(crate) fn userfaultfd_range() -> io::Result<OwnedFd> {
    const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
    const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
    const UFFD_API: u64 = 0xaa;
    const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
    let fd = userfaultfd()?;
    // struct uffdio_api: api, features, ioctls.
    let mut api = [UFFD_API, 0, 0];
    // SAFETY: the kernel reads and writes the three words.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_API as _, api.as_mut_ptr()) })?;
    let at = fresh_page(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
    // struct uffdio_register: start, length, mode, ioctls.
    let mut range = [at.addr() as u64, 4096, UFFDIO_REGISTER_MODE_MISSING, 0];
    // SAFETY: the kernel reads and writes the four words; nobody uses the page.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_REGISTER as _, range.as_mut_ptr()) })?;
    Ok(fd)
}

/// A page mapped for ever: nobody knows where.
fn fresh_page(flags: i32, fd: i32) -> io::Result<*mut libc::c_void> {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: without MAP_FIXED, mmap touches no existing mapping.
    let at = unsafe { libc::mmap(null_mut(), 4096, rights, flags, fd, 0) };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at) }
}

/// mmap(2) of the first page of `file`, for ever, and never touched.
pub(crate) fn map_for_ever(file: &OwnedFd) -> io::Result<()> {
    fresh_page(libc::MAP_SHARED, file.as_raw_fd()).map(drop)
}

/// mmap(2) of memory on a huge page of the pool, touched.
pub(crate) fn huge_page() -> io::Result<()> {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
    // SAFETY: without MAP_FIXED, mmap touches no existing mapping.
    let at = unsafe { libc::mmap(null_mut(), 2 << 20, rights, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the page was mapped, and reserved for us, a moment ago.
    unsafe { at.cast::<u8>().write(7) };
    Ok(())
}

/// A page that a protection key of our own guards (pkeys(7)).
pub(crate) fn page_with_key() -> io::Result<()> {
    // SAFETY: takes integers.
    let key = check_long(unsafe { libc::syscall(libc::SYS_pkey_alloc, 0, 0) })?;
    let at = fresh_page(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
    // SAFETY: nobody uses the page.
    let set = unsafe { libc::syscall(libc::SYS_pkey_mprotect, at, 4096, libc::PROT_READ, key) };
    check_long(set).map(drop)
}

/// prctl(2): system calls of the calling thread are given to itself wherever `SELECTOR` says so, which it
/// does not.
pub(crate) fn dispatch_system_calls() -> io::Result<()> {
    const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
    const PR_SYS_DISPATCH_ON: i32 = 1;
    // SYSCALL_DISPATCH_FILTER_ALLOW.
    static SELECTOR: AtomicU8 = AtomicU8::new(0);
    let (on, selector) = (PR_SYS_DISPATCH_ON, SELECTOR.as_ptr());
    // SAFETY: integers, and a byte that lives as long as the program.
    check(unsafe { libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, on, 0_u64, 0_u64, selector) })
        .map(drop)
}

/// map_shadow_stack(2), which makes no thread use it.
pub(crate) fn shadow_stack() -> io::Result<()> {
    const SYS_MAP_SHADOW_STACK: libc::c_long = 453;
    // SAFETY: takes integers; without an address, no existing mapping is touched.
    check_long(unsafe { libc::syscall(SYS_MAP_SHADOW_STACK, 0, 4096, 0) }).map(drop)
}

/// A packet socket's ring of one block (packet(7), PACKET_RX_RING), which outlives its descriptor.
pub(crate) fn packet_ring() -> io::Result<()> {
    const SOL_PACKET: i32 = 263;
    const PACKET_RX_RING: i32 = 5;
    let socket = super::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)?;
    // struct tpacket_req: size and number of blocks, size and number of frames.
    let ring = [4096_u32, 1, 2048, 2];
    let bytes = libc::socklen_t::try_from(size_of_val(&ring)).expect("16");
    // SAFETY: the kernel reads the four words.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            SOL_PACKET,
            PACKET_RX_RING,
            ring.as_ptr().cast(),
            bytes,
        )
    })?;
    map_for_ever(&socket)
}

/// perf_event_open(2): PERF_COUNT_SW_TASK_CLOCK of this thread, in user mode.
pub(crate) fn performance_counter() -> io::Result<OwnedFd> {
    // struct perf_event_attr of its first size: type, size, config, …, and in the sixth word the bits
    // exclude_kernel and exclude_hv.
    let mut attributes = [0_u64; 8];
    attributes[0] = 64 << 32 | 1;
    attributes[1] = 1;
    attributes[5] = 1 << 5 | 1 << 6;
    let at = attributes.as_ptr();
    // SAFETY: the kernel reads as many bytes as the attributes say, 64.
    descriptor(unsafe { libc::syscall(libc::SYS_perf_event_open, at, 0, -1, -1, 0) })
}

/// sched_setattr(2): SCHED_DEADLINE, a millisecond of each ten.
pub(crate) fn deadline() -> io::Result<()> {
    // struct sched_attr: size and policy, flags, nice and priority, runtime, deadline, period.
    let attributes = [6 << 32 | 48_u64, 0, 0, 1_000_000, 10_000_000, 10_000_000];
    // SAFETY: the kernel reads as many bytes as the attributes say, 48.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, attributes.as_ptr(), 0) };
    check_long(set).map(drop)
}

/// A child that waits for ever, and has `what` in common with us (clone(2)).
pub(crate) fn forked_with(what: i32) -> io::Result<i32> {
    forked_to_end_with(what, libc::SIGCHLD)
}

/// The same, with another signal that tells of its end.
pub(crate) fn forked_to_end_with(what: i32, signal: i32) -> io::Result<i32> {
    extern "C" fn wait_for_ever(_: *mut libc::c_void) -> i32 {
        // SAFETY: takes integers.
        unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        loop {
            // SAFETY: takes nothing.
            unsafe { libc::syscall(libc::SYS_pause) };
        }
    }
    // It lives on as long as we do.
    let stack = Box::leak(vec![0_u128; 1 << 12].into_boxed_slice());
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the child has a stack of its own, and makes system calls only.
    check(unsafe { libc::clone(wait_for_ever, top.cast(), what | signal, null_mut()) })
}

/// mount(2) in a mount namespace of our own: `from` at `to`.
pub(crate) fn mount_over(from: &Path, to: &Path) -> io::Result<()> {
    unshare(libc::CLONE_NEWNS)?;
    let mount = |from: &Path, to: &Path, flags: u64| {
        let names = [from, to].map(|path| CString::new(path.as_os_str().as_bytes()));
        let [Ok(from), Ok(to)] = names else { return Err(io::ErrorKind::InvalidInput.into()) };
        // SAFETY: two strings, and neither type nor data.
        check(unsafe { libc::mount(from.as_ptr(), to.as_ptr(), null(), flags, null()) }).map(drop)
    };
    mount(Path::new("none"), Path::new("/"), libc::MS_REC | libc::MS_PRIVATE)?;
    mount(from, to, libc::MS_BIND)
}

/// A socket whose filter is a program of bpf(2), which lets everything pass.
pub(crate) fn socket_with_program() -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: i32 = 5;
    const BPF_PROG_TYPE_SOCKET_FILTER: u64 = 1;
    const SO_ATTACH_BPF: i32 = 50;
    // linux/bpf.h: r0 = i32::MAX; exit.
    let program: [u64; 2] = [0x7fff_ffff_0000_00b7, 0x95];
    let words = (program.len() as u64) << 32;
    // union bpf_attr: type and length of the program, where it is, its licence, no log.
    let (at, licence) = (program.as_ptr().addr() as u64, c"GPL".as_ptr().addr() as u64);
    let attributes: [u64; 6] = [BPF_PROG_TYPE_SOCKET_FILTER | words, at, licence, 0, 0, 0];
    let (from, bytes) = (attributes.as_ptr(), size_of_val(&attributes));
    // SAFETY: the kernel reads the attributes, and the two that they point to.
    let loaded = descriptor(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, from, bytes) })?;
    let socket = super::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    super::set_socket_option(&socket, libc::SOL_SOCKET, SO_ATTACH_BPF, loaded.as_raw_fd())?;
    Ok(socket)
}

/// exit(2) of the calling thread.
pub(crate) fn end_this_thread() -> ! {
    loop {
        // SAFETY: the thread's stack stays as it is, so that whoever has borrowed from it may go on.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}
