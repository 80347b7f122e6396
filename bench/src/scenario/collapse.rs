//! A storm: many clients, connected already, ask at once for one object that is not there yet.

use std::sync::Arc;
use std::time::Duration;

use super::Scenario;
use super::lab::{Case, Lab, block_on};
use crate::clock;
use crate::error::Result;
use crate::load::{Ask, Connection, Done, Door, Judge, Outcome, Protocol, histogram, record, start};
use crate::peer::{Server, Way};

const BYTES: usize = 2 * 1000 * 1000;
const DELAY: Duration = Duration::from_millis(50);

/// Every cache. How often the origin is asked is among the figures; once is enough.
pub(super) fn run(lab: &mut Lab, servers: &[Server]) -> Result<()> {
    let caches: Vec<&Server> = servers
        .iter()
        .filter(|server| server.kind.way == Way::Cache)
        .collect();
    let name = format!("{} clients, h1", lab.scale.storm);
    let case = Case {
        scenario: Scenario::Collapse,
        name: &name,
        all_hits: false,
    };
    lab.origin.delay(DELAY)?;
    let outcome = lab.alternate(case, &caches, |_, _| Ok(()), |lab, server, _| storm(lab, server));
    lab.origin.delay(Duration::ZERO)?;
    outcome
}

fn storm(lab: &Lab, server: &Server) -> Result<Done> {
    let door = lab.door(server, Protocol::H1)?;
    let warm = Ask::plain(lab.ground.content.file("/f1k.bin")?);
    let ask = Ask::plain(lab.cold(BYTES));
    let outcome = block_on(async {
        let mut connections = Vec::new();
        for number in 0..lab.scale.storm {
            let mut connection = door.connect(number).await?;
            let answer = connection.send(lab.judge.request(&warm, &door)?).await?;
            lab.judge.judge(&warm, answer).await?;
            connections.push(connection);
        }
        let began = clock::now();
        let tasks: Vec<_> = connections
            .into_iter()
            .map(|connection| start(one(connection, door.clone(), Arc::clone(&lab.judge), ask.clone())))
            .collect();
        let mut latencies = histogram();
        for task in tasks {
            let done = task.await.map_err(|error| error.to_string())??;
            record(&mut latencies, done - began);
        }
        Ok(Done {
            answered: latencies.len(),
            seconds: began.elapsed().as_secs_f64(),
            wire_bytes: latencies.len() * BYTES as u64,
            latencies: Some(latencies),
            lag: None,
            unchanged: 0,
            resumed: None,
        })
    })?;
    outcome.map_err(|why| server.load(why))
}

async fn one(
    mut connection: Connection,
    door: Door,
    judge: Arc<Judge>,
    ask: Ask,
) -> Outcome<std::time::Instant> {
    let request = judge.request(&ask, &door)?;
    let answer = connection.send(request).await?;
    judge.judge(&ask, answer).await?;
    Ok(clock::now())
}
