//! Reads a plan's text against the tables, and gathers all that is wrong on the way.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::entry::{Entries, Entry, Placed, Text, Value};
use super::kind::{Field, Kind, LONGEST, MAXIMUM_FILES, MAXIMUM_WORDS, Section, Times};
use super::mistake::{Mistake, Place, What, shortened};
use super::table::SECTIONS;

/// Reads the sections. What is in them is of the right kind; what is not there was not right.
pub(super) fn entries(source: &str, mistakes: &mut Vec<Mistake>) -> Entries {
    let text = Text::new(source);
    let (root, errors) = DeTable::parse_recoverable(source);
    for error in &errors {
        let place = text.place(error.span().map_or(0, |span| span.start));
        let what = What::Syntax(shortened(error.message()));
        mistakes.push(Mistake { place, what });
    }
    let mut reader = Reader {
        text,
        mistakes,
        // What does not parse is not missing as well.
        whole: errors.is_empty(),
    };
    reader.root(root.get_ref())
}

struct Reader<'a, 'm> {
    text: Text<'a>,
    mistakes: &'m mut Vec<Mistake>,
    whole: bool,
}

impl Reader<'_, '_> {
    fn mistake(&mut self, place: Place, what: What) {
        self.mistakes.push(Mistake { place, what });
    }

    fn place<T>(&self, spanned: &Spanned<T>) -> Place {
        self.text.place(spanned.span().start)
    }

    fn root(&mut self, root: &DeTable<'_>) -> Entries {
        let mut entries = Entries::new();
        for (name, value) in root {
            let place = self.place(name);
            let known = SECTIONS
                .iter()
                .find(|section| section.name == name.get_ref());
            match known {
                Some(section) => {
                    let found = self.section(section, place, value);
                    entries.insert(section.name, found);
                }
                None => {
                    let known: Vec<_> = SECTIONS.iter().map(|section| section.name).collect();
                    self.unknown(place, None, name.get_ref(), known);
                }
            }
        }
        if self.whole {
            for section in SECTIONS {
                self.check_times(section, &entries);
            }
        }
        entries
    }

    fn check_times(&mut self, section: &Section, entries: &Entries) {
        let found = entries.get(section.name);
        let end = self.text.place(self.text.text.trim_end().len());
        let no_section = What::NoSection {
            section: section.name,
            about: section.about,
        };
        match section.times {
            Times::Once if found.is_none() => self.mistake(end, no_section),
            Times::Many { least, .. } if least > 0 && found.is_none() => {
                self.mistake(end, no_section);
            }
            Times::Many { least, most } => {
                let times = found.map_or(0, Vec::len);
                // What is of another type was told.
                if found.is_some() && times > most {
                    let place = found
                        .and_then(|all| all.get(most))
                        .map_or(end, |it| it.place);
                    let section = section.name;
                    self.mistake(
                        place,
                        What::Times {
                            section,
                            found: times,
                            least,
                            most,
                        },
                    );
                }
            }
            Times::Once | Times::Maybe => {}
        }
    }

    fn unknown(
        &mut self,
        place: Place,
        section: Option<&'static str>,
        name: &str,
        known: Vec<&'static str>,
    ) {
        let near = nearest(name, &known);
        let name = shortened(name);
        self.mistake(
            place,
            What::Unknown {
                section,
                name,
                near,
                known,
            },
        );
    }

    fn section(
        &mut self,
        section: &'static Section,
        place: Place,
        value: &Spanned<DeValue<'_>>,
    ) -> Vec<Entry> {
        let many = matches!(section.times, Times::Many { .. });
        match value.get_ref() {
            DeValue::Table(table) if !many => vec![self.fields(section, place, table)],
            DeValue::Array(array) if many => {
                let mut entries = Vec::new();
                for item in array.iter() {
                    let place = self.place(item);
                    match item.get_ref() {
                        DeValue::Table(table) => entries.push(self.fields(section, place, table)),
                        other => self.wrong_type(place, section.name, other, "a table"),
                    }
                }
                entries
            }
            other => {
                let wanted = if many {
                    "several tables, each under the name in two pairs of brackets"
                } else {
                    "a table, under the name in brackets"
                };
                self.wrong_type(place, section.name, other, wanted);
                Vec::new()
            }
        }
    }

    fn wrong_type(
        &mut self,
        place: Place,
        name: &'static str,
        value: &DeValue<'_>,
        wanted: &'static str,
    ) {
        let found = type_words(value);
        self.mistake(
            place,
            What::Type {
                name,
                found,
                wanted,
            },
        );
    }

    fn fields(&mut self, section: &'static Section, place: Place, table: &DeTable<'_>) -> Entry {
        let mut entry = Entry {
            place,
            fields: BTreeMap::new(),
            wrong: Vec::new(),
        };
        for (name, value) in table {
            let at = self.place(name);
            let known = section
                .fields
                .iter()
                .find(|field| field.name == name.get_ref());
            let Some(field) = known else {
                let known: Vec<_> = section.fields.iter().map(|field| field.name).collect();
                self.unknown(at, Some(section.name), name.get_ref(), known);
                continue;
            };
            match self.value(field, value) {
                Some(value) => {
                    let place = at;
                    entry.fields.insert(field.name, Placed { value, place });
                }
                None => entry.wrong.push(field.name),
            }
        }
        self.check_fields(section, &entry);
        entry
    }

    /// Which fields are there and should not be, or the other way.
    fn check_fields(&mut self, section: &'static Section, entry: &Entry) {
        for field in section.fields {
            let found = entry.fields.get(field.name).map(|found| found.place);
            let chosen = field.only.map(|only| (only, entry.text(only.field)));
            let (has_meaning, decided) = match &chosen {
                None => (true, true),
                Some((only, Some(chosen))) => (only.values.contains(&chosen.value), true),
                Some((_, None)) => (true, false),
            };
            match (found, &chosen) {
                (Some(place), Some((only, Some(chosen)))) if !has_meaning => {
                    let what = What::NotFor {
                        field: field.name,
                        chooser: only.field,
                        chosen: shortened(chosen.value),
                    };
                    self.mistake(place, what);
                }
                (None, _)
                    if field.needed
                        && has_meaning
                        && decided
                        && !entry.wrong.contains(&field.name) =>
                {
                    let what = What::Missing {
                        section: section.name,
                        field: field.name,
                        about: field.about,
                    };
                    self.mistake(entry.place, what);
                }
                (Some(_) | None, _) => {}
            }
        }
    }

    fn value(&mut self, field: &'static Field, value: &Spanned<DeValue<'_>>) -> Option<Value> {
        let place = self.place(value);
        match (field.kind, value.get_ref()) {
            (Kind::Flag, DeValue::Boolean(flag)) => Some(Value::Flag(*flag)),
            (Kind::Number { least, most }, DeValue::Integer(number)) => {
                let read = u32::from_str_radix(number.as_str(), number.radix());
                match read {
                    Ok(number) if (least..=most).contains(&number) => Some(Value::Number(number)),
                    Ok(_) | Err(_) => {
                        let field = field.name;
                        self.mistake(place, What::OutOfRange { field, least, most });
                        None
                    }
                }
            }
            (
                Kind::Text { .. } | Kind::Checked { .. } | Kind::Path | Kind::Choice(_),
                DeValue::String(text),
            ) => self.text(field, place, text).map(Value::Text),
            (Kind::Paths | Kind::Words | Kind::Choices(_), DeValue::Array(array)) => {
                self.texts(field, place, array)
            }
            (
                Kind::Flag
                | Kind::Number { .. }
                | Kind::Text { .. }
                | Kind::Checked { .. }
                | Kind::Path
                | Kind::Choice(_)
                | Kind::Paths
                | Kind::Words
                | Kind::Choices(_),
                other,
            ) => {
                self.wrong_type(place, field.name, other, field.kind.words());
                None
            }
        }
    }

    fn texts(
        &mut self,
        field: &'static Field,
        place: Place,
        array: &[Spanned<DeValue<'_>>],
    ) -> Option<Value> {
        let most = match field.kind {
            Kind::Choices(names) => names().len(),
            Kind::Words => MAXIMUM_WORDS,
            Kind::Paths
            | Kind::Flag
            | Kind::Number { .. }
            | Kind::Text { .. }
            | Kind::Checked { .. }
            | Kind::Path
            | Kind::Choice(_) => MAXIMUM_FILES,
        };
        let mut texts: Vec<Placed<String>> = Vec::new();
        let mut right = true;
        for item in array {
            let place = self.place(item);
            let DeValue::String(text) = item.get_ref() else {
                self.wrong_type(place, field.name, item.get_ref(), "a list of strings");
                right = false;
                continue;
            };
            let Some(value) = self.text(field, place, text) else {
                right = false;
                continue;
            };
            let again = texts.iter().find(|first| first.value == value);
            if let Some(first) = again.filter(|_| !matches!(field.kind, Kind::Words)) {
                let (what, first) = (format!("'{}'", shortened(&value)), first.place.line);
                self.mistake(place, What::Twice { what, first });
                right = false;
                continue;
            }
            texts.push(Placed { value, place });
        }
        if right && (texts.is_empty() || texts.len() > most) {
            let what = What::Rejected {
                field: field.name,
                reason: format!("it names {} of 1 to {most}", texts.len()),
                example: "…",
            };
            self.mistake(place, what);
            return None;
        }
        right.then_some(Value::Texts(texts))
    }

    fn text(&mut self, field: &'static Field, place: Place, text: &str) -> Option<String> {
        let name = field.name;
        let (most, what) = match field.kind {
            Kind::Text { most } => (most, None),
            Kind::Checked { check, example } => {
                let reason = check(text).err();
                let rejected = |reason: String| What::Rejected {
                    field: name,
                    reason: shortened(&reason),
                    example,
                };
                (LONGEST, reason.map(rejected))
            }
            Kind::Choice(names) | Kind::Choices(names) => {
                let known = names();
                let what = (!known.contains(&text)).then(|| What::NotOneOf {
                    field: name,
                    found: shortened(text),
                    near: nearest(text, &known),
                    known,
                });
                (LONGEST, what)
            }
            Kind::Path | Kind::Paths | Kind::Words | Kind::Number { .. } | Kind::Flag => {
                (LONGEST, None)
            }
        };
        let letters = text.chars().count();
        let what = if letters == 0 || letters > most || text.contains(char::is_control) {
            Some(What::BadText { field: name, most })
        } else {
            what
        };
        match what {
            None => Some(text.to_owned()),
            Some(what) => {
                self.mistake(place, what);
                None
            }
        }
    }
}

fn type_words(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The known name that is meant, if one is close.
fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    // A long one is none of them, and would take its time.
    if name.len() > 64 {
        return None;
    }
    let distances = known.iter().map(|it| (strsim::osa_distance(name, it), *it));
    let (distance, nearest) = distances.min()?;
    (distance <= 1 + nearest.len() / 5).then_some(nearest)
}
