#![no_main]
keyferry_fuzz::target!("order_file");
