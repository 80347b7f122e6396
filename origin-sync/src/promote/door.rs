//! What a browser would get: every form of every file, asked for at an edge's public door, decoded and compared.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ETAG};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;

use super::line::{Answer, Place};
use crate::lanes::each;
use crate::release::integrity::Fields;
use crate::release::{Channel, CodingName, File, Manifest, Sha256, coding};

const DEADLINE: Duration = Duration::from_secs(30);
/// Connections to one door.
const LINES: usize = 4;

/// One thing to ask for.
#[derive(Clone, Debug)]
struct Check {
    path: String,
    file: File,
    coding: Option<CodingName>,
    dictionary: Option<Sha256>,
    /// Under an alias: the fields that must come with it.
    fields: Option<Fields>,
    alias: bool,
}

/// Asks for every form of the files of `manifest` under `segment`: a version, or an alias of `channel`. Returns how many
/// were right, and what was wrong. `dictionaries` are those that deltas need.
pub async fn check(
    door: &Place,
    manifest: &Manifest,
    segment: &str,
    channel: Option<&Channel>,
    dictionaries: &HashMap<Sha256, Bytes>,
    now: u64,
) -> (usize, Vec<String>) {
    let checks = checks(manifest, segment, channel);
    let count = checks.len();
    let lanes: Vec<Vec<Check>> = (0..LINES)
        .map(|lane| checks.iter().skip(lane).step_by(LINES).cloned().collect())
        .collect();
    let done: Result<Vec<Vec<String>>, std::convert::Infallible> = each(lanes, LINES, |lane| {
        let (mut line, dictionaries) = (door.line(), dictionaries.clone());
        async move {
            let mut wrong = Vec::new();
            for check in lane {
                let answer = match check.request() {
                    Ok(request) => line.call(request, DEADLINE, 256 * 1024 * 1024).await,
                    Err(error) => {
                        wrong.push(error.to_string());
                        continue;
                    }
                };
                let judged = match answer {
                    Ok(answer) => check.judge(&answer, &dictionaries, now),
                    Err(error) => Err(error.to_string()),
                };
                if let Err(why) = judged {
                    wrong.push(format!("{} {}: {why}", check.path, check.form()));
                }
            }
            Ok(wrong)
        }
    })
    .await;
    let wrong: Vec<String> = done.unwrap_or_default().into_iter().flatten().collect();
    (count - wrong.len(), wrong)
}

fn checks(manifest: &Manifest, segment: &str, channel: Option<&Channel>) -> Vec<Check> {
    let mut checks = Vec::new();
    for file in &manifest.files {
        let mut add = |coding, dictionary| {
            checks.push(Check {
                path: format!("/{}/{segment}/{}", manifest.name, file.path),
                file: file.clone(),
                coding,
                dictionary,
                fields: match channel {
                    Some(channel) => channel.integrity.get(&file.sha256).cloned(),
                    None => file.integrity.clone(),
                },
                alias: channel.is_some(),
            });
        };
        add(None, None);
        for coding in &file.codings {
            add(Some(coding.name), coding.dictionary);
        }
    }
    checks
}

impl Check {
    fn form(&self) -> &'static str {
        self.coding.map_or("identity", CodingName::as_str)
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::get(&self.path).header(ACCEPT_ENCODING, self.form());
        if let Some(dictionary) = &self.dictionary {
            let value = format!(":{}:", STANDARD.encode(dictionary.as_bytes()));
            request = request.header("available-dictionary", value);
        }
        request.body(Full::default())
    }

    /// What is wrong with an answer.
    fn judge(&self, answer: &Answer, dictionaries: &HashMap<Sha256, Bytes>, now: u64) -> Result<(), String> {
        if answer.status != StatusCode::OK {
            return Err(format!("it answers {}", answer.status));
        }
        let headers = &answer.headers;
        let coding = field(headers, CONTENT_ENCODING.as_str())?;
        if coding != self.coding.map(CodingName::as_str) {
            return Err(format!("its Content-Encoding is {}", coding.unwrap_or("none")));
        }
        let bytes = match self.coding {
            None => answer.body.clone(),
            Some(name) => {
                let dictionary = match &self.dictionary {
                    Some(digest) => Some(
                        dictionaries
                            .get(digest)
                            .ok_or("its dictionary is not in the bucket")?,
                    ),
                    None => None,
                };
                let dictionary = dictionary.map(|bytes| bytes.as_ref());
                let decoded = coding::decode(name, &answer.body, dictionary, self.file.size);
                decoded.map_err(|error| error.to_string())?.into()
            }
        };
        let found = Sha256::of(&bytes);
        if found != self.file.sha256 {
            return Err(format!(
                "its bytes have the SHA-256 {found} instead of {}",
                self.file.sha256
            ));
        }
        self.judge_fields(headers, now)
    }

    fn judge_fields(&self, headers: &HeaderMap, now: u64) -> Result<(), String> {
        let required = |name: &str| field(headers, name)?.ok_or_else(|| format!("{name} is missing"));
        if required("content-type")? != self.file.media_type {
            return Err("its Content-Type is not that of the manifest".into());
        }
        if required(ETAG.as_str())?.starts_with("W/") {
            return Err("its ETag is weak".into());
        }
        if self.alias && required(CACHE_CONTROL.as_str())?.contains("immutable") {
            return Err("it is immutable under a name that moves".into());
        }
        let said = Fields {
            unencoded_digest: match field(headers, "unencoded-digest")? {
                Some(value) => value.to_owned(),
                None if self.fields.is_none() => return Ok(()),
                None => return Err("Unencoded-Digest is missing".into()),
            },
            signature_input: field(headers, "signature-input")?.map(str::to_owned),
            signature: field(headers, "signature")?.map(str::to_owned),
        };
        // A browser would enforce them, so this comes first of all that could be wrong with them.
        said.verify(&self.file.sha256, now)
            .map_err(|error| error.to_string())?;
        match &self.fields {
            Some(fields) if said != *fields => {
                Err("its integrity fields are not those that were signed for it".into())
            }
            _ => Ok(()),
        }
    }
}

/// A field that stands there at most once.
fn field<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, String> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(format!("{name} stands there twice"));
    }
    value
        .to_str()
        .map(Some)
        .map_err(|_| format!("{name} is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::manifest::tests::manifest;

    fn check() -> Check {
        let mut manifest = manifest();
        manifest.files[0].integrity = Some(Fields::digest_only(&manifest.files[0].sha256));
        checks(&manifest, "12.5.1", None).remove(0)
    }

    fn answer() -> Answer {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "text/javascript; charset=utf-8"),
            ("etag", "\"a\""),
            ("cache-control", "public, max-age=31536000, immutable"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let digest = check().fields.unwrap().unencoded_digest;
        headers.insert("unencoded-digest", digest.parse().unwrap());
        Answer {
            status: StatusCode::OK,
            headers,
            body: Bytes::from_static(b"ab"),
        }
    }

    #[test]
    fn every_form_of_every_file_is_asked_for() {
        let checks = checks(&manifest(), "latest", None);
        let shown: Vec<String> = checks
            .iter()
            .map(|check| format!("{} {}", check.path, check.form()))
            .collect();
        let expected = [
            "/lock/latest/a/b.js identity",
            "/lock/latest/a/b.js dcb",
            "/lock/latest/a/b.js br",
            "/lock/latest/a/c.js identity",
        ];
        assert_eq!(shown, expected);
        let request = checks[1].request().unwrap();
        assert_eq!(request.headers()["accept-encoding"], "dcb");
        let dictionary = format!(":{}:", Sha256::of(b"old").base64());
        assert_eq!(request.headers()["available-dictionary"], dictionary);
    }

    #[test]
    fn an_answer_is_judged_by_bytes_and_fields() {
        type Change = fn(&mut Answer);
        let judge = |change: Change, check: &Check| {
            let mut answer = answer();
            change(&mut answer);
            check.judge(&answer, &HashMap::new(), 0).err().unwrap_or_default()
        };
        let expect = |change: Change, expected: &str| {
            let found = judge(change, &check());
            assert!(found.contains(expected), "{found:?} {expected}");
        };
        let with = |name: &'static str, value: &'static str, expected: &str| {
            let mut answer = answer();
            answer.headers.insert(name, value.parse().unwrap());
            let found = check().judge(&answer, &HashMap::new(), 0).unwrap_err();
            assert!(found.contains(expected), "{found:?} {expected}");
        };
        let without = |name: &'static str, expected: &str| {
            let mut answer = answer();
            answer.headers.remove(name);
            let found = check().judge(&answer, &HashMap::new(), 0).unwrap_err();
            assert!(found.contains(expected), "{found:?} {expected}");
        };
        assert_eq!(judge(|_| (), &check()), "");
        expect(|answer| answer.status = StatusCode::NOT_FOUND, "404");
        expect(|answer| answer.body = Bytes::from_static(b"aB"), "SHA-256");
        with("content-encoding", "br", "Content-Encoding is br");
        with("content-type", "text/html", "Content-Type");
        without("etag", "etag is missing");
        with("etag", "W/\"a\"", "weak");
        without("unencoded-digest", "Unencoded-Digest is missing");
        with("unencoded-digest", "sha-256=:AA==:", "another digest");
        with("signature", "sig0=:AA==:", "come together");
        expect(
            |answer| assert!(answer.headers.append("etag", "\"b\"".parse().unwrap())),
            "twice",
        );
        let mut alias = check();
        alias.alias = true;
        assert!(judge(|_| (), &alias).contains("immutable"));
    }
}
