//! x
#![no_std]
#![no_main]
