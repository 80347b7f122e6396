//! Hits of the login widgets in each coding: what they cost, and how many bytes they are.

use std::cell::RefCell;
use std::time::Duration;

use super::Scenario;
use super::lab::{Case, Lab};
use crate::clock;
use crate::error::Result;
use crate::load::{Ask, H2load, Protocol, Seen};
use crate::peer::Server;

/// The one that makes forms itself.
const EDGE: &str = "edge";

const CODINGS: [(&str, Option<&str>); 3] = [("br", Some("br")), ("gzip", Some("gzip")), ("identity", None)];

/// Each widget in each coding, over HTTP/2.
pub(super) fn run(lab: &mut Lab, servers: &[Server]) -> Result<()> {
    let servers: Vec<&Server> = servers.iter().collect();
    let widgets = lab.widgets.clone();
    for widget in &widgets {
        let object = lab.ground.content.file(&widget.file.path)?;
        for (name, accepts) in CODINGS {
            let ask = Ask {
                accepts,
                ..Ask::plain(object)
            };
            let name = format!("{} {} {name}", widget.name, widget.version);
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
                accepts,
                body_bytes: Some(length),
            };
            let settled: RefCell<Vec<(&str, Seen, u64)>> = RefCell::default();
            let prepare = |lab: &Lab, server: &Server| {
                let seen = settle(lab, server, &ask)?;
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
                let coding = seen
                    .headers
                    .get("content-encoding")
                    .and_then(|coding| coding.to_str().ok());
                if coding != accepts {
                    let coding = coding.unwrap_or("identity");
                    lab.figures
                        .note(format!("coding {name}: {server} answers with {coding}"));
                }
            }
        }
    }
    Ok(())
}

/// Asks until the form stays the same for a while: the edge gets these scripts as they are, and makes better forms of
/// them behind the clients' backs. The others pass on what the origin or the disk has, which is the best already.
fn settle(lab: &Lab, server: &Server, ask: &Ask) -> Result<Seen> {
    let began = clock::now();
    let mut last = lab.warm(server, Protocol::H2, ask)?;
    if server.kind.name != EDGE || ask.accepts.is_none() {
        return Ok(last);
    }
    let mut since = clock::now();
    while since.elapsed() < lab.scale.settle / 2 && began.elapsed() < lab.scale.settle {
        std::thread::sleep(Duration::from_millis(50));
        let seen = lab.warm(server, Protocol::H2, ask)?;
        if seen.wire_bytes != last.wire_bytes {
            last = seen;
            since = clock::now();
        }
    }
    Ok(last)
}
