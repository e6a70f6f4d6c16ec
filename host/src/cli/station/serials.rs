//! Serial numbers of labels, scanned into a file: nest and serial number on each line. All that is wrong in it is told at once.

use std::collections::BTreeMap;
use std::path::Path;

use crate::certificate::Serial;
use crate::cli::files::read_short;
use crate::error::Failure;
use crate::station::plan::{Mistake, Place, PlanError, What};
use crate::station::run::Nest;

/// Longest file in bytes.
const MAXIMUM: usize = 1024 * 1024;

/// Gives each nest the serial number that was scanned for it. `others` are nests of the fixture that are not used this time.
///
/// # Errors
/// [`Failure::Read`], [`Failure::TooLong`]; [`Failure::Plan`] with all that is wrong in the file.
pub(super) fn bind(path: &Path, nests: &mut [Nest], others: &[&str]) -> Result<(), Failure> {
    let bytes = read_short(path, MAXIMUM)?;
    let name = path.to_string_lossy().replace(char::is_control, "?");
    let mut mistakes = Vec::new();
    let mut mistake = |line, column, what| {
        let place = Place { line, column };
        mistakes.push(Mistake { place, what });
    };
    let Ok(text) = std::str::from_utf8(&bytes) else {
        mistake(1, 1, What::NoText);
        return Err(PlanError::new(&name, mistakes).into());
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut serials = BTreeMap::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let Some((nest, serial)) = text.split_once([' ', '\t', ',', ';']) else {
            mistake(
                line,
                1,
                What::Labels("a line has a nest and a serial number".to_owned()),
            );
            continue;
        };
        let serial = serial.trim();
        if let Err(error) = Serial::product(serial) {
            mistake(line, 1, What::Labels(error.to_string()));
            continue;
        }
        if let Some(first) = serials.insert(serial.to_owned(), line) {
            let what = format!("the serial number '{serial}'");
            mistake(line, 1, What::Twice { what, first });
            continue;
        }
        match nests.iter_mut().find(|it| it.name == nest) {
            None if others.contains(&nest) => {}
            None => {
                let shown = nest.replace(char::is_control, "?");
                mistake(line, 1, What::Labels(format!("there is no nest '{shown}'")));
            }
            Some(Nest {
                serial: Some(_), ..
            }) => {
                mistake(
                    line,
                    1,
                    What::Labels(format!("nest '{nest}' has a serial number already")),
                );
            }
            Some(nest) => nest.serial = Some(serial.to_owned()),
        }
    }
    if mistakes.is_empty() {
        return Ok(());
    }
    Err(PlanError::new(&name, mistakes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nests() -> Vec<Nest> {
        ["A1", "A2"]
            .map(|name| Nest {
                name: name.to_owned(),
                port: "tcp:x:1".to_owned(),
                serial: None,
            })
            .to_vec()
    }

    fn bound(text: &str) -> Result<Vec<Nest>, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serials.txt");
        std::fs::write(&path, text).unwrap();
        let mut nests = nests();
        bind(&path, &mut nests, &["B1"])?;
        Ok(nests)
    }

    #[test]
    fn each_nest_gets_its_own() {
        let nests = bound("\u{feff}A2\tSN-2 # upper row\r\n\r\nA1,SN-1\nB1 SN-3\n").unwrap();
        assert_eq!(nests[0].serial.as_deref(), Some("SN-1"));
        assert_eq!(nests[1].serial.as_deref(), Some("SN-2"));
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let error = bound("A1 SN-1\nA2 SN-1\nA3 SN-3\nA1 SN-4\nx\nA2 é\n").unwrap_err();
        let Failure::Plan(error) = error else {
            panic!("{error}");
        };
        let lines: Vec<_> = error.mistakes.iter().map(|it| it.place.line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6], "{error}");
        assert!(
            error
                .to_string()
                .contains("'SN-1' is there already, on line 1"),
            "{error}"
        );
    }
}
