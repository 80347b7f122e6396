//! The workload that this is all for: login widgets and tenants' configurations, by clients as they are.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use edge::representation::coding::Coding;

use super::Scenario;
use super::coding::settle;
use super::lab::{Case, Lab, block_on};
use crate::content::Object;
use crate::error::{Error, Result};
use crate::load::{Ask, BROWSER, Closed, Judge, Mix, Protocol, Workload, Zipf};
use crate::peer::Server;

/// The first of the tenants that are asked for once.
const UNKNOWN: u64 = 1_000_000_000;

/// So many of them are there for each run.
const UNKNOWN_EACH: u64 = 10_000_000;

/// The share of misses may differ from two in a hundred by so many in a hundred.
const OFF_MAX: f64 = 1.0;

/// Every tenant once.
struct Walk(std::ops::Range<u64>);

impl Mix for Walk {
    fn next(&mut self) -> Ask {
        Ask {
            accepts: Some(BROWSER),
            ..Ask::plain(Object::Tenant(self.0.next().unwrap_or_default()))
        }
    }
}

/// As fast as it comes, over HTTP/2 with 100 connections, or as many as the scale says.
pub(super) fn run(lab: &mut Lab, servers: &[Server]) -> Result<()> {
    let scripts: Vec<Object> = lab
        .widgets
        .iter()
        .map(|widget| lab.ground.content.file(&widget.file.path))
        .collect::<Result<_>>()?;
    let [small, large] = scripts.as_slice() else {
        return Err(Error::Said("the workload needs two widgets".to_owned()));
    };
    let scripts = [*small, *large];
    let zipf = Arc::new(Zipf::new(lab.scale.tenants));
    let name = format!("{} tenants, h2 {} x 1", lab.scale.tenants, lab.scale.connections);
    let case = Case {
        scenario: Scenario::Real,
        name: &name,
        all_hits: false,
    };
    // Each server has entity tags of its own, so each has a judge.
    let ready: RefCell<HashMap<&str, Arc<Judge>>> = RefCell::default();
    let servers: Vec<&Server> = servers.iter().collect();
    let prepare = |lab: &Lab, server: &Server| {
        let judge = Arc::new(Judge::new(Arc::clone(&lab.ground.content)));
        fill(lab, server, &judge, &scripts)?;
        ready.borrow_mut().insert(server.kind.name, judge);
        Ok(())
    };
    // A run that was disturbed is done again: what it asked for is known by then.
    let runs = Cell::new(0);
    lab.alternate(case, &servers, prepare, |lab, server, _| {
        let judge = ready.borrow().get(server.kind.name).cloned();
        let judge = judge.ok_or_else(|| server.load("it was not prepared".to_owned()))?;
        let unknown = UNKNOWN + runs.replace(runs.get() + 1) * UNKNOWN_EACH;
        let mix = Workload::new(scripts, Arc::clone(&zipf), unknown, Arc::clone(&judge));
        let closed = closed(lab, server, judge, u64::MAX)?;
        let asked = lab.origin.asked()?;
        let done = block_on(closed.run(mix))?.map_err(|why| server.load(why))?;
        let missed = 100.0 * (lab.origin.asked()? - asked) as f64 / done.answered.max(1) as f64;
        // A short run is a matter of chance.
        if done.answered > 5000 && (missed - 2.0).abs() > OFF_MAX {
            return Err(server.load(format!(
                "{missed:.1} of 100 answers were misses, and 2 were to be"
            )));
        }
        if done.unchanged == 0 && done.answered > 1000 {
            return Err(server.load("it never says that nothing has changed".to_owned()));
        }
        Ok(done)
    })
}

/// Asks for everything that is to be known once.
fn fill(lab: &Lab, server: &Server, judge: &Arc<Judge>, scripts: &[Object]) -> Result<()> {
    for object in scripts {
        let ask = Ask {
            accepts: Some(BROWSER),
            ..Ask::plain(*object)
        };
        // The others have the best form from the beginning.
        settle(lab, server, &ask, Some(Coding::Br))?;
    }
    let mut closed = closed(lab, server, Arc::clone(judge), lab.scale.tenants)?;
    closed.duration = Duration::from_secs(1800);
    block_on(closed.run(Walk(0..lab.scale.tenants)))?
        .map(drop)
        .map_err(|why| server.load(why))
}

fn closed(lab: &Lab, server: &Server, judge: Arc<Judge>, requests: u64) -> Result<Closed> {
    Ok(Closed {
        door: lab.door(server, Protocol::H2)?,
        judge,
        connections: lab.scale.connections,
        streams: 1,
        duration: Duration::from_secs_f64(lab.scale.seconds.max(1.0)),
        requests,
    })
}
