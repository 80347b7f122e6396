//! New connections: a handshake, full or resumed, and one request each.

use std::sync::Arc;

use rustls::HandshakeKind;

use super::Scenario;
use super::lab::{Case, Lab, block_on};
use crate::error::Result;
use crate::load::{Ask, Door, Fresh, Groups, Outcome, Protocol, Repeat, start};
use crate::peer::Server;

struct Way {
    name: &'static str,
    groups: Groups,
    kind: HandshakeKind,
    clients: usize,
}

const WAYS: [Way; 3] = [
    Way {
        name: "full, X25519",
        groups: Groups::Classic,
        kind: HandshakeKind::Full,
        clients: 8,
    },
    Way {
        name: "full, X25519MLKEM768",
        groups: Groups::Hybrid,
        kind: HandshakeKind::Full,
        clients: 8,
    },
    // A client keeps a few tickets for each server, and each handshake takes one and brings two.
    Way {
        name: "resumed, X25519",
        groups: Groups::Classic,
        kind: HandshakeKind::Resumed,
        clients: 2,
    },
];

/// All three ways, over HTTP/1.1.
pub(super) fn run(lab: &mut Lab, servers: &[Server]) -> Result<()> {
    let ask = Ask::plain(lab.ground.content.file("/f1k.bin")?);
    for way in &WAYS {
        let resumed = way.kind == HandshakeKind::Resumed;
        let mut able = Vec::new();
        for server in servers {
            lab.warm(server, Protocol::H1, &ask)?;
            // Not every server knows the hybrid key exchange, nor keeps sessions.
            match can(lab, server, way, &ask)? {
                Ok(()) => able.push(server),
                Err(why) => lab.figures.note(format!(
                    "handshake {}: {} cannot: {why}",
                    way.name, server.kind.name
                )),
            }
        }
        let case = Case {
            scenario: Scenario::Handshake,
            name: way.name,
            all_hits: true,
        };
        lab.alternate(
            case,
            &able,
            |_, _| Ok(()),
            |lab, server, _| {
                let door = server.door(&lab.ground, Protocol::H1, way.groups, resumed)?;
                let seconds = std::time::Duration::from_secs_f64(lab.scale.seconds);
                let outcome = block_on(async {
                    if resumed {
                        prime(lab, &door, &ask).await?;
                    }
                    let fresh = Fresh {
                        door: door.clone(),
                        judge: Arc::clone(&lab.judge),
                        clients: way.clients,
                        duration: seconds,
                        kind: way.kind,
                    };
                    fresh.run(Repeat(ask.clone())).await
                })?;
                outcome.map_err(|why| server.load(why))
            },
        )?;
    }
    Ok(())
}

/// Whether a server shakes hands this way at all.
fn can(lab: &Lab, server: &Server, way: &Way, ask: &Ask) -> Result<Outcome<()>> {
    let resumed = way.kind == HandshakeKind::Resumed;
    let door = server.door(&lab.ground, Protocol::H1, way.groups, resumed)?;
    block_on(async {
        if resumed {
            prime(lab, &door, ask).await?;
        }
        let connection = door.connect(0).await?;
        if connection.handshake == Some(way.kind) {
            return Ok(());
        }
        Err(format!("its handshake was {:?}", connection.handshake))
    })
}

/// Gets the first tickets, which come with or before the first answers: over connections that are opened at once, so that
/// none of them spends what another was given.
async fn prime(lab: &Lab, door: &Door, ask: &Ask) -> Outcome<()> {
    let opening: Vec<_> = (0..4)
        .map(|number| {
            let door = door.clone();
            start(async move { door.connect(number).await })
        })
        .collect();
    for connection in opening {
        let mut connection = connection.await.map_err(|error| error.to_string())??;
        let request = lab.judge.request(ask, door)?;
        let answer = connection.send(request).await?;
        lab.judge.judge(ask, answer).await?;
    }
    Ok(())
}
