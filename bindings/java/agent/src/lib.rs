//! The JVMTI agent that makes a stock JVM take part in checkpoints.
//!
//! In: the calls of the JVM (`-agentpath`, or `jcmd PID JVMTI.agent_load`) and of the engine
//! (`tub-control`). Out: the `jdk.crac` API on the boot class path, and a control socket.
//! Invariant: an application that is never checkpointed runs as without the agent: no capability
//! is asked for that costs anything, nothing of JMX is loaded, and a failure of the agent is a
//! line on stderr.
//! Not here: order and errors of notifications (the Java shim), and the image (the engine).
//!
//! ```text
//!  Agent_OnLoad ─ shim.jar on the boot class path
//!  VM init ────── hooks, export sun.management.spi, control thread         (live)
//!  prepare ─────▶ Coordinator.prepare ─▶ Round: before-hooks, GC ─▶ awaitVerdict
//!  commit ──────▶ sockets closed; awaitVerdict waits on the mailbox ─▶ after-hooks
//! ```
//!
//! Statics, all of them: the JVM's handles in `jvm`, set once at load; the one `Desk` at which
//! the conversation and the round meet; the path of the socket, to remove at exit; what a late
//! agent was told about open descriptors; what was inherited; the heap that `free_space` is at work on; and in `perf_data`
//! where the JVM keeps the name of its file.
//!
//! Panics: the release profile aborts on them, and an unwinding build aborts at the `extern`
//! border, so that none reaches the JVM.

mod application;
mod archive;
mod attach;
mod classfile;
mod compilers;
mod descriptors;
mod direct;
mod facade;
mod free_space;
mod heap;
mod hooks;
mod jvm;
mod mapping;
mod natives;
mod perf_counters;
mod perf_data;
mod shim;
mod start;
mod strings;
mod vm_tables;

use tubthumping_app::desk::Desk;

/// Where the conversation with the engine and the round in Java meet.
static DESK: Desk = Desk::new();
