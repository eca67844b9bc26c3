//! The ways in which a service comes to its first answer.
//!
//! In: nothing. Out: their names, for programs and for people.
//! Invariant: names for programs are a contract (`bench/README.md`).
//! Not here: how each is measured (`application`).

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// As anybody would start it.
    Cold,
    /// The same when nothing of the JDK and the application is in memory.
    ColdUncached,
    /// No checkpoint at all: a process like the original stops and starts its connector.
    Floor,
    /// `tub restore`, after `tub train`.
    Restored,
    /// `tub release` of an instance that `tub restore --standby` has parked, of the same image.
    Standby,
    /// The same by a byte on the keeper's socket, without a command.
    StandbyByte,
    /// `tub restore` of the image as the checkpoint left it.
    Untrained,
    /// As `Restored` when nothing of the image is in memory.
    Uncached,
    /// As `Restored` when nothing of the image, tub, the JDK and the application is in memory.
    AllUncached,
    /// A cold start with the JDK's ahead-of-time cache (JEP 514, 515).
    AotCache,
    /// An image of CRIU's, with the same coordination.
    Criu,
}

impl Kind {
    pub(super) const ALL: [Self; 11] = [
        Self::Cold,
        Self::ColdUncached,
        Self::Floor,
        Self::Restored,
        Self::Standby,
        Self::StandbyByte,
        Self::Untrained,
        Self::Uncached,
        Self::AllUncached,
        Self::AotCache,
        Self::Criu,
    ];

    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::ColdUncached => "cold_uncached",
            Self::Floor => "floor",
            Self::Restored => "restored",
            Self::Standby => "standby",
            Self::StandbyByte => "standby_byte",
            Self::Untrained => "untrained",
            Self::Uncached => "restored_image_uncached",
            Self::AllUncached => "restored_all_uncached",
            Self::AotCache => "aot_cache",
            Self::Criu => "criu",
        }
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Cold => "cold start",
            Self::ColdUncached => "cold start, JDK and app from disk",
            Self::Floor => "floor: never checkpointed",
            Self::Restored => "restored, trained",
            Self::Standby => "standby, by tub release",
            Self::StandbyByte => "standby, by a byte on its socket",
            Self::Untrained => "restored, untrained",
            Self::Uncached => "restored, image from disk",
            Self::AllUncached => "restored, JDK and app as well",
            Self::AotCache => "cold start with an AOT cache",
            Self::Criu => "restored by CRIU",
        }
    }

    /// Whether what goes wrong is ours.
    pub(super) const fn is_ours(self) -> bool {
        !matches!(self, Self::Criu | Self::AotCache)
    }
}
