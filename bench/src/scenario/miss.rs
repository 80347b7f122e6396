//! What a miss costs beside a bare GET by the SDK: objects that nobody asked for before, from a bucket that takes its time.

use std::sync::Arc;
use std::time::Duration;

use super::lab::{Case, Lab, block_on};
use super::{Scenario, sdk};
use crate::content::Object;
use crate::error::Result;
use crate::load::{Ask, Closed, Mix, Protocol};
use crate::peer::{Server, Way};
use crate::report::Measure;

const BYTES: usize = 10 * 1024;
const DELAY: Duration = Duration::from_millis(30);
/// Requests at once.
const AT_ONCE: usize = 8;

/// Each object once.
struct Each(std::vec::IntoIter<Object>);

impl Mix for Each {
    fn next(&mut self) -> Ask {
        // The run ends with the last object; more are not asked for.
        Ask::plain(self.0.next().unwrap_or(Object::Cold {
            number: 0,
            bytes: BYTES,
        }))
    }
}

/// Every cache, and the SDK alone.
pub(super) fn run(lab: &mut Lab, servers: &[Server]) -> Result<()> {
    let caches: Vec<&Server> = servers
        .iter()
        .filter(|server| server.kind.way == Way::Cache)
        .collect();
    let name = "10 KiB, 8 at once";
    let case = Case {
        scenario: Scenario::Miss,
        name,
        all_hits: false,
    };
    lab.origin.delay(DELAY)?;
    let outcome = misses(lab, case, &caches);
    lab.origin.delay(Duration::ZERO)?;
    outcome
}

fn misses(lab: &mut Lab, case: Case<'_>, caches: &[&Server]) -> Result<()> {
    let count = lab.scale.misses;
    lab.alternate(
        case,
        caches,
        |_, _| Ok(()),
        |lab, server, _| {
            let closed = Closed {
                door: lab.door(server, Protocol::H1)?,
                judge: Arc::clone(&lab.judge),
                connections: AT_ONCE,
                streams: 1,
                duration: Duration::from_secs(120),
                requests: count,
            };
            let asked = lab.origin.asked()?;
            let outcome = block_on(closed.run(Each(lab.colds(count, BYTES).into_iter())))?;
            let done = outcome.map_err(|why| server.load(why))?;
            let asked = lab.origin.asked()? - asked;
            if asked < done.answered {
                return Err(server.load(format!(
                    "{} answers were to be misses, and the origin was asked {asked} times",
                    done.answered
                )));
            }
            Ok(done)
        },
    )?;
    for round in 0..=lab.scale.rounds {
        let colds = lab.colds(count, BYTES);
        let (done, nanos) = sdk::run(lab, &colds, AT_ONCE)?;
        if round > 0 {
            let mut sample = Lab::sample_of(&done);
            sample.set(
                Measure::CpuMicros,
                nanos as f64 / 1000.0 / done.answered.max(1) as f64,
            );
            lab.figures.add(case.scenario, case.name, "SDK alone", sample);
        }
    }
    Ok(())
}
