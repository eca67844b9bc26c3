//! The JVMTI agent that makes a stock JVM take part in checkpoints.
