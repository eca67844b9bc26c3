//! What a copy of a JVM has to load before its hooks run: nothing, since each class costs it a part of
//! the milliseconds that it has.

use crate::jvm::{Service, on_each_jdk};
use std::fs;
use tub_testkit::{Flavour, User};

#[test]
fn no_class_is_loaded_or_made_on_the_way_back() {
    on_each_jdk(|jdk| {
        let log = ["-Xlog:class+load:file=classes.log"];
        let mut life = Service::start_on(User::Ordinary, jdk, "plain", (&[], &log, &[]));
        // What has been used is brought up to date.
        life.ask("/pid");
        // More than once: JVM(17) makes a class of each method that reflection calls for the sixteenth time.
        for generation in 1..=3 {
            let image = life.image(&format!("image-{generation}"));
            life.instance.checkpoint_and_end(&image);
            let log = life.instance.dir().join("classes.log");
            let before = fs::read_to_string(&log).unwrap().lines().count();
            life = life.restore(&image, Flavour::USUAL);
            assert_eq!(life.ask("/"), "hello");
            let all = fs::read_to_string(&log).unwrap();
            let loaded: Vec<_> = all.lines().skip(before).collect();
            assert!(loaded.is_empty(), "copy {generation} loaded:\n{}", loaded.join("\n"));
        }
    });
}
