//! Checkpoints in the middle of load: eight connections ask a service whose every part is at work, and every
//! answer is compared by its hash with what the service said before its first checkpoint.
//!
//! A few rounds by default; `cargo xtask jvm-soak --rounds N` sets `TUB_JVM_SOAK_ROUNDS`, and takes ZGC as well.

use crate::http::{Connection, first_answer, free_port};
use crate::jdk::Jdk;
use crate::jvm::on_each_jdk;
use crate::jvm_program::Program;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tub_testkit::{Flavour, Instance, Memory, Restore, wait_for};

/// Rounds where nobody asks for more.
const ROUNDS: usize = 4;
/// Connections that ask without a pause.
const CONNECTIONS: usize = 8;
/// Different requests.
const REQUESTS: usize = 48;
/// Right answers before a checkpoint is asked for, so that it comes in the middle of load.
const BETWEEN: u64 = 60;
/// How long it may take until they are there.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks on all connections until it is told to stop.
#[derive(Default)]
struct Load {
    expected: Vec<u64>,
    stop: AtomicBool,
    right: AtomicU64,
    /// Requests that were not answered: connections end with every checkpoint.
    cut: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Load {
    /// What the service says before anything happened to it.
    fn against(port: u16) -> Self {
        let answer = |number: usize| {
            let answer = first_answer(port, &format!("/work?{number}")).expect("no first answer");
            assert!(answer.starts_with(&format!("work {number}\n")), "{answer}");
            hash(&answer)
        };
        Self { expected: (0..REQUESTS).map(answer).collect(), ..Self::default() }
    }

    fn ask_on(&self, port: u16, first: usize) {
        let mut number = first;
        let mut connection = None;
        while !self.stop.load(Ordering::Relaxed) {
            let Some(open) = &mut connection else {
                connection = Connection::open(port).ok();
                if connection.is_none() {
                    thread::sleep(Duration::from_millis(2));
                }
                continue;
            };
            number = (number + 1) % REQUESTS;
            match open.get(&format!("/work?{number}")) {
                Ok(answer) if self.expected.get(number) == Some(&hash(&answer)) => {
                    self.right.fetch_add(1, Ordering::Relaxed);
                }
                Ok(answer) => {
                    let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
                    wrong.push(format!("request {number}:\n{answer}"));
                }
                Err(_) => {
                    self.cut.fetch_add(1, Ordering::Relaxed);
                    connection = None;
                }
            }
        }
    }

    fn count(&self) -> u64 {
        self.right.load(Ordering::Relaxed)
    }

    /// Waits for some more right answers; demands that no other kind has come.
    fn goes_on(&self, life: &Instance, when: &str) {
        let before = self.count();
        let more = wait_for(PATIENCE, || (self.count() >= before + BETWEEN).then_some(()));
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.count() - before;
        assert!(wrong.is_empty(), "{when}: {} wrong: {}\n{}", wrong.len(), wrong[0], life.tell());
        assert!(more.is_some(), "{when}: only {number} answers\n{}", life.tell());
    }
}

fn hash(answer: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    answer.hash(&mut hasher);
    hasher.finish()
}

fn lives_under_load(jdk: &Jdk, flags: &[&str], rounds: usize) {
    let program = Program::new(jdk, "Stress").flags(flags);
    let port = free_port();
    let mut life = program.start(&[&port.to_string()]);
    let load = Load::against(port);
    let (start, mut checkpoint_ms) = (Instant::now(), Vec::new());
    thread::scope(|scope| {
        // Also where a round fails: else the scope would wait for the load for ever.
        let _stops = Stops(&load.stop);
        for connection in 0..CONNECTIONS {
            let load = &load;
            scope.spawn(move || load.ask_on(port, connection * (REQUESTS / CONNECTIONS)));
        }
        let image = program.dir.join("image");
        for round in 0..rounds {
            let when = format!("JDK {}, {flags:?}, round {round}", jdk.version);
            load.goes_on(&life, &when);
            let asked = Instant::now();
            if round % 2 == 0 {
                life.checkpoint(&image, &["--replace", "--leave-running"]).succeeds();
                checkpoint_ms.push(asked.elapsed().as_millis());
            } else {
                let done = life.checkpoint(&image, &["--replace"]);
                assert!(done.status.success(), "{when}: {done}\n{}", life.tell());
                checkpoint_ms.push(asked.elapsed().as_millis());
                life.wait();
                let memory = if round % 4 == 1 { Memory::Auto } else { Memory::Eager };
                life = Restore::of(&life, &image, Flavour { memory, ..Flavour::USUAL }).start();
            }
            if round % 10 == 9 {
                eprintln!("{when}: {} answers, {:.0?}", load.count(), start.elapsed());
            }
        }
        load.goes_on(&life, &format!("JDK {}, {flags:?}, after all", jdk.version));
    });
    // The threads that nobody asks were at work in all lives, and found nothing.
    let turns = || first_answer(port, "/turns").and_then(|turns| turns.parse::<u64>().ok());
    let before = turns();
    let more = wait_for(PATIENCE, || (turns() > before).then_some(()));
    assert!(before.is_some() && more.is_some(), "{before:?}\n{}", life.tell());
    let problems = first_answer(port, "/problems");
    assert_eq!(problems.as_deref(), Some("problems:"), "{}", life.tell());
    // What was answered was counted, by one process after the other.
    let counted = first_answer(port, "/count").and_then(|count| count.parse::<u64>().ok());
    let (right, cut) = (load.count(), load.cut.load(Ordering::Relaxed));
    // And once each, before.
    let least = right + u64::try_from(REQUESTS).unwrap();
    let possible = least..=least + cut;
    assert!(counted.is_some_and(|count| possible.contains(&count)), "{counted:?}, {possible:?}");
    checkpoint_ms.sort_unstable();
    eprintln!(
        "JDK {}, {flags:?}: {rounds} rounds in {:.0?}: {right} right answers, {cut} cut off; \
         a checkpoint took {} ms (median), {} ms (most)",
        jdk.version,
        start.elapsed(),
        checkpoint_ms[checkpoint_ms.len() / 2],
        checkpoint_ms[checkpoint_ms.len() - 1],
    );
}

/// Ends the load when the test does, however.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn checkpoints_in_the_middle_of_load() {
    let wished = std::env::var("TUB_JVM_SOAK_ROUNDS").ok();
    let rounds = wished.as_ref().map_or(ROUNDS, |number| number.parse().unwrap());
    on_each_jdk(|jdk| {
        lives_under_load(jdk, &["-XX:+UseG1GC"], rounds);
        if wished.is_some() {
            lives_under_load(jdk, &["-XX:+UseZGC"], rounds);
        }
    });
}
