//! Coded forms of a plan, made on all cores: gzip and br of what gets smaller by them, and dcb against the same path in
//! the releases before.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::cache::{Cache, MakeError};
use super::plan::{Plan, PlanError, Planned};
use crate::lanes::each_blocking;
use crate::progress::Progress;
use crate::release::{Coding, CodingName, Sha256};

/// A dcb is kept when it is below this share of what the client would get without one.
const DCB_PERCENT_MAX: u64 = 70;
/// Smaller files are not coded: the head of the answer is larger than what is saved.
const CODED_BYTES_MIN: u64 = 128;

/// A coded form and its bytes.
#[derive(Clone, Debug)]
pub struct Made {
    /// What a manifest says of it.
    pub coding: Coding,
    /// The bytes.
    pub bytes: Bytes,
}

/// The dictionaries of a plan: for each path, the digests of its earlier files; and their bytes.
#[derive(Clone, Debug, Default)]
pub struct Dictionaries {
    /// By path, the newest release first, each digest once.
    pub by_path: HashMap<String, Vec<Sha256>>,
    /// By digest.
    pub bytes: HashMap<Sha256, Bytes>,
}

/// Why the forms were not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A coder failed.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// A file could not be read again.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

#[derive(Clone)]
struct Job {
    file: Arc<Planned>,
    name: CodingName,
    dictionary: Option<(Sha256, Bytes)>,
}

/// Makes all forms; for each distinct file its codings, smallest first.
pub async fn make(
    plan: &Plan,
    dictionaries: &Dictionaries,
    cache: &Cache,
    jobs: usize,
    progress: Progress,
) -> Result<BTreeMap<Sha256, Vec<Made>>, Error> {
    let work = work(plan, dictionaries);
    let part = progress.part("code", work.len());
    let count = work.len();
    let (cache, step) = (cache.clone(), part.clone());
    let made = each_blocking(work, jobs, move |job: Job| {
        let bytes = job.file.bytes()?;
        let against = job
            .dictionary
            .as_ref()
            .map(|(digest, bytes)| (bytes.as_ref(), digest));
        let coded = cache.coded(job.name, &bytes, &job.file.sha256, against)?;
        step.step();
        let coding = Coding {
            name: job.name,
            sha256: Sha256::of(&coded),
            size: coded.len() as u64,
            dictionary: job.dictionary.map(|(digest, _)| digest),
        };
        let bytes = Bytes::from(coded);
        Ok::<_, Error>((job.file.sha256, job.file.size, Made { coding, bytes }))
    })
    .await?;
    let mut by_file: BTreeMap<Sha256, (u64, Vec<Made>)> = BTreeMap::new();
    for (file, size, made) in made {
        by_file
            .entry(file)
            .or_insert_with(|| (size, Vec::new()))
            .1
            .push(made);
    }
    part.done(&format!(
        "{count} forms of {} files, each decoded again, on {jobs} cores",
        by_file.len()
    ));
    Ok(by_file
        .into_iter()
        .map(|(file, (size, made))| (file, chosen(size, made)))
        .collect())
}

/// One job for each form of each distinct file; the longest first, so that no core waits for one at the end.
fn work(plan: &Plan, dictionaries: &Dictionaries) -> Vec<Job> {
    let mut work = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for file in &plan.files {
        if !file.coded || file.size < CODED_BYTES_MIN {
            continue;
        }
        let file = Arc::new(file.clone());
        let mut add = |name: CodingName, dictionary: Option<(Sha256, Bytes)>| {
            if seen.insert((file.sha256, name, dictionary.as_ref().map(|(digest, _)| *digest))) {
                work.push(Job {
                    file: Arc::clone(&file),
                    name,
                    dictionary,
                });
            }
        };
        add(CodingName::Gzip, None);
        add(CodingName::Br, None);
        for digest in dictionaries.by_path.get(file.path.as_str()).into_iter().flatten() {
            if *digest != file.sha256
                && let Some(bytes) = dictionaries.bytes.get(digest)
            {
                add(CodingName::Dcb, Some((*digest, bytes.clone())));
            }
        }
    }
    work.sort_by_key(|job| (std::cmp::Reverse(job.file.size), job.name != CodingName::Gzip));
    work
}

/// The forms that are worth it.
fn chosen(size: u64, mut made: Vec<Made>) -> Vec<Made> {
    let plain = made
        .iter()
        .filter(|made| made.coding.name != CodingName::Dcb)
        .map(|made| made.coding.size);
    let best = plain.chain([size]).min().unwrap_or(size);
    made.retain(|made| match made.coding.name {
        CodingName::Dcb => made.coding.size * 100 < best * DCB_PERCENT_MAX,
        CodingName::Br | CodingName::Gzip => made.coding.size < size,
    });
    made.sort_by_key(|made| (made.coding.size, made.coding.name, made.coding.dictionary));
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_kept_when_they_are_worth_it() {
        use CodingName::{Br, Dcb, Gzip};
        let made = |name: CodingName, size: u64| Made {
            coding: Coding {
                name,
                sha256: Sha256::of(b""),
                size,
                dictionary: (name == Dcb).then(|| Sha256::of(&size.to_le_bytes())),
            },
            bytes: Bytes::new(),
        };
        let check = |size: u64, forms: &[(CodingName, u64)], expected: &[(CodingName, u64)]| {
            let forms = forms.iter().map(|(name, size)| made(*name, *size)).collect();
            let kept = chosen(size, forms);
            let kept: Vec<(CodingName, u64)> = kept
                .iter()
                .map(|made| (made.coding.name, made.coding.size))
                .collect();
            assert_eq!(kept, expected);
        };
        check(
            1_000,
            &[(Gzip, 300), (Br, 200), (Dcb, 139), (Dcb, 140), (Dcb, 10)],
            &[(Dcb, 10), (Dcb, 139), (Br, 200), (Gzip, 300)],
        );
        check(100, &[(Gzip, 120), (Br, 100)], &[]);
        check(100, &[(Dcb, 69), (Dcb, 70)], &[(Dcb, 69)]);
    }
}
