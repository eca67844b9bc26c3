//! No engine: the application is told that a checkpoint is near, and goes on at once.
//!
//! For trying out what hooks do. There is no image, and nothing is frozen.

use super::{Coordinate, Engine, EngineKind, EngineUnusable, Inspection, Report, generation_of};
use crate::checkpoint::{CheckpointError, CheckpointOptions};
use crate::restore::{RestoreError, RestoreOptions, Restoring};
use std::path::Path;
use tub_checkpoint::{StageTimes, deliver};
use tub_control::mailbox;
use tub_restore::Stats;
use tub_units::{HostPid, RemoteAddr};

/// Notifies, and goes on.
#[derive(Clone, Copy, Debug)]
pub struct SimEngine;

impl Engine for SimEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Sim
    }

    fn check(&self) -> Result<String, EngineUnusable> {
        Ok(env!("CARGO_PKG_VERSION").to_owned())
    }

    fn checkpoint(
        &self,
        pid: HostPid,
        options: &CheckpointOptions,
        coordinate: Coordinate<'_>,
    ) -> Result<Report, CheckpointError> {
        let tree = tub_checkpoint::survey_tree(pid)?;
        // No checkpoint lies behind it that did not before.
        let generation = generation_of(pid);
        let prepared = coordinate()?.ok_or(CheckpointError::NobodyToTell)?;
        if let Some(mailbox) = prepared.mailbox.range() {
            let resumed = mailbox::Resumed { image: String::new(), generation };
            let letter = mailbox::encode_resumed(&resumed).unwrap_or_default();
            deliver(pid, RemoteAddr(mailbox.start()), &letter);
        }
        Ok(Report {
            engine: EngineKind::Sim,
            dir: options.dir.clone(),
            image_bytes: 0,
            processes: tree.members.len(),
            threads: tree.members.iter().map(|member| member.threads.len()).sum(),
            times: StageTimes::default(),
            not_ended: None,
        })
    }

    fn restore(&self, _: &RestoreOptions, _: &mut Stats) -> Result<Restoring, RestoreError> {
        Err(RestoreError::Unsupported { engine: EngineKind::Sim, what: "images" })
    }

    fn inspect(&self, _: &Path) -> Result<Inspection, RestoreError> {
        Err(RestoreError::Unsupported { engine: EngineKind::Sim, what: "images" })
    }
}
