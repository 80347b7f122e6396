//! Connections that asked once and stay: what each costs in memory.

use std::time::Duration;

use super::Scenario;
use super::lab::{Case, Lab, block_on};
use crate::error::Result;
use crate::load::{Ask, Connection, Door, Outcome, Protocol};
use crate::peer::Server;
use crate::report::{Measure, Sample};

/// Over HTTP/1.1 and HTTP/2.
pub(super) fn run(lab: &mut Lab, servers: &[Server]) -> Result<()> {
    let ask = Ask::plain(lab.ground.content.file("/f1k.bin")?);
    for protocol in Protocol::ALL {
        let name = format!("{} x {}", lab.scale.idle, protocol.token());
        let case = Case {
            scenario: Scenario::Idle,
            name: &name,
            all_hits: true,
        };
        for server in servers {
            // What earlier connections left behind would be taken for nothing.
            let fresh = lab.scale.fresh.then(|| lab.start_again(server)).transpose();
            let sample = fresh.and_then(|fresh| held(lab, fresh.as_ref().unwrap_or(server), protocol, &ask));
            match sample {
                Ok(sample) => lab
                    .figures
                    .add(case.scenario, case.name, server.kind.name, sample),
                Err(error) => lab.figures.fault(format!("idle {name}: {error}")),
            }
        }
    }
    Ok(())
}

fn held(lab: &Lab, server: &Server, protocol: Protocol, ask: &Ask) -> Result<Sample> {
    lab.warm(server, protocol, ask)?;
    let door = lab.door(server, protocol)?;
    let before = server.memory();
    let held = block_on(async {
        let mut connections = Vec::new();
        for number in 0..lab.scale.idle {
            let connection = one(lab, &door, number, ask).await;
            connections.push(connection.map_err(|why| format!("connection {number}: {why}"))?);
        }
        // What is freed at once is freed by then, and no server's patience is over.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let after = server.memory();
        let busy = connections.len();
        // They are alive to the end.
        for connection in connections.iter_mut().step_by(97) {
            let request = lab.judge.request(ask, &door)?;
            let answer = connection.send(request).await?;
            lab.judge.judge(ask, answer).await?;
        }
        Ok((after, busy))
    })?;
    let (after, count) = held.map_err(|why| server.load(why))?;
    let each = |after: u64, before: u64| (after as f64 - before as f64) / count as f64;
    let mut sample = Sample::default();
    sample.set(Measure::ResidentKibEach, each(after.resident, before.resident));
    sample.set(
        Measure::ProportionalKibEach,
        each(after.proportional, before.proportional),
    );
    sample.set(Measure::ResidentMib, after.resident as f64 / 1024.0);
    sample.set(Measure::ProportionalMib, after.proportional as f64 / 1024.0);
    Ok(sample)
}

async fn one(lab: &Lab, door: &Door, number: usize, ask: &Ask) -> Outcome<Connection> {
    let mut connection = door.connect(number).await?;
    let request = lab.judge.request(ask, door)?;
    let answer = connection.send(request).await?;
    lab.judge.judge(ask, answer).await?;
    Ok(connection)
}
