//! End-to-end tests: real processes, the real `tub`, the real kernel; one file per kernel object.
//!
//! Subjects (`tests/subjects`) check themselves; these tests say in which ways they are
//! checkpointed and restored, and what is to be seen from outside.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "all of it is tests, its helpers included")]

mod allocators;
mod conformance;
mod container_engines;
mod containers;
mod control;
mod crac_jdk;
mod criu;
mod databases;
mod descriptors;
mod faults;
mod frameworks;
mod functions;
mod http;
mod images;
mod jdk;
mod jobs;
mod jvm;
mod jvm_contract;
mod jvm_heaps;
mod jvm_input;
mod jvm_inside;
mod jvm_jdk;
mod jvm_killed;
mod jvm_late;
mod jvm_launcher;
mod jvm_management;
mod jvm_metrics;
mod jvm_options;
mod jvm_policies;
mod jvm_program;
mod jvm_random;
mod jvm_ready;
mod jvm_recordings;
mod jvm_soak;
mod jvm_standby;
mod jvm_time;
mod jvm_tools;
mod jvm_virtual;
mod jvm_way_back;
mod language;
mod languages;
mod lives;
mod mappings;
mod memory;
mod namespaces;
mod output;
mod pause;
mod policies;
mod policies_elsewhere;
mod prepare;
mod prepare_misuse;
mod process;
mod programs;
mod protocol;
mod python;
mod refusals;
mod registers;
mod round_trip;
mod servers;
mod services;
mod signals;
mod soak;
mod standby;
mod strangers;
mod time;
mod train;
mod trees;
mod vdso;
