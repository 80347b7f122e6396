//! Secrets: a configuration never holds one, it names the file or the environment variable that does.

use super::{Context, Secrets};
use crate::config::reader::{Table, Value};

/// The most that is read of a file that holds a secret.
const BYTES_MAX: u64 = 4096;

/// The secret in the file `<what>_file` or the environment variable `<what>_env`; a mistake is noted.
pub(super) fn secret(table: &Table<'_>, what: &str, context: &Context<'_>) -> Option<String> {
    let (file, variable) = (format!("{what}_file"), format!("{what}_env"));
    if table.value(&file).is_some() == table.value(&variable).is_some() {
        table.refuse(&file, format!("give one of {file} and {variable}"));
        return None;
    }
    let from_file = table.read(&file, |value| in_file(value, context));
    let from_variable = table.read(&variable, |value| in_variable(value, context));
    from_file.or(from_variable)
}

fn in_file(value: &Value<'_>, context: &Context<'_>) -> Result<String, String> {
    use std::io::Read as _;
    let path = context.path(value)?;
    if context.secrets == Secrets::LeaveEmpty {
        return Ok(String::new());
    }
    let mut text = String::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
    match text.trim() {
        "" => Err(format!("{}: is empty", path.display())),
        secret => Ok(secret.to_owned()),
    }
}

fn in_variable(value: &Value<'_>, context: &Context<'_>) -> Result<String, String> {
    let name = value.text()?;
    if context.secrets == Secrets::LeaveEmpty {
        return Ok(String::new());
    }
    match std::env::var(&name) {
        Ok(secret) if !secret.trim().is_empty() => Ok(secret.trim().to_owned()),
        _ => Err(format!("the environment variable {name} is not set")),
    }
}
