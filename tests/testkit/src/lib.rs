//! Runs, checkpoints, restores and compares subjects.
