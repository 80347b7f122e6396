//! Certificates for this crate's tests: as many kinds and mistakes as they need.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};

use crate::Pair;

/// The moment at which these tests play: 2026-01-01.
pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}

/// A self-signed certificate, not yet on disk.
pub(crate) struct Made {
    pub(crate) chain: String,
    pub(crate) key: String,
}

pub(crate) fn make(names: &[&str]) -> Made {
    make_with(names, false, now(), Duration::from_secs(90 * 86_400))
}

pub(crate) fn make_with(names: &[&str], rsa: bool, from: SystemTime, life: Duration) -> Made {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + from.duration_since(UNIX_EPOCH).unwrap();
    params.not_after = params.not_before + life;
    let algorithm = if rsa {
        &PKCS_RSA_SHA256
    } else {
        &PKCS_ECDSA_P256_SHA256
    };
    let key = KeyPair::generate_for(algorithm).unwrap();
    Made {
        chain: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

impl Made {
    /// Writes both files under `name`, the key for its owner alone.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Pair {
        let file = |extension: &str| -> PathBuf { folder.join(format!("{name}.{extension}")) };
        fs::write(file("pem"), &self.chain).unwrap();
        fs::write(file("key"), &self.key).unwrap();
        fs::set_permissions(file("key"), fs::Permissions::from_mode(0o600)).unwrap();
        Pair {
            chain: file("pem"),
            key: file("key"),
            default: false,
        }
    }
}
