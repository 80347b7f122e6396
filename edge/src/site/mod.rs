//! Host and path to the site and the rule that apply. Pure: built from the configuration once, asked on each request.
//!
//! It does not validate a host or a path (the door does), and does not decide what is fresh (policy does).

mod preset;
mod router;
mod rules;

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::cache::key::{self, Beginning, Key, PathError, Sought};
use crate::config;

pub use router::Router;
pub use rules::Rule;

/// The place of a site in the configuration; part of keys and of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteId(pub u16);

/// One site, ready to be asked.
#[derive(Clone, Debug)]
pub struct Site {
    id: SiteId,
    name: Arc<str>,
    keys: Beginning,
    settings: config::Site,
    rules: Vec<Rule>,
    /// What applies where no rule does.
    own: Rule,
}

impl Site {
    /// Prepares a site of the configuration.
    pub fn new(id: SiteId, settings: config::Site) -> Self {
        let rules = settings
            .rules
            .iter()
            .map(|rule| Rule::new(&settings, rule))
            .collect();
        let own = Rule::for_site(&settings);
        let name = Arc::from(settings.hosts.first().map_or("", String::as_str));
        Self {
            id,
            keys: Beginning::new(&settings.origin, &name),
            name,
            settings,
            rules,
            own,
        }
    }

    /// Its place in the configuration.
    pub fn id(&self) -> SiteId {
        self.id
    }

    /// Its own name, as keys and logs show it: the first of its hosts.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same, to be kept.
    pub fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// The key of a path and query as they stand in a URL, still percent-encoded. Requests and purges share it.
    ///
    /// # Errors
    ///
    /// When the path can be no key: see [`PathError`].
    pub fn key(&self, path: &str, query: Option<&str>) -> Result<Key, PathError> {
        Ok(self.seek(path, query)?.to_key())
    }

    /// The same, to be looked for only.
    ///
    /// # Errors
    ///
    /// As [`Site::key`].
    pub fn seek<'a>(&'a self, path: &'a str, query: Option<&'a str>) -> Result<Sought<'a>, PathError> {
        let path = self.path(path)?;
        let query = key::canonical_query(query, &self.rule(&path).query);
        Ok(self.keys.seek(path, query))
    }

    /// The canonical path behind `path` as it stands in a URL: with the site's index where it ends with a slash.
    ///
    /// # Errors
    ///
    /// As [`Site::key`].
    pub fn path<'a>(&self, path: &'a str) -> Result<Cow<'a, str>, PathError> {
        let mut path = key::canonical_path(path)?;
        if let Some(index) = self.settings.index.as_deref().filter(|_| path.ends_with('/')) {
            path.to_mut().push_str(index);
        }
        Ok(path)
    }

    /// What the configuration says of it.
    pub fn settings(&self) -> &config::Site {
        &self.settings
    }

    /// The first rule that matches `path`, else the site's own lifetimes.
    pub fn rule(&self, path: &str) -> &Rule {
        self.rules
            .iter()
            .find(|rule| rule.matches(path))
            .unwrap_or(&self.own)
    }

    /// Takes away what the origin sent and this site's preset speaks for instead, and what the rule for `path` keeps
    /// here. Done once, before a response is stored.
    pub fn strip(&self, path: &str, fields: &mut HeaderMap) {
        preset::strip(self.settings.preset, fields);
        for name in &self.rule(path).remove {
            fields.remove(name);
        }
    }

    /// The fields of the answer (204) to a CORS preflight; `None` when this request is none, or the site leaves CORS
    /// to its origin. `headers` are those of an OPTIONS request.
    pub fn preflight(&self, headers: &HeaderMap) -> Option<&'static [(HeaderName, HeaderValue)]> {
        preset::preflight(self.settings.preset, headers)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Lifetimes, Preset, Query};

    pub(crate) fn settings(hosts: &[&str]) -> config::Site {
        config::Site {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            origin: "assets".into(),
            relays: false,
            preset: Preset::Plain,
            terms: config::Terms::new(false),
            targeted: vec![HeaderName::from_static("cdn-cache-control")],
            query: Query::Ignore,
            lifetimes: Lifetimes {
                ttl: None,
                ttl_default: None,
                ttl_min: None,
                ttl_max: None,
                ttl_negative: Duration::from_secs(10),
                stale_while_revalidate: None,
                stale_if_error: None,
                heuristic: true,
            },
            rules: Vec::new(),
            hsts: None,
            index: None,
            x_cache: false,
            cache_status_key: false,
            purge_method: false,
            releases: None,
        }
    }

    #[test]
    fn the_first_rule_that_matches_wins_and_the_site_itself_is_the_last_resort() {
        let mut settings = settings(&["a.example"]);
        let rule = |path: &str, seconds| {
            let mut lifetimes = settings.lifetimes.clone();
            lifetimes.ttl = Some(Duration::from_secs(seconds));
            config::Rule {
                path: path.into(),
                lifetimes,
                fields: Vec::new(),
                remove: Vec::new(),
                query: Query::Ignore,
                coding: true,
            }
        };
        let rules = vec![
            rule("/client/exact.js", 1),
            rule("/client/*", 2),
            rule("/client/never", 3),
        ];
        settings.rules = rules;
        let site = Site::new(SiteId(0), settings);
        let check = |path: &str, expected: Option<u64>| {
            let ttl = site.rule(path).lifetimes.ttl.map(|ttl| ttl.as_secs());
            assert_eq!(ttl, expected, "{path}");
        };
        check("/client/exact.js", Some(1));
        check("/client/exact.jsx", Some(2));
        check("/client/", Some(2));
        check("/client/never", Some(2));
        check("/client", None);
        check("/", None);
    }
}
