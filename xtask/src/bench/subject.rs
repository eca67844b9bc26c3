//! Something that is checkpointed and gets up again, with either engine.
//!
//! In: a command line. Out: an original under way, images of it, rises from them.
//! Invariant: both engines are driven by the same commands, `tub checkpoint` and `tub restore`, and
//! measured by the same prober.
//! Not here: how often, and what for.

use crate::failure::{Failure, Result};
use crate::measure::{
    FirstAnswer, Load, Manner, Memory, Parked, Prober, Question, Restore, Stage, Standby,
    minor_faults,
};
use crate::process::run_quietly;
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Who takes images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    Native,
    Criu,
}

impl Engine {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Criu => "criu",
        }
    }
}

/// Where it all happens, and with what.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) stage: Stage,
    /// The CRIU that works here, or why there is none.
    pub(super) criu: std::result::Result<PathBuf, String>,
}

impl Place {
    /// The engines that can be had.
    pub(super) fn engines(&self) -> Vec<Engine> {
        let criu = self.criu.is_ok().then_some(Engine::Criu);
        [Some(Engine::Native), criu].into_iter().flatten().collect()
    }

    /// As whom an engine's processes run. CRIU is root's, and takes nobody else's processes where
    /// root may not read other users' limits (containers without CAP_SYS_RESOURCE): so its are root's.
    fn stage_of(&self, engine: Engine) -> Stage {
        match engine {
            Engine::Native => self.stage.clone(),
            Engine::Criu => Stage { uid: None, ..self.stage.clone() },
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.stage.scratch.join(name)
    }
}

/// A rise: something answered.
#[derive(Clone, Debug)]
pub(super) struct Rise {
    /// From just before exec until the first correct answer.
    pub(super) answer_ms: f64,
    /// From just before exec until all threads run.
    pub(super) resumed_ms: Option<f64>,
    /// When each stage was over, as the engine says, from its own start.
    pub(super) stages_us: Vec<(String, f64)>,
    /// Right after the answer.
    pub(super) memory: Option<Memory>,
    /// Until then.
    pub(super) minor_faults: Option<u64>,
    /// The load that was put on it afterwards.
    pub(super) load: Option<Load>,
    /// Where it was on standby: what was parked before its release.
    pub(super) parked: Vec<Parked>,
}

impl Rise {
    /// One of which nothing more is known.
    pub(super) fn after(answer_ms: f64) -> Self {
        Self {
            answer_ms,
            resumed_ms: None,
            stages_us: Vec::new(),
            memory: None,
            minor_faults: None,
            load: None,
            parked: Vec::new(),
        }
    }
}

/// A process that has answered.
#[derive(Debug)]
pub(super) struct Original {
    engine: Engine,
    prober: Prober,
    pid: u32,
    /// From just before exec until its first correct answer.
    pub(super) answer_ms: f64,
}

/// A checkpoint, as `tub checkpoint --json` tells of it.
#[derive(Clone, Debug)]
pub(super) struct Checkpoint {
    /// From just before exec until the command had ended.
    pub(super) wall_ms: f64,
    pub(super) told: Value,
}

impl Checkpoint {
    /// One of the times that it tells, in milliseconds.
    pub(super) fn ms(&self, name: &str) -> f64 {
        self.told[name].as_f64().unwrap_or_default() / 1000.0
    }
}

/// Whether the original goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    End,
}

impl Original {
    /// Starts it, and waits until it answers. `engine` will take images of it.
    pub(super) fn start(
        place: &Place,
        engine: Engine,
        name: &str,
        question: Question<'_>,
        command: &[OsString],
    ) -> Result<Self> {
        let mut words: Vec<OsString> = Vec::new();
        if engine == Engine::Criu {
            // The prober has its children die with it. CRIU restores that wish, and then ends, as the
            // parent of what it has restored.
            words.extend(["setpriv", "--pdeathsig", "clear", "--"].map(OsString::from));
        }
        words.extend_from_slice(command);
        let mut prober = Prober::prepare(&place.stage_of(engine), name, question, &words)?;
        prober.go()?;
        let answer = prober.first_answer()?;
        Ok(Self { engine, prober, pid: answer.pid, answer_ms: answer.ms })
    }

    pub(super) fn prober(&mut self) -> &mut Prober {
        &mut self.prober
    }

    /// Takes an image of it.
    pub(super) fn checkpoint(&self, place: &Place, image: &Path, then: Then) -> Result<Checkpoint> {
        let tub = place.stage.layout.tub();
        let mut command = match self.engine {
            Engine::Native => place.stage.command_of_user(&tub),
            Engine::Criu => inside(&place.stage, self.pid, &tub),
        };
        command.arg("checkpoint").arg(self.pid.to_string()).arg("--image").arg(image);
        command.arg("--json");
        if then == Then::GoOn {
            command.arg("--leave-running");
        }
        if self.engine == Engine::Criu {
            // What is left of the load's connections may not have gone yet, and CRIU would ask the
            // firewall to hold them.
            command.args(["--tcp", "close", "--engine", "criu", "--criu"]).arg(criu(place)?);
        }
        let start = Instant::now();
        let text = run_quietly(&mut command)?;
        let wall_ms = start.elapsed().as_secs_f64() * 1000.0;
        let told = serde_json::from_str(&text)
            .map_err(|error| Failure::new(format!("tub checkpoint --json: {error}: {text}")))?;
        Ok(Checkpoint { wall_ms, told })
    }

    /// Ends it, or finds that it has ended.
    pub(super) fn stop(self) -> Result<()> {
        self.prober.stop().map(drop)
    }
}

/// A command of root's in the network namespace of a process. CRIU stores a namespace that is not
/// its own, and would bring it back at every restore: that would be another measurement.
fn inside(stage: &Stage, pid: u32, program: &Path) -> Command {
    let mut command = stage.command(Path::new("nsenter"));
    command.arg(format!("--net=/proc/{pid}/ns/net")).arg("--").arg(program);
    command
}

fn criu(place: &Place) -> Result<&Path> {
    place.criu.as_deref().map_err(|reason| Failure::new(reason.clone()))
}

/// How many a keeper has parked when one of them is released.
const STANDBY: usize = 2;

/// An image, and how instances get up from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) engine: Engine,
    pub(super) image: &'a Path,
    pub(super) question: Question<'a>,
    /// `--memory`, for our own engine.
    pub(super) memory: &'static str,
}

impl Source<'_> {
    /// One rise, from exec to the end.
    pub(super) fn rise(&self, place: &Place, name: &str) -> Result<Rise> {
        self.rise_and_load(place, name, 0)
    }

    /// One of the instances that a keeper has parked is released, answers, and gets `requests` more.
    /// Each time another keeper: what is parked maps the image, and would be in the way of others that
    /// are measured.
    pub(super) fn released(
        &self,
        place: &Place,
        name: &str,
        by_byte: bool,
        requests: u32,
    ) -> Result<Rise> {
        let socket = place.path(&format!("{}.standby", name.replace(' ', "-")));
        let mut words: Vec<OsString> = vec![place.stage.layout.tub().into(), "restore".into()];
        words.extend([self.image.into(), "--memory".into(), self.memory.into()]);
        words.extend(["--standby".into(), STANDBY.to_string().into()]);
        words.extend(["--control".into(), socket.clone().into()]);
        let standby = Standby { socket: &socket, by_byte };
        let mut prober =
            Prober::prepare_standby(standby, &place.stage, name, self.question, &words)?;
        let parked = prober.parked();
        prober.go()?;
        let answer = prober.first_answer()?;
        let memory = Some(Memory::of(answer.pid)?);
        let minor_faults = Some(minor_faults(answer.pid)?);
        let load = (requests > 0).then(|| prober.load(requests)).transpose()?;
        prober.stop()?;
        Ok(Rise { memory, minor_faults, load, parked, ..Rise::after(answer.ms) })
    }

    /// One rise, and then `requests` more.
    pub(super) fn rise_and_load(&self, place: &Place, name: &str, requests: u32) -> Result<Rise> {
        self.rises(place, name, 1, requests).and_then(|mut all| {
            all.rises.pop().ok_or_else(|| Failure::new(format!("{name}: no rise")))
        })
    }

    /// `count` rises at once, which all live when the last has answered. Then each gets `requests`
    /// more, one after another.
    pub(super) fn rises(
        &self,
        place: &Place,
        name: &str,
        count: usize,
        requests: u32,
    ) -> Result<AtOnce> {
        let stage = place.stage_of(self.engine);
        let options: [OsString; 2] = match self.engine {
            Engine::Native => ["--memory".into(), self.memory.into()],
            Engine::Criu => ["--criu".into(), criu(place)?.into()],
        };
        let restore = Restore {
            question: self.question,
            image: self.image,
            options: options.into(),
            manner: Manner::of_one_among(count),
        };
        let mut running = (0..count)
            .map(|number| restore.prepare(&stage, &format!("{name} {number}")))
            .collect::<Result<Vec<_>>>()?;
        for (prober, _) in &mut running {
            prober.go()?;
        }
        let mut answers: Vec<FirstAnswer> = Vec::with_capacity(count);
        for (prober, _) in &mut running {
            answers.push(prober.first_answer()?);
        }
        let mut rises = Vec::with_capacity(count);
        for ((_, instance), answer) in running.iter().zip(&answers) {
            let stats = instance.stats()?;
            rises.push(Rise {
                answer_ms: answer.ms,
                resumed_ms: resumed_ms(&stats, answer.started_ns),
                stages_us: instance.stages_us(),
                minor_faults: Some(instance.minor_faults()?),
                memory: Some(instance.memory()?),
                load: None,
                parked: Vec::new(),
            });
        }
        // Each must still answer when all are known to be up; none may have replaced another.
        if count > 1 {
            for (prober, _) in &mut running {
                prober.must_answer()?;
            }
        }
        let mut loaded = Vec::new();
        if requests > 0 {
            for ((prober, _), rise) in running.iter_mut().zip(&mut rises) {
                rise.load = Some(prober.load(requests)?);
            }
            for (_, instance) in &running {
                loaded.push(instance.memory()?);
            }
        }
        for (prober, _) in running {
            prober.stop()?;
        }
        let first = answers.iter().map(|answer| answer.started_ns).min().unwrap_or_default();
        let last = answers.iter().map(|answer| answer.correct_ns).max().unwrap_or_default();
        Ok(AtOnce { rises, all_ms: ms_between(first, last), loaded })
    }
}

/// Rises at the same time.
#[derive(Debug)]
pub(super) struct AtOnce {
    pub(super) rises: Vec<Rise>,
    /// From the first exec until the last had answered.
    pub(super) all_ms: f64,
    /// Memory of each when the last has had its load.
    pub(super) loaded: Vec<Memory>,
}

/// From the prober's clock before exec to the engine's mark: both read CLOCK_MONOTONIC.
fn resumed_ms(stats: &Value, started_ns: u64) -> Option<f64> {
    let main_ns = stats["start_monotonic_ns"].as_u64()?;
    Some(ms_between(started_ns, main_ns) + stats["resumed_us"].as_f64()? / 1000.0)
}

#[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days; the result is for people")]
fn ms_between(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e6
}

/// Teaches the image which pages its instances need first, in a network namespace of their own.
pub(super) fn train(place: &Place, question: Question<'_>, image: &Path) -> Result<()> {
    let prober = place.stage.layout.prober();
    let mut command = place.stage.command(&prober);
    command.arg("inside");
    if let Some(uid) = place.stage.uid {
        command.arg("--uid").arg(uid.to_string());
    }
    command.arg("--").arg(place.stage.layout.tub()).arg("train").arg(image).arg("--");
    command.arg(&prober).args(["ask", "--path", question.path, "--expect", question.answer]);
    run_quietly(&mut command).map(drop)
}

/// Removes an image as soon as it is no longer needed: they are large.
pub(super) fn remove(image: &Path) -> Result<()> {
    fs::remove_dir_all(image).map_err(|error| Failure::io("remove", image, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn resumed_counts_from_before_exec() {
        let stats = json!({ "start_monotonic_ns": 5_000_000_u64, "resumed_us": 2500 });
        assert_eq!(resumed_ms(&stats, 4_000_000), Some(3.5));
        assert_eq!(resumed_ms(&json!({ "resumed_us": 1 }), 0), None);
    }
}
