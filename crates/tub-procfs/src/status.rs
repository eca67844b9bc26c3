//! Parses `/proc/PID/status` and `/proc/PID/task/TID/status`.
//!
//! In: bytes. Out: a [`StatusRecord`].
//! Invariant: a field that every kernel since 4.10 prints is required; younger ones are optional;
//! lines that are not listed here are passed over.

use crate::error::{Place, Result};
use crate::text::{Fields, Number, lines, lossy, unescape};
use alloc::{string::String, vec::Vec};
use core::cell::Cell;
use tub_units::{HostPid, NsPid};

/// What `status` says about a process or thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRecord {
    /// `Name`: the command name, with the kernel's escapes undone. Bytes that are not UTF-8 are replaced: a
    /// name that is cut off after 15 bytes may end in the middle of a letter.
    pub name: String,
    /// `Umask`; absent for a process that is ending.
    pub umask: Option<u32>,
    /// `State`: the letter: `R`, `S`, `D`, `T`, `t`, `Z`, `X`, ….
    pub state: char,
    /// `Tgid`: the process that the thread belongs to.
    pub tgid: HostPid,
    /// `Ngid`: NUMA group; 0 for none.
    pub ngid: i32,
    /// `Pid`: the thread itself.
    pub pid: HostPid,
    /// `PPid`; 0 where the parent lives in a PID namespace that we cannot see.
    pub ppid: HostPid,
    /// `TracerPid`; 0 for none.
    pub tracer_pid: HostPid,
    /// `Uid`: real, effective, saved and file-system user id, as seen in our user namespace.
    pub uids: [u32; 4],
    /// `Gid`: the same of groups.
    pub gids: [u32; 4],
    /// `Groups`: supplementary groups.
    pub groups: Vec<u32>,
    /// `NStgid`: the process's id in each PID namespace, ours first, its own last.
    pub ns_tgid: Vec<NsPid>,
    /// `NSpid`: the thread's id in each PID namespace, ours first, its own last.
    pub ns_pid: Vec<NsPid>,
    /// `NSpgid`: the process group's id in each PID namespace; 0 where its leader is outside.
    pub ns_pgid: Vec<NsPid>,
    /// `NSsid`: the same of the session.
    pub ns_sid: Vec<NsPid>,
    /// `VmLck`: bytes of locked mappings; absent for a process that is ending.
    pub vm_lck_bytes: Option<u64>,
    /// `Threads`: how many the process has.
    pub threads: u32,
    /// `SigPnd`: signals pending for the thread; bit n-1 for signal n, as in the next four.
    pub sig_pnd: u64,
    /// `ShdPnd`: signals pending for the process.
    pub shd_pnd: u64,
    /// `SigBlk`: blocked.
    pub sig_blk: u64,
    /// `SigIgn`: ignored.
    pub sig_ign: u64,
    /// `SigCgt`: caught.
    pub sig_cgt: u64,
    /// `CapInh`: inheritable capabilities; bit n for capability n, as in the next four.
    pub cap_inh: u64,
    /// `CapPrm`: permitted.
    pub cap_prm: u64,
    /// `CapEff`: effective.
    pub cap_eff: u64,
    /// `CapBnd`: bounding set.
    pub cap_bnd: u64,
    /// `CapAmb`: ambient.
    pub cap_amb: u64,
    /// `NoNewPrivs`.
    pub no_new_privs: bool,
    /// `Seccomp`: 0 none, 1 strict, 2 filter; absent where the kernel has none.
    pub seccomp: Option<u32>,
    /// `Seccomp_filters`: how many; absent before Linux 5.9 or where the kernel has none.
    pub seccomp_filters: Option<u32>,
    /// `voluntary_ctxt_switches`: how often the thread has gone to sleep.
    pub voluntary_switches: u64,
}

/// Parses all of the file.
///
/// # Errors
/// A field that is missing or malformed.
pub fn parse(bytes: &[u8]) -> Result<StatusRecord> {
    let status = Status { bytes, next: Cell::new((0, 0)) };
    let state = status.required("State")?.next("State")?;
    Ok(StatusRecord {
        name: lossy(&status.name()?),
        umask: status.optional("Umask", 8)?,
        state: state.first().copied().map_or('?', char::from),
        tgid: HostPid(status.number("Tgid", 10)?),
        ngid: status.optional("Ngid", 10)?.unwrap_or(0),
        pid: HostPid(status.number("Pid", 10)?),
        ppid: HostPid(status.number("PPid", 10)?),
        tracer_pid: HostPid(status.number("TracerPid", 10)?),
        uids: status.four("Uid")?,
        gids: status.four("Gid")?,
        groups: status.list("Groups")?,
        ns_tgid: status.list("NStgid")?.into_iter().map(NsPid).collect(),
        ns_pid: status.list("NSpid")?.into_iter().map(NsPid).collect(),
        ns_pgid: status.list("NSpgid")?.into_iter().map(NsPid).collect(),
        ns_sid: status.list("NSsid")?.into_iter().map(NsPid).collect(),
        vm_lck_bytes: status.bytes("VmLck")?,
        threads: status.number("Threads", 10)?,
        sig_pnd: status.number("SigPnd", 16)?,
        shd_pnd: status.number("ShdPnd", 16)?,
        sig_blk: status.number("SigBlk", 16)?,
        sig_ign: status.number("SigIgn", 16)?,
        sig_cgt: status.number("SigCgt", 16)?,
        cap_inh: status.number("CapInh", 16)?,
        cap_prm: status.number("CapPrm", 16)?,
        cap_eff: status.number("CapEff", 16)?,
        cap_bnd: status.number("CapBnd", 16)?,
        cap_amb: status.number("CapAmb", 16)?,
        no_new_privs: status.number::<u8>("NoNewPrivs", 10)? != 0,
        seccomp: status.optional("Seccomp", 10)?,
        seccomp_filters: status.optional("Seccomp_filters", 10)?,
        voluntary_switches: status.number("voluntary_ctxt_switches", 10)?,
    })
}

struct Status<'a> {
    bytes: &'a [u8],
    /// What follows the line that was found last: its offset, and how many lines lie before it.
    next: Cell<(usize, usize)>,
}

impl<'a> Status<'a> {
    /// What stands behind `key:`. Who asks for the lines in their order looks at each once.
    fn find(&self, key: &'static str) -> Option<Fields<'a>> {
        self.find_from(self.next.get(), key).or_else(|| self.find_from((0, 0), key))
    }

    fn find_from(&self, (start, before): (usize, usize), key: &'static str) -> Option<Fields<'a>> {
        let mut end = start;
        for (place, line) in lines("status", &self.bytes[start..]) {
            end = (end + line.len() + 1).min(self.bytes.len());
            let rest = line.strip_prefix(key.as_bytes()).and_then(|rest| rest.strip_prefix(b":"));
            if let Some(rest) = rest {
                let line = before + place.line;
                self.next.set((end, line));
                return Some(Fields::new(Place { line, ..place }, rest));
            }
        }
        None
    }

    fn required(&self, key: &'static str) -> Result<Fields<'a>> {
        self.find(key).ok_or_else(|| Place::file("status").missing(key))
    }

    fn number<T: Number>(&self, key: &'static str, radix: u32) -> Result<T> {
        self.required(key)?.number(radix, key)
    }

    fn optional<T: Number>(&self, key: &'static str, radix: u32) -> Result<Option<T>> {
        self.find(key).map(|mut fields| fields.number(radix, key)).transpose()
    }

    /// `64 kB`, which are KiB, in bytes.
    fn bytes(&self, key: &'static str) -> Result<Option<u64>> {
        let Some(mut fields) = self.find(key) else { return Ok(None) };
        let text = fields.rest();
        let bytes = fields.number::<u64>(10, key)?.checked_mul(1024);
        bytes.map(Some).ok_or_else(|| fields.place().malformed(key, text))
    }

    fn four(&self, key: &'static str) -> Result<[u32; 4]> {
        let mut fields = self.required(key)?;
        let mut ids = [0; 4];
        for id in &mut ids {
            *id = fields.number(10, key)?;
        }
        Ok(ids)
    }

    fn list<T: Number>(&self, key: &'static str) -> Result<Vec<T>> {
        let mut fields = self.required(key)?;
        let mut list = Vec::new();
        while !fields.rest().is_empty() {
            list.push(fields.number(10, key)?);
        }
        Ok(list)
    }

    /// KERNEL(since 2.6): `fs/proc/array.c`, `proc_task_name` with escapes: a newline is `\n`, a
    /// backslash is doubled; nothing else is touched, least of all blanks.
    fn name(&self) -> Result<Vec<u8>> {
        let fields = self.required("Name")?;
        // Not `rest()`: a command name may start with a blank.
        let text = self
            .bytes
            .strip_prefix(b"Name:\t")
            .and_then(|rest| rest.split(|&byte| byte == b'\n').next())
            .unwrap_or_else(|| fields.rest());
        let mut plain = Vec::with_capacity(text.len());
        for (index, part) in split_twice(text).enumerate() {
            if index > 0 {
                plain.push(b'\\');
            }
            plain.extend_from_slice(&unescape(part, b"\\n", b'\n'));
        }
        Ok(plain)
    }
}

/// The parts between doubled backslashes.
fn split_twice(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    core::iter::from_fn(move || {
        let text = rest?;
        match text.windows(2).position(|pair| pair == b"\\\\") {
            Some(at) => {
                rest = Some(&text[at + 2..]);
                Some(&text[..at])
            }
            None => rest.take(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec};

    const SUBJECT: &[u8] = include_bytes!("../../../tests/fixtures/proc/6.18/subject/status");
    const JVM: &[u8] = include_bytes!("../../../tests/fixtures/proc/6.18/jvm/status");

    #[test]
    fn a_subject() {
        let status = parse(SUBJECT).unwrap();
        assert_eq!(status.name, "a) b (c");
        assert_eq!(status.umask, Some(0o022));
        assert_eq!(status.state, 'R');
        assert_eq!(status.tgid, status.pid);
        assert_eq!(status.tracer_pid, HostPid(0));
        assert_eq!(status.ns_pid, vec![NsPid(status.pid.0)]);
        assert_eq!(status.groups, Vec::<u32>::new());
        assert_eq!(status.threads, 3);
        assert_eq!(status.sig_blk, 1 << 11);
        assert_eq!(status.shd_pnd, 1 << 11);
        assert_eq!(status.sig_ign & 1, 1);
        assert_eq!(status.cap_inh, 0);
        assert_ne!(status.cap_eff, 0);
        assert!(!status.no_new_privs);
        assert_eq!((status.seccomp, status.seccomp_filters), (Some(0), Some(0)));
        assert_eq!(status.voluntary_switches, 79);
    }

    #[test]
    fn a_jvm() {
        let status = parse(JVM).unwrap();
        assert_eq!(status.name, "java");
        assert!(status.threads > 10);
    }

    #[test]
    fn a_process_in_a_namespace_with_groups_and_an_escaped_name() {
        let text = core::str::from_utf8(JVM).unwrap();
        let pid = parse(JVM).unwrap().pid;
        let text = text
            .replace("Name:\tjava", "Name:\t a\\\\n\\nb")
            .replace(&format!("NSpid:\t{pid}"), &format!("NSpid:\t{pid}\t7\t1"))
            .replace("Groups:\t ", "Groups:\t4 24 1000 ");
        let status = parse(text.as_bytes()).unwrap();
        assert_eq!(status.name, " a\\n\nb");
        assert_eq!(status.ns_pid, vec![NsPid(pid.0), NsPid(7), NsPid(1)]);
        assert_eq!(status.groups, vec![4, 24, 1000]);
    }

    #[test]
    fn a_name_that_is_cut_off_within_a_letter() {
        let mut text = JVM.to_vec();
        let end = text.iter().position(|&byte| byte == b'\n').unwrap();
        text.splice(6..end, *b"0123456789abcd\xc3");
        assert_eq!(parse(&text).unwrap().name, "0123456789abcd\u{fffd}");
    }

    #[test]
    fn a_malformed_field_is_named_with_its_line_wherever_it_stands() {
        let text = core::str::from_utf8(JVM).unwrap();
        let first = text.lines().position(|line| line.starts_with("CapInh:")).unwrap() + 1;
        let odd = text.replace("CapInh:\t0", "CapInh:\tx");
        let error = format!("{}", parse(odd.as_bytes()).unwrap_err());
        assert!(error.contains(&format!("line {first}")), "{error}");
        // An order that no kernel has had yet.
        let mut lines: Vec<&str> = text.lines().collect();
        lines.reverse();
        let name = lines.pop().unwrap();
        let mixed = lines.iter().fold(format!("{name}\n"), |all, line| all + line + "\n");
        assert_eq!(parse(mixed.as_bytes()), parse(JVM));
    }

    #[test]
    fn a_missing_field_is_named() {
        let text = core::str::from_utf8(JVM).unwrap().replace("CapEff", "CapXXX");
        let error = parse(text.as_bytes()).unwrap_err();
        assert_eq!(format!("{error}"), "/proc file status: CapEff is missing");
    }
}
