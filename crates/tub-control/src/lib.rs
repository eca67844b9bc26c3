//! The control protocol between engine and application (internal to tubthumping).
