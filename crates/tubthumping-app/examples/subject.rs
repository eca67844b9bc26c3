//! A program of the end-to-end tests (`tests/e2e/tests/languages.rs`): three resources, and orders
//! from a file. Its twins in other languages do the same.
//!
//! In: a directory; orders in its file `go`. Out: what happens, on stdout.
//! Invariant: nothing is open but what an order has opened.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a program of tests")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::exit;
use std::time::Duration;
use tubthumping_app::{HookError, Outcome, Registration, Resource, checkpoint, register};

/// A resource that tells what it is told, and fails in the way that its name says.
struct Noted(&'static str);

impl Resource for Noted {
    fn before_checkpoint(&self) -> Result<(), HookError> {
        println!("before {}", self.0);
        match self.0 {
            "bad" | "worse" => Err(HookError::new("Tired", format!("{} is tired", self.0))),
            "slow" => {
                std::thread::sleep(Duration::from_secs(3));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn after_restore(&self, outcome: &Outcome) -> Result<(), HookError> {
        println!("after {} {}", self.0, shown(outcome));
        Ok(())
    }
}

fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Resumed(resumed) => format!("resumed {}", resumed.generation),
        Outcome::Restored(restored) => {
            let color = restored.environment.iter().find(|(name, _)| name == "COLOR");
            let color = color.map_or("", |(_, value)| value.to_str().unwrap());
            let words: Vec<_> = restored.arguments.iter().map(|w| w.to_string_lossy()).collect();
            format!("restored {} [{color}] [{}]", restored.generation, words.join(","))
        }
        Outcome::Failed => "failed".to_owned(),
    }
}

fn main() {
    let directory = std::env::args_os().nth(1).unwrap();
    let go = Path::new(&directory).join("go");
    let mut registered: HashMap<&str, Registration> = HashMap::new();
    for name in ["one", "two", "three"] {
        registered.insert(name, register(name, Noted(name)).unwrap());
    }
    struct Lucky;
    impl Resource for Lucky {
        fn after_restore(&self, outcome: &Outcome) -> Result<(), HookError> {
            if let Outcome::Restored(restored) = outcome {
                println!("random {}-{:?}", restored.instance, &restored.seed[..4]);
            }
            Ok(())
        }
    }
    register("lucky", Lucky).unwrap().keep();
    let (mut file, mut listener) = (None, None);
    println!("ready");
    let mut seen = 0;
    loop {
        std::thread::sleep(Duration::from_millis(10));
        let Ok(found) = fs::metadata(&go) else { continue };
        if found.ino() == seen {
            continue;
        }
        seen = found.ino();
        let order = fs::read_to_string(&go).unwrap();
        match order.split_once(' ').unwrap_or((&order, "")) {
            ("checkpoint", _) => match checkpoint() {
                Ok(outcome) => println!("checkpoint {}", shown(&outcome)),
                Err(error) => {
                    for failure in &error.failures {
                        println!("{:?} {failure}", error.kind);
                    }
                }
            },
            ("open", path) => file = Some(File::open(path).unwrap()),
            ("listen", _) => listener = Some(TcpListener::bind("127.0.0.1:0").unwrap()),
            ("close", _) => drop((file.take(), listener.take())),
            ("register", "bad") => {
                drop(registered.insert("bad", register("bad", Noted("bad")).unwrap()))
            }
            ("register", "worse") => {
                drop(registered.insert("worse", register("worse", Noted("worse")).unwrap()))
            }
            ("register", "slow") => {
                drop(registered.insert("slow", register("slow", Noted("slow")).unwrap()))
            }
            ("unregister", name) => drop(registered.remove(name)),
            ("end", _) => exit(0),
            _ => {}
        }
        println!("did {order}");
    }
}
