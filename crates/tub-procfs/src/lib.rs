//! Bytes of /proc to records (internal to tubthumping).
