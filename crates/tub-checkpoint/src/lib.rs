//! freeze, collect, write (internal to tubthumping).
