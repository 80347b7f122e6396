//! What a promotion asks of a node: to have all of a release at hand before anybody is led to it, and to say what is in
//! force.

use std::sync::Arc;

use origin_sync::release::fleet::{FileAnswer, FormAnswer, PrewarmAnswer, PrewarmRequest, ReleasesAnswer};
use origin_sync::release::{File, Name, Sha256};
use tokio::sync::Semaphore;

use super::Exchange;
use crate::release::file::Found;
use crate::release::wants::Form;
use crate::release::{Release, Track};

/// Files that are fetched at once.
const AT_ONCE: usize = 8;

impl Exchange {
    /// Fetches every form of every file of a release, for each site that has it, and says what came.
    pub async fn prewarm(self: &Arc<Self>, request: &PrewarmRequest) -> PrewarmAnswer {
        let routes = self.routes();
        let mut answer = PrewarmAnswer {
            node: routes.name.clone(),
            manifest: None,
            error: Some(format!("no site of this node releases {}", request.name)),
            files: Vec::new(),
        };
        let tracks: Vec<_> = routes
            .releases
            .tracks()
            .filter(|track| *track.name() == request.name)
            .cloned()
            .collect();
        for track in tracks {
            match track.release(&request.version, &request.manifest).await {
                Ok(release) => {
                    answer.manifest = Some(release.digest);
                    answer.error = None;
                    answer.files = self.prewarm_files(&track, &release).await;
                }
                Err(why) => {
                    answer.error = Some(format!("{}: {why}", track.site()));
                    return answer;
                }
            }
            let is_bad = |file: &FileAnswer| file.forms.iter().any(|form| form.sha256.is_none());
            if answer.files.iter().any(is_bad) {
                return answer;
            }
        }
        answer
    }

    async fn prewarm_files(self: &Arc<Self>, track: &Arc<Track>, release: &Release) -> Vec<FileAnswer> {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = Vec::with_capacity(release.files().len());
        for file in release.files() {
            let (told, answer) = tokio::sync::oneshot::channel();
            let (exchange, room) = (Arc::clone(self), Arc::clone(&room));
            let found = Found {
                track: Arc::clone(track),
                file: Arc::clone(file),
                under: None,
            };
            self.drain.spawn_on(&self.control, "prewarm", async move {
                let _permit = room.acquire().await;
                // Whoever asked may be gone.
                let _ = told.send(exchange.prewarm_file(&found).await);
            });
            tasks.push((file, answer));
        }
        let mut answers = Vec::with_capacity(tasks.len());
        for (file, answer) in tasks {
            answers.push(answer.await.unwrap_or_else(|_| FileAnswer {
                path: file.path.clone(),
                forms: Vec::new(),
            }));
        }
        answers
    }

    async fn prewarm_file(self: &Arc<Self>, found: &Found) -> FileAnswer {
        let mut forms = Vec::with_capacity(found.file.codings.len() + 1);
        for (form, dictionary) in forms_of(&found.file) {
            let held = self.blob(found, &form).await;
            forms.push(FormAnswer {
                coding: form.coding,
                dictionary,
                // Of the very bytes that are held.
                sha256: held.as_ref().ok().map(|(bytes, _)| Sha256::of(bytes)),
                error: held.err().map(|error| error.to_string()),
            });
        }
        FileAnswer {
            path: found.file.path.clone(),
            forms,
        }
    }

    /// What is in force; first the bucket is asked for the channel of `refresh`, if that is named.
    pub async fn releases(self: &Arc<Self>, refresh: Option<&Name>) -> ReleasesAnswer {
        let routes = self.routes();
        for track in routes.releases.tracks() {
            if refresh == Some(track.name()) {
                track.refresh().await;
            }
        }
        ReleasesAnswer {
            node: routes.name.clone(),
            releases: routes.releases.states(),
        }
    }
}

fn forms_of(file: &File) -> impl Iterator<Item = (Form, Option<Sha256>)> + '_ {
    let coded = file.codings.iter().map(|coding| {
        let form = Form {
            coding: Some(coding.name),
            sha256: coding.sha256,
            size: coding.size,
        };
        (form, coding.dictionary)
    });
    std::iter::once((Form::own(file), None)).chain(coded)
}
