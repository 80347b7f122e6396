//! What is known of an object beside its bytes: the record, which is kept as a small JSON file.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Written, milliseconds, now};
use crate::bucket::checksum::Checksums;

/// The fields that a client gives an object: those of HTTP, and its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// `Content-Type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// `Cache-Control`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// `Content-Encoding`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    /// `Content-Disposition`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    /// `Expires`, as an HTTP date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// `x-amz-meta-*`, by the name behind that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub user: BTreeMap<String, String>,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its key.
    pub key: String,
    /// The name of the file that holds its bytes.
    pub body: String,
    /// How many bytes there are.
    pub size: u64,
    /// The entity tag, without quotes.
    pub etag: String,
    /// When it was written, in milliseconds since 1970.
    pub modified_ms: u64,
    /// What the client said of it.
    #[serde(default)]
    pub meta: Meta,
    /// Its checksums.
    #[serde(default)]
    pub checksums: Checksums,
    /// The sizes of its parts, if it was uploaded in parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<u64>,
}

impl Record {
    /// The record of a body written in one piece, whose entity tag is its MD5.
    pub fn of(key: &str, written: &Written, meta: Meta) -> Self {
        Self {
            key: key.to_owned(),
            body: written.id().to_owned(),
            size: written.size(),
            etag: hex::encode(written.md5()),
            modified_ms: milliseconds(now()),
            meta,
            checksums: written.checksums().clone(),
            parts: Vec::new(),
        }
    }

    /// When it was written.
    pub fn modified(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.modified_ms)
    }
}
