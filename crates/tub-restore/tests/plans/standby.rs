//! Plans of instances that are parked.

use crate::sample::{checkpoint, facts, planned, range, runs};
use crate::shape::assert_golden;
use tub_model::{Fd, FileKind, OpenFile, Socket, TcpState, UnixName, UnixSocket, UnixState};
use tub_restore::plan::{PlanError, PlanOp, PlanWishes, lower, plan};
use tub_units::FdNumber;

/// Whoever has a second thread cannot enter a time namespace, and what counts time must not begin
/// before.
#[test]
fn on_standby_everything_but_memory_waits_for_the_release() {
    let hot = vec![range(0x1000_0000, 0x1000_1000)];
    let wishes = PlanWishes { standby: true, hot, ..PlanWishes::default() };
    let plan = planned(&facts(), wishes).unwrap();
    assert_golden("standby", &plan.to_string());
    let lowered = lower(&plan, &plan.tasks[0]).unwrap();
    assert!(lowered.data.len() as u64 <= plan.tasks[0].blob.len() - plan.code_bytes);
    let ops = &plan.tasks[0].programs[0].ops;
    let at = |wanted: fn(&PlanOp) -> bool| ops.iter().position(wanted).unwrap();
    let parked = at(|op| matches!(op, PlanOp::ReportParked));
    let released = at(|op| matches!(op, PlanOp::AwaitRelease { clocks: true }));
    assert!(at(|op| matches!(op, PlanOp::Populate(_))) < parked && parked < released);
    assert!(ops[released..].iter().all(|op| !matches!(op, PlanOp::AwaitGo | PlanOp::Touch(_))));
    assert!(at(|op| matches!(op, PlanOp::Spawn { .. })) > released);
    assert!(!ops.iter().any(|op| matches!(op, PlanOp::FillMailbox { .. })));
}

#[test]
fn what_would_answer_for_nobody_cannot_stand_by() {
    let wishes = || PlanWishes { standby: true, ..PlanWishes::default() };
    let mut image = checkpoint();
    let tcp = |state| {
        let (protocol, address) = (6, "127.0.0.1:80".to_owned());
        FileKind::Socket(Socket::Tcp { protocol, address, state, options: Vec::new() })
    };
    let number = FdNumber(11);
    image.tasks[0].fds.push(Fd { number, close_on_exec: false, file: image.files.len() });
    let open = |kind| OpenFile { flags: 2, owner: None, locks: Vec::new(), kind };
    image.files.push(open(tcp(TcpState::Listening { backlog: 5 })));
    let error = plan(&image, &runs(), &facts(), wishes()).err();
    let address = "127.0.0.1:80".to_owned();
    assert_eq!(error, Some(PlanError::StandbySocket { number: 11, address }));
    image.files.pop();
    let unix = |bytes: &[u8]| {
        let name = Some(UnixName { bytes: bytes.to_vec(), file: None });
        let (inbox, options) = (Vec::new(), Vec::new());
        let state = UnixState::Listening { backlog: 5 };
        Socket::Unix(UnixSocket { kind: 1, id: 1, name, state, shutdown: 0, inbox, options })
    };
    image.files.push(open(FileKind::Socket(unix(b"\0name"))));
    let error = plan(&image, &runs(), &facts(), wishes()).err();
    let address = "@name".to_owned();
    assert_eq!(error, Some(PlanError::StandbySocket { number: 11, address }));
    image.files.pop();
    image.files.push(open(tcp(TcpState::Dead)));
    assert!(plan(&image, &runs(), &facts(), wishes()).is_ok());
}
