//! What is wrong with a configuration file: all of it at once, each with its place.

use std::fmt;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The key, such as `site[0].rule[2].ttl`; empty when the mistake is the file's as a whole.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Every mistake of a file, in the order of its lines; never empty. Its text is a line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(pub Vec<ConfigError>);

impl Errors {
    /// One mistake that is about the file as a whole.
    pub(super) fn of_file(file: &str, message: String) -> Self {
        Self(vec![ConfigError {
            file: file.into(),
            line: 1,
            column: 1,
            key: String::new(),
            message,
        }])
    }

    /// `errors` in the order of their lines, if there are any. A table that is read twice has told its mistakes twice.
    pub(super) fn collect(errors: Vec<ConfigError>) -> Option<Self> {
        let mut each: Vec<ConfigError> = Vec::with_capacity(errors.len());
        for error in errors {
            if !each.contains(&error) {
                each.push(error);
            }
        }
        each.sort_by_key(|error| (error.line, error.column));
        (!each.is_empty()).then_some(Self(each))
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}
