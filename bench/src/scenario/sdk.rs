//! A bare GET by the SDK, as it comes: what everything that fetches from S3 pays at least. It runs as a process of its own
//! on the servers' core.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Region};
use serde::{Deserialize, Serialize};

use super::lab::{Lab, block_on};
use crate::clock;
use crate::content::Object;
use crate::error::{Error, Result};
use crate::load::{Done, Outcome, histogram, start};
use crate::process::{Spawn, cpu_nanos};

/// What the process is told, by its arguments.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    endpoint: String,
    first: u64,
    count: u64,
    bytes: usize,
    at_once: usize,
}

/// What it says at its end.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    seconds: f64,
    cpu_nanos: u64,
    latencies_micros: Vec<u64>,
}

/// Gets these objects; says how it went, and the processor time that it took.
pub(super) fn run(lab: &Lab, objects: &[Object], at_once: usize) -> Result<(Done, u64)> {
    let Some(Object::Cold { number, bytes }) = objects.first().copied() else {
        return Err(Error::Said("there is nothing to get".to_owned()));
    };
    let own = std::env::current_exe().map_err(|error| Error::io("find this program", error))?;
    let mut words = vec![own.display().to_string(), "sdk".to_owned()];
    words.push(format!("http://{}", lab.origin.address));
    words.extend([number, objects.len() as u64, bytes as u64, at_once as u64].map(|word| word.to_string()));
    let log: PathBuf = lab.ground.folder.join("sdk.log");
    let spawn = Spawn {
        name: "the SDK",
        words: &words,
        core: lab.ground.core,
        environment: &[],
        log,
        piped: true,
    };
    let mut child = spawn.start()?;
    let output = child.output();
    let said: Option<Said> = output.and_then(|output| serde_json::from_reader(output).ok());
    let Some(said) = said else {
        return Err(Error::Load {
            name: "the SDK".to_owned(),
            why: child.last_words(),
        });
    };
    let mut latencies = histogram();
    for micros in &said.latencies_micros {
        latencies.saturating_record(*micros);
    }
    let done = Done {
        answered: said.latencies_micros.len() as u64,
        seconds: said.seconds,
        latencies: Some(latencies),
        lag: None,
        unchanged: 0,
        resumed: None,
        wire_bytes: 0,
    };
    Ok((done, said.cpu_nanos))
}

/// The process itself.
pub(crate) fn serve(arguments: &Arguments) -> Result<()> {
    let said = block_on(get_all(arguments))?.map_err(Error::Said)?;
    let text = serde_json::to_string(&said).map_err(|error| Error::Said(error.to_string()))?;
    writeln!(std::io::stdout(), "{text}").map_err(|error| Error::io("print", error))
}

async fn get_all(arguments: &Arguments) -> Outcome<Said> {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(&arguments.endpoint)
        .force_path_style(true)
        .allow_no_auth()
        .build();
    let client = Client::from_conf(config);
    // The first ones open connections and are not counted.
    let warm = arguments.at_once as u64;
    get(&client, arguments, (u64::MAX / 2, warm)).await?;
    let (began, before) = (clock::now(), cpu_nanos(std::process::id()));
    let latencies_micros = get(&client, arguments, (arguments.first, arguments.count)).await?;
    Ok(Said {
        seconds: began.elapsed().as_secs_f64(),
        cpu_nanos: cpu_nanos(std::process::id()).saturating_sub(before),
        latencies_micros,
    })
}

async fn get(client: &Client, arguments: &Arguments, (first, count): (u64, u64)) -> Outcome<Vec<u64>> {
    let next = Arc::new(AtomicUsize::new(0));
    let bytes = arguments.bytes;
    let tasks: Vec<_> = (0..arguments.at_once)
        .map(|_| {
            let (client, next) = (client.clone(), Arc::clone(&next));
            start(async move {
                let mut micros = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed) as u64;
                    if number >= count {
                        return Ok(micros);
                    }
                    let key = format!("cold/{bytes}/{}.bin", first + number);
                    let began = clock::now();
                    let answer = client.get_object().bucket("bench").key(key).send().await;
                    let answer = answer.map_err(|error| format!("{error:?}"))?;
                    let body = answer.body.collect().await.map_err(|error| error.to_string())?;
                    let taken = began.elapsed();
                    if body.into_bytes().len() != bytes {
                        return Err("an object came short".to_owned());
                    }
                    micros.push(u64::try_from(taken.as_micros()).unwrap_or(u64::MAX));
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.map_err(|error| error.to_string())??);
    }
    Ok(all)
}
