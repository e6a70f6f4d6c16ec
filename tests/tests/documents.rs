//! Keeps documents and code together: links lead somewhere, no path of one machine is written down, and every numbered
//! MUST of the specification is proved by a test that names it.
//!
//! The specification defines a number by writing it in bold, `**M-<number>**`. A test claims it in the comment above its
//! function: `// SPEC: M-<number>`, several separated by commas.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What a MUST's number begins with.
const PREFIX: &str = "M-";
/// What a test's claim begins with.
const CLAIM: &str = "SPEC:";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in the repository")
}

/// Every text file of the repository with its path from the root.
fn texts() -> Vec<(PathBuf, String)> {
    let mut texts = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("readable folder") {
            let path = entry.expect("readable entry").path();
            let name = path.file_name().unwrap_or_default();
            // cargo marks its target folders with this file, whatever their name.
            if path.join("CACHEDIR.TAG").exists() || name == ".git" || name == "target" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path
                    .strip_prefix(root())
                    .expect("below the root")
                    .to_owned();
                texts.push((path, text));
            }
        }
    }
    texts
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// The targets of `[text](target)` in Markdown.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(')')?.0))
}

/// GitHub's anchors of the headings in Markdown.
fn anchors(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = heading
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// The folders below which a path belongs to one machine, if `line` names one.
fn machine_path(line: &str) -> Option<&'static str> {
    let inside_longer_path = |c: char| c.is_alphanumeric() || "._-~/\\$}*".contains(c);
    ["root", "home", "Users", "work"]
        .into_iter()
        .find(|folder| {
            [format!("/{folder}/"), format!(":\\{folder}\\")]
                .iter()
                .any(|pattern| {
                    line.match_indices(pattern.as_str()).any(|(at, _)| {
                        pattern.starts_with(':') || !line[..at].ends_with(inside_longer_path)
                    })
                })
        })
}

/// The numbers `M-<number>` in `text`, in order.
fn numbers(text: &str) -> Vec<u32> {
    text.match_indices(PREFIX)
        .filter(|(at, _)| !text[..*at].ends_with(|c: char| c.is_alphanumeric() || "-_".contains(c)))
        .filter_map(|(at, _)| {
            let rest = &text[at + PREFIX.len()..];
            let end = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            rest[..end].parse().ok()
        })
        .collect()
}

/// The numbers that `specification` defines, with how often it does.
fn definitions(specification: &str) -> BTreeMap<u32, usize> {
    let mut found = BTreeMap::new();
    for bold in specification.split("**").skip(1).step_by(2) {
        if let [number] = numbers(bold)[..]
            && bold == format!("{PREFIX}{number}")
        {
            *found.entry(number).or_default() += 1;
        }
    }
    found
}

/// The numbers that tests in `source` claim; `Err` with the line of a claim that stands above no test.
fn claims(source: &str) -> Result<Vec<u32>, usize> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let above_function = |line: &&&str| line.starts_with("//") || line.starts_with("#[");
    let mut claimed = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some((_, claim)) = line
            .split_once(CLAIM)
            .filter(|(before, _)| before.starts_with("//"))
        else {
            continue;
        };
        let numbers = numbers(claim);
        if numbers.is_empty() {
            continue;
        }
        let before = lines[..index]
            .iter()
            .rev()
            .take_while(above_function)
            .count();
        let after = lines[index..].iter().take_while(above_function).count();
        let is_test = lines[index - before..index + after].contains(&"#[test]");
        let has_function = lines
            .get(index + after)
            .is_some_and(|line| line.contains("fn "));
        if !is_test || !has_function {
            return Err(index + 1);
        }
        claimed.extend(numbers);
    }
    Ok(claimed)
}

/// Everything that is wrong between the specification and `sources`.
fn disagreements(specification: &str, sources: &[(PathBuf, String)]) -> Vec<String> {
    let defined = definitions(specification);
    let mut wrong = Vec::new();
    if defined.is_empty() {
        wrong.push("the specification defines no numbered MUST".to_owned());
    }
    for (number, times) in &defined {
        if *times != 1 {
            wrong.push(format!("{PREFIX}{number} is defined {times} times"));
        }
    }
    let mut proved = BTreeSet::new();
    for (path, source) in sources {
        match claims(source) {
            Ok(claimed) => proved.extend(claimed),
            Err(line) => wrong.push(format!(
                "{}:{line}: the claim stands above no test",
                path.display()
            )),
        }
        for number in numbers(source)
            .into_iter()
            .filter(|number| !defined.contains_key(number))
        {
            wrong.push(format!("{}: {PREFIX}{number} is unknown", path.display()));
        }
    }
    for number in numbers(specification)
        .into_iter()
        .filter(|number| !defined.contains_key(number))
    {
        wrong.push(format!(
            "the specification refers to {PREFIX}{number}, which it does not define"
        ));
    }
    for number in defined.keys().filter(|number| !proved.contains(number)) {
        wrong.push(format!("no test proves {PREFIX}{number}"));
    }
    wrong
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in texts().iter().filter(|(path, _)| has_extension(path, "md")) {
        for link in links(text).filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = root()
                .join(path)
                .parent()
                .expect("a file has a folder")
                .to_owned();
            let target = if file.is_empty() {
                root().join(path)
            } else {
                folder.join(file)
            };
            let anchor_found = || {
                anchor.is_empty()
                    || fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor))
            };
            if !target.exists() || !anchor_found() {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "links that lead nowhere:\n{}",
        broken.join("\n")
    );
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let mut found = Vec::new();
    for (path, text) in texts() {
        for (index, line) in text.lines().enumerate() {
            if let Some(folder) = machine_path(line) {
                found.push(format!("{}:{}: below {folder}", path.display(), index + 1));
            }
        }
    }
    assert!(
        found.is_empty(),
        "paths that exist on one machine only:\n{}",
        found.join("\n")
    );
}

#[test]
fn every_numbered_must_is_proved_by_a_test() {
    let specification = fs::read_to_string(root().join("protocol/SPEC.md"))
        .expect("protocol/SPEC.md is the specification");
    let mut sources = texts();
    sources.retain(|(path, _)| has_extension(path, "rs"));
    let wrong = disagreements(&specification, &sources);
    assert!(
        wrong.is_empty(),
        "specification and tests disagree:\n{}",
        wrong.join("\n")
    );
}

/// `text` with `@` for the prefix, so that the samples below are no claims of this file.
fn sample(text: &str) -> String {
    text.replace('@', PREFIX).replace("CLAIM", CLAIM)
}

fn disagree(specification: &str, source: &str) -> Vec<String> {
    disagreements(
        &sample(specification),
        &[(PathBuf::from("a.rs"), sample(source))],
    )
}

#[test]
fn a_claim_above_a_test_proves_its_numbers() {
    let source =
        "/// Words.\n// CLAIM @1, @22\n#[test]\nfn one() {}\n\n#[test]\n// CLAIM @3\nfn two() {}\n";
    assert_eq!(
        disagree("**@1** a\n**@22** b, see @1\n**@3** c", source),
        [""; 0]
    );
}

#[test]
fn a_number_that_nothing_proves_is_found() {
    let source = "// @2 is checked here\nfn production() {}\n";
    assert_eq!(disagree("**@2** a", source), [sample("no test proves @2")]);
}

#[test]
fn a_claim_above_something_else_is_found() {
    let source = "// CLAIM @2\nfn production() {}\n#[test]\nfn other() {}\n";
    assert_eq!(
        disagree("**@2** a", source).first(),
        Some(&"a.rs:1: the claim stands above no test".to_owned())
    );
}

#[test]
fn an_unknown_number_is_found() {
    let source = "// CLAIM @1, @9\n#[test]\nfn one() {}\n";
    assert_eq!(
        disagree("**@1** a", source),
        [sample("a.rs: @9 is unknown")]
    );
}

#[test]
fn a_number_defined_twice_or_only_referred_to_is_found() {
    let source = "// CLAIM @1\n#[test]\nfn one() {}\n";
    let wrong = [
        sample("@1 is defined 2 times"),
        sample("the specification refers to @7, which it does not define"),
    ];
    assert_eq!(disagree("**@1** a\n**@1** b, see @7", source), wrong);
}

#[test]
fn an_empty_specification_is_found() {
    assert_eq!(
        disagree("", ""),
        ["the specification defines no numbered MUST"]
    );
}

#[test]
fn machine_paths_are_told_from_others() {
    let slash = |text: &str| text.replace('|', "/");
    assert!(machine_path(&slash("see |home|me|key")).is_some());
    assert!(machine_path("C:\\Users\\me").is_some());
    for fine in [
        "target|work|x",
        "https:||example.org|home|x",
        "|usr|lib|softhsm",
        "$HOME|work|",
    ] {
        assert_eq!(machine_path(&slash(fine)), None, "{fine}");
    }
}

#[test]
fn links_and_anchors_are_read() {
    assert_eq!(
        links("a [b](c.md#d) e [f](#g)").collect::<Vec<_>>(),
        ["c.md#d", "#g"]
    );
    assert!(anchors("# One\n## What is *not* there yet").contains("what-is-not-there-yet"));
}

/// True if the macro that makes a test for each board is given this function.
fn runs_on_every_board(source: &str, function: &str) -> bool {
    ["on_every_board!", "on_every_qemu_board!"]
        .iter()
        .flat_map(|mark| source.split(mark).skip(1))
        .filter_map(|rest| rest.split_once(';'))
        .any(|(names, _)| {
            names
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|word| word == function)
        })
}

/// SECURITY.md says of each promise which test shows it.
#[test]
fn every_test_that_the_security_page_names_exists() {
    let page = fs::read_to_string(root().join("SECURITY.md")).expect("a security page");
    let mut named = 0;
    for name in page.split('`').skip(1).step_by(2) {
        let Some((path, function)) = name.split_once("::") else {
            continue;
        };
        let source =
            fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (before, _) = source
            .split_once(&format!("fn {function}("))
            .unwrap_or_else(|| panic!("{name} is not there"));
        let attributes = before.trim_end().rsplit("\n\n").next().unwrap_or_default();
        assert!(
            attributes.contains("#[test]") || runs_on_every_board(&source, function),
            "{name} is no test"
        );
        named += 1;
    }
    assert!(named >= 20, "only {named} tests are named");
}
