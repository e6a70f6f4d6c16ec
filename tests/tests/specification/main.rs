//! The tables and lists of protocol/SPEC.md are read as they stand and compared with what the code does.

mod link;
mod messages;
mod orders;

use std::fs;

/// The specification's text.
fn specification() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/SPEC.md");
    fs::read_to_string(path).expect("protocol/SPEC.md is the specification")
}

/// The rows of the one table whose heading has these cells, after the text `after`.
fn table(after: &str, heading: &[&str]) -> Vec<Vec<String>> {
    let text = specification();
    let (_, text) = text
        .split_once(after)
        .unwrap_or_else(|| panic!("the specification does not say '{after}'"));
    let mut lines = text.lines();
    lines
        .find(|line| line.starts_with('|') && cells(line) == heading)
        .unwrap_or_else(|| panic!("no table {heading:?}"));
    let rows: Vec<_> = lines
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(cells)
        .collect();
    assert!(
        rows.iter().all(|row| row.len() == heading.len()),
        "{rows:?}"
    );
    rows
}

fn cells(line: &str) -> Vec<String> {
    let line = line.trim().trim_start_matches('|');
    let line = line.strip_suffix('|').unwrap_or(line);
    line.split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// What stands between `from` and `to`, with its lines joined.
fn between(from: &str, to: &str) -> String {
    let text = specification()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let (_, rest) = text
        .split_once(from)
        .unwrap_or_else(|| panic!("the specification does not say '{from}'"));
    let (found, _) = rest.split_once(to).expect("the list ends");
    found.to_owned()
}

/// A list as `0 this, 1 that`.
fn numbered(from: &str, to: &str) -> Vec<(usize, String)> {
    between(from, to)
        .split(", ")
        .map(|one| {
            let (number, name) = one.split_once(' ').expect("a number and a name");
            (number.parse().expect("a number"), name.to_owned())
        })
        .collect()
}

/// All numbers in a text, in order.
fn integers(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.parse().expect("a number"))
        .collect()
}
