//! End-to-end tests on the real kernel and real JVMs.
