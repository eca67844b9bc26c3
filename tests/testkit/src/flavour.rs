//! The ways in which every subject is tried.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Who checkpoints and restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Uid 0, as far as the tests themselves run as root.
    Root,
    /// A user without any right: uid 65534 where the tests run as root, else whoever runs them.
    Ordinary,
    /// Uid 65534 under the default profile of a container engine. Needs root to be set up.
    Contained(Container),
    /// Uid 0 under the default profile of a container engine, with the capabilities it leaves.
    ContainedRoot(Container),
}

/// Whose default profile (see `confined` of the subjects).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// Docker: no namespaces, no clone3, no comparison or passing on of descriptors.
    Docker,
    /// Podman: namespaces, but no /proc of their own.
    Podman,
    /// No engine's: Docker's, and no tracing.
    Sandbox,
}

impl Container {
    /// Its name on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Sandbox => "sandbox",
        }
    }
}

impl User {
    /// The id to change to, if any.
    pub fn change_to(self) -> Option<u32> {
        match self {
            Self::Root | Self::ContainedRoot(_) => None,
            Self::Ordinary | Self::Contained(_) => is_root().then_some(65534),
        }
    }

    /// The container that it is confined as in.
    pub const fn container(self) -> Option<Container> {
        match self {
            Self::Root | Self::Ordinary => None,
            Self::Contained(container) | Self::ContainedRoot(container) => Some(container),
        }
    }
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// `--pids`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pids {
    /// The ids of before, in an own namespace.
    Keep,
    /// Other ids, without namespaces.
    New,
}

impl Pids {
    /// The option's value.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::New => "new",
        }
    }
}

/// `--memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Mapped from the image where the runtime is known to bear it, else copied.
    Auto,
    /// Mapped from the image, page by page as it is needed.
    Lazy,
    /// Copied at once.
    Eager,
}

impl Memory {
    /// The option's value.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Lazy => "lazy",
            Self::Eager => "eager",
        }
    }
}

/// One way to be checkpointed and restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flavour {
    /// Who does it.
    pub user: User,
    /// With which ids.
    pub pids: Pids,
    /// With which memory.
    pub memory: Memory,
}

impl Flavour {
    /// What most users get: no rights, ids kept, memory as the engine thinks best.
    pub const USUAL: Self = Self { user: User::Ordinary, pids: Pids::Keep, memory: Memory::Auto };

    /// Users, ids and both real kinds of memory: eight.
    pub const ALL: [Self; 8] = {
        let mut all = [Self::USUAL; 8];
        let mut i = 0;
        while i < 8 {
            all[i] = Self {
                user: if i & 1 == 0 { User::Root } else { User::Ordinary },
                pids: if i & 2 == 0 { Pids::Keep } else { Pids::New },
                memory: if i & 4 == 0 { Memory::Lazy } else { Memory::Eager },
            };
            i += 1;
        }
        all
    };

    /// Both users with both kinds of ids, in mapped memory: for what memory does not touch.
    pub const LAZY: [Self; 4] = [Self::ALL[0], Self::ALL[1], Self::ALL[2], Self::ALL[3]];

    /// What a subject may rely on once it is restored in this way (see `Promise` of the subjects).
    pub fn promises(self) -> String {
        let mut words = vec!["restored"];
        if self.pids == Pids::Keep {
            words.extend(["same-ids", "continuous-clock"]);
        }
        // `auto` never gives up what a program may rely on.
        if self.memory != Memory::Lazy {
            words.push("exact-memory");
        }
        words.join(" ")
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.user {
            User::Root => write!(f, "root")?,
            User::Ordinary => write!(f, "ordinary user")?,
            User::Contained(container) => write!(f, "ordinary user in {}", container.word())?,
            User::ContainedRoot(container) => write!(f, "root in {}", container.word())?,
        }
        write!(f, ", --pids {} --memory {}", self.pids.word(), self.memory.word())
    }
}

/// Runs `test` in each of `flavours` that can be had here; all of them, even if some fail.
///
/// # Panics
///
/// If the test panicked in any flavour, naming all of those.
pub fn every(flavours: &[Flavour], test: impl Fn(Flavour)) {
    let mut failed = Vec::new();
    let here = |flavour: &&Flavour| flavour.user == User::Ordinary || is_root();
    if !flavours.iter().all(|flavour| here(&flavour)) {
        crate::skipped("the ways of root and of containers, which need root");
    }
    for flavour in flavours.iter().filter(here) {
        if catch_unwind(AssertUnwindSafe(|| test(*flavour))).is_err() {
            failed.push(flavour.to_string());
        }
    }
    assert!(failed.is_empty(), "failed as: {}", failed.join("; "));
}
