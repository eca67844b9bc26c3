//! What `tub inspect` makes of an image. The command is no library, so its source is compiled in.
#![expect(dead_code, reason = "only the command shows all of it")]

#[path = "../../../crates/tub-cli/src/inspect/anatomy.rs"]
pub(crate) mod anatomy;
#[path = "../../../crates/tub-cli/src/inspect/secrets.rs"]
mod secrets;
