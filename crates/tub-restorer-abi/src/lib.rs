//! What plan and blob agree on (internal to tubthumping).
