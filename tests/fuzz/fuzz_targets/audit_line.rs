#![no_main]
keyferry_fuzz::target!("audit_line");
