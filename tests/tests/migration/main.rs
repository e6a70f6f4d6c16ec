//! Keys from one token to another, through the real command: every type, from every kind of token to every kind.

mod cases;
mod matrix;
