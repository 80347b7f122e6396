//! What the scenarios work with: content, origin, servers, and the rounds in which they are asked in turn.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Scenario;
use crate::clock;
use crate::content::{Content, Object, Widget};
use crate::error::{Error, Result};
use crate::load::{Ask, Done, Door, Groups, Judge, OPENSSL, Outcome, Protocol, Seen};
use crate::origin::Origin;
use crate::peer::{Certificate, Ground, Peer, Server};
use crate::process::{Disturbance, Quiet};
use crate::report::{Figures, Measure, Sample};

/// How much is done.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    /// Rounds that count; each asks every server once.
    pub(crate) rounds: usize,
    /// Seconds of each run.
    pub(crate) seconds: f64,
    /// How long to wait for a quiet machine before each run, and how often to do a disturbed run again.
    pub(crate) patience: Duration,
    pub(crate) again_max: usize,
    /// Connections that stay idle.
    pub(crate) idle: usize,
    /// Connections of the clients of `latency` and `real`.
    pub(crate) connections: usize,
    /// Requests in each second, where the rate is fixed.
    pub(crate) rate: f64,
    /// Tenants that are known.
    pub(crate) tenants: u64,
    /// Clients that ask for one cold object at once.
    pub(crate) storm: usize,
    /// Cold objects that are asked for in each round.
    pub(crate) misses: u64,
    /// How long servers may take to make their best coded forms; none are made, nor waited for, where it is none.
    pub(crate) settle: Option<Duration>,
    /// Whether each scenario gets servers that were just started.
    pub(crate) fresh: bool,
}

impl Scale {
    /// Figures that mean something, on a quiet machine.
    pub(crate) fn full() -> Self {
        Self {
            rounds: 5,
            seconds: 5.0,
            patience: Duration::from_secs(60),
            again_max: 3,
            idle: 10_000,
            connections: 100,
            rate: 20_000.0,
            tenants: 1_000_000,
            storm: 1000,
            misses: 1000,
            settle: Some(Duration::from_secs(600)),
            fresh: true,
        }
    }

    /// A smoke test: everything runs and everything is compared, and no figure means anything.
    pub(crate) fn quick() -> Self {
        Self {
            rounds: 1,
            seconds: 0.3,
            patience: Duration::ZERO,
            again_max: 0,
            idle: 50,
            connections: 20,
            rate: 500.0,
            tenants: 300,
            storm: 50,
            misses: 20,
            settle: None,
            fresh: false,
        }
    }
}

/// What is to be measured, where.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) peers: Vec<Peer>,
    pub(crate) scale: Scale,
    pub(crate) scenarios: Vec<Scenario>,
    /// A folder that is this run's alone.
    pub(crate) folder: PathBuf,
    /// Where widgets are kept for the next time.
    pub(crate) kept: PathBuf,
    /// The cores of servers and of load.
    pub(crate) cores: Option<(usize, usize)>,
}

/// Everything that a scenario needs.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) ground: Ground,
    pub(crate) origin: Origin,
    pub(crate) judge: Arc<Judge>,
    pub(crate) scale: Scale,
    pub(crate) widgets: Vec<Widget>,
    pub(crate) figures: Figures,
    /// Settings of OpenSSL for load generators that know no others.
    pub(crate) openssl: PathBuf,
    peers: Vec<Peer>,
    cold: Cell<u64>,
}

/// The figures of one case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case<'a> {
    pub(crate) scenario: Scenario,
    pub(crate) name: &'a str,
    /// Whether nothing may reach the origin meanwhile.
    pub(crate) all_hits: bool,
}

impl Lab {
    /// Lays the content, starts the origin.
    pub(crate) fn open(plan: Plan) -> Result<Self> {
        let mut content = Content::lay(plan.folder.join("content"))?;
        let mut widgets = Vec::new();
        if plan.scenarios.iter().any(|scenario| scenario.needs_widgets()) {
            let best = plan.scale.settle.is_some();
            widgets = Widget::fetch_all(&plan.kept.join("widgets"), best)?;
            content.add_widgets(&widgets)?;
        }
        if plan.scenarios.contains(&Scenario::Real) {
            content.add_tenants(plan.scale.tenants)?;
        }
        let content = Arc::new(content);
        let certificate = Certificate::make(&plan.folder)?;
        let openssl = plan.folder.join("openssl.cnf");
        std::fs::write(&openssl, OPENSSL).map_err(|error| Error::file("write", &openssl, error))?;
        let log = plan.folder.join("origin.log");
        let origin = Origin::start(&content.folder, log, plan.cores.map(|(_, load)| load))?;
        Ok(Self {
            judge: Arc::new(Judge::new(Arc::clone(&content))),
            ground: Ground {
                folder: plan.folder,
                content,
                origin: origin.address,
                certificate,
                core: plan.cores.map(|(server, _)| server),
                better_forms: plan.scale.settle.is_some(),
            },
            origin,
            scale: plan.scale,
            widgets,
            figures: Figures::default(),
            openssl,
            peers: plan.peers,
            cold: Cell::new(1),
        })
    }

    /// Starts all servers. One that does not start is a fault of the run, and the others are measured.
    pub(crate) fn start_servers(&mut self) -> Vec<Server> {
        let mut servers = Vec::new();
        for peer in &self.peers {
            match Server::start(peer, &self.ground) {
                Ok(server) => servers.push(server),
                Err(error) => self.figures.fault(error.to_string()),
            }
        }
        servers
    }

    /// Starts one server alone; the same as another that may run beside it.
    pub(crate) fn start_again(&self, server: &Server) -> Result<Server> {
        let peer = self.peers.iter().find(|peer| peer.name() == server.kind.name);
        let peer = peer.ok_or_else(|| Error::Said(format!("{} is no peer", server.kind.name)))?;
        Server::start(peer, &self.ground)
    }

    /// An object that nobody has asked for yet.
    pub(crate) fn cold(&self, bytes: usize) -> Object {
        self.cold.set(self.cold.get() + 1);
        Object::Cold {
            number: self.cold.get(),
            bytes,
        }
    }

    /// `count` such objects.
    pub(crate) fn colds(&self, count: u64, bytes: usize) -> Vec<Object> {
        (0..count).map(|_| self.cold(bytes)).collect()
    }

    /// A door to a server, with what all of them speak.
    pub(crate) fn door(&self, server: &Server, protocol: Protocol) -> Result<Door> {
        server.door(&self.ground, protocol, Groups::Classic, false)
    }

    /// Asks until the answer is a hit, and compares each; gives the last. A judge of its own knows no other server's tags.
    pub(crate) fn warm(&self, server: &Server, protocol: Protocol, ask: &Ask) -> Result<Seen> {
        let door = self.door(server, protocol)?;
        let asked = block_on(async {
            let mut connection = door.connect(0).await?;
            let began = clock::now();
            while began.elapsed() < HIT_MAX {
                let request = self.judge.request(ask, &door)?;
                let seen = self.judge.judge(ask, connection.send(request).await?).await?;
                if server.kind.mark.is_hit(&seen.headers) {
                    return Ok(seen);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(format!("it is no hit after {} s", HIT_MAX.as_secs()))
        })?;
        asked.map_err(|why| Error::Wrong {
            name: server.kind.name.to_owned(),
            path: self.ground.content.path(ask.object),
            why,
        })
    }

    /// Prepares each server, then asks all in turn, round by round. A server that fails in a case takes no further part
    /// in it.
    pub(crate) fn alternate(
        &mut self,
        case: Case<'_>,
        servers: &[&Server],
        mut prepare: impl FnMut(&Self, &Server) -> Result<()>,
        mut run: impl FnMut(&Self, &Server, usize) -> Result<Done>,
    ) -> Result<()> {
        let mut able: Vec<&Server> = Vec::new();
        for server in servers {
            match prepare(self, server) {
                Ok(()) => able.push(server),
                Err(error) => self.fail(case, &error),
            }
        }
        // The first round of a full run fills caches and opens files, and is not counted.
        let first = usize::from(self.scale.rounds == 1);
        for round in first..=self.scale.rounds {
            let mut failed: Vec<&str> = Vec::new();
            for server in &able {
                match self.measured(case, server, round, &mut run) {
                    Ok(sample) if round > 0 => {
                        self.figures
                            .add(case.scenario, case.name, server.kind.name, sample);
                    }
                    Ok(_) => {}
                    Err(error) => {
                        failed.push(server.kind.name);
                        self.fail(case, &error);
                    }
                }
            }
            able.retain(|server| !failed.contains(&server.kind.name));
        }
        Ok(())
    }

    fn fail(&mut self, case: Case<'_>, error: &Error) {
        self.figures
            .fault(format!("{} {}: {error}", case.scenario.token(), case.name));
    }

    /// One run on one server, done again while others disturb it.
    fn measured(
        &self,
        case: Case<'_>,
        server: &Server,
        round: usize,
        run: &mut impl FnMut(&Self, &Server, usize) -> Result<Done>,
    ) -> Result<Sample> {
        let mut tries = 0;
        loop {
            if !self.scale.patience.is_zero() {
                Quiet::wait(self.scale.patience);
            }
            let sample = self.once(case, server, || run(self, server, round))?;
            if sample.disturbance.is_small() || tries >= self.scale.again_max {
                return Ok(sample);
            }
            tries += 1;
        }
    }

    fn once(&self, case: Case<'_>, server: &Server, run: impl FnOnce() -> Result<Done>) -> Result<Sample> {
        let (asked, quiet, before) = (self.origin.asked()?, Quiet::look(), server.spent());
        let done = run()?;
        let nanos = server.spent().since(&before);
        let disturbance = quiet.disturbance();
        let asked = self.origin.asked()? - asked;
        if case.all_hits && asked > 0 {
            return Err(server.load(format!(
                "{asked} of its answers were no hits: it asked the origin"
            )));
        }
        if done.answered == 0 {
            return Err(server.load("no request was answered within the run".to_owned()));
        }
        let mut sample = Sample::of(&done, disturbance);
        sample.set(Measure::CpuMicros, nanos as f64 / 1000.0 / done.answered as f64);
        if asked > 0 {
            sample.set(Measure::OriginShare, 100.0 * asked as f64 / done.answered as f64);
        }
        let memory = server.memory();
        sample.set(Measure::ResidentMib, memory.resident as f64 / 1024.0);
        sample.set(Measure::ProportionalMib, memory.proportional as f64 / 1024.0);
        Ok(sample)
    }

    /// A sample of something that is no server.
    pub(crate) fn sample_of(done: &Done) -> Sample {
        Sample::of(done, Disturbance::default())
    }
}

/// How long it may take until an answer is a hit.
const HIT_MAX: Duration = Duration::from_secs(60);

/// Runs something of the load to its end, on a runtime of its own on this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = Outcome<T>>) -> Result<Outcome<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("start a runtime", error))?;
    Ok(runtime.block_on(work))
}
