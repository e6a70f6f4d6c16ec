#![no_main]
keyferry_fuzz::target!("public_key");
