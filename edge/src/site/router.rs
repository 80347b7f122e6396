//! Host to site: exactly, then by a wildcard for one label. No allocation on the way.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::Config;
use crate::site::{Site, SiteId};

/// All sites, by host.
#[derive(Clone, Debug, Default)]
pub struct Router {
    exact: HashMap<Box<str>, Arc<Site>>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Arc<Site>>,
    sites: Vec<Arc<Site>>,
}

impl Router {
    /// The sites of a configuration.
    pub fn new(config: &Config) -> Self {
        let mut router = Self::default();
        for (settings, id) in config.sites.iter().zip(0_u16..) {
            let site = Arc::new(Site::new(SiteId(id), settings.clone()));
            for host in &settings.hosts {
                let (table, name) = match host.strip_prefix("*.") {
                    Some(parent) => (&mut router.wildcard, parent),
                    None => (&mut router.exact, host.as_str()),
                };
                table.insert(name.into(), Arc::clone(&site));
            }
            router.sites.push(site);
        }
        router
    }

    /// The site for `host`: lowercase, without a port.
    pub fn route(&self, host: &str) -> Option<&Arc<Site>> {
        self.exact.get(host).or_else(|| {
            let (_, parent) = host.split_once('.').filter(|(label, _)| !label.is_empty())?;
            self.wildcard.get(parent)
        })
    }

    /// The site at this place.
    pub fn site(&self, id: SiteId) -> Option<&Arc<Site>> {
        self.sites.get(usize::from(id.0))
    }

    /// All sites, in the order of the configuration.
    pub fn sites(&self) -> &[Arc<Site>] {
        &self.sites
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::tests::settings;

    #[test]
    fn exact_names_come_before_wildcards_of_one_label() {
        let mut router = Router::default();
        let sites = [
            vec!["cdn.example.com", "localhost"],
            vec!["*.example.com"],
            vec!["www.cdn.example.com"],
        ];
        let config = sites.map(|hosts| settings(&hosts)).to_vec();
        router.clone_from(&Router::new(&Config {
            sites: config,
            ..crate::config::tests::minimal()
        }));
        let check = |host: &str, expected: Option<u16>| {
            assert_eq!(router.route(host).map(|site| site.id().0), expected, "{host}");
        };
        check("cdn.example.com", Some(0));
        check("localhost", Some(0));
        check("other.example.com", Some(1));
        check("www.cdn.example.com", Some(2));
        check("x.cdn.example.com", None);
        check("example.com", None);
        check(".example.com", None);
        check("", None);
    }
}
