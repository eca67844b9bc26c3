//! The native prober and load generator.
