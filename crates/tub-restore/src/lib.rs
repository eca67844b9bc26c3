//! open, plan, launch, resume (internal to tubthumping).
