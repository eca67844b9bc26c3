//! Freezing a process and looking into it (internal to tubthumping).
