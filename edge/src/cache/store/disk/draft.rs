//! What a record says of a response: its key, its head, and where in the body each of its forms lies.

use super::meta::FormAt;
use crate::cache::key::Key;
use crate::cache::store::{Form, Head, StoredResponse};

/// What is written of a response, before its bytes.
pub(super) struct Draft<'a> {
    pub(super) key: &'a Key,
    pub(super) head: &'a Head,
    pub(super) forms: Vec<FormAt>,
    pub(super) order: u64,
}

/// The forms of a response one after the other, and where each lies.
pub(super) fn gather(stored: &StoredResponse) -> (Vec<FormAt>, Vec<u8>) {
    let in_memory = || {
        stored
            .forms
            .iter()
            .filter_map(|form| Some((form, form.body.in_memory()?)))
    };
    let mut body = Vec::with_capacity(in_memory().map(|(_, bytes)| bytes.len()).sum());
    let mut forms = Vec::new();
    for (form, bytes) in in_memory() {
        forms.push(form_at(form, body.len() as u64, bytes.len() as u64));
        body.extend_from_slice(bytes);
    }
    (forms, body)
}

pub(super) fn form_at(form: &Form, first: u64, length: u64) -> FormAt {
    FormAt {
        coding: form.coding,
        suffix: form.suffix,
        improvable: form.improvable,
        first,
        length,
    }
}

/// The origin's own form, when there is no other.
pub(super) fn whole_form(head: &Head, length: u64) -> FormAt {
    FormAt {
        coding: head.coding,
        suffix: "",
        improvable: false,
        first: 0,
        length,
    }
}

/// Which of a key's responses it is: those of the same bucket and the same Vary replace each other.
pub(super) fn variant(head: &Head) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head.source.as_bytes());
    for (name, value) in head.vary.iter().flat_map(|vary| vary.fields()) {
        hasher.update(&[0]);
        hasher.update(name.as_str().as_bytes());
        hasher.update(&[u8::from(value.is_some())]);
        hasher.update(value.unwrap_or_default());
    }
    hasher.finalize()
}
