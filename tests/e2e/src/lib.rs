//! End-to-end tests on the real kernel and real JVMs: all of them in `tests/`, none of it here.
#![forbid(unsafe_code)]
