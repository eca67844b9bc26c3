//! Registers.

use crate::round_trip::round_trips;
use tub_testkit::Flavour;

#[test]
fn registers_of_every_kind_survive() {
    round_trips("registers", &Flavour::ALL);
}
