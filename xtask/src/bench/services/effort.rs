//! How often each kind of rise is measured.
//!
//! In: an option. Out: numbers.
//! Invariant: the two differ in numbers only, so that the short one tests the long one.
//! Not here: what is done with them.

use super::kind::Kind;

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
    /// Cold starts, floors, and rises of each peer.
    pub(super) peers: usize,
    /// Requests after each rise.
    pub(super) load: u32,
    /// Instances that live at once, and how often.
    pub(super) at_once: usize,
    pub(super) at_once_rounds: usize,
}

pub(super) const FULL: Effort = Effort {
    name: "full",
    jdks_max: usize::MAX,
    warm_up: 20_000,
    images: 3,
    rounds: 30,
    peers: 10,
    load: 20_000,
    at_once: 10,
    at_once_rounds: 3,
};

pub(super) const QUICK: Effort = Effort {
    name: "quick",
    jdks_max: 1,
    warm_up: 5000,
    images: 1,
    rounds: 6,
    peers: 2,
    load: 1000,
    at_once_rounds: 1,
    ..FULL
};

impl Effort {
    /// How many rises of a kind there are.
    const fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Restored => self.rounds,
            Kind::Cold | Kind::Floor | Kind::AotCache | Kind::Criu => self.peers,
        }
    }

    /// Whether a kind has its turn in this round: its rises are spread over all rounds.
    pub(super) const fn is_due(&self, kind: Kind, round: usize) -> bool {
        let count = self.count(kind);
        round * count / self.rounds < (round + 1) * count / self.rounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_gets_as_many_turns_as_it_has_rises() {
        for effort in [FULL, QUICK] {
            for kind in Kind::ALL {
                let turns = (0..effort.rounds).filter(|round| effort.is_due(kind, *round));
                assert_eq!(turns.count(), effort.count(kind), "{} {kind:?}", effort.name);
            }
        }
    }
}
