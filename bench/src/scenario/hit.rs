//! Hits of plain files, as fast as they come: h2load asks, and wrk where it serves.

use std::cell::RefCell;
use std::collections::HashMap;

use super::Scenario;
use super::lab::{Case, Lab};
use crate::error::Result;
use crate::load::{Ask, H2load, Protocol, Wrk};
use crate::peer::{Peer, Server};

/// A way to ask for a file.
struct Way {
    name: &'static str,
    path: &'static str,
    protocol: Protocol,
    connections: usize,
    streams: usize,
    by_wrk: bool,
}

const fn way(
    name: &'static str,
    path: &'static str,
    protocol: Protocol,
    connections: usize,
    streams: usize,
) -> Way {
    Way {
        name,
        path,
        protocol,
        connections,
        streams,
        by_wrk: false,
    }
}

const SMALL: [Way; 6] = [
    way("h1 1 KiB", "/f1k.bin", Protocol::H1, 50, 1),
    Way {
        by_wrk: true,
        ..way("h1 1 KiB by wrk", "/f1k.bin", Protocol::H1, 50, 1)
    },
    way("h1 10 KiB", "/f10k.bin", Protocol::H1, 50, 1),
    way("h2 1 KiB, 1 x 100", "/f1k.bin", Protocol::H2, 1, 100),
    way("h2 1 KiB, 50 x 10", "/f1k.bin", Protocol::H2, 50, 10),
    way("h2 10 KiB, 1 x 100", "/f10k.bin", Protocol::H2, 1, 100),
];

const LARGE: [Way; 4] = [
    way("h1 100 KiB", "/f100k.bin", Protocol::H1, 50, 1),
    way("h1 10 MiB", "/f10m.bin", Protocol::H1, 4, 1),
    way("h2 100 KiB, 1 x 100", "/f100k.bin", Protocol::H2, 1, 100),
    way("h2 10 MiB, 1 x 10", "/f10m.bin", Protocol::H2, 1, 10),
];

/// 1 and 10 KiB.
pub(super) fn small(lab: &mut Lab, servers: &[Server]) -> Result<()> {
    run(lab, servers, Scenario::Hit, &SMALL)
}

/// 100 KiB and 10 MiB.
pub(super) fn large(lab: &mut Lab, servers: &[Server]) -> Result<()> {
    run(lab, servers, Scenario::Large, &LARGE)
}

fn run(lab: &mut Lab, servers: &[Server], scenario: Scenario, ways: &[Way]) -> Result<()> {
    let raw = Server::start(&Peer::raw()?, &lab.ground);
    if let Err(error) = &raw {
        lab.figures.fault(error.to_string());
    }
    for way in ways {
        let floor = raw.as_ref().ok().filter(|_| way.protocol == Protocol::H1);
        let servers: Vec<&Server> = servers.iter().chain(floor).collect();
        let object = lab.ground.content.file(way.path)?;
        let length = lab.ground.content.bytes(object).len() as u64;
        let case = Case {
            scenario,
            name: way.name,
            all_hits: true,
        };
        let h2load = |server: &Server, requests| H2load {
            address: server.address,
            protocol: way.protocol,
            connections: way.connections,
            streams: way.streams,
            requests,
            accepts: None,
            body_bytes: Some(length),
        };
        let requests: RefCell<HashMap<&str, u64>> = RefCell::default();
        let prepare = |lab: &Lab, server: &Server| {
            lab.warm(server, way.protocol, &Ask::plain(object))?;
            let fitting = h2load(server, 0).requests_for(lab.scale.seconds, &server.url(way.path));
            let fitting = fitting.map_err(|why| server.load(why))?;
            requests.borrow_mut().insert(server.kind.name, fitting);
            Ok(())
        };
        lab.alternate(case, &servers, prepare, |lab, server, _| {
            let url = server.url(way.path);
            let outcome = if way.by_wrk {
                let wrk = Wrk {
                    connections: way.connections,
                    seconds: lab.scale.seconds,
                    openssl: &lab.openssl,
                };
                wrk.run(&url)
            } else {
                let requests = requests.borrow().get(server.kind.name).copied();
                h2load(server, requests.unwrap_or_default()).run(&url)
            };
            outcome.map_err(|why| server.load(why))
        })?;
    }
    Ok(())
}
