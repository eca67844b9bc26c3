//! Parses `/proc/PID/task/TID/children`: the children that one thread has started.
//!
//! In: bytes. Out: their ids. Exact only while the process is stopped (`proc_tid_children(5)`).

use crate::error::{Place, Result};
use crate::text::Fields;
use alloc::vec::Vec;
use tub_units::HostPid;

/// Parses all of the file.
///
/// # Errors
/// An id that is no number.
pub fn parse(bytes: &[u8]) -> Result<Vec<HostPid>> {
    let mut fields = Fields::new(Place { file: "children", line: 1 }, bytes);
    let mut children = Vec::new();
    while !fields.rest().is_empty() {
        children.push(HostPid(fields.number(10, "pid")?));
    }
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_child_or_none() {
        let one = include_bytes!("../../../tests/fixtures/proc/6.18/subject/task/children");
        assert_eq!(parse(one).unwrap().len(), 1);
        assert_eq!(parse(b"").unwrap(), []);
        assert_eq!(parse(b"7 8 ").unwrap(), [HostPid(7), HostPid(8)]);
        assert!(parse(b"7 x").is_err());
    }
}
