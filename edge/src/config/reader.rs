//! Reads a TOML document key by key, and notes every mistake with its place instead of stopping at the first.
//!
//! Which keys there are is in `keys`; what a value must be is said by the caller, who hands over how to read it.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::error::ConfigError;
use super::{keys, units};

/// Where a document's mistakes are gathered.
pub(super) struct Notes<'a> {
    file: &'a str,
    text: &'a str,
    errors: RefCell<Vec<ConfigError>>,
}

impl<'a> Notes<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            errors: RefCell::default(),
        }
    }

    /// Notes a mistake in `key`, at this place of the text.
    pub(super) fn add(&self, span: &Range<usize>, key: &str, message: impl Into<String>) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        self.errors.borrow_mut().push(ConfigError {
            file: self.file.into(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            key: key.into(),
            message: message.into(),
        });
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors.into_inner()
    }
}

/// One table of the document.
#[derive(Clone)]
pub(super) struct Table<'a> {
    notes: &'a Notes<'a>,
    entries: &'a DeTable<'a>,
    span: Range<usize>,
    /// As in `site[0].rule[2]`.
    path: String,
    /// As in `site[].rule[]`.
    pattern: String,
}

impl<'a> Table<'a> {
    /// The document itself.
    pub(super) fn root(notes: &'a Notes<'a>, entries: &'a DeTable<'a>) -> Self {
        let table = Self {
            notes,
            entries,
            span: 0..0,
            path: String::new(),
            pattern: String::new(),
        };
        table.refuse_unknown_keys();
        table
    }

    /// The value of `key`, if it is set.
    pub(super) fn value(&self, key: &str) -> Option<Value<'a>> {
        let (_, value) = self.entries.get_key_value(key)?;
        Some(Value {
            notes: self.notes,
            value,
            path: join(&self.path, key),
            pattern: join(&self.pattern, key),
        })
    }

    /// What `convert` makes of the value of `key`; notes what it says against it. `None` when unset or wrong.
    pub(super) fn read<T>(
        &self,
        key: &str,
        convert: impl FnOnce(&Value<'a>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(key)?;
        convert(&value).map_err(|message| value.refuse(message)).ok()
    }

    /// As [`Table::read`], and notes that `key` is missing.
    pub(super) fn require<T>(
        &self,
        key: &str,
        convert: impl FnOnce(&Value<'a>) -> Result<T, String>,
    ) -> Option<T> {
        if !self.entries.contains_key(key) {
            self.refuse(key, "is missing");
        }
        self.read(key, convert)
    }

    /// The table below `key`, if it is set.
    pub(super) fn table(&self, key: &str) -> Option<Self> {
        self.value(key)?.table()
    }

    /// The tables of the array below `key`; none when it is not set.
    pub(super) fn tables(&self, key: &str) -> Vec<Self> {
        self.value(key)
            .and_then(|value| value.array())
            .unwrap_or_default()
            .iter()
            .filter_map(Value::table)
            .collect()
    }

    /// All entries, in the order of the file: for tables whose keys the operator chooses.
    pub(super) fn entries(&self) -> Vec<(&'a str, Value<'a>)> {
        let mut keys: Vec<_> = self.entries.keys().collect();
        keys.sort_by_key(|key| key.span().start);
        keys.into_iter()
            .filter_map(|key| {
                let name = key.get_ref().as_ref();
                let mut value = self.value(name)?;
                value.pattern = join(&self.pattern, "*");
                Some((name, value))
            })
            .collect()
    }

    /// Notes a mistake in `key`: at its value if it has one, else where the table begins.
    pub(super) fn refuse(&self, key: &str, message: impl Into<String>) {
        match self.value(key) {
            Some(value) => value.refuse(message),
            None => self.notes.add(&self.span, &join(&self.path, key), message),
        }
    }

    fn refuse_unknown_keys(&self) {
        let known = keys::children(&self.pattern);
        if known.is_empty() || known.contains(&"*") {
            return;
        }
        for key in self.entries.keys() {
            let name = key.get_ref().as_ref();
            let path = join(&self.path, name);
            if !known.contains(&name) {
                let message = match keys::did_you_mean(name, &known) {
                    Some(meant) => format!("unknown key; did you mean `{meant}`?"),
                    None => format!("unknown key; known here are {}", known.join(", ")),
                };
                self.notes.add(&key.span(), &path, message);
            } else if keys::doc(&join(&self.pattern, name)).is_some_and(|doc| !doc.supported) {
                let message = "not supported yet by this version; take it out";
                self.notes.add(&key.span(), &path, message);
            }
        }
    }
}

/// One value of the document.
#[derive(Clone)]
pub(super) struct Value<'a> {
    notes: &'a Notes<'a>,
    value: &'a Spanned<DeValue<'a>>,
    path: String,
    pattern: String,
}

impl<'a> Value<'a> {
    /// Notes a mistake in this value.
    pub(super) fn refuse(&self, message: impl Into<String>) {
        self.notes.add(&self.value.span(), &self.path, message);
    }

    /// As a table, or notes that it is none.
    pub(super) fn table(&self) -> Option<Table<'a>> {
        let DeValue::Table(entries) = self.value.get_ref() else {
            self.refuse(self.expected("a table"));
            return None;
        };
        let table = Table {
            notes: self.notes,
            entries,
            span: self.value.span(),
            path: self.path.clone(),
            pattern: self.pattern.clone(),
        };
        table.refuse_unknown_keys();
        Some(table)
    }

    /// The values of an array, or notes that it is none.
    pub(super) fn array(&self) -> Option<Vec<Self>> {
        let items = self.items().map_err(|message| self.refuse(message)).ok()?;
        let item = |(at, value)| Self {
            notes: self.notes,
            value,
            path: format!("{}[{at}]", self.path),
            pattern: format!("{}[]", self.pattern),
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// What `convert` makes of each value of an array; notes what it says against any of them.
    pub(super) fn list<T>(&self, convert: impl Fn(&Value<'a>) -> Result<T, String>) -> Option<Vec<T>> {
        let convert = |item: &Self| convert(item).map_err(|message| item.refuse(message)).ok();
        Some(self.array()?.iter().filter_map(convert).collect())
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    pub(super) fn is_array(&self) -> bool {
        self.value.get_ref().is_array()
    }

    /// Whether it is an array without anything in it.
    pub(super) fn array_is_empty(&self) -> bool {
        self.value
            .get_ref()
            .as_array()
            .is_some_and(|items| items.is_empty())
    }

    pub(super) fn string(&self) -> Result<&'a str, String> {
        self.value
            .get_ref()
            .as_str()
            .ok_or_else(|| self.expected("a string"))
    }

    /// A string with something in it.
    pub(super) fn text(&self) -> Result<String, String> {
        match self.string()? {
            "" => Err("is empty".into()),
            text => Ok(text.into()),
        }
    }

    pub(super) fn boolean(&self) -> Result<bool, String> {
        self.value
            .get_ref()
            .as_bool()
            .ok_or_else(|| self.expected("true or false"))
    }

    /// One of the words in `choices`.
    pub(super) fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, String> {
        let written = self.string()?;
        let choice = choices.iter().find(|(name, _)| *name == written);
        choice.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            format!("expected {}, not {written:?}", names.join(" or "))
        })
    }

    /// A whole number from `least` to `most`.
    pub(super) fn integer(&self, least: u64, most: u64) -> Result<u64, String> {
        let number = self
            .whole_number()
            .ok_or_else(|| self.expected("a whole number"))?;
        within(number, least, most, |n| n.to_string())
    }

    /// A number from 0 to 1.
    pub(super) fn share(&self) -> Result<f64, String> {
        let number = match self.value.get_ref() {
            DeValue::Float(float) => float.as_str().replace('_', "").parse().ok(),
            _ => self.whole_number().map(|n| n as f64),
        };
        number
            .filter(|number| (0.0..=1.0).contains(number))
            .ok_or_else(|| "expected a number from 0 to 1".to_owned())
    }

    /// A duration from `least` to `most`.
    pub(super) fn duration(&self, least: Duration, most: Duration) -> Result<Duration, String> {
        if let Some(number) = self.whole_number() {
            return Err(format!("a duration needs a unit: \"{number}s\""));
        }
        let text = self
            .string()
            .map_err(|_| self.expected("a duration such as \"10s\""))?;
        within(units::duration(text)?, least, most, |d| format!("{d:?}"))
    }

    /// A size from `least` to `most`; a bare number counts bytes.
    pub(super) fn size(&self, least: u64, most: u64) -> Result<u64, String> {
        let bytes = match self.whole_number() {
            Some(bytes) => bytes,
            None => {
                let text = self.string();
                units::size(text.map_err(|_| self.expected("a size such as \"64KiB\""))?)?
            }
        };
        within(bytes, least, most, |n| format!("{n} bytes"))
    }

    fn items(&self) -> Result<&'a DeArray<'a>, String> {
        match self.value.get_ref() {
            DeValue::Array(items) => Ok(items),
            _ => Err(self.expected("an array")),
        }
    }

    fn whole_number(&self) -> Option<u64> {
        let integer = self.value.get_ref().as_integer()?;
        u64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    fn expected(&self, what: &str) -> String {
        format!("expected {what}, found {}", self.value.get_ref().type_str())
    }
}

fn within<T: PartialOrd>(value: T, least: T, most: T, show: impl Fn(&T) -> String) -> Result<T, String> {
    if value < least {
        return Err(format!("must be at least {}", show(&least)));
    }
    if value > most {
        return Err(format!("must be at most {}", show(&most)));
    }
    Ok(value)
}

fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'*'));
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}
