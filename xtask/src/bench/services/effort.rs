//! How often each kind of rise is measured.
//!
//! In: an option. Out: numbers.
//! Invariant: the two differ in numbers only, so that the short one tests the long one.
//! Not here: what is done with them.

use super::kind::Kind;
use std::time::Duration;

/// How often, and how much.
#[derive(Clone, Debug)]
pub(super) struct Effort {
    pub(super) name: &'static str,
    /// How many of the JDKs that a service runs on are used, the newest first.
    pub(super) jdks_max: usize,
    pub(super) warm_up: u32,
    /// Originals, each of which gives an image.
    pub(super) images: usize,
    /// Restores.
    pub(super) rounds: usize,
    /// Cold starts, floors, and starts with an AOT cache: what takes seconds each.
    slow: usize,
    /// Releases of instances on standby.
    released: usize,
    /// Rises of all other kinds.
    quick: usize,
    /// Rises with files that are not in memory, of each kind.
    uncached: usize,
    /// Requests after most rises, and after those few that show how the rate goes on.
    pub(super) load: u32,
    pub(super) long_load: u32,
    /// How many of those there are of a kind.
    long_loads: usize,
    /// Instances that live at once, and how often.
    pub(super) at_once: &'static [(usize, usize)],
    /// A service for which this has passed gets no more turns of the slow kinds: a machine that is
    /// busy shall give fewer numbers, rather than none before somebody loses patience.
    pub(super) patience: Duration,
    /// What a service takes on a quiet machine with two processors.
    pub(super) usual: Duration,
}

pub(super) const FULL: Effort = Effort {
    name: "full",
    jdks_max: 1,
    warm_up: 20_000,
    images: 3,
    rounds: 30,
    slow: 6,
    released: 15,
    quick: 10,
    uncached: 4,
    load: 1000,
    long_load: 20_000,
    long_loads: 4,
    at_once: &[(1, 3), (10, 3), (50, 1)],
    patience: Duration::from_secs(240),
    usual: Duration::from_secs(300),
};

pub(super) const QUICK: Effort = Effort {
    name: "quick",
    warm_up: 5000,
    images: 1,
    rounds: 6,
    slow: 2,
    released: 3,
    quick: 2,
    uncached: 1,
    long_load: 5000,
    long_loads: 1,
    at_once: &[(1, 1), (10, 1)],
    patience: Duration::from_secs(120),
    usual: Duration::from_secs(100),
    ..FULL
};

impl Effort {
    /// How many rises of a kind there are.
    const fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Restored => self.rounds,
            Kind::Cold | Kind::Floor | Kind::AotCache => self.slow,
            Kind::Standby => self.released,
            Kind::Untrained | Kind::StandbyByte | Kind::Criu => self.quick,
            Kind::ColdUncached | Kind::Uncached | Kind::AllUncached => self.uncached,
        }
    }

    /// Whether the machine is spared these where it is too busy.
    pub(super) const fn is_slow(kind: Kind) -> bool {
        matches!(kind, Kind::Cold | Kind::Floor | Kind::AotCache | Kind::ColdUncached)
    }

    /// Whether a kind has its turn in this round: its rises are spread over all rounds.
    pub(super) const fn is_due(&self, kind: Kind, round: usize) -> bool {
        falls_on(self.count(kind), self.rounds, round)
    }

    /// How many requests follow on that turn of a kind.
    pub(super) const fn load_after(&self, kind: Kind, round: usize) -> u32 {
        let (count, long) = match kind {
            Kind::StandbyByte | Kind::Uncached | Kind::AllUncached | Kind::ColdUncached => {
                return 0;
            }
            Kind::Cold | Kind::AotCache => (self.slow, self.long_loads.div_ceil(2)),
            Kind::Restored | Kind::Standby | Kind::Floor | Kind::Untrained | Kind::Criu => {
                (self.count(kind), self.long_loads)
            }
        };
        let turn = round * count / self.rounds;
        if falls_on(long, count, turn) { self.long_load } else { self.load }
    }
}

/// Whether one of `count` things, spread evenly over `of` places, falls on that place.
const fn falls_on(count: usize, of: usize, place: usize) -> bool {
    place * count / of < (place + 1) * count / of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_gets_as_many_turns_as_it_has_rises() {
        for effort in [FULL, QUICK] {
            for kind in Kind::ALL {
                let turns: Vec<usize> =
                    (0..effort.rounds).filter(|round| effort.is_due(kind, *round)).collect();
                assert_eq!(turns.len(), effort.count(kind), "{} {kind:?}", effort.name);
                let is_long = |round: &&usize| effort.load_after(kind, **round) == effort.long_load;
                let long = turns.iter().filter(is_long).count();
                assert!(long <= effort.long_loads, "{} {kind:?}: {long}", effort.name);
                if [Kind::Cold, Kind::Floor, Kind::Restored, Kind::Standby].contains(&kind) {
                    assert!(long > 0, "{} {kind:?}", effort.name);
                }
            }
        }
    }
}
