//! A rule with its path prepared for matching and its fields prepared for sending.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderName, HeaderValue, header};

use crate::config::{self, Lifetimes, Query};
use crate::site::preset;

type Field = (HeaderName, HeaderValue);

/// What applies to the responses of some paths.
#[derive(Clone, Debug)]
pub struct Rule {
    path: Path,
    /// How long they stay fresh, and may be served stale.
    pub lifetimes: Lifetimes,
    /// How the query takes part in the key.
    pub query: Query,
    /// Whether bodies are coded here.
    pub coding: bool,
    /// Fields of the origin that go no further.
    pub remove: Vec<HeaderName>,
    fields: Set,
    fields_secure: Set,
}

/// Fields that are set on responses, and a number that no others have in this process: what was put together with them is
/// known by it.
#[derive(Clone, Debug)]
struct Set {
    number: u64,
    fields: Vec<Field>,
}

impl Set {
    fn new(fields: Vec<Field>) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self {
            number: LAST.fetch_add(1, Ordering::Relaxed),
            fields,
        }
    }
}

impl Rule {
    pub(super) fn new(site: &config::Site, rule: &config::Rule) -> Self {
        let path = match rule.path.strip_suffix('*') {
            Some(prefix) => Path::Prefix(prefix.into()),
            None => Path::Exact(rule.path.as_str().into()),
        };
        let (fields, fields_secure) = fields(site, &rule.fields);
        Self {
            path,
            lifetimes: rule.lifetimes.clone(),
            query: rule.query.clone(),
            coding: rule.coding,
            remove: rule.remove.clone(),
            fields,
            fields_secure,
        }
    }

    pub(super) fn for_site(site: &config::Site) -> Self {
        let (fields, fields_secure) = fields(site, &[]);
        Self {
            path: Path::Prefix("".into()),
            lifetimes: site.lifetimes.clone(),
            query: site.query.clone(),
            coding: true,
            remove: Vec::new(),
            fields,
            fields_secure,
        }
    }

    /// The fields to set on each response, in place of any of the same name; `secure` when the client came by https.
    pub fn fields(&self, secure: bool) -> &[(HeaderName, HeaderValue)] {
        &self.set(secure).fields
    }

    /// The number of these fields.
    pub fn number(&self, secure: bool) -> u64 {
        self.set(secure).number
    }

    fn set(&self, secure: bool) -> &Set {
        if secure { &self.fields_secure } else { &self.fields }
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        match &self.path {
            Path::Exact(exact) => path == &**exact,
            Path::Prefix(prefix) => path.starts_with(&**prefix),
        }
    }
}

/// The fields that a rule sets: in the clear, and over TLS.
fn fields(site: &config::Site, own: &[Field]) -> (Set, Set) {
    let mut fields = preset::fields(site.preset);
    fields.retain(|(name, _)| own.iter().all(|(set, _)| set != name));
    fields.extend_from_slice(own);
    let mut fields_secure = fields.clone();
    // RFC 6797 section 7.2: the field means nothing without TLS, so it is not sent there.
    let said = own
        .iter()
        .any(|(name, _)| name == header::STRICT_TRANSPORT_SECURITY);
    if let Some(age) = site.hsts.filter(|_| !said)
        && let Ok(value) = HeaderValue::from_str(&format!("max-age={}", age.as_secs()))
    {
        fields_secure.push((header::STRICT_TRANSPORT_SECURITY, value));
    }
    let is_same = fields == fields_secure;
    let (plain, secure) = (Set::new(fields), Set::new(fields_secure));
    if is_same {
        (plain.clone(), plain)
    } else {
        (plain, secure)
    }
}

#[derive(Clone, Debug)]
enum Path {
    Exact(Box<str>),
    Prefix(Box<str>),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::site::tests::settings;

    fn text(fields: &[Field]) -> Vec<String> {
        let line = |(name, value): &Field| format!("{name}: {}", value.to_str().unwrap());
        fields.iter().map(line).collect()
    }

    #[test]
    fn a_rule_field_replaces_the_field_of_the_preset() {
        let mut site = settings(&["a.example"]);
        site.preset = config::Preset::Embed;
        let rule = config::Rule {
            path: "/*".into(),
            lifetimes: site.lifetimes.clone(),
            fields: vec![(
                HeaderName::from_static("cross-origin-resource-policy"),
                HeaderValue::from_static("same-site"),
            )],
            remove: Vec::new(),
            query: Query::Ignore,
            coding: true,
        };
        let rule = Rule::new(&site, &rule);
        assert_eq!(
            text(rule.fields(false)),
            [
                "access-control-allow-origin: *",
                "timing-allow-origin: *",
                "x-content-type-options: nosniff",
                "cross-origin-resource-policy: same-site",
            ]
        );
    }

    #[test]
    fn strict_transport_security_is_sent_over_tls_only() {
        let mut site = settings(&["a.example"]);
        site.hsts = Some(Duration::from_secs(3600));
        let rule = Rule::for_site(&site);
        assert_eq!(text(rule.fields(false)), [""; 0]);
        assert_eq!(
            text(rule.fields(true)),
            ["strict-transport-security: max-age=3600"]
        );
    }
}
