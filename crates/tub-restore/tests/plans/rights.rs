//! Whom a process may be restored as, and what it may do then.

use crate::sample::{checkpoint, facts, runs};
use tub_restore::plan::{PlanError, PlanFacts, PlanOp, PlanWishes, plan};

#[test]
fn nobody_restores_a_root_process_as_an_ordinary_user() {
    let mut image = checkpoint();
    image.tasks[0].credentials.uids = [0; 4];
    let error = plan(&image, &runs(), &facts(), PlanWishes::default()).err();
    assert_eq!(error, Some(PlanError::ForeignUser { image: 0, caller: 1000 }));
}

#[test]
fn a_restore_never_gains_a_capability() {
    let mut image = checkpoint();
    image.tasks[0].credentials.capabilities = [u64::MAX; 3];
    let facts = PlanFacts { capabilities: [1 << 10, 1 << 10, 0], ..facts() };
    let plan = plan(&image, &runs(), &facts, PlanWishes::default()).unwrap();
    let expected = PlanOp::SetCapabilities([1 << 10, 1 << 10, 0]);
    assert!(plan.tasks[0].programs.iter().all(|program| program.ops.contains(&expected)));
}
