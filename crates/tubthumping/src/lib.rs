//! Checkpoint and restore of processes, and coordination with them.
