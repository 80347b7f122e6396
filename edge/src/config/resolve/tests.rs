//! What each key means, and what is said about each mistake.

use std::path::Path;

use super::*;
use crate::config::tests::{MINIMAL, minimal};
use crate::config::{Credentials, Errors, KEYS, OriginKind, OriginTimeouts, Query, parse};

fn read(text: &str) -> Result<Config, Errors> {
    parse(text, "edge.toml", Path::new("/etc/portico"))
}

/// The mistakes of `MINIMAL` with `text` put in front (root keys and tables) or behind (tables), as "line key: message".
fn mistakes(text: &str) -> Vec<String> {
    let show =
        |error: &crate::config::ConfigError| format!("{} {}: {}", error.line, error.key, error.message);
    match read(text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.0.iter().map(show).collect(),
    }
}

/// `MINIMAL` is twelve lines (the first is empty), so the first line of `more` is line 13.
#[track_caller]
fn check_more(more: &str, expected: &[&str]) {
    check(&format!("{MINIMAL}{more}"), expected);
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let found = mistakes(text);
    let fits = found.len() == expected.len()
        && found
            .iter()
            .zip(expected)
            .all(|(found, expected)| found.starts_with(expected));
    assert!(fits, "{text}\nfound {found:#?}\nexpected {expected:#?}");
}

#[test]
fn the_least_that_is_accepted_gets_every_default() {
    let config = minimal();
    assert_eq!(config.name, "portico");
    assert!(config.workers >= 1);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.drain, Drain::default());
    assert_eq!(config.cache.memory_bytes, 512 * MIB);
    assert_eq!(config.cache.object_bytes_max, 64 * MIB);
    let site = config.sites.first().unwrap();
    assert_eq!(site.lifetimes.stale_if_error, Some(24 * HOUR));
    assert_eq!(site.lifetimes.stale_while_revalidate, Some(HOUR));
    assert_eq!(site.lifetimes.ttl_negative, 10 * SECOND);
    assert_eq!(site.query, Query::Ignore);
    assert_eq!(config.log.access, None);
}

#[test]
fn the_example_is_accepted_as_it_stands() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("edge.example.toml");
    let checked = crate::config::check(&path, std::time::UNIX_EPOCH).unwrap();
    assert_eq!(checked.config.sites.len(), 1);
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    let text = include_str!("../../../edge.example.toml");
    for key in KEYS.iter().filter(|key| key.supported) {
        let name = key.path.rsplit(['.', '[', ']']).next().unwrap();
        assert!(text.contains(name), "{} is not in the example", key.path);
    }
}

#[test]
fn every_documented_default_is_what_holds_when_the_key_is_not_set() {
    const SET_IN_MINIMAL: [&str; 2] = ["listen.plain", "origin.*.credentials"];
    let mut compared = 0;
    // Tables that stand for themselves, in the place of others.
    const ALTERNATIVES: [&str; 2] = ["tls.store.bucket.", "tls.acme[].dns."];
    let is_alternative = |path: &str| ALTERNATIVES.iter().any(|begin| path.starts_with(begin));
    for key in KEYS
        .iter()
        .filter(|key| !SET_IN_MINIMAL.contains(&key.path) && !is_alternative(key.path))
    {
        let Ok(default) = format!("x = {}", key.default).parse::<toml::Table>() else {
            continue;
        };
        let value = default.get("x").unwrap().clone();
        // The tables in between, with what they cannot be without.
        let tables = "[log.access]\n[[tls.certificate]]\nchain = \"a\"\nkey = \"b\"\n[[site.rule]]\npath = \"/a\"\n\
             [tls.store]\nfolder = \"c\"\nkey_env = \"D\"\nstate = \"e\"\n\
             [[tls.acme]]\nnames = [\"a.example\"]\naccept_terms = true\n";
        let base = format!("{MINIMAL}{tables}");
        let mut with: toml::Table = base.parse().unwrap();
        if set(&mut with, key.path, value) {
            let with = read(&with.to_string()).unwrap_or_else(|errors| panic!("{}: {errors}", key.path));
            assert_eq!(with, read(&base).unwrap(), "{}", key.path);
            compared += 1;
        }
    }
    assert!(compared > 40, "only {compared} were compared");
}

#[test]
fn every_documented_key_is_read() {
    // A date is no value of any key, so each key that is read complains of it.
    let date: toml::Table = "x = 1979-05-27".parse().unwrap();
    for key in KEYS {
        let mut text: toml::Table = format!("{MINIMAL}[log.access]\n").parse().unwrap();
        assert!(
            set(&mut text, key.path, date.get("x").unwrap().clone()),
            "{}",
            key.path
        );
        let found = mistakes(&text.to_string());
        let name = key.path.replace("[]", "[0]").replace('*', "assets");
        let told =
            |mistake: &String| mistake.contains(&format!(" {name}: ")) && !mistake.contains("unknown key");
        assert!(found.iter().any(told), "{}: {found:#?}", key.path);
    }
}

/// Sets the value at a documented path, making the tables on the way. False where `credentials` is no table.
fn set(table: &mut toml::Table, path: &str, value: toml::Value) -> bool {
    let Some((first, rest)) = path.split_once('.') else {
        table.insert(path.into(), value);
        return true;
    };
    let name = if first == "*" { "assets" } else { first };
    let empty = |name: &str| match name.strip_suffix("[]") {
        Some(_) => toml::Value::Array(vec![toml::Value::Table(toml::Table::new())]),
        None => toml::Value::Table(toml::Table::new()),
    };
    let below = table
        .entry(name.trim_end_matches("[]"))
        .or_insert_with(|| empty(name));
    if below.is_str() {
        *below = empty(name);
    }
    let below = match below {
        toml::Value::Array(items) => items.first_mut().unwrap(),
        other => other,
    };
    set(below.as_table_mut().unwrap(), rest, value)
}

#[test]
fn every_mistake_of_a_file_is_told_at_once_with_its_line_and_key() {
    let text = r#"
nmae = "edge"
workers = 0
[listen]
plain = ["localhost:80", "127.0.0.1:8081"]
[origin.assets]
kind = "ftp"
buckets = []
[[site]]
hosts = ["a.example"]
origin = "asset"
[[site.rule]]
path = "/a/*"
[[site.rule]]
path = "b"
ttl = 60
"#;
    check(
        text,
        &[
            "2 nmae: unknown key; did you mean `name`?",
            "3 workers: must be at least 1",
            "5 listen.plain[0]: expected an IP address with a port",
            "7 origin.assets.kind: expected \"s3\" or \"http\", not \"ftp\"",
            "8 origin.assets.buckets: needs at least one bucket",
            "11 site[0].origin: there is no [origin.asset]; there is assets",
            "15 site[0].rule[1].path: must begin with a slash: \"/b\"",
            "16 site[0].rule[1].ttl: a duration needs a unit: \"60s\"",
        ],
    );
}

#[test]
fn a_mistake_is_shown_with_file_line_and_column() {
    let errors = read(&format!("{MINIMAL}[cache]\n  memory = \"1 potato\"\n")).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "edge.toml:14:12: cache.memory: expected a size such as \"64KiB\", \"512MiB\", \"20GiB\" or \"1MB\", not \"1 potato\""
    );
}

#[test]
fn broken_toml_is_told_by_line_and_nothing_else_is() {
    let found = mistakes("name = \nworkers = 0\n");
    assert!(found.len() == 1 && found[0].starts_with("1 : "), "{found:#?}");
    let found = mistakes("workers = 1\nworkers = 2\n");
    assert!(found[0].starts_with("2 : duplicate key"), "{found:#?}");
}

#[test]
fn an_empty_file_says_what_is_missing() {
    check("", &["1 listen: opens no port", "1 site: there is none"]);
}

#[test]
fn what_this_version_cannot_do_is_refused_by_name() {
    check(
        &MINIMAL.replace("[listen]", "[listen]\nproxy_protocol_from = [\"10.0.0.0/8\"]"),
        &["3 listen.proxy_protocol_from: not supported yet by this version"],
    );
}

fn with_app(lines: &str) -> String {
    MINIMAL
        .replace(
            "[[site]]",
            &format!("[origin.app]\nkind = \"http\"\n{lines}\n[[site]]"),
        )
        .replace("origin = \"assets\"", "origin = \"app\"")
}

#[test]
fn a_site_with_an_http_origin_is_strict_and_keeps_the_query() {
    let config = read(&with_app("url = \"https://App.example.com/base/\"")).unwrap();
    let site = config.sites.first().unwrap();
    assert!(site.terms.strict && site.relays);
    assert_eq!(site.query, Query::Keep);
    assert_eq!(site.lifetimes.stale_if_error, None);
    let OriginKind::Http(app) = &config.origins.last().unwrap().kind else {
        panic!("{config:?}");
    };
    assert_eq!(app.timeouts, OriginTimeouts::HTTP);
    let [server] = app.servers.as_slice() else {
        panic!("{app:?}");
    };
    assert_eq!(server.url(), "https://app.example.com/base");
    assert_eq!(
        (server.port, server.authority().as_str()),
        (443, "app.example.com")
    );
    let relaxed =
        with_app("urls = [\"http://a:1\", \"http://[::1]:2\"]") + "strict = false\nquery = \"sort\"\n";
    let config = read(&relaxed).unwrap();
    let site = config.sites.first().unwrap();
    assert!(!site.terms.strict && site.relays);
    assert_eq!(site.lifetimes.stale_if_error, Some(24 * HOUR));
}

#[test]
fn the_servers_of_an_http_origin_are_checked() {
    let check_app = |lines: &str, expected: &[&str]| check(&with_app(lines), expected);
    check_app("", &["10 origin.app.url: is missing"]);
    for bad in [
        "app:80",
        "ftp://app",
        "http://",
        "http://a:",
        "http://a:0",
        "http://a b/",
        "/path",
    ] {
        check_app(
            &format!("url = \"{bad}\""),
            &["12 origin.app.url: expected a URL such as"],
        );
    }
    check_app(
        "url = \"http://me:pw@a\"",
        &["12 origin.app.url: must hold no user"],
    );
    check_app(
        "url = \"http://a/?b\"",
        &["12 origin.app.url: must end with its path"],
    );
    check_app(
        "url = \"http://a\"\nurls = [\"http://b\"]",
        &["13 origin.app.urls: stands beside url"],
    );
    check_app("urls = []", &["12 origin.app.urls: needs at least one"]);
    check_app(
        "urls = [\"http://a\", \"http://a:80\"]",
        &["12 origin.app.urls: has the same URL twice"],
    );
}

#[test]
fn what_an_http_origin_is_told_is_checked() {
    let check_app =
        |lines: &str, expected: &[&str]| check(&with_app(&format!("url = \"http://a\"\n{lines}")), expected);
    check_app("host = \"a b\"", &["13 origin.app.host: expected a host"]);
    check_app("health = \"healthz\"", &["13 origin.app.health: expected a path"]);
    check_app(
        "fields = { Connection = \"close\" }",
        &["13 origin.app.fields.Connection: this field"],
    );
    check_app(
        "connections = 0",
        &["13 origin.app.connections: must be at least 1"],
    );
    check_app(
        "buckets = []",
        &["13 origin.app.buckets: belongs to an origin of kind \"s3\""],
    );
    check_more(
        "[origin.b]\nkind = \"s3\"\nbuckets = [{ name = \"name\", region = \"r\" }]\nurl = \"http://a\"\n",
        &["16 origin.b.url: belongs to an origin of kind \"http\""],
    );
}

#[test]
fn the_host_that_is_preserved_is_one_name() {
    let wild = with_app("url = \"http://a\"\nhost = \"preserve\"")
        .replace("\"cdn.example.com\"", "\"*.example.com\", \"a.example\"");
    check(&wild, &["15 site[0].hosts: begins with a wildcard"]);
    let swapped = wild.replace(
        "\"*.example.com\", \"a.example\"",
        "\"a.example\", \"*.example.com\"",
    );
    assert!(read(&swapped).is_ok());
}

#[test]
fn values_of_the_wrong_type_are_told() {
    check_more(
        "[limits]\nconnections = \"many\"\n",
        &["14 limits.connections: expected a whole number, found string"],
    );
    check_more(
        "[limits]\nconnections = -1\n",
        &["14 limits.connections: expected a whole number, found integer"],
    );
    check_more(
        "[limits]\nidle = true\n",
        &["14 limits.idle: expected a duration such as \"10s\", found boolean"],
    );
    check_more("limits = 3\n", &["13 site[0].limits: unknown key"]);
    check_more("[[limits]]\n", &["13 limits: expected a table, found array"]);
    check_more(
        "[[site]]\nhosts = \"b\"\norigin = \"assets\"\n",
        &["14 site[1].hosts: expected an array, found string"],
    );
    check_more(
        "[cache]\nrecode_budget = 2\n",
        &["14 cache.recode_budget: expected a number from 0 to 1"],
    );
    check_more(
        "[cache]\nstale_after = \"2h\"\n",
        &["14 cache.stale_after: must be at most 3600s"],
    );
    check_more(
        "[log.access]\nsample = nan\n",
        &["14 log.access.sample: expected a number from 0 to 1"],
    );
    check_more(
        "[log.access]\nformat = \"xml\"\n",
        &["14 log.access.format: expected \"json\" or \"combined\", not \"xml\""],
    );
}

#[test]
fn limits_that_would_stop_or_unlimit_the_node_are_refused() {
    check_more(
        "[limits]\nconnections = 0\n",
        &["14 limits.connections: must be at least 1"],
    );
    check_more(
        "[limits]\nidle = \"0s\"\n",
        &["14 limits.idle: must be at least 100ms"],
    );
    check_more(
        "[limits]\nheader_bytes = \"1GiB\"\n",
        &["14 limits.header_bytes: must be at most 1048576 bytes"],
    );
    check_more(
        "[limits]\nconnections = 10\nconnections_per_address = 11\n",
        &["15 limits.connections_per_address: is more than limits.connections"],
    );
    check_more(
        "[limits]\nuri_bytes = \"32KiB\"\n",
        &["14 limits.uri_bytes: is more than limits.header_bytes"],
    );
    check_more(
        "[cache]\nmemory = \"0B\"\n",
        &["14 cache.memory: must be at least 4194304 bytes"],
    );
    check_more(
        "[cache]\nmemory = \"4MiB\"\nobject_max = \"5MiB\"\n",
        &["15 cache.object_max: is more than cache.memory"],
    );
}

#[test]
fn sockets_that_cannot_work_are_refused() {
    let with = |listen: &str| MINIMAL.replace("plain = [\"127.0.0.1:8081\"]", listen);
    check(
        &with("https = [\"[::]:8443\"]"),
        &["2 listen: https needs a certificate"],
    );
    check(
        &with("http = [\"[::]:8080\"]"),
        &["3 listen.http: redirects to https, where nothing listens"],
    );
    check(&with("http = [\"[::]:8080\"]\nhttps_port = 443"), &[]);
    check(
        &with("plain = [\"127.0.0.1:1\"]\nadmin = \"127.0.0.1:1\""),
        &["4 listen.admin: 127.0.0.1:1 stands here and in another place"],
    );
    check(
        &with("plain = [\"[::1]:1\", \"[::1]:1\"]"),
        &["3 listen.plain: [::1]:1 stands here and in another place"],
    );
    check(&with("plain = [\"[::1]:0\", \"[::1]:0\"]"), &[]);
    check(
        &with(&format!(
            "plain = [\"[::1]:1\"]\nadmin = \"unix:/{}\"",
            "x".repeat(107)
        )),
        &["4 listen.admin: the path is longer"],
    );
    check(&with("plain = [\"[::1]:1\"]\nadmin = \"unix:admin.sock\""), &[]);
    check(
        &with("plain = [\":80\"]"),
        &[
            "2 listen: opens no port",
            "3 listen.plain[0]: expected an IP address with a port, such as \"[::]:80\"",
        ],
    );
    check(&with("plain = []"), &["2 listen: opens no port"]);
}

#[test]
fn hosts_belong_to_one_site_and_are_names() {
    let with = |hosts: &str| MINIMAL.replace("[\"cdn.example.com\"]", hosts);
    check(
        &with("[\"localhost\", \"127.0.0.1\", \"[::1]\", \"*.a.example\", \"CDN.example\"]"),
        &[],
    );
    check(&with("[]"), &["11 site[0].hosts: needs at least one name"]);
    check(
        &with("[\"a.example\", \"A.example\"]"),
        &["11 site[0].hosts: a.example stands here twice"],
    );
    check_more(
        "[[site]]\nhosts = [\"CDN.example.com\"]\norigin = \"assets\"\n",
        &["14 site[1].hosts: cdn.example.com belongs to site[0] already"],
    );
    for (host, told) in [
        ("a.example:443", "expected a name without a port"),
        ("https://a.example", "expected a name alone"),
        ("a.*.example", "a `*` stands for one whole label"),
        ("*", "a `*` stands for one whole label"),
        ("*.*.example", "a `*` stands for one whole label"),
        (
            "b\u{fc}cher.example",
            "write an international name in its ASCII form",
        ),
        ("a..example", "is no host name"),
        ("a.example.", "is no host name"),
        ("-a.example", "is no host name"),
        ("a b", "is no host name"),
        ("", "is empty"),
        ("::1", "an IPv6 address stands in brackets"),
        ("[::g]", "expected an IPv6 address"),
    ] {
        check(
            &with(&format!("[{host:?}]")),
            &[&format!("11 site[0].hosts[0]: {told}")],
        );
    }
}

#[test]
fn tokens_are_checked() {
    let digest = "0".repeat(64);
    let token = |rest: &str| format!("[admin]\ntokens = [{{ {rest} }}]\n");
    check_more(
        &token(&format!(
            "name = \"a\", sha256 = \"{digest}\", scopes = [\"purge\"]"
        )),
        &[],
    );
    check_more(
        &token("name = \"a\", sha256 = \"12\", scopes = [\"purge\"]"),
        &["14 admin.tokens[0].sha256: expected 64 hex digits"],
    );
    check_more(
        &token(&format!(
            "name = \"a\", sha256 = \"{digest}\", scopes = [\"root\"]"
        )),
        &["14 admin.tokens[0].scopes[0]: expected \"admin\" or \"purge\" or \"read\", not \"root\""],
    );
    check_more(
        &token(&format!("name = \"a\", sha256 = \"{digest}\", scopes = []")),
        &["14 admin.tokens[0].scopes: allows nothing"],
    );
    check_more(
        &token("name = \"a\""),
        &[
            "14 admin.tokens[0].scopes: is missing",
            "14 admin.tokens[0].sha256: is missing",
        ],
    );
    check_more(
        "[admin]\nprotect_health = true\n",
        &["14 admin.protect_health: asks for a token, and there is none"],
    );
    check(
        &MINIMAL.replace("[[site]]", "[[site]]\npurge_method = true"),
        &["11 site[0].purge_method: nobody may purge"],
    );
}

#[test]
fn buckets_and_credentials_are_checked() {
    let bucket = |rest: &str| MINIMAL.replace("name = \"widgets\", region = \"eu-west-1\"", rest);
    let good = "name = \"widgets\", region = \"eu-west-1\"";
    check(
        &bucket("name = \"widgets\""),
        &["8 origin.assets.buckets[0].region: is missing"],
    );
    check(
        &bucket("name = \"a/b\", region = \"r\""),
        &["8 origin.assets.buckets[0].name: expected a bucket's name"],
    );
    check(
        &bucket(&format!("{good}, prefix = \"cdn\"")),
        &["8 origin.assets.buckets[0].prefix: must end with a slash: \"cdn/\""],
    );
    check(
        &bucket(&format!("{good}, prefix = \"/cdn/\"")),
        &["8 origin.assets.buckets[0].prefix: must not begin with a slash"],
    );
    check(&bucket(&format!("{good}, prefix = \"\"")), &[]);
    for endpoint in [
        "s3.example.com",
        "ftp://a",
        "http://",
        "http://a/b",
        "http://u:p@a",
        "http://a:/",
    ] {
        check(
            &bucket(&format!("{good}, endpoint = {endpoint:?}")),
            &["8 origin.assets.buckets[0].endpoint: expected a URL without a path"],
        );
    }
    check(
        &bucket(&format!("{good}, endpoint = \"http://127.0.0.1:9000/\"")),
        &[],
    );
    check(
        &bucket(&format!("{good} }}, {{ {good}")),
        &["8 origin.assets.buckets[1].name: this bucket stands in the list"],
    );

    let credentials = |value: &str| MINIMAL.replace("\"anonymous\"", value);
    check(
        &credentials("\"none\""),
        &["7 origin.assets.credentials: expected \"environment\", \"anonymous\""],
    );
    check(
        &credentials("3"),
        &["7 origin.assets.credentials: expected \"environment\", \"anonymous\""],
    );
    check(
        &credentials("{ access_key_id = \"a\" }"),
        &["7 origin.assets.credentials.secret_access_key_file: give one of"],
    );
    check_more(
        "[origin.assets.timeouts]\nattempt = \"9s\"\n",
        &["14 origin.assets.timeouts.attempt: is longer than operation"],
    );
}

#[test]
fn a_secret_comes_from_its_file_and_never_shows() {
    let folder = tempfile::tempdir().unwrap();
    let (file, secret) = (folder.path().join("edge.toml"), folder.path().join("s3.secret"));
    let text = "{ access_key_id = \"id\", secret_access_key_file = \"s3.secret\" }";
    std::fs::write(&file, MINIMAL.replace("\"anonymous\"", text)).unwrap();
    let errors = crate::config::load(&file).unwrap_err();
    assert!(
        errors.to_string().contains("s3.secret: cannot be read"),
        "{errors}"
    );
    std::fs::write(&secret, "hush\n").unwrap();
    let config = crate::config::load(&file).unwrap();
    let OriginKind::S3(origin) = &config.origins.first().unwrap().kind else {
        panic!("{config:?}");
    };
    let Credentials::Static {
        secret_access_key, ..
    } = &origin.credentials
    else {
        panic!("{origin:?}");
    };
    assert_eq!(secret_access_key.0, "hush");
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn rules_are_checked() {
    let rule = |text: &str| format!("[[site.rule]]\n{text}\n");
    check_more(&rule("ttl = \"1s\""), &["13 site[0].rule[0].path: is missing"]);
    check_more(
        &rule("path = \"/a/*/b\""),
        &["14 site[0].rule[0].path: a `*` may stand at the end only"],
    );
    check_more(
        &rule("path = \"/a?b\""),
        &["14 site[0].rule[0].path: expected a path as it stands in a URL"],
    );
    check_more(
        &rule("path = \"/a b\""),
        &["14 site[0].rule[0].path: expected a path as it stands in a URL"],
    );
    check_more(
        &format!("{}{}", rule("path = \"/a/*\""), rule("path = \"/a/b\"")),
        &["16 site[0].rule[1].path: never matches: rule[0] matches all of it first"],
    );
    check_more(
        &rule("path = \"/a\"\nttl_min = \"2s\"\nttl_max = \"1s\""),
        &["15 site[0].rule[0].ttl_min: is more than ttl_max"],
    );
    let fields = |field: &str| rule(&format!("path = \"/a\"\nfields = {{ {field} }}"));
    check_more(&fields("\"X-Frame-Options\" = \"DENY\""), &[]);
    check_more(
        &fields("\"X Y\" = \"a\""),
        &["15 site[0].rule[0].fields.\"X Y\": is no name of a header field"],
    );
    check_more(
        &fields("\"X-A\" = \"a\\nb\""),
        &["15 site[0].rule[0].fields.X-A: is no value of a header field"],
    );
    check_more(
        &fields("\"X-A\" = 1"),
        &["15 site[0].rule[0].fields.X-A: expected a string, found integer"],
    );
    check_more(
        &fields("\"Content-Length\" = \"1\""),
        &["15 site[0].rule[0].fields.Content-Length: this field describes"],
    );
}

#[test]
fn a_rule_inherits_the_lifetimes_of_its_site_and_a_strict_site_has_none() {
    let text = MINIMAL.replace("[[site]]", "[[site]]\nstrict = true\nttl_max = \"1h\"");
    let config = read(&format!("{text}[[site.rule]]\npath = \"/a\"\nttl = \"60s\"\n")).unwrap();
    let site = config.sites.first().unwrap();
    assert_eq!(site.lifetimes.stale_if_error, None);
    assert_eq!(site.lifetimes.stale_while_revalidate, None);
    let lifetimes = &site.rules.first().unwrap().lifetimes;
    assert_eq!(lifetimes.ttl, Some(60 * SECOND));
    assert_eq!(lifetimes.ttl_max, Some(HOUR));
    assert_eq!(lifetimes.stale_if_error, None);
}

#[test]
fn origins_keep_the_order_of_the_file() {
    let more = "[origin.zebra]\nkind = \"s3\"\nbuckets = [{ name = \"zzz\", region = \"r\" }]\n\
                [origin.ape]\nkind = \"s3\"\nbuckets = [{ name = \"aaa\", region = \"r\" }]\n";
    let config = read(&format!("{MINIMAL}{more}")).unwrap();
    let names: Vec<_> = config.origins.iter().map(|origin| origin.name.as_str()).collect();
    assert_eq!(names, ["assets", "zebra", "ape"]);
}

#[test]
fn certificate_files_are_looked_at_and_told_by_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    let tls = "[[tls.certificate]]\nchain = \"cdn.pem\"\nkey = \"cdn.key\"\n";
    std::fs::write(&file, format!("{MINIMAL}{tls}")).unwrap();
    crate::config::load(&file).unwrap();
    let tell = || match crate::config::check(&file, std::time::UNIX_EPOCH) {
        Ok(_) => String::new(),
        Err(errors) => errors.to_string(),
    };
    assert!(
        tell().contains("edge.toml:14:9: tls.certificate[0].chain: "),
        "{}",
        tell()
    );
    assert!(
        tell().contains("cdn.pem: cannot be read: No such file"),
        "{}",
        tell()
    );
    std::fs::write(folder.path().join("cdn.pem"), "hello").unwrap();
    assert!(tell().contains("cdn.pem: holds no certificate"), "{}", tell());
}

#[test]
fn a_host_without_a_certificate_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let now = crate::clock::Clock::real().now().to_system_time();
    let names = ["localhost".to_owned(), "*.b.test".to_owned()];
    let ca = certs::DevCa::open_or_create(folder.path(), now).unwrap();
    ca.issue(&names, &[], now).unwrap();
    let text = MINIMAL
        .replace("plain = [\"127.0.0.1:8081\"]", "https = [\"127.0.0.1:8443\"]")
        .replace(
            "\"cdn.example.com\"",
            "\"localhost\", \"*.b.test\", \"c.test\", \"[::1]\"",
        );
    let tls = "[[tls.certificate]]\nchain = \"leaf.pem\"\nkey = \"leaf.key\"\n";
    let file = folder.path().join("edge.toml");
    std::fs::write(&file, format!("{text}{tls}")).unwrap();
    let warnings = crate::config::check(&file, now).unwrap().warnings;
    let told: Vec<_> = warnings
        .iter()
        .filter(|warning| warning.contains("no certificate"))
        .collect();
    assert_eq!(told, ["c.test: no certificate names this host of a site"]);
}

#[test]
fn a_host_whose_certificate_is_ordered_has_one() {
    let folder = tempfile::tempdir().unwrap();
    let text = MINIMAL
        .replace("plain = [\"127.0.0.1:8081\"]", "https = [\"127.0.0.1:8443\"]")
        .replace(
            "\"cdn.example.com\"",
            "\"a.test\", \"*.b.test\", \"c.test\", \"x.d.test\"",
        );
    std::fs::write(folder.path().join("store.key"), "00".repeat(32)).unwrap();
    let tls = "[tls.store]\nfolder = \"shared\"\nkey_file = \"store.key\"\nstate = \"own\"\n\
               [[tls.acme]]\nnames = [\"a.test\", \"*.b.test\", \"*.d.test\"]\naccept_terms = true\n\
               challenge = \"dns-01\"\ndns = { provider = \"route53\" }\n";
    let file = folder.path().join("edge.toml");
    std::fs::write(&file, format!("{text}{tls}")).unwrap();
    let warnings = crate::config::check(&file, std::time::UNIX_EPOCH)
        .unwrap()
        .warnings;
    let told: Vec<_> = warnings
        .iter()
        .filter(|warning| warning.contains("no certificate"))
        .collect();
    assert_eq!(told, ["c.test: no certificate names this host of a site"]);
}

#[test]
fn what_keeps_a_certificate_from_being_ordered_is_told_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("store.key"), "00".repeat(32)).unwrap();
    for (file, text) in [
        ("no.pem", "no certificate"),
        ("no.key", "+/+"),
        ("some.key", "c2VjcmV0"),
    ] {
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    let file = folder.path().join("edge.toml");
    let told = |lines: &str| {
        let tls = "[tls.store]\nfolder = \"shared\"\nkey_file = \"store.key\"\nstate = \"own\"\n\
                   [[tls.acme]]\nnames = [\"cdn.example.com\"]\naccept_terms = true\n";
        std::fs::write(&file, format!("{MINIMAL}{tls}{lines}")).unwrap();
        match crate::config::check(&file, std::time::UNIX_EPOCH) {
            Ok(checked) => checked.warnings.join("\n"),
            Err(errors) => errors.to_string(),
        }
    };
    for (lines, expected) in [
        ("roots = \"gone.pem\"", "tls.acme[0].roots: "),
        (
            "roots = \"gone.pem\"",
            "gone.pem: cannot be used for the roots of the CA: No such file",
        ),
        ("roots = \"no.pem\"", "there is no certificate in it"),
        (
            "binding = { id = \"k\", key_file = \"no.key\" }",
            "tls.acme[0].binding.key_file: is not a key in base64url",
        ),
        (
            "challenge = \"dns-01\"\ndns = { provider = \"rfc2136\", server = \"127.0.0.1\", zone = \"example.com\", key_name = \"k\", secret_file = \"no.key\" }",
            "tls.acme[0].dns.secret_file: is not a key in base64",
        ),
        (
            "",
            "cdn.example.com: http-01 is answered on listen.http, which is not set",
        ),
        (
            "challenge = \"tls-alpn-01\"",
            "cdn.example.com: tls-alpn-01 is answered on listen.https, which is not set",
        ),
    ] {
        let told = told(lines);
        assert!(told.contains(expected), "{lines}: {told}");
    }
    let good = "challenge = \"dns-01\"\ndns = { provider = \"rfc2136\", server = \"127.0.0.1\", zone = \"example.com\", key_name = \"k\", secret_file = \"some.key\" }\n\
                binding = { id = \"k\", key_file = \"some.key\" }";
    assert_eq!(told(good), "");
}

const STORE: &str = "[tls.store]\nfolder = \"f\"\nkey_env = \"K\"\nstate = \"s\"\n";
const ACME: &str = "[[tls.acme]]\nnames = [\"a.example\"]\naccept_terms = true\n";

/// Each mistake of the tables about certificates, with its line and its key.
#[test]
fn mistakes_about_certificates_are_told_by_line_and_key() {
    check_more(ACME, &["13 tls.store: is missing"]);
    check_more(
        &format!(
            "[tls.store]\nbucket = {{ name = \"no\", region = \"r 1\" }}\nfolder = \"f\"\npoll = \"0s\"\nlease = \"1s\"\npol = 1\n{ACME}"
        ),
        &[
            "13 tls.store.key_file: give one of key_file and key_env",
            "13 tls.store.state: is missing",
            "14 tls.store.bucket: give one of bucket and folder",
            "14 tls.store.bucket.name: expected a bucket's name",
            "14 tls.store.bucket.region: expected a region",
            "16 tls.store.poll: must be at least 1s",
            "17 tls.store.lease: must be at least 3s",
            "18 tls.store.pol: unknown key; did you mean `poll`?",
        ],
    );
    check_more(
        &format!(
            "{STORE}[[tls.acme]]\nnames = []\n[[tls.acme]]\nnames = [\"a b\", \"../x.y\", \"x\"]\naccept_terms = false\n"
        ),
        &[
            "17 tls.acme[0].accept_terms: is missing",
            "18 tls.acme[0].names: needs at least one name",
            "20 tls.acme[1].names[0]: expected a name",
            "20 tls.acme[1].names[1]: expected a name",
            "20 tls.acme[1].names[2]: expected a name",
            "21 tls.acme[1].accept_terms: the CA issues only",
        ],
    );
    check_more(
        &format!("{STORE}{ACME}[[tls.acme]]\nnames = [\"a.example\", \"b.example\"]\naccept_terms = true\n"),
        &["21 tls.acme[1].names: begins with the same name as another"],
    );
    check_more(
        &format!("{STORE}[[tls.acme]]\nnames = [\"*.a.example\"]\naccept_terms = true\n"),
        &["17 tls.acme[0].challenge: only \"dns-01\" proves a wildcard"],
    );
    check_more(
        "[tls]\nearly_data = \"yes\"\nearly = true\n[tls.tickets]\n",
        &[
            "14 tls.early_data: expected true or false",
            "15 tls.early: unknown key",
            "16 tls.tickets.secret_file: give one of secret_file and secret_env",
        ],
    );
}

#[test]
fn each_key_of_an_order_is_checked() {
    for (line, expected) in [
        ("challenge = \"http-02\"", "challenge: expected \"http-01\""),
        ("challenge = \"dns-01\"", "dns: is missing"),
        (
            "directory = \"http://ca.example/dir\"",
            "directory: expected \"letsencrypt\"",
        ),
        (
            "contact = [\"ops@example.com\"]",
            "contact[0]: expected \"mailto:\"",
        ),
        ("keys = []", "keys: needs \"ecdsa\", \"rsa\" or both"),
        (
            "keys = [\"dsa\"]",
            "keys[0]: expected \"ecdsa\" or \"rsa\", not \"dsa\"",
        ),
        (
            "binding = { id = \"k\" }",
            "binding.key_file: give one of key_file and key_env",
        ),
        (
            "profil = \"shortlived\"",
            "profil: unknown key; did you mean `profile`?",
        ),
        (
            "dns = { provider = \"route53\" }",
            "dns: is for challenge = \"dns-01\"",
        ),
        (
            "challenge = \"dns-01\"\ndns = { provider = \"route54\" }",
            "dns.provider: expected",
        ),
    ] {
        let found = mistakes(&format!("{MINIMAL}{STORE}{ACME}{line}\n"));
        let told = |mistake: &String| mistake.contains(&format!(" tls.acme[0].{expected}"));
        assert!(found.iter().any(told), "{line}: {found:#?}");
    }
}

#[test]
fn an_access_log_in_a_folder_that_is_not_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    std::fs::write(
        &file,
        format!("{MINIMAL}[log.access]\npath = \"no/access.log\"\n"),
    )
    .unwrap();
    let errors = crate::config::check(&file, std::time::UNIX_EPOCH).unwrap_err();
    assert!(
        errors.to_string().contains("edge.toml:14:8: log.access.path: "),
        "{errors}"
    );
}

proptest::proptest! {
    #[test]
    fn nothing_in_a_file_can_panic(at in 0..6000_usize, length in 0..400_usize, text in "[\\PC\n]{0,40}") {
        let example = include_str!("../../../edge.example.toml");
        let head: String = example.chars().take(at).collect();
        let tail: String = example.chars().skip(at + length).collect();
        let _ = read(&format!("{head}{text}{tail}"));
        let _ = read(&text);
    }
}

#[test]
fn releases_come_with_keys_and_a_place_for_what_was_last_good() {
    let key = "ed25519-JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=";
    let lines = |lines: &str| MINIMAL.to_owned() + &lines.replace("KEY", key);
    let good =
        "releases = [\"lock\"]\ntrust = [\"release:KEY\", \"channel:KEY\"]\n[releases]\nstate = \"state\"\n";
    let config = read(&lines(good)).unwrap();
    let releases = config.sites[0].releases.as_ref().unwrap();
    assert_eq!(releases.names[0].as_str(), "lock");
    assert_eq!(releases.trust.keys().len(), 2);
    assert_eq!(
        config.releases.state.as_deref(),
        Some(Path::new("/etc/portico/state"))
    );
    assert_eq!(config.releases.poll, 5 * SECOND);
    let check = |text: &str, expected: &[&str]| check(&lines(text), expected);
    let state = "\n[releases]\nstate = \"state\"\n";
    check(
        "releases = [\"lock\"]\ntrust = [\"release:KEY\", \"channel:KEY\"]\n",
        &["1 releases: releases.state must be set where a site has releases"],
    );
    check(
        "releases = [\"lock\"]\ntrust = [\"release:KEY\", \"channel:KEY\"]\n[releases]\npoll = \"1s\"\n",
        &["15 releases.state: must be set"],
    );
    check(
        &format!("releases = [\"lock\"]{state}"),
        &["10 site[0].trust: is missing"],
    );
    check(
        &format!("releases = [\"lock\"]\ntrust = [\"release:KEY\"]{state}"),
        &["14 site[0].trust: holds no channel key"],
    );
    check(
        &format!("releases = [\"lock\"]\ntrust = [\"KEY\", \"release:KEY\", \"channel:KEY\"]{state}"),
        &["14 site[0].trust[0]: \"ed25519-"],
    );
    check(
        &format!(
            "releases = [\"Lock\", \"lock\", \"lock\"]\ntrust = [\"release:KEY\", \"channel:KEY\"]{state}"
        ),
        &[
            "13 site[0].releases: lock stands here twice",
            "13 site[0].releases[0]: the name \"Lock\"",
        ],
    );
    check(
        "trust = [\"release:KEY\"]\n",
        &["13 site[0].trust: says whom to trust for nothing"],
    );
}
