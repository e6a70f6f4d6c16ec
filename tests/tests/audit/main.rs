//! The audit log: what a station writes verifies, and whatever is done to it afterwards is found.

mod attacks;
mod command;
mod guide;
mod kept;
mod life;
mod meaning;
mod writing;
