//! Harness of the end-to-end tests: real tokens, emulated boards, the real command.

pub mod softhsm;
