//! What an edge is told, and what it says, by its admin API.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request};
use http_body_util::Full;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::line::{self, Place};
use crate::release::fleet::{PREWARM_PATH, PrewarmAnswer, PrewarmRequest, RELEASES_PATH, ReleasesAnswer};
use crate::release::{CodingName, Invalid, Manifest, Name, Sha256};

/// Fetching a whole release may take this long.
const PREWARM: Duration = Duration::from_secs(300);
/// Everything else.
const DEADLINE: Duration = Duration::from_secs(20);
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// An edge as the command line names it: `ADMIN-URL` or `ADMIN-URL=HOST:PORT`, where the latter is its public door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The URL of its admin listener.
    pub admin: String,
    /// Where its public door is.
    pub door: Option<String>,
}

impl FromStr for Named {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (admin, door) = match text.split_once('=') {
            Some((admin, door)) => (admin, Some(door)),
            None => (text, None),
        };
        Place::new(admin, None, None).map_err(|error| Invalid(error.to_string()))?;
        let port = door.map(|door| {
            door.rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        });
        if port == Some(false) {
            return Err(Invalid(format!("{text}: the public door is a host and a port")));
        }
        Ok(Self {
            admin: admin.to_owned(),
            door: door.map(str::to_owned),
        })
    }
}

/// An edge's admin API.
#[derive(Clone, Debug)]
pub struct Edge {
    /// As it was named.
    pub named: Named,
    place: Place,
    token: Option<String>,
}

/// Why an edge did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It did not answer.
    #[error(transparent)]
    Http(#[from] line::Error),
    /// It answered something else.
    #[error("{edge} answered {operation} with what is not understood: {why}")]
    Odd {
        /// Which edge.
        edge: String,
        /// What it was asked.
        operation: &'static str,
        /// What is wrong.
        why: String,
    },
    /// It refused.
    #[error("{edge} refused {operation}: {status} {said}")]
    Refused {
        /// Which edge.
        edge: String,
        /// What it was asked.
        operation: &'static str,
        /// The status.
        status: u16,
        /// What it said.
        said: String,
    },
}

impl Edge {
    /// An edge, and the token that it is shown.
    pub fn new(named: Named, token: Option<String>) -> Result<Self, line::Error> {
        let place = Place::new(&named.admin, None, None)?;
        Ok(Self { named, place, token })
    }

    /// Tells it to fetch a release; returns when it has.
    pub async fn prewarm(&self, request: &PrewarmRequest) -> Result<PrewarmAnswer, Error> {
        let body = serde_json::to_vec(request).unwrap_or_default();
        self.ask("to prewarm", Method::POST, PREWARM_PATH, Some(body), PREWARM)
            .await
    }

    /// What it has in force, after it has asked the bucket for the channel of `name`.
    pub async fn releases(&self, name: &Name) -> Result<ReleasesAnswer, Error> {
        let path = format!("{RELEASES_PATH}?refresh={name}");
        self.ask("for its releases", Method::GET, &path, None, DEADLINE)
            .await
    }

    /// Marks stale what carries one of these tags.
    pub async fn purge_softly(&self, tags: &BTreeSet<String>) -> Result<(), Error> {
        let body = json!({ "tags": tags, "soft": true }).to_string().into_bytes();
        let _: serde_json::Value = self
            .ask("to purge", Method::POST, "/v1/purge", Some(body), DEADLINE)
            .await?;
        Ok(())
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        deadline: Duration,
    ) -> Result<T, Error> {
        let odd = |why: String| Error::Odd {
            edge: self.named.admin.clone(),
            operation,
            why,
        };
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())));
        let request = request.map_err(|error| odd(error.to_string()))?;
        let answer = self
            .place
            .line()
            .call(request, deadline, ANSWER_BYTES_MAX)
            .await?;
        if !answer.status.is_success() {
            let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let said = ["detail", "title"]
                .iter()
                .find_map(|member| problem.get(member)?.as_str());
            return Err(Error::Refused {
                edge: self.named.admin.clone(),
                operation,
                status: answer.status.as_u16(),
                said: said
                    .unwrap_or_default()
                    .chars()
                    .filter(|char| !char.is_control())
                    .take(300)
                    .collect(),
            });
        }
        serde_json::from_slice(&answer.body).map_err(|error| odd(error.to_string()))
    }
}

/// What an edge holds otherwise than the manifest says; and how many forms it holds as it does.
pub fn compare(manifest: &Manifest, digest: &Sha256, answer: &PrewarmAnswer) -> (usize, Vec<String>) {
    if let Some(error) = &answer.error {
        return (0, vec![error.clone()]);
    }
    if answer.manifest != Some(*digest) {
        let found = answer
            .manifest
            .map_or_else(|| "none".to_owned(), |digest| digest.to_string());
        return (0, vec![format!("its manifest is {found} instead of {digest}")]);
    }
    let mut right = 0;
    let mut wrong = Vec::new();
    for file in &manifest.files {
        let whole = std::iter::once((None, None, file.sha256));
        let coded = file
            .codings
            .iter()
            .map(|coding| (Some(coding.name), coding.dictionary, coding.sha256));
        let held = answer.files.iter().find(|held| held.path == file.path);
        for (coding, dictionary, sha256) in whole.chain(coded) {
            let forms = held.into_iter().flat_map(|held| &held.forms);
            let form = forms
                .into_iter()
                .find(|form| form.coding == coding && form.dictionary == dictionary);
            let shown = coding.map_or("identity", CodingName::as_str);
            match form {
                Some(form) if form.sha256 == Some(sha256) => right += 1,
                Some(form) => {
                    let found = form.sha256.map(|digest| digest.to_string());
                    let found = found
                        .or_else(|| form.error.clone())
                        .unwrap_or_else(|| "nothing".to_owned());
                    wrong.push(format!("{} {shown}: {found} instead of {sha256}", file.path));
                }
                None => wrong.push(format!("{} {shown}: not said", file.path)),
            }
        }
    }
    (right, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::fleet::{FileAnswer, FormAnswer};
    use crate::release::manifest::tests::manifest;

    #[test]
    fn edges_are_named_by_their_admin_listener_and_their_door() {
        let named: Named = "http://10.0.0.5:9180=10.0.0.5:443".parse().unwrap();
        assert_eq!(named.door.as_deref(), Some("10.0.0.5:443"));
        assert_eq!("http://10.0.0.5:9180".parse::<Named>().unwrap().door, None);
        assert!("10.0.0.5:9180".parse::<Named>().is_err());
        assert!("http://10.0.0.5:9180=x".parse::<Named>().is_err());
    }

    #[test]
    fn every_form_must_be_held_as_the_manifest_says() {
        let manifest = manifest();
        let digest = Sha256::of(b"manifest");
        let forms = |file: &crate::release::File| {
            let form = |coding, dictionary, sha256| FormAnswer {
                coding,
                dictionary,
                sha256: Some(sha256),
                error: None,
            };
            let coded = file
                .codings
                .iter()
                .map(|coding| form(Some(coding.name), coding.dictionary, coding.sha256));
            std::iter::once(form(None, None, file.sha256))
                .chain(coded)
                .collect()
        };
        let files = manifest.files.iter().map(|file| FileAnswer {
            path: file.path.clone(),
            forms: forms(file),
        });
        let good = PrewarmAnswer {
            node: "a".into(),
            manifest: Some(digest),
            error: None,
            files: files.collect(),
        };
        assert_eq!(compare(&manifest, &digest, &good), (4, vec![]));
        type Change = fn(&mut PrewarmAnswer);
        let check = |change: Change, right: usize, expected: &str| {
            let mut answer = good.clone();
            change(&mut answer);
            let (found, wrong) = compare(&manifest, &digest, &answer);
            assert_eq!(found, right);
            assert!(wrong[0].contains(expected), "{wrong:?}");
        };
        check(|answer| answer.error = Some("no site".into()), 0, "no site");
        check(|answer| answer.manifest = None, 0, "is none instead of");
        check(|answer| answer.files.clear(), 0, "not said");
        check(
            |answer| answer.files[0].forms[1].sha256 = Some(Sha256::of(b"")),
            3,
            "a/b.js dcb: e3b0",
        );
        check(
            |answer| answer.files[0].forms[1].dictionary = None,
            3,
            "a/b.js dcb: not said",
        );
        check(
            |answer| {
                answer.files[1].forms[0].sha256 = None;
                answer.files[1].forms[0].error = Some("404".into());
            },
            3,
            "a/c.js identity: 404",
        );
    }
}
