//! The account's key, shared by the fleet: it is in the store before anything is ordered with it, so every node knows the
//! thumbprint by which HTTP-01 is answered.
//!
//! Registering the same key twice gives the same account (RFC 8555 section 7.3.1), so nobody has to be first.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, Key, NewAccount};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use super::Error;
use super::http::Http;
use crate::settings::{Acme, Binding};
use crate::store::seal::Place;
use crate::store::{self, OnlyIf, Shared};

/// An account's key, and its URL where the CA was told of it before the store.
#[derive(Clone, Serialize, Deserialize)]
pub struct AccountKey {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl std::fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccountKey(..)")
    }
}

impl AccountKey {
    /// The key of the account at the CA of `acme`: the one in the store, or one that is made and put there. `None` when
    /// the CA has to be asked first, because it binds accounts to others.
    pub async fn find(shared: &Shared, acme: &Acme) -> Result<Option<Self>, store::Error> {
        if let Some(found) = Self::read(shared, &acme.directory).await? {
            return Ok(Some(found));
        }
        if acme.binding.is_some() {
            return Ok(None);
        }
        let place = object(&acme.directory);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &aws_lc_rs::rand::SystemRandom::new(),
        )
        .map_err(|error| store::Error::damaged(&place, error.to_string()))?;
        let made = Self {
            key: URL_SAFE_NO_PAD.encode(pkcs8),
            url: None,
        };
        made.share(shared, &acme.directory).await.map(Some)
    }

    /// Registers an account that is bound to another, and puts its key into the store.
    pub(super) async fn bind(
        shared: &Shared,
        acme: &Acme,
        binding: &Binding,
        http: &Http,
    ) -> Result<Self, Error> {
        let key = decode(&binding.key.0)
            .ok_or_else(|| Error::Account("the binding's key is not base64url".into()))?;
        let external = ExternalAccountKey::new(binding.id.clone(), &key);
        let contact: Vec<&str> = acme.contact.iter().map(String::as_str).collect();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let made = Account::builder_with_http(http.boxed())
            .create(&new, acme.directory.clone(), Some(&external))
            .await;
        let (account, credentials) = made.map_err(|error| http.failed(error))?;
        let made = Self {
            key: URL_SAFE_NO_PAD.encode(credentials.private_key().secret_pkcs8_der()),
            url: Some(account.id().to_owned()),
        };
        let shared = made.share(shared, &acme.directory).await;
        shared.map_err(|error| Error::Account(error.into()))
    }

    /// The same key, for a CA that does not know it yet.
    pub(super) fn elsewhere(self) -> Self {
        Self { url: None, ..self }
    }

    /// The account at the CA.
    pub(super) async fn account(&self, acme: &Acme, http: &Http) -> Result<Account, Error> {
        let pkcs8 =
            decode(&self.key).ok_or_else(|| Error::Account("the account's key is not base64url".into()))?;
        let builder = Account::builder_with_http(http.boxed());
        if let Some(url) = &self.url {
            let key = PrivatePkcs8KeyDer::from(pkcs8);
            let account = builder.from_parts(url.clone(), key, acme.directory.clone()).await;
            return account.map_err(|error| http.failed(error));
        }
        let key = Key::from_pkcs8_der(PrivatePkcs8KeyDer::from(pkcs8.clone()))
            .map_err(|error| http.failed(error))?;
        let key = (key, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8)));
        let (account, _): (_, AccountCredentials) = builder
            .create_from_key(key, acme.directory.clone())
            .await
            .map_err(|error| http.failed(error))?;
        if !acme.contact.is_empty() {
            let contact: Vec<&str> = acme.contact.iter().map(String::as_str).collect();
            account
                .update_contacts(&contact)
                .await
                .map_err(|error| http.failed(error))?;
        }
        Ok(account)
    }

    /// The thumbprint of the key (RFC 7638). `None` when the store held no key.
    pub fn thumbprint(&self) -> Option<String> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &decode(&self.key)?).ok()?;
        // An uncompressed point: 4, then both coordinates.
        let (x, y) = pair.public_key().as_ref().get(1..)?.split_at_checked(32)?;
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let jwk = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        Some(URL_SAFE_NO_PAD.encode(digest(&SHA256, jwk.as_bytes())))
    }

    /// The key in the store, if there is one.
    pub(crate) async fn read(shared: &Shared, directory: &str) -> Result<Option<Self>, store::Error> {
        let key = object(directory);
        let Some(found) = shared.objects().get(&key).await? else {
            return Ok(None);
        };
        let plain = shared
            .keys()
            .open(&Place::Account { directory }, &found.body)
            .map_err(|error| store::Error::damaged(&key, error.to_string()))?;
        serde_json::from_slice(&plain)
            .map(Some)
            .map_err(|_| store::Error::damaged(&key, "does not read as an account"))
    }

    /// Seals the key in the store anew where another of our keys seals now, so that the old one can be dropped. Whoever
    /// wrote meanwhile is left to it.
    pub(crate) async fn reseal(shared: &Shared, directory: &str) -> Result<(), store::Error> {
        let (key, place) = (object(directory), Place::Account { directory });
        let found = shared.objects().get(&key).await?;
        let Some(found) = found.filter(|found| !shared.keys().seals(&found.body)) else {
            return Ok(());
        };
        let opened = shared.keys().open(&place, &found.body);
        let sealed = opened
            .and_then(|plain| shared.keys().seal(&place, &plain))
            .map_err(|error| store::Error::damaged(&key, error.to_string()))?;
        match shared
            .objects()
            .put(&key, sealed, OnlyIf::Unchanged(found.tag))
            .await
        {
            Err(error) if !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    /// Puts the key into the store, unless another node was faster: then it is the other's that counts.
    async fn share(self, shared: &Shared, directory: &str) -> Result<Self, store::Error> {
        let key = object(directory);
        let damaged = |reason: String| store::Error::damaged(&key, reason);
        let plain = serde_json::to_vec(&self).map_err(|error| damaged(error.to_string()))?;
        let sealed = shared
            .keys()
            .seal(&Place::Account { directory }, &plain)
            .map_err(|error| damaged(error.to_string()))?;
        match shared.objects().put(&key, sealed, OnlyIf::Absent).await {
            Ok(_) => Ok(self),
            Err(error) if error.is_conflict() => {
                let theirs = Self::read(shared, directory).await?;
                theirs.ok_or(error)
            }
            Err(error) => Err(error),
        }
    }
}

/// Where the account of a CA is kept.
fn object(directory: &str) -> String {
    let hash = hex::encode(digest(&SHA256, directory.as_bytes()));
    format!("accounts/{}", hash.get(..32).unwrap_or_default())
}

/// What stands in base64url, with padding or without.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}
