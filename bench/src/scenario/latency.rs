//! Latencies at a fixed rate, in an open loop.

use std::sync::Arc;
use std::time::Duration;

use super::Scenario;
use super::lab::{Case, Lab, block_on};
use crate::error::Result;
use crate::load::{Ask, Open, Protocol, Repeat};
use crate::peer::Server;

/// 10 KiB over HTTP/1.1 and HTTP/2.
pub(super) fn run(lab: &mut Lab, servers: &[Server]) -> Result<()> {
    let ask = Ask::plain(lab.ground.content.file("/f10k.bin")?);
    let servers: Vec<&Server> = servers.iter().collect();
    for protocol in Protocol::ALL {
        let name = format!("{} 10 KiB at {:.0}/s", protocol.token(), lab.scale.rate);
        let case = Case {
            scenario: Scenario::Latency,
            name: &name,
            all_hits: true,
        };
        let warm = |lab: &Lab, server: &Server| lab.warm(server, protocol, &ask).map(drop);
        lab.alternate(case, &servers, warm, |lab, server, _| {
            let open = Open {
                door: lab.door(server, protocol)?,
                judge: Arc::clone(&lab.judge),
                connections: lab.scale.connections,
                rate: lab.scale.rate,
                duration: Duration::from_secs_f64(lab.scale.seconds),
                warm_up: Duration::from_secs_f64(lab.scale.seconds / 5.0),
            };
            let outcome = block_on(open.run(Repeat(ask.clone())))?;
            outcome.map_err(|why| server.load(why))
        })?;
    }
    Ok(())
}
