//! A service on a stock JVM on standby: parked before anything of it runs, released one by one.

use crate::http::{first_answer, free_port, get};
use crate::jvm::{Service, WARM_UP, on_each_jdk, unix_ms};
use crate::standby::Keeper;
use nix::sys::signal::Signal;
use std::thread;
use std::time::Duration;
use tub_testkit::{Flavour, Tub, wait_for};

/// A released instance: it answers on a port of its own.
struct Released(u16);

impl Released {
    fn from(keeper: &mut Keeper) -> Self {
        let port = free_port();
        let environment = format!("SERVICE_PORT={port}");
        keeper.release(&["--env", &environment, "--env", "GREETING=anew"]);
        Self(port)
    }

    #[track_caller]
    fn ask(&self, path: &str, keeper: &Keeper) -> String {
        let answer = first_answer(self.0, path);
        answer.unwrap_or_else(|| panic!("no answer to {path}\n{}", keeper.tell()))
    }

    /// It goes on where the original stood, its hooks have run, and it knows what is said to it alone.
    #[track_caller]
    fn is_well(&self, keeper: &Keeper, since_ms: u128) {
        assert_eq!(self.ask("/count", keeper), (WARM_UP + 1).to_string());
        assert_eq!(self.ask("/told", keeper), "before server\nafter server\n");
        assert_eq!(self.ask("/env?GREETING", keeper), "anew");
        assert_eq!(self.ask("/env?KEPT", keeper), "from the start");
        let restored: u128 = self.ask("/restored", keeper).parse().unwrap();
        assert!((since_ms..=unix_ms()).contains(&restored), "{restored} is not after {since_ms}");
        assert_eq!(self.ask("/work", keeper), "1088890");
    }
}

#[test]
fn a_service_on_standby_answers_after_its_release_and_is_replaced() {
    on_each_jdk(|jdk| {
        let mut original = Service::start(jdk, "plain");
        let image = original.image("image");
        original.instance.checkpoint_and_end(&image);
        let user = Flavour::USUAL.user;
        Tub::new(user, "train").arg(&image).args(&["--", "sleep", "0.1"]).run().succeeds();
        let dir = original.instance.dir();
        let mut keeper = Keeper::start(dir, &image, Flavour::USUAL, 2, &[]);
        keeper.parked(2);
        // Its hooks open the port of the original, unless they are told another.
        thread::sleep(Duration::from_secs(1));
        assert!(get(original.port, "/").is_err(), "somebody answers who is parked");

        let since = unix_ms();
        let first = Released::from(&mut keeper);
        first.is_well(&keeper, since);

        let [[killed, _], [other, _]] = keeper.parked(2)[..] else { unreachable!() };
        killed.signal(Signal::SIGKILL);
        let lost =
            wait_for(Duration::from_secs(20), || (keeper.status()["lost"] == 1).then_some(()));
        assert!(lost.is_some(), "{}\n{}", keeper.status(), keeper.tell());
        let parked = keeper.parked(2);
        assert!(parked.iter().all(|[main, _]| main.pid() != killed.pid()));
        assert!(parked.iter().any(|[main, _]| main.pid() == other.pid()));

        // One of the two is the replacement; none has seen what another was asked.
        let since = unix_ms();
        let both = [Released::from(&mut keeper), Released::from(&mut keeper)];
        for released in &both {
            released.is_well(&keeper, since);
        }
        assert_eq!(first.ask("/count", &keeper), (WARM_UP + 2).to_string());
        assert_eq!(keeper.status()["released"], 3);
    });
}
