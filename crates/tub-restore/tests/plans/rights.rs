//! Whom a process may be restored as, and what it may do then.

use crate::sample::{checkpoint, facts, runs};
use tub_model::Limit;
use tub_restore::plan::{PlanError, PlanFacts, PlanOp, PlanWishes, RestorePlan, plan};
use tub_units::FdNumber;

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

/// One that is too low for it is refused before anything is made.
#[test]
fn the_limit_of_open_files_that_the_launcher_raises_for_itself_is_set_back() {
    let mut image = checkpoint();
    let limit = |soft, hard| Limit { resource: 7, soft, hard };
    image.tasks[0].limits = vec![limit(1024, 2048)];
    image.tasks[0].fds.last_mut().unwrap().number = FdNumber(1015);
    let with = |hard, capabilities| {
        let facts = PlanFacts {
            limits: vec![limit(1024.min(hard), hard)],
            user_namespace: false,
            ..facts()
        };
        let facts = PlanFacts { capabilities: [capabilities; 3], ..facts };
        plan(&image, &runs(), &facts, PlanWishes::default())
    };
    let sets_back = |hard, plan: RestorePlan| {
        let expected = PlanOp::SetLimit(limit(1024.min(hard), hard));
        plan.tasks[0].programs[0].ops.contains(&expected)
    };
    assert!(sets_back(2048, with(2048, 0).unwrap()));
    let Err(PlanError::Descriptors { needed, limit: 1020 }) = with(1020, 0) else { panic!() };
    assert!(needed > 1020);
    const SYS_RESOURCE: u64 = 1 << 24;
    assert!(sets_back(1020, with(1020, SYS_RESOURCE).unwrap()));
}

#[test]
fn who_may_set_groups_takes_on_those_of_the_image() {
    let mut image = checkpoint();
    image.tasks[0].credentials.groups = vec![27, 4];
    const SET_IDS: u64 = 1 << 6 | 1 << 7;
    let sets = |groups: Option<Vec<u32>>, capabilities| {
        let facts = PlanFacts { groups, user_namespace: false, ..facts() };
        let facts = PlanFacts { capabilities: [capabilities; 3], ..facts };
        let plan = plan(&image, &runs(), &facts, PlanWishes::default()).unwrap();
        plan.tasks[0].programs[0].ops.contains(&PlanOp::SetGroups(vec![27, 4]))
    };
    assert!(sets(Some(vec![4]), SET_IDS));
    assert!(!sets(Some(vec![4, 27]), SET_IDS));
    assert!(!sets(Some(vec![4]), 0));
    assert!(!sets(None, SET_IDS));
}

/// KERNEL: who leaves user 0 loses what he has not asked to keep (capabilities(7)).
#[test]
fn capabilities_of_an_ordinary_user_are_kept_while_ids_are_set() {
    let mut image = checkpoint();
    image.tasks[0].credentials.uids = [1001; 4];
    image.tasks[0].credentials.capabilities = [1 << 10, 1 << 10, 0];
    let facts = PlanFacts { user_namespace: false, capabilities: [u64::MAX; 3], ..facts() };
    let plan = plan(&image, &runs(), &facts, PlanWishes::default()).unwrap();
    let ops = plan.tasks[0].programs[0].ops.iter().map(ToString::to_string);
    let ops: Vec<_> =
        ops.filter(|op| ["keep-caps", "uids", "capab"].iter().any(|w| op.contains(w))).collect();
    let expected = [
        "prctl          keep-caps 1",
        "uids           [1001, 1001, 1001]",
        "prctl          keep-caps 0",
        "capabilities   400 400 0",
    ];
    assert_eq!(ops, expected);
}
