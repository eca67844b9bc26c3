//! System calls, documented and typed (internal to tubthumping).
