#![no_main]
keyferry_fuzz::target!("link_pair");
