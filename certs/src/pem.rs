//! PEM files: the chain and the key as they stand on disk, with errors that name the file.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::bundle::{Error, Warning};

/// No chain or key comes near it; a path that points at something else entirely is not read into memory.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The certificates of a chain file, in its order. Never empty.
pub(crate) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    parse_chain(path, &read(path)?)
}

/// The certificates of a chain that is called `path`, in its order. Never empty.
pub(crate) fn parse_chain(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain = CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Error::NotPem {
            file: path.into(),
            reason: error.to_string(),
        })?;
    if chain.is_empty() {
        return Err(Error::NoCertificate { file: path.into() });
    }
    Ok(chain)
}

/// The first private key of a key file.
pub(crate) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    parse_key(path, &read(path)?)
}

/// The first private key of a text that is called `path`.
pub(crate) fn parse_key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    match PrivateKeyDer::from_pem_slice(text) {
        Ok(key) => Ok(key),
        Err(rustls_pki_types::pem::Error::NoItemsFound) if is_encrypted(text) => {
            Err(Error::EncryptedKey { file: path.into() })
        }
        Err(rustls_pki_types::pem::Error::NoItemsFound) => Err(Error::NoKey { file: path.into() }),
        Err(error) => Err(Error::NotPem {
            file: path.into(),
            reason: error.to_string(),
        }),
    }
}

/// A warning when others than the owner and the group may read the key.
pub(crate) fn key_file_warning(path: &Path) -> Option<Warning> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o007 != 0).then(|| Warning::KeyOpenToAll { file: path.into() })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let unreadable = |source| Error::Read {
        file: path.into(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(Error::NotAFile { file: path.into() });
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::TooLarge { file: path.into() });
    }
    Ok(bytes)
}

fn is_encrypted(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).contains("ENCRYPTED PRIVATE KEY")
}
