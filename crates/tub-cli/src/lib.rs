//! The tub command.
