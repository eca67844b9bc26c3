//! Node resolves the addon's symbols when it loads it.
#![forbid(unsafe_code)]

fn main() {
    napi_build::setup();
}
