//! What Python has beside what all languages have.

use crate::language::{Language, Which};
use std::path::Path;
use std::time::Duration;
use tub_testkit::{Scratch, User, as_user, run_bounded};

/// Every way to register, in a program that has no engine: its hooks run all the same.
#[test]
fn python_registers_in_every_way() {
    const SCRIPT: &str = "
import asyncio, gc, threading
from tubthumping import *
import tubthumping

told = []

@before_checkpoint
def closes():
    told.append('closes')

@after_restore
async def opens():
    try:
        await checkpoint_async()
    except CheckpointException as error:
        assert 'Recursive' in str(error)
        told.append('opens')

@register_before_snapshot
def snapshot():
    told.append('snapshot')

register_after_restore(lambda *a, **k: told.append((a, k)), 1, two=2)

class Pool(Resource):
    def before_checkpoint(self):
        told.append('pool')
    def after_restore(self, outcome):
        told.append(outcome.state)
        checkpoint()

pool = Pool()
register(pool, weak=True)

def failures():
    try:
        checkpoint()
    except CheckpointException as error:
        return [str(failure) for failure in error.failures]

first = failures()
assert told == ['pool', 'snapshot', 'closes', 'opens', ((1,), {'two': 2}), 'failed'], told
assert first[0] == 'RuntimeException: C/R is not configured', first
assert 'Pool: tubthumping._exceptions.CheckpointException: IllegalStateException' in first[1], first
del pool
gc.collect()
assert unregister(closes) and unregister(opens) and not unregister(opens)
told.clear()
assert failures() == ['RuntimeException: C/R is not configured']
assert told == ['snapshot', ((1,), {'two': 2})], told

async def on_a_loop():
    try:
        checkpoint()
    except RuntimeError as error:
        assert 'checkpoint_async' in str(error)
    else:
        raise AssertionError
    try:
        await checkpoint_async()
    except CheckpointException:
        return
    raise AssertionError

asyncio.run(on_a_loop())
print('well')
";
    let dir = Scratch::new(User::Root);
    let Some(language) = Language::python(&dir, Which::Subject, &[]) else { return };
    let mut command = as_user(User::Ordinary, Path::new(&language.before[0]));
    command.args(["-c", SCRIPT]).env_remove("TUB_IMAGE").env_remove("TUB_COMMAND");
    command.envs(language.variables.iter().map(|(name, value)| (name, value)));
    let finished = run_bounded(command, Duration::from_secs(60)).succeeds();
    assert_eq!(finished.stdout, "well\n", "{finished}");
}
