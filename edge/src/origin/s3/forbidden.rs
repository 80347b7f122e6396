//! A 403: is the key missing, or are the credentials bad?

use std::time::Duration;

use super::Bucket;
use super::send::Raw;
use super::verdict::{self, Verdict};
use crate::origin::health::CANARY_MEMORY;
use crate::origin::{Answer, Ask, Error, Kind};

/// How recent the sight of a canary must be to let a 403 replace what is stored.
const CANARY_FRESH: Duration = Duration::from_secs(2);

impl Bucket {
    /// S3 answers 403 for a missing key to who may not list the bucket. If some other object can be read, then the
    /// credentials are good and the key is missing.
    pub(super) async fn judge_forbidden(&self, ask: &Ask, key: &str, raw: &Raw) -> Result<Answer, Error> {
        // One look at a time; the others use what it showed.
        let _look = self.canary_look.lock().await;
        // What is stored must not fall to a memory from before the credentials were lost.
        let memory = if ask.condition.is_some() {
            CANARY_FRESH
        } else {
            CANARY_MEMORY
        };
        let (recent, keys) = {
            let health = self.health();
            (
                health.canary.recent(self.clock.now(), memory),
                health.canary.keys(),
            )
        };
        let readable = match recent {
            Some(readable) => readable,
            None => {
                self.look_at_canaries(
                    keys.iter()
                        .filter(|canary| self.config.canary.is_some() || *canary != key),
                )
                .await?
            }
        };
        if readable && self.config.canary.as_deref() != Some(key) {
            return Ok(self.not_found(raw));
        }
        let detail = format!("status {} for the key and for the canary", raw.status.as_u16());
        Err(Error::new(Kind::CredentialsRefused, detail))
    }

    /// Whether one of `keys` can be read.
    async fn look_at_canaries<'a>(&self, keys: impl Iterator<Item = &'a String>) -> Result<bool, Error> {
        let mut asked = false;
        for key in keys {
            asked = true;
            let request = self.head(key);
            let raw = self.send(&request).await?;
            if verdict::judge(&raw, &request)? != Verdict::Forbidden {
                self.health().canary.looked(true, self.clock.now());
                return Ok(true);
            }
        }
        if !asked {
            return Err(Error::new(
                Kind::Forbidden,
                "a missing key, or bad credentials? Name a key that always exists as `canary` of the bucket, or grant ListBucket",
            ));
        }
        self.health().canary.looked(false, self.clock.now());
        Ok(false)
    }
}
