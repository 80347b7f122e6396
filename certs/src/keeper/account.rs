//! The accounts' thumbprints: kept on disk, compared with the store at every look, answered on every node.
//!
//! A CA asks any node, also one that has not looked at the store since the account was made. The account is in the store before
//! anything is ordered with it; so a node that knows none looks once more before it says no, and a look that began after the CA
//! asked cannot miss it. A node that knows the account asks nobody.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};

use super::Keeper;
use crate::acme::{AccountKey, HttpAnswer};
use crate::settings::{Acme, Challenge};
use crate::store::{self, Shared};

/// Between two looks for the sake of those who ask. They all wait for the same one, however many they are.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
/// How long one who asks is kept waiting. CAs give up after about ten seconds.
const PATIENCE: Duration = Duration::from_secs(8);

/// An account that is answered for.
#[derive(Clone, Debug)]
pub(super) struct Account {
    thumbprint: Arc<str>,
    /// When it took the place of another, which nodes that have not looked since still answer for.
    replaced: Option<SystemTime>,
    /// When it was last seen in the store.
    looked: Option<SystemTime>,
}

/// Looks at the store on behalf of those who ask for what is not known here.
#[derive(Debug, Default)]
pub(super) struct Looks {
    asked: Notify,
    begun: AtomicU64,
    ended: watch::Sender<u64>,
}

impl Keeper {
    /// What is answered on the challenge path of HTTP-01: `None` where `path` is not one, an inner `None` where there is no
    /// answer. It waits only while no account is known, and only if somebody runs [`Keeper::look_for_accounts`].
    pub fn challenge(
        self: &Arc<Self>,
        host: &str,
        path: &str,
    ) -> Option<impl Future<Output = Option<String>> + Send + use<>> {
        let at_once = self.answers.http(host, path)?;
        let (keeper, host, path) = (Arc::clone(self), host.to_owned(), path.to_owned());
        Some(async move {
            if at_once != HttpAnswer::NoAccount {
                return at_once.text();
            }
            keeper.next_look().await;
            keeper.answers.http(&host, &path).and_then(HttpAnswer::text)
        })
    }

    /// Looks for the accounts that are not known, for ever: each time somebody asked, and never without a pause.
    pub async fn look_for_accounts(&self) {
        loop {
            self.looks.asked.notified().await;
            let number = self.looks.begun.fetch_add(1, Ordering::SeqCst) + 1;
            self.find_accounts().await;
            self.looks.ended.send_replace(number);
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Learns of the accounts that are in the store and not known here. Makes none.
    pub async fn find_accounts(&self) {
        let shared = self.shared().await;
        // Many certificates may share an account.
        let unknown: BTreeSet<&String> = {
            let accounts = self.accounts();
            let seen = |directory: &String| {
                accounts
                    .get(directory)
                    .is_some_and(|known| known.looked.is_some())
            };
            let proved = self.settings.managed.iter().map(|managed| &managed.acme);
            proved
                .filter(|acme| acme.challenge == Challenge::Http01)
                .map(|acme| &acme.directory)
                .filter(|directory| !seen(directory))
                .collect()
        };
        for directory in unknown {
            match AccountKey::read(shared, directory).await {
                Ok(found) => self.know_account(directory, found.and_then(|key| key.thumbprint())),
                // Attending the certificate comes upon the same, and says so.
                Err(error) => tracing::debug!(directory, %error, "the account cannot be looked for"),
            }
        }
    }

    /// Waits for the end of a look that has not begun yet, within limits.
    async fn next_look(&self) {
        let begun = self.looks.begun.load(Ordering::SeqCst);
        let mut ended = self.looks.ended.subscribe();
        self.looks.asked.notify_one();
        let _ = tokio::time::timeout(PATIENCE, ended.wait_for(|ended| *ended > begun)).await;
    }

    /// Finds the account's key in the store, or puts one there, unless that was done just now.
    pub(super) async fn learn_account(&self, shared: &Shared, acme: &Acme) -> Result<(), store::Error> {
        let looked = self
            .accounts()
            .get(&acme.directory)
            .and_then(|known| known.looked);
        // Many certificates may share an account.
        let lately = |looked| {
            (self.now)()
                .duration_since(looked)
                .is_ok_and(|age| age < self.settings.store.poll / 2)
        };
        if looked.is_some_and(lately) {
            return Ok(());
        }
        let found = AccountKey::find(shared, acme).await?;
        self.know_account(&acme.directory, found.and_then(|key| key.thumbprint()));
        Ok(())
    }

    /// Takes note of what the store holds.
    pub(super) fn know_account(&self, directory: &str, thumbprint: Option<String>) {
        let (Some(thumbprint), now) = (thumbprint, (self.now)()) else {
            return;
        };
        let mut accounts = self.accounts();
        let before = accounts.get_mut(directory);
        let replaced = before.is_some().then_some(now);
        if let Some(known) = before
            && *known.thumbprint == *thumbprint
        {
            known.looked = Some(now);
            return;
        }
        let account = Account {
            thumbprint: Arc::from(thumbprint),
            replaced,
            looked: Some(now),
        };
        accounts.insert(directory.to_owned(), account);
        // Still locked: where two accounts are learned of at once, what is told last must know both.
        let known = thumbprints(&accounts);
        self.answer_with(&known);
        self.local.keep_thumbprints(&known);
    }

    /// Until when nothing is ordered, because other nodes may still answer for the account before this one. Two looks of theirs
    /// are waited for.
    pub(super) fn settles(&self, acme: &Acme) -> Option<SystemTime> {
        if acme.challenge != Challenge::Http01 {
            return None;
        }
        let (replaced, now) = (self.accounts().get(&acme.directory)?.replaced?, (self.now)());
        let until = replaced + self.settings.store.poll * 2;
        (replaced <= now && now < until).then_some(until)
    }

    /// Answers with the thumbprints that are known, under the names that are proved that way.
    pub(super) fn answer(&self) {
        self.answer_with(&thumbprints(&self.accounts()));
    }

    fn answer_with(&self, thumbprints: &HashMap<String, Arc<str>>) {
        let mut by_name: HashMap<String, Option<Arc<str>>> = HashMap::new();
        let proved = |managed: &&crate::settings::Managed| managed.acme.challenge == Challenge::Http01;
        for managed in self.settings.managed.iter().filter(proved) {
            let thumbprint = thumbprints.get(&managed.acme.directory);
            for name in &managed.names {
                // Of two CAs for one name, the one without an account takes nothing from the other.
                let known = by_name.entry(name.clone()).or_default();
                *known = known.take().or_else(|| thumbprint.cloned());
            }
        }
        self.answers.set_thumbprints(by_name);
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<String, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    /// One that this node answered for when it last ran.
    pub(super) fn remembered(thumbprint: Arc<str>) -> Self {
        Self {
            thumbprint,
            replaced: None,
            looked: None,
        }
    }
}

fn thumbprints(accounts: &HashMap<String, Account>) -> HashMap<String, Arc<str>> {
    accounts
        .iter()
        .map(|(directory, account)| (directory.clone(), Arc::clone(&account.thumbprint)))
        .collect()
}
