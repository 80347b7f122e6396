//! Amazon Route 53: a change is made in one request and is on all its servers when it says so.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_route53::Client;
use aws_sdk_route53::config::{Credentials as Keys, Region};
use aws_sdk_route53::types::{
    Change, ChangeAction, ChangeBatch, ChangeStatus, ResourceRecord, ResourceRecordSet, RrType,
};

use super::{Error, Provider};
use crate::settings::{Credentials, Route53Settings};
use crate::store::Boxed;

const TTL_SECONDS: i64 = 60;
/// How often, and how many times, a change is asked about: it takes a minute at most.
const POLL: Duration = Duration::from_secs(3);
const POLLS_MAX: u32 = 60;

/// Hosted zones of one account.
#[derive(Debug)]
pub struct Route53 {
    client: Client,
    zone_id: Option<String>,
    /// Changes that were made and may not be everywhere yet.
    changes: Mutex<Vec<String>>,
}

impl Route53 {
    /// The zones of `settings`. Credentials are looked for; nothing is sent yet.
    pub async fn open(settings: &Route53Settings) -> Self {
        // Route 53 is one service for the world; requests are signed for this region.
        let mut loader =
            aws_config::defaults(BehaviorVersion::latest()).region(Region::from_static("us-east-1"));
        if let Credentials::Static { id, secret } = &settings.credentials {
            loader = loader.credentials_provider(Keys::new(id, &secret.0, None, None, "configuration"));
        }
        let shared = loader.load().await;
        let mut builder = aws_sdk_route53::config::Builder::from(&shared);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        Self {
            client: Client::from_conf(builder.build()),
            zone_id: settings.zone_id.clone(),
            changes: Mutex::default(),
        }
    }

    async fn change(&self, action: ChangeAction, name: &str, values: &[String]) -> Result<(), Error> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| Error::Route53(error);
        let zone = self.zone(name).await?;
        let mut records = ResourceRecordSet::builder()
            .name(name)
            .r#type(RrType::Txt)
            .ttl(TTL_SECONDS);
        for value in values {
            let record = ResourceRecord::builder().value(format!("\"{value}\"")).build();
            records = records.resource_records(record.map_err(|error| failed(error.into()))?);
        }
        let change = Change::builder()
            .action(action)
            .resource_record_set(records.build().map_err(|error| failed(error.into()))?)
            .build()
            .map_err(|error| failed(error.into()))?;
        let batch = ChangeBatch::builder().changes(change).build();
        let made = self
            .client
            .change_resource_record_sets()
            .hosted_zone_id(zone)
            .change_batch(batch.map_err(|error| failed(error.into()))?)
            .send()
            .await
            .map_err(|error| failed(error.into()))?;
        if let Some(info) = made.change_info() {
            let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
            changes.push(info.id().trim_start_matches("/change/").to_owned());
        }
        Ok(())
    }

    /// The zone with the longest name that `name` ends with, unless the configuration says which.
    async fn zone(&self, name: &str) -> Result<String, Error> {
        if let Some(id) = &self.zone_id {
            return Ok(id.clone());
        }
        let mut rest = name.trim_end_matches('.');
        while let Some((_, parent)) = rest.split_once('.') {
            let found = self
                .client
                .list_hosted_zones_by_name()
                .dns_name(parent)
                .send()
                .await;
            let found = found.map_err(|error| Error::Route53(error.into()))?;
            let zone = found.hosted_zones().iter().find(|zone| {
                let private = zone.config().is_some_and(|config| config.private_zone());
                zone.name().trim_end_matches('.') == parent && !private
            });
            if let Some(zone) = zone {
                return Ok(zone.id().trim_start_matches("/hostedzone/").to_owned());
            }
            rest = parent;
        }
        Err(Error::Name(name.to_owned()))
    }
}

impl Provider for Route53 {
    fn present<'a>(&'a self, name: &'a str, values: &'a [String]) -> Boxed<'a, Result<(), Error>> {
        Box::pin(self.change(ChangeAction::Upsert, name, values))
    }

    fn settle(&self) -> Boxed<'_, Result<(), Error>> {
        Box::pin(async {
            let changes = std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner));
            for id in changes {
                let mut polls = 0;
                loop {
                    let asked = self.client.get_change().id(&id).send().await;
                    let asked = asked.map_err(|error| Error::Route53(error.into()))?;
                    if asked
                        .change_info()
                        .is_some_and(|info| *info.status() == ChangeStatus::Insync)
                    {
                        break;
                    }
                    polls += 1;
                    if polls == POLLS_MAX {
                        return Err(Error::Unsettled);
                    }
                    tokio::time::sleep(POLL).await;
                }
            }
            Ok(())
        })
    }

    fn clear<'a>(&'a self, name: &'a str, values: &'a [String]) -> Boxed<'a, Result<(), Error>> {
        Box::pin(self.change(ChangeAction::Delete, name, values))
    }
}
