//! Checkpoints of containers by their own engines, with the application's part in them.
//!
//! In: the name of a container. Out: a checkpoint of Podman's or Docker's, or a container that was
//! restored from one and answers.
//! Invariant: the engine is driven by its documented command line. A container whose checkpoint fails is
//! told so and goes on, whoever failed.
//! Not here: how an application prepares (`prepare`), and where images lie (the engine's storage).

use crate::attach::LateAgent;
use crate::checkpoint::CheckpointError;
use crate::prepare::{Preparation, prepare, resume};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tub_checkpoint::survey_tree;
use tub_control::{Client, State, listens};
use tub_units::HostPid;

/// A trap of containerd's: right after another use of a checkpoint, `docker start
/// --checkpoint` may find its content "already exists" (seen with Docker 26: at most 2 times in a row).
const DOCKER_TRIES: usize = 10;
const DOCKER_PAUSE: Duration = Duration::from_millis(50);

/// Who runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerEngine {
    /// podman(1).
    Podman,
    /// docker(1), whose daemon has its experimental features on.
    Docker,
}

impl ContainerEngine {
    const fn program(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }
}

impl fmt::Display for ContainerEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())
    }
}

/// Why a container was not checkpointed or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// Nobody knows it.
    #[error("neither podman nor docker knows a container {name}")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// The engine cannot be run.
    #[error("{engine} cannot be run")]
    NoEngine {
        /// Which.
        engine: ContainerEngine,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not run.
    #[error("container {name} does not run")]
    NotRunning {
        /// Its name.
        name: String,
    },
    /// The application could not be prepared, and goes on.
    #[error("the application in container {name} could not be prepared")]
    Prepare {
        /// Name of the container.
        name: String,
        /// Why.
        #[source]
        source: Box<CheckpointError>,
    },
    /// The engine failed.
    #[error("{engine} could not {verb} container {name}: {said}")]
    Engine {
        /// Which.
        engine: ContainerEngine,
        /// `checkpoint` or `restore`.
        verb: &'static str,
        /// Name of the container.
        name: String,
        /// Its words.
        said: String,
    },
    /// The container was restored, and the application does not answer.
    #[error("container {name} was restored, and its application does not answer within {waited:?}")]
    Silent {
        /// Name of the container.
        name: String,
        /// How long was waited.
        waited: Duration,
    },
}

/// A container.
#[derive(Clone, Debug)]
pub struct Container {
    engine: ContainerEngine,
    name: String,
}

/// How a container is to be checkpointed.
#[derive(Clone, Debug)]
pub struct ContainerCheckpoint {
    /// Name of the checkpoint, which Docker wants.
    pub checkpoint: String,
    /// Archive that it goes to, which Podman can restore anywhere, and several times at once.
    pub export: Option<PathBuf>,
    /// Whether the container goes on.
    pub leave_running: bool,
    /// How long the application may take to prepare.
    pub timeout: Duration,
    /// The agent for a JVM that was started without it.
    pub late_agent: Option<LateAgent>,
    /// More words for the engine.
    pub words: Vec<OsString>,
}

/// How a container is to be restored.
#[derive(Clone, Debug)]
pub struct ContainerRestore {
    /// Name of the checkpoint, which Docker wants.
    pub checkpoint: String,
    /// Archive of Podman's that it comes from; the container is then a new one.
    pub import: Option<PathBuf>,
    /// How long the application may take until it answers.
    pub timeout: Duration,
    /// More words for the engine.
    pub words: Vec<OsString>,
}

impl Container {
    /// The container `name` of `engine`, or of whichever engine knows it.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Unknown`], or the engine cannot be run.
    pub fn find(name: &str, engine: Option<ContainerEngine>) -> Result<Self, ContainerError> {
        let engines = match engine {
            Some(engine) => vec![engine],
            None => vec![ContainerEngine::Podman, ContainerEngine::Docker],
        };
        let mut unusable = None;
        for engine in engines {
            let container = Self::named(name, engine);
            match container.inspect("{{.State.Pid}}") {
                Ok(Some(_)) => return Ok(container),
                Ok(None) => unusable = None,
                Err(error) => unusable = unusable.or(Some(error)),
            }
        }
        Err(unusable.unwrap_or_else(|| ContainerError::Unknown { name: name.to_owned() }))
    }

    /// The container `name` of `engine`, which need not be there yet.
    pub fn named(name: &str, engine: ContainerEngine) -> Self {
        Self { engine, name: name.to_owned() }
    }

    /// Whose it is.
    pub const fn engine(&self) -> ContainerEngine {
        self.engine
    }

    /// Its main process, as it is seen from outside.
    ///
    /// # Errors
    ///
    /// [`ContainerError::NotRunning`], or the engine cannot be run.
    pub fn pid(&self) -> Result<HostPid, ContainerError> {
        let pid = self.inspect("{{.State.Pid}}")?;
        let pid = pid.and_then(|pid| pid.trim().parse().ok()).filter(|pid| *pid > 0);
        pid.map(HostPid).ok_or_else(|| ContainerError::NotRunning { name: self.name.clone() })
    }

    /// Has the application prepare, and the engine take its checkpoint.
    ///
    /// # Errors
    ///
    /// There is no checkpoint. The application was told so, and the container goes on.
    pub fn checkpoint(&self, options: &ContainerCheckpoint) -> Result<(), ContainerError> {
        let pid = participant(self.pid()?);
        // The engine's own limits end it long before.
        let patience = Duration::from_secs(600);
        let prepared = prepare(pid, options.late_agent.as_ref(), options.timeout, patience)
            .map_err(|source| {
                let source = Box::new(source);
                ContainerError::Prepare { name: self.name.clone(), source }
            })?;
        let mut command = Command::new(self.engine.program());
        match self.engine {
            ContainerEngine::Podman => {
                command.args(["container", "checkpoint"]);
                if let Some(archive) = &options.export {
                    command.arg("--export").arg(archive);
                }
            }
            ContainerEngine::Docker => {
                command.args(["checkpoint", "create"]);
            }
        }
        if options.leave_running {
            command.arg("--leave-running");
        }
        command.args(&options.words).arg(&self.name);
        if self.engine == ContainerEngine::Docker {
            command.arg(&options.checkpoint);
        }
        let taken = self.run(&mut command, "checkpoint");
        let go_on = |prepared: &Preparation, failed: Option<&str>| {
            // It may have gone, or have gone on: what counts is how the checkpoint ended.
            let _ = resume(prepared, failed, options.timeout);
        };
        match (&taken, &prepared) {
            (Err(error), Some(prepared)) => go_on(prepared, Some(&error.to_string())),
            (Ok(_), Some(prepared)) if options.leave_running => go_on(prepared, None),
            _ => {}
        }
        taken.map(drop)
    }

    /// Has the engine restore it, and waits until its application, if it takes part, has been told and
    /// answers. Answers its main process.
    ///
    /// # Errors
    ///
    /// It was not restored, or its application does not answer.
    pub fn restore(&self, options: &ContainerRestore) -> Result<HostPid, ContainerError> {
        match self.engine {
            ContainerEngine::Podman => {
                let mut command = Command::new("podman");
                command.args(["container", "restore"]).args(&options.words);
                match &options.import {
                    Some(archive) => {
                        command.arg("--import").arg(archive).arg("--name").arg(&self.name)
                    }
                    None => command.arg(&self.name),
                };
                self.run(&mut command, "restore")?;
            }
            ContainerEngine::Docker => self.start_from(options)?,
        }
        let pid = self.pid()?;
        let waited = options.timeout;
        if answers_within(pid, waited) {
            return Ok(pid);
        }
        Err(ContainerError::Silent { name: self.name.clone(), waited })
    }

    fn start_from(&self, options: &ContainerRestore) -> Result<(), ContainerError> {
        for tried in 1.. {
            let mut command = Command::new("docker");
            command.args(["start", "--checkpoint", &options.checkpoint]).args(&options.words);
            match self.run(command.arg(&self.name), "restore") {
                Err(ContainerError::Engine { said, .. })
                    if tried < DOCKER_TRIES && said.contains("already exists") =>
                {
                    std::thread::sleep(DOCKER_PAUSE);
                }
                result => return result.map(drop),
            }
        }
        unreachable!("the last try returns")
    }

    /// What `format` says of it; `None` where the engine does not know it.
    fn inspect(&self, format: &str) -> Result<Option<String>, ContainerError> {
        let mut command = Command::new(self.engine.program());
        command.args(["container", "inspect", "--format", format, &self.name]);
        let output = self.output(&mut command)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(output.status.success().then_some(said))
    }

    fn output(&self, command: &mut Command) -> Result<Output, ContainerError> {
        let engine = self.engine;
        command
            .stdin(Stdio::null())
            .output()
            .map_err(|source| ContainerError::NoEngine { engine, source })
    }

    fn run(&self, command: &mut Command, verb: &'static str) -> Result<Output, ContainerError> {
        let output = self.output(command)?;
        if output.status.success() {
            return Ok(output);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let (engine, name, said) = (self.engine, self.name.clone(), said.join("; "));
        Err(ContainerError::Engine { engine, verb, name, said })
    }
}

/// Of `init` and its descendants, the one that takes part: a container may have an init or a shell as its first
/// process. Where there is none, `init`.
pub fn participant(init: HostPid) -> HostPid {
    if listens(init) {
        return init;
    }
    let Ok(tree) = survey_tree(init) else { return init };
    let pids = || tree.members.iter().map(|member| member.pid);
    pids().find(|pid| listens(*pid)).or_else(|| pids().find(|pid| takes_part(*pid))).unwrap_or(init)
}

/// Until the application among `init` and its descendants has told its resources after a restore; `false`
/// where that takes longer. One that takes no part need not be waited for.
pub fn answers_within(init: HostPid, timeout: Duration) -> bool {
    let restored = Instant::now();
    loop {
        let pid = participant(init);
        let client = Client::find(pid).ok().flatten();
        let status = client.and_then(|mut client| client.status().ok());
        if status.map_or(!takes_part(pid), |status| status.state == State::Running) {
            return true;
        }
        if restored.elapsed() > timeout {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process was started to take part: then it has a control socket, or will have one again.
fn takes_part(pid: HostPid) -> bool {
    let is_ours = |variable: &[u8]| variable.starts_with(b"TUB_COMMAND=");
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|&byte| byte == 0).any(is_ours)
}
