//! What is served: the same bytes by every server, known here too, so that each answer can be compared.
//!
//! Files stand in a folder, for servers that read files and for the origin; tenants' configurations and cold objects follow
//! from their number alone, so a million of them need no room.

mod generated;
mod widgets;

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::error::{Error, Result};
pub(crate) use generated::{cold, tenant};
pub(crate) use widgets::Widget;

/// The sizes of the plain files, with their names.
const SIZES: [(&str, usize); 4] = [
    ("1k", 1024),
    ("10k", 10 * 1024),
    ("100k", 100 * 1024),
    ("10m", 10 * 1024 * 1024),
];

/// A file with its coded forms.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// As it stands in a URL.
    pub(crate) path: String,
    pub(crate) bytes: Bytes,
    pub(crate) br: Option<Bytes>,
    pub(crate) gz: Option<Bytes>,
}

/// One thing that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Object {
    /// A file, by its place in [`Content::files`].
    File(usize),
    /// A tenant's configuration.
    Tenant(u64),
    /// Something that nobody has asked for yet.
    Cold { number: u64, bytes: usize },
}

/// Everything that is served.
#[derive(Debug)]
pub(crate) struct Content {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// The files in it.
    pub(crate) files: Vec<File>,
}

impl Content {
    /// Writes the plain files into `folder`.
    pub(crate) fn lay(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).map_err(|error| Error::file("create", &folder, error))?;
        let mut content = Self {
            folder,
            files: Vec::new(),
        };
        for (name, size) in SIZES {
            content.add(File {
                path: format!("/f{name}.bin"),
                bytes: cold(0, size),
                br: None,
                gz: None,
            })?;
        }
        Ok(content)
    }

    /// Adds the widgets.
    pub(crate) fn add_widgets(&mut self, widgets: &[Widget]) -> Result<()> {
        widgets
            .iter()
            .try_for_each(|widget| self.add(widget.file.clone()))
    }

    /// Writes the configurations of the first `count` tenants, for servers that know files only.
    pub(crate) fn add_tenants(&self, count: u64) -> Result<()> {
        for id in 0..count {
            let path = self
                .folder
                .join(path_of(&[], Object::Tenant(id)).trim_start_matches('/'));
            if let Some(parent) = path.parent().filter(|_| id < 256) {
                fs::create_dir_all(parent).map_err(|error| Error::file("create", parent, error))?;
            }
            fs::write(&path, tenant(id)).map_err(|error| Error::file("write", &path, error))?;
        }
        Ok(())
    }

    /// The object of the file with this name.
    pub(crate) fn file(&self, path: &str) -> Result<Object> {
        let at = self.files.iter().position(|file| file.path == path);
        at.map(Object::File)
            .ok_or_else(|| Error::Said(format!("{path} is not among the files that are served")))
    }

    /// Where an object stands.
    pub(crate) fn path(&self, object: Object) -> String {
        path_of(&self.files, object)
    }

    /// The bytes of an object.
    pub(crate) fn bytes(&self, object: Object) -> Bytes {
        match object {
            Object::File(at) => self
                .files
                .get(at)
                .map(|file| file.bytes.clone())
                .unwrap_or_default(),
            Object::Tenant(id) => tenant(id),
            Object::Cold { number, bytes } => cold(number, bytes),
        }
    }

    /// The content that another process has laid into `folder`.
    pub(crate) fn read(folder: PathBuf) -> Result<Self> {
        let mut content = Self {
            folder: folder.clone(),
            files: Vec::new(),
        };
        let mut open = vec![folder];
        while let Some(below) = open.pop() {
            let entries = fs::read_dir(&below).map_err(|error| Error::file("read", &below, error))?;
            for path in entries.flatten().map(|entry| entry.path()) {
                let coded = path
                    .extension()
                    .is_some_and(|extension| extension == "br" || extension == "gz");
                let is_tenant = path.starts_with(content.folder.join("tenants"));
                if path.is_dir() && !is_tenant {
                    open.push(path);
                } else if !coded && !is_tenant {
                    let file = File::read(&content.folder, &path)?;
                    content.files.push(file);
                }
            }
        }
        Ok(content)
    }

    fn add(&mut self, file: File) -> Result<()> {
        let path = self.folder.join(file.path.trim_start_matches('/'));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| Error::file("create", parent, error))?;
        }
        let put = |path: &Path, bytes: &Bytes| {
            fs::write(path, bytes).map_err(|error| Error::file("write", path, error))
        };
        put(&path, &file.bytes)?;
        if let Some(br) = &file.br {
            put(&beside(&path, "br"), br)?;
        }
        if let Some(gz) = &file.gz {
            put(&beside(&path, "gz"), gz)?;
        }
        self.files.push(file);
        Ok(())
    }
}

impl File {
    fn read(folder: &Path, path: &Path) -> Result<Self> {
        let relative = path.strip_prefix(folder).unwrap_or(path);
        let bytes = fs::read(path).map_err(|error| Error::file("read", path, error))?;
        let form = |extension| fs::read(beside(path, extension)).ok().map(Bytes::from);
        Ok(Self {
            path: format!("/{}", relative.display()),
            bytes: bytes.into(),
            br: form("br"),
            gz: form("gz"),
        })
    }
}

/// The media type by the end of a path.
pub(crate) fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("js") => "application/javascript",
        Some("json") => "application/json",
        Some("css") => "text/css",
        _ => "application/octet-stream",
    }
}

fn path_of(files: &[File], object: Object) -> String {
    match object {
        Object::File(at) => files.get(at).map(|file| file.path.clone()).unwrap_or_default(),
        Object::Tenant(id) => format!("/tenants/{:02x}/{id}.json", id % 256),
        Object::Cold { number, bytes } => format!("/cold/{bytes}/{number}.bin"),
    }
}

/// The generated object at a path.
pub(crate) fn generated_at(path: &str) -> Option<Object> {
    let mut parts = path.strip_prefix('/')?.split('/');
    let (kind, middle, last) = (parts.next()?, parts.next()?, parts.next()?);
    let object = match kind {
        "tenants" => Object::Tenant(last.strip_suffix(".json")?.parse().ok()?),
        "cold" => Object::Cold {
            number: last.strip_suffix(".bin")?.parse().ok()?,
            bytes: middle.parse().ok().filter(|bytes| *bytes <= COLD_BYTES_MAX)?,
        },
        _ => return None,
    };
    (parts.next().is_none() && path_of(&[], object) == path).then_some(object)
}

/// Nobody has a reason to ask the origin for more at once.
const COLD_BYTES_MAX: usize = 64 * 1024 * 1024;

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_path_leads_back_to_its_object() {
        let check = |object: Object| assert_eq!(generated_at(&path_of(&[], object)), Some(object));
        check(Object::Tenant(0));
        check(Object::Tenant(999_999));
        check(Object::Cold {
            number: 7,
            bytes: 2_097_152,
        });
        for other in [
            "/tenants/00/1.json",
            "/tenants/01/01.json",
            "/cold/10/1.bin/x",
            "/cold/999999999999/1.bin",
            "/f1k.bin",
            "",
        ] {
            assert_eq!(generated_at(other), None, "{other}");
        }
    }
}
