//! Hits of the login widgets in each coding: what they cost, and how many bytes they are.

use std::cell::RefCell;
use std::time::Duration;

use edge::representation::coding::Coding;
use edge::representation::encoder::Quality;

use super::Scenario;
use super::lab::{Case, Lab};
use crate::clock;
use crate::error::Result;
use crate::load::{Ask, H2load, Protocol, Seen};
use crate::peer::{Peer, Server};

/// Who takes no coding has to say so: without a word, any is welcome (RFC 9110, section 12.5.3), and HAProxy sends what
/// it happens to hold.
const CODINGS: [&str; 3] = ["br", "gzip", "identity"];

/// Each widget in each coding, over HTTP/2.
pub(super) fn run(lab: &mut Lab, servers: &[Server]) -> Result<()> {
    let servers: Vec<&Server> = servers.iter().collect();
    let widgets = lab.widgets.clone();
    for widget in &widgets {
        let object = lab.ground.content.file(&widget.file.path)?;
        for coding in CODINGS {
            let ask = Ask {
                accepts: Some(coding),
                ..Ask::plain(object)
            };
            let name = format!("{} {} {coding}", widget.name, widget.version);
            let case = Case {
                scenario: Scenario::Coding,
                name: &name,
                all_hits: true,
            };
            let h2load = |server: &Server, requests, length| H2load {
                address: server.address,
                protocol: Protocol::H2,
                connections: 2,
                streams: 5,
                requests,
                accepts: Some(coding),
                body_bytes: Some(length),
            };
            let settled: RefCell<Vec<(&str, Seen, u64)>> = RefCell::default();
            let prepare = |lab: &Lab, server: &Server| {
                let seen = settle(lab, server, &ask, Coding::from_token(coding))?;
                let h2load = h2load(server, 0, seen.wire_bytes);
                let fitting = h2load.requests_for(lab.scale.seconds, &server.url(&widget.file.path));
                let fitting = fitting.map_err(|why| server.load(why))?;
                settled.borrow_mut().push((server.kind.name, seen, fitting));
                Ok(())
            };
            lab.alternate(case, &servers, prepare, |_, server, _| {
                let settled = settled.borrow();
                let known = settled.iter().find(|(name, ..)| *name == server.kind.name);
                let (length, fitting) =
                    known.map_or((0, 0), |(_, seen, fitting)| (seen.wire_bytes, *fitting));
                let outcome = h2load(server, fitting, length).run(&server.url(&widget.file.path));
                outcome.map_err(|why| server.load(why))
            })?;
            for (server, seen, _) in &*settled.borrow() {
                let sent = seen
                    .headers
                    .get("content-encoding")
                    .and_then(|coding| coding.to_str().ok());
                let sent = sent.unwrap_or("identity");
                if sent != coding {
                    lab.figures
                        .note(format!("coding {name}: {server} answers with {sent}"));
                }
            }
        }
    }
    Ok(())
}

/// Asks until the form is the one that stays: the edge gets these scripts as they are, and makes better forms of them
/// behind the clients' backs, unless it is told not to. Which form an answer is stands in its entity tag. The others pass
/// on what the origin or the disk has, which is the best already.
pub(super) fn settle(lab: &Lab, server: &Server, ask: &Ask, best: Option<Coding>) -> Result<Seen> {
    let began = clock::now();
    let best = best.map_or("", |coding| coding.suffix(Quality::Best));
    let mut seen = lab.warm(server, Protocol::H2, ask)?;
    let Some(settle) = lab.scale.settle.filter(|_| Peer::is_edge(server.kind)) else {
        return Ok(seen);
    };
    while !is_form(&seen, best) {
        if began.elapsed() > settle {
            return Err(server.load(format!("no {best} came within {} s", settle.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(100));
        seen = lab.warm(server, Protocol::H2, ask)?;
    }
    Ok(seen)
}

/// Whether an answer is the form that was made so; each is, where nothing is to be made.
fn is_form(seen: &Seen, suffix: &str) -> bool {
    let tag = seen.headers.get("etag").and_then(|tag| tag.to_str().ok());
    tag.is_some_and(|tag| tag.contains(suffix))
}
