//! Our own engine, behind the trait.

use super::{Coordinate, Engine, EngineKind, EngineUnusable, Inspection, Report, generation_of};
use crate::checkpoint::{CheckpointError, CheckpointOptions, open_resource};
use crate::guardian::Guardian;
use crate::restore::{self, RestoreError, RestoreOptions, Restoring};
use nix::sys::signal::{SigSet, Signal};
use std::path::Path;
use tub_checkpoint::{Error, Letters, Options, survey};
use tub_control::mailbox;
use tub_image::{Image, ImageWriter, Replace};
use tub_model::Coordination;
use tub_restore::Stats;
use tub_units::HostPid;

/// Our own engine.
#[derive(Clone, Copy, Debug)]
pub struct NativeEngine;

impl Engine for NativeEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Native
    }

    /// What takes no other process: `tub check` tries everything else.
    fn check(&self) -> Result<String, EngineUnusable> {
        let unusable =
            |error: &dyn std::error::Error| EngineUnusable::Native(crate::sentence(error));
        let here = tub_host::facts().map_err(|error| unusable(&error))?;
        if here.arch != "x86_64" {
            let reason = format!("{} is not supported yet: only x86-64 is", here.arch);
            return Err(EngineUnusable::Native(reason));
        }
        Ok(env!("CARGO_PKG_VERSION").to_owned())
    }

    fn checkpoint(
        &self,
        pid: HostPid,
        options: &CheckpointOptions,
        coordinate: Coordinate<'_>,
    ) -> Result<Report, CheckpointError> {
        let before = survey(pid)?;
        // The image that the process came from may be replaced by its successor: instances that
        // are alive keep the old one's pages.
        let origin = tub_checkpoint::origin(&before)?;
        let replace = match origin {
            _ if options.replace => Replace::AnyImage,
            Some(origin) => Replace::ImageWithId(origin.image_id),
            None => Replace::Never,
        };
        // A limit on the size of files is to be an error of write(2), not our end (setrlimit(2)).
        let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
        let mut guardian = Guardian::start(options.guardian.as_deref());
        guardian.watch_place(&options.dir);
        let writer = ImageWriter::create(&options.dir, replace).map_err(Error::Image)?;
        guardian.watch_image(writer.temporary(), writer.dir());
        for (name, content) in &options.beside {
            writer.add(name, content).map_err(Error::Image)?;
        }
        // Its image does not know of checkpoints after which it went on.
        let known = origin.map_or(0, |origin| origin.generation);
        let generation = known.max(generation_of(pid)) + 1;
        let prepared = coordinate()?;
        let letters = prepared.is_some().then(|| letters(options, generation));
        let metrics = options.metrics_with(prepared.as_ref());
        let coordination = prepared.and_then(|prepared| {
            let mailbox = prepared.mailbox.range()?;
            let (runtime, resources) = (prepared.runtime, prepared.resources);
            Some(Coordination { mailbox, runtime, resources })
        });
        if let (Some(coordination), Some(letters)) = (&coordination, &letters) {
            guardian.watch_application(pid, coordination.mailbox, letters.resumed.clone());
        }
        let leave_running = options.leave_running;
        let engine_options = Options {
            leave_running,
            tcp: options.tcp,
            generation,
            labels: options.labels.clone(),
            metrics,
            coordination,
            letters,
        };
        let report = tub_checkpoint::checkpoint(pid, writer, &engine_options)
            .map_err(|(source, frozen)| CheckpointError::new(source, frozen))?;
        Ok(Report {
            engine: EngineKind::Native,
            image_bytes: report.image.stored_bytes + report.image.inventory_bytes,
            dir: report.image.dir,
            processes: report.processes,
            threads: report.threads,
            times: report.times,
            not_ended: report.not_ended,
        })
    }

    fn restore(
        &self,
        options: &RestoreOptions,
        stats: &mut Stats,
    ) -> Result<Restoring, RestoreError> {
        restore::restore_native(options, stats)
    }

    fn inspect(&self, dir: &Path) -> Result<Inspection, RestoreError> {
        let image = Image::open(dir).map_err(RestoreError::Image)?;
        let provenance = image.checkpoint.provenance;
        let coordination = image.checkpoint.coordination;
        let labels = provenance.labels;
        let tasks = &image.checkpoint.tasks;
        Ok(Inspection {
            engine: EngineKind::Native,
            engine_version: provenance.tool_version,
            created_unix_ns: provenance.created_unix_ns,
            generation: provenance.generation,
            labels,
            pid: tasks.first().map_or(0, |task| task.pid.0),
            threads: tasks.iter().map(|task| task.threads.len()).sum(),
            runtime: coordination.as_ref().map(|coordination| coordination.runtime.clone()),
            resources: coordination.map_or_else(Vec::new, |coordination| coordination.resources),
        })
    }
}

fn letters(options: &CheckpointOptions, generation: u64) -> Letters {
    let image = options.dir.display().to_string();
    let resumed = mailbox::encode_resumed(&mailbox::Resumed { image, generation });
    Letters {
        resumed: resumed.unwrap_or_default(),
        failed: Box::new(|error| {
            let failures = match error {
                Error::Refused { refusals, .. } => refusals.iter().map(open_resource).collect(),
                _ => Vec::new(),
            };
            let message = crate::sentence(error);
            mailbox::encode_failed(&mailbox::Failed { message, failures }).unwrap_or_default()
        }),
    }
}
