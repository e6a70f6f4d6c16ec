//! Thousands of sessions, and long streams, over lines on which everything goes wrong; in virtual time, and the same from the same seed.
//!
//! What runs at both ends is what is shipped: the host's session and flow, the firmware's device, the protocol's link. The line
//! between them ([`keyferry_tests::line`]) flips bits, loses and repeats bytes, stands still, and resets the device. [`session`] runs
//! one session, [`stream`] one long stream through the link alone, [`plan`] draws what goes wrong, [`eavesdrop`] compares what passes the
//! check behind the cable with what was sent before it, and [`campaign`] runs many and judges.
//!
//! Built with the feature `unchecked`, the link's check is gone. Then wrong bytes must be found: otherwise the comparison finds nothing.

pub mod campaign;
pub mod eavesdrop;
pub mod plan;
pub mod session;
pub mod stream;
