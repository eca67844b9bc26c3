//! Random numbers in several instances of one image of a JVM.

use crate::jvm::{Service, on_each_jdk_and_21, unix_ms};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tub_testkit::{Flavour, wait_for};

/// What a service has drawn: a value of each kind.
pub(crate) fn draws(service: &Service) -> BTreeMap<String, String> {
    let lines = service.ask("/draws");
    let pairs = lines.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(kind, value)| (kind.to_owned(), value.to_owned())).collect()
}

/// The same, when it has all its generators: it answers before that.
pub(crate) fn first_draws(service: &Service) -> BTreeMap<String, String> {
    let drawn = || Some(draws(service)).filter(|drawn| drawn.len() > 20);
    wait_for(Duration::from_secs(60), drawn).expect("the generators are never ready")
}

/// Instances must not share session ids, nonces and keys; a generator that the application has
/// seeded itself must go on as it would have.
#[test]
fn no_two_instances_draw_the_same_numbers() {
    on_each_jdk_and_21(|jdk| {
        let mut original = Service::start(jdk, "draws");
        let before = first_draws(&original);
        let image = original.image("image");
        original.instance.checkpoint_and_end(&image);
        let restored_at = unix_ms();
        let copies = [(); 2].map(|()| original.restore(&image, Flavour::USUAL));
        // Twice, since the first number may come from a buffer and the second from a state.
        for _ in 0..2 {
            let drawn = copies.each_ref().map(draws);
            assert_eq!(drawn[0].len(), before.len(), "{drawn:?}");
            for (kind, value) in &drawn[0] {
                assert_ne!(Some(value), before.get(kind), "{kind} repeats itself");
                if kind.starts_with("fixed ") {
                    assert_eq!(Some(value), drawn[1].get(kind), "{kind} has lost its seed");
                } else {
                    assert_ne!(Some(value), drawn[1].get(kind), "{kind} is the same in both");
                }
            }
        }
        // Not even a thread that has drawn all the time, and did so before any hook ran.
        let streams = copies.each_ref().map(|copy| {
            let lines = copy.ask(&format!("/stream?{restored_at}"));
            lines.lines().map(str::to_owned).collect::<BTreeSet<_>>()
        });
        assert!(streams.iter().all(|stream| stream.len() > 10), "{streams:?}");
        let shared: Vec<_> = streams[0].intersection(&streams[1]).collect();
        assert!(shared.is_empty(), "{shared:?}");
    });
}
