//! The image directory (internal to tubthumping).
