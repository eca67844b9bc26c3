//! Facts about this host (internal to tubthumping).
