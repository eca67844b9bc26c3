//! Descriptors of every kind that an image can hold.

use crate::round_trip::round_trips;
use tub_testkit::Flavour;

#[test]
fn files_keep_position_flags_and_sharing() {
    round_trips("files", &Flavour::LAZY);
}

#[test]
fn epoll_sets_keep_their_targets() {
    round_trips("epoll", &Flavour::LAZY);
}

#[test]
fn event_descriptors_keep_their_counts() {
    round_trips("eventfd", &Flavour::LAZY);
}

#[test]
fn pipes_keep_their_bytes() {
    round_trips("pipes", &Flavour::LAZY);
}

#[test]
fn a_pipe_without_writer_still_ends() {
    round_trips("pipe-eof", &Flavour::LAZY);
}

#[test]
fn sockets_listen_again() {
    round_trips("sockets", &Flavour::LAZY);
}
