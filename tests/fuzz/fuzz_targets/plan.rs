#![no_main]
keyferry_fuzz::target!("plan");
