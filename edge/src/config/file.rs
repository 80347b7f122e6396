//! The configuration file as written: read, parsed, and handed to `resolve` with a place to note every mistake.

use std::path::Path;

use toml::de::DeTable;

use super::reader::{Notes, Table};
use super::resolve::{self, Context, Secrets};
use super::{Config, Errors};

/// No configuration comes near it.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Reads the configuration file at `path`, and the secrets that it names.
pub fn load(path: &Path) -> Result<Config, Errors> {
    let file = path.display().to_string();
    let text = read(path).map_err(|message| Errors::of_file(&file, message))?;
    parse_with(&text, &file, folder_of(path), Secrets::Read)
}

/// What a configuration file says, without a look at anything outside of `text`: secrets that it names are left empty.
/// `file` is how mistakes call it, and relative paths start at `base`.
pub fn parse(text: &str, file: &str, base: &Path) -> Result<Config, Errors> {
    parse_with(text, file, base, Secrets::LeaveEmpty)
}

/// The text of a configuration file.
pub(super) fn read(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let unreadable = |error| format!("cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err("is too large for a configuration (more than 4 MiB)".into());
    }
    Ok(text)
}

/// Where relative paths of this file start.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

pub(super) fn parse_with(text: &str, file: &str, base: &Path, secrets: Secrets) -> Result<Config, Errors> {
    let notes = Notes::new(file, text);
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        notes.add(&error.span().unwrap_or(0..0), "", error.message());
    }
    if !syntax.is_empty() {
        // What follows a broken line may be read as part of something else: complaints about it would mislead.
        return Err(Errors(notes.into_errors()));
    }
    let config = {
        let context = Context { base, secrets };
        resolve::config(&Table::root(&notes, document.get_ref()), &context)
    };
    match (Errors::collect(notes.into_errors()), config) {
        (None, Some(config)) => Ok(config),
        (Some(errors), _) => Err(errors),
        (None, None) => Err(Errors::of_file(file, "cannot be used".into())),
    }
}
