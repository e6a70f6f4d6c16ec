//! Patterns of ports that a station watches.

use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

/// Names in one folder, or among the serial ports that the system lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchPlan {
    /// As it stands in the plan.
    pub text: String,
    /// The folder, seen from the plan's folder; none for the system's list.
    pub folder: Option<PathBuf>,
    pattern: Pattern,
}

impl WatchPlan {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A reason in words.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let path = Path::new(text);
        let parent = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let special = |folder: &Path| folder.to_string_lossy().contains(['*', '?', '[']);
        if parent.is_some_and(special) {
            return Err("*, ? and [ may stand only in the last part".to_owned());
        }
        let last = path.file_name().and_then(|name| name.to_str());
        let last = last.filter(|name| text.ends_with(name));
        let last = last.ok_or("there is no pattern for names in a folder")?;
        let pattern = Pattern::new(last).map_err(|error| error.to_string())?;
        Ok(Self {
            text: text.to_owned(),
            folder: parent.map(Path::to_owned),
            pattern,
        })
    }

    /// Whether a name is meant. Hidden files are, only if the pattern says so.
    #[must_use]
    pub fn fits(&self, name: &str) -> bool {
        let options = MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        self.pattern.matches_with(name, options)
    }
}
