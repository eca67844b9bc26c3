//! CRIU, behind the trait: the application sees no difference.
//!
//! The letter to a copy cannot be part of CRIU's image. So CRIU leaves the process standing still
//! after a restore, the letter is written into its mailbox, and only then is it let go.

use super::{
    Coordinate, CriuOptions, Engine, EngineKind, EngineUnusable, Inspection, Report, generation_of,
};
use crate::checkpoint::{CheckpointError, CheckpointOptions};
use crate::guardian::Guardian;
use crate::restore::{RestoreError, RestoreOptions, Restoring, letter};
use std::path::Path;
use tub_checkpoint::{StageTimes, TcpPolicy, deliver};
use tub_control::{Prepared, mailbox};
use tub_criu::{Aside, Coordinated, Criu, DumpOptions, Marker};
use tub_restore::Stats;
use tub_restore::plan::{Ids, MemoryMode, Stdio};
use tub_units::{HostPid, RemoteAddr};

/// CRIU.
#[derive(Clone, Debug)]
pub struct CriuEngine {
    options: CriuOptions,
}

impl CriuEngine {
    /// CRIU with those options.
    pub const fn new(options: CriuOptions) -> Self {
        Self { options }
    }

    fn find(&self) -> Result<Criu, tub_criu::Error> {
        Criu::find(self.options.program.as_deref())
    }
}

impl Engine for CriuEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Criu
    }

    fn check(&self) -> Result<String, EngineUnusable> {
        let criu = self.find()?;
        criu.check()?;
        Ok(criu.version().to_owned())
    }

    fn checkpoint(
        &self,
        pid: HostPid,
        options: &CheckpointOptions,
        coordinate: Coordinate<'_>,
    ) -> Result<Report, CheckpointError> {
        if !options.labels.is_empty() || !options.metrics.is_empty() {
            return Err(CheckpointError::NoLabels);
        }
        // No process, or somebody else's: said as with our own engine.
        let processes = tub_checkpoint::survey_tree(pid)?.members.len();
        let criu = self.find()?;
        criu.check()?;
        let aside = Aside::new(&options.dir, options.replace)?;
        Criu::takes(pid)?;
        // Only the application itself knows what it came through.
        let generation = generation_of(pid) + 1;
        let mut guardian = Guardian::start(options.guardian.as_deref());
        guardian.watch_criu(aside.path(), &options.dir, pid);
        let prepared = coordinate()?;
        let image = options.dir.display().to_string();
        let resumed = mailbox::Resumed { image, generation };
        let resumed = mailbox::encode_resumed(&resumed).unwrap_or_default();
        let mailbox = prepared.as_ref().and_then(|prepared| prepared.mailbox.range());
        if let Some(mailbox) = mailbox {
            guardian.watch_application(pid, mailbox, resumed.clone());
        }
        let dump = DumpOptions {
            pid,
            leave_running: options.leave_running,
            tcp_close: options.tcp == TcpPolicy::Close,
            generation,
            coordination: prepared.as_ref().map(coordinated),
            words: &self.options.words,
        };
        let dumped = criu.dump(aside, &dump);
        if let Some(mailbox) = mailbox {
            let at = RemoteAddr(mailbox.start());
            match &dumped {
                Ok(_) if options.leave_running => deliver(pid, at, &resumed),
                Ok(_) => {}
                Err(error) => {
                    let (message, failures) = (crate::sentence(error), Vec::new());
                    let failed = mailbox::Failed { message, failures };
                    deliver(pid, at, &mailbox::encode_failed(&failed).unwrap_or_default());
                }
            }
        }
        let dumped = dumped?;
        Ok(Report {
            engine: EngineKind::Criu,
            dir: options.dir.clone(),
            image_bytes: dumped.bytes,
            processes,
            threads: dumped.marker.threads,
            times: StageTimes {
                freeze: dumped.freeze,
                write: dumped.write,
                frozen: dumped.frozen,
                ..StageTimes::default()
            },
            // CRIU fails where it cannot.
            not_ended: None,
        })
    }

    fn restore(
        &self,
        options: &RestoreOptions,
        stats: &mut Stats,
    ) -> Result<Restoring, RestoreError> {
        let unsupported = |what| RestoreError::Unsupported { engine: EngineKind::Criu, what };
        let marker = Marker::read(&options.dir)?;
        stats.mark("opened_us");
        if !options.required_labels.is_empty() {
            return Err(unsupported("--require-label: it keeps none"));
        }
        if options.ids == Ids::New {
            return Err(unsupported("--pids new: it restores the ids of before, or nothing"));
        }
        if options.memory == MemoryMode::Lazy {
            return Err(unsupported("--memory lazy: it reads all of an image"));
        }
        if marker.coordination.is_none() && !options.arguments.is_empty() {
            return Err(RestoreError::NoArguments);
        }
        let coordination = marker.coordination.as_ref();
        let letter = match coordination {
            Some(_) => letter(marker.generation, options)?,
            None => Vec::new(),
        };
        let criu = self.find()?;
        let restored = criu.restore(
            &marker,
            &tub_criu::RestoreOptions {
                dir: &options.dir,
                detach: options.detach,
                inherit_stdio: options.stdio == Stdio::Inherit,
                stopped: coordination.is_some(),
                words: &self.options.words,
            },
        )?;
        if let Some(mailbox) = coordination.and_then(Coordinated::mailbox) {
            deliver(restored.main(), RemoteAddr(mailbox.start()), &letter);
        }
        stats.mark("parked_us");
        Ok(Restoring::criu(restored))
    }

    fn inspect(&self, dir: &Path) -> Result<Inspection, RestoreError> {
        let marker = Marker::read(dir)?;
        let coordination = marker.coordination;
        Ok(Inspection {
            engine: EngineKind::Criu,
            engine_version: marker.engine_version,
            created_unix_ns: marker.created_unix_ns,
            generation: marker.generation,
            labels: Vec::new(),
            pid: marker.pid,
            threads: marker.threads,
            runtime: coordination.as_ref().map(|coordination| coordination.runtime.clone()),
            resources: coordination.map_or_else(Vec::new, |coordination| coordination.resources),
        })
    }
}

fn coordinated(prepared: &Prepared) -> Coordinated {
    Coordinated {
        mailbox_address: prepared.mailbox.address,
        mailbox_bytes: prepared.mailbox.bytes,
        runtime: prepared.runtime.clone(),
        resources: prepared.resources.clone(),
    }
}
