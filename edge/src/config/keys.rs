//! Every key that a configuration file may hold. The reader refuses what is not here, and the README's table is made
//! from it.

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyDoc {
    /// Where it stands: `[]` is each table of an array, `*` a name of the operator's choice.
    pub path: &'static str,
    /// The type of its value.
    pub kind: &'static str,
    /// What holds when it is not set: a value as TOML, or words. Empty when it must be set.
    pub default: &'static str,
    /// What it means, in a line.
    pub meaning: &'static str,
    /// Whether this version can do it; when not, setting it is an error.
    pub supported: bool,
}

const fn key(path: &'static str, kind: &'static str, default: &'static str, meaning: &'static str) -> KeyDoc {
    KeyDoc {
        path,
        kind,
        default,
        meaning,
        supported: true,
    }
}

const fn later(path: &'static str, kind: &'static str, meaning: &'static str) -> KeyDoc {
    KeyDoc {
        path,
        kind,
        default: "not set",
        meaning,
        supported: false,
    }
}

/// Every key, in the order in which the documentation shows them.
#[rustfmt::skip]
pub const KEYS: &[KeyDoc] = &[
    key("name", "string", "\"portico\"", "The cache's name in Cache-Status and Via"),
    key("workers", "integer", "a thread per core", "Data-plane threads"),

    key("listen.https", "addresses", "[]", "TLS, HTTP/1.1 and HTTP/2"),
    key("listen.http", "addresses", "[]", "Redirects to https; answers CAs (http-01) and the readiness path"),
    key("listen.plain", "addresses", "[]", "The whole site without TLS: behind a TLS terminator, or for tests"),
    key("listen.admin", "address or \"unix:/path\" or \"off\"", "\"127.0.0.1:9180\"", "The operator's side: purge, status, metrics"),
    key("listen.https_port", "integer", "the port of the first https address", "The port that redirects to https name"),
    later("listen.proxy_protocol_from", "networks", "Who may send PROXY protocol"),

    key("admin.tokens[].name", "string", "", "The name that audit lines show"),
    key("admin.tokens[].sha256", "string", "", "SHA-256 of the token, in hex"),
    key("admin.tokens[].scopes", "list of \"purge\", \"read\", \"admin\"", "", "What the token allows; \"admin\" is everything"),
    key("admin.hosts", "list of names", "[]", "Names under which health and metrics are asked for without a token, besides addresses and localhost; others are answered 421, against DNS rebinding"),
    key("admin.protect_health", "boolean", "false", "Whether livez, readyz and metrics ask for a token too"),
    key("admin.purges_per_second", "integer", "20", "Purge requests per second and token; more are answered 429"),

    key("tls.certificate[].chain", "path", "", "The certificate chain as PEM, leaf first"),
    key("tls.certificate[].key", "path", "", "Its private key as PEM"),
    key("tls.certificate[].default", "boolean", "false", "Whether clients that name no host get this certificate; without one they are refused"),

    key("tls.store.bucket.name", "string", "", "The bucket in which the nodes share their certificates; or set folder"),
    key("tls.store.bucket.region", "string", "", "Its region"),
    key("tls.store.bucket.prefix", "string", "\"\"", "Put before every key; empty, or ends with a slash"),
    key("tls.store.bucket.endpoint", "URL", "AWS", "An S3-compatible endpoint"),
    key("tls.store.bucket.path_style", "boolean", "false", "endpoint/bucket/key instead of bucket.endpoint/key"),
    key("tls.store.folder", "path", "not set", "A folder instead of a bucket: for one node, or nodes with a file system in common"),
    key("tls.store.credentials", "\"environment\" or a table", "\"environment\"", "Where credentials come from"),
    key("tls.store.credentials.access_key_id", "string", "", "A fixed access key"),
    key("tls.store.credentials.secret_access_key_file", "path", "not set", "The file with its secret key"),
    key("tls.store.credentials.secret_access_key_env", "string", "not set", "The environment variable with its secret key"),
    key("tls.store.key_file", "path", "not set", "The keys that certificates are sealed with in the store, 32 bytes in base64 a line; the first one seals, all of them open"),
    key("tls.store.key_env", "string", "not set", "The environment variable with these keys"),
    key("tls.store.state", "path", "", "A folder of this node alone: sealed copies, with which it starts while the store is down"),
    key("tls.store.node", "string", "the host's name", "How this node calls itself in leases"),
    key("tls.store.poll", "duration", "\"60s\"", "How often the store is looked at"),
    key("tls.store.lease", "duration", "\"2m\"", "How long a node that went away keeps others from ordering in its place"),

    key("tls.acme[].names", "list of names", "", "The names of a certificate that is ordered from a CA; the first is what it is called by"),
    key("tls.acme[].directory", "\"letsencrypt\", \"letsencrypt-staging\" or URL", "\"letsencrypt\"", "The CA"),
    key("tls.acme[].accept_terms", "boolean", "", "Whether you accept the CA's terms of service"),
    key("tls.acme[].contact", "list of mailto: URLs", "[]", "Whom the CA may write to"),
    key("tls.acme[].challenge", "\"http-01\", \"dns-01\" or \"tls-alpn-01\"", "\"http-01\"", "How the names are proved: any node answers http-01, dns-01 proves wildcards, tls-alpn-01 is for a single node"),
    key("tls.acme[].keys", "list of \"ecdsa\", \"rsa\"", "[\"ecdsa\"]", "The kinds of key, each a certificate of its own"),
    key("tls.acme[].profile", "string", "the CA's choice", "The CA's profile, such as \"shortlived\""),
    key("tls.acme[].preferred_chain", "string", "the CA's choice", "The common name of the issuer that the chain ends with"),
    key("tls.acme[].default", "boolean", "false", "Whether clients that name no host get this certificate"),
    key("tls.acme[].roots", "path", "the machine's", "PEM with the roots of the CA's own https, for a private CA"),
    key("tls.acme[].binding.id", "string", "", "External account binding: the key's id"),
    key("tls.acme[].binding.key_file", "path", "not set", "The file with the binding's key, in base64url"),
    key("tls.acme[].binding.key_env", "string", "not set", "The environment variable with it"),
    key("tls.acme[].dns.provider", "\"route53\" or \"rfc2136\"", "", "Who holds the zone, for dns-01"),
    key("tls.acme[].dns.zone_id", "string", "found by name", "Route 53: the hosted zone's id"),
    key("tls.acme[].dns.endpoint", "URL", "AWS", "Route 53: another endpoint"),
    key("tls.acme[].dns.credentials", "\"environment\" or a table", "\"environment\"", "Route 53: where credentials come from"),
    key("tls.acme[].dns.credentials.access_key_id", "string", "", "A fixed access key"),
    key("tls.acme[].dns.credentials.secret_access_key_file", "path", "not set", "The file with its secret key"),
    key("tls.acme[].dns.credentials.secret_access_key_env", "string", "not set", "The environment variable with its secret key"),
    key("tls.acme[].dns.server", "address", "", "RFC 2136: the primary server of the zone"),
    key("tls.acme[].dns.zone", "name", "", "RFC 2136: the zone"),
    key("tls.acme[].dns.key_name", "name", "", "RFC 2136: the name of the TSIG key"),
    key("tls.acme[].dns.algorithm", "\"hmac-sha256\", \"hmac-sha384\" or \"hmac-sha512\"", "\"hmac-sha256\"", "RFC 2136: the key's algorithm"),
    key("tls.acme[].dns.secret_file", "path", "not set", "RFC 2136: the file with the key, in base64"),
    key("tls.acme[].dns.secret_env", "string", "not set", "RFC 2136: the environment variable with it"),
    key("tls.acme[].dns.wait", "duration", "\"5s\"", "RFC 2136: how long the secondaries may take to have a record too"),

    key("tls.tickets.secret_file", "path", "not set", "The secret that session tickets are sealed with on every node, 32 bytes in base64 a line; the first one seals. Without it they follow from tls.store's keys, and without these each node has its own"),
    key("tls.tickets.secret_env", "string", "not set", "The environment variable with this secret"),
    key("tls.early_data", "boolean", "false", "Whether clients of TLS 1.3 that come back may send their first request before the handshake is over (0-RTT). A plain GET that the cache can answer is answered, everything else gets 425 and is asked again. Sessions are then kept by the node that made them and used once, so that nothing can be replayed, and no other node resumes them"),

    key("cache.memory", "size", "\"512MiB\"", "Bytes for stored responses and bodies in flight together; at least 4MiB"),
    key("cache.object_max", "size", "a quarter of memory, at most 64MiB", "The largest body that is kept; larger ones stream past"),
    key("cache.recode_budget", "number", "0.25", "CPU seconds per second that better codings may take in the background; 0 switches them off"),
    key("cache.stale_after", "duration", "\"1s\"", "How long a request waits for the origin where something stale may be served instead"),
    key("cache.disk.path", "path", "no disk tier", "The folder of a second, larger store, which a restart finds again: one for each node, on a local disk"),
    key("cache.disk.size", "size", "", "Bytes that its files may take; at least 16MiB. Memory of about 70 bytes for each stored response comes on top of cache.memory"),

    key("origin.*.kind", "\"s3\" or \"http\"", "", "What the origin is"),
    key("origin.*.credentials", "\"environment\", \"anonymous\" or a table", "\"environment\"", "Where credentials come from; the environment is AWS_*, a profile, or the machine's role"),
    key("origin.*.credentials.access_key_id", "string", "", "A fixed access key, for S3-compatible stores"),
    key("origin.*.credentials.secret_access_key_file", "path", "not set", "The file with its secret key"),
    key("origin.*.credentials.secret_access_key_env", "string", "not set", "The environment variable with its secret key"),
    key("origin.*.buckets[].name", "string", "", "A bucket; the first one is asked first, the next ones when it fails"),
    key("origin.*.buckets[].region", "string", "", "The bucket's region"),
    key("origin.*.buckets[].prefix", "string", "\"\"", "Put before every key; empty, or ends with a slash"),
    key("origin.*.buckets[].endpoint", "URL", "AWS", "An S3-compatible endpoint"),
    key("origin.*.buckets[].path_style", "boolean", "false", "endpoint/bucket/key instead of bucket.endpoint/key"),
    key("origin.*.buckets[].canary", "string", "not set", "A key that always exists, by which a 403 for a missing key is told from bad credentials"),
    key("origin.*.timeouts.connect", "duration", "\"1s\"", "TCP and TLS to the origin"),
    key("origin.*.timeouts.read", "duration", "\"2s\"", "Between bytes of an answer"),
    key("origin.*.timeouts.attempt", "duration", "\"4s\"", "One attempt, up to the answer's head"),
    key("origin.*.timeouts.operation", "duration", "\"8s\"", "All attempts, up to the answer's head"),
    key("origin.*.timeouts.attempts", "integer", "3", "Attempts in all"),
    key("origin.*.timeouts.pool_idle", "duration", "\"20s\"", "How long an unused connection is kept"),
    key("origin.*.url", "URL", "not set", "kind \"http\": the server, with a prefix for every path if need be"),
    key("origin.*.urls", "list of URLs", "not set", "kind \"http\": several servers instead, the first choice first"),
    key("origin.*.host", "string", "the URL's", "kind \"http\": what Host says; \"preserve\" is the first of the site's hosts"),
    key("origin.*.fields", "table", "none", "kind \"http\": fields that every request to the origin carries"),
    key("origin.*.ca", "path", "the system's authorities", "kind \"http\": a PEM file with the only authorities that may vouch for the servers"),
    key("origin.*.health", "path in a URL", "not set", "kind \"http\": asked every 5 s; a server that does not answer 2xx is left out"),
    key("origin.*.connections", "integer", "1024 to a server", "kind \"http\": connections to each server at once"),

    key("site[].hosts", "list of names", "", "The names the site answers to; \"*.example.com\" stands for one label"),
    key("site[].origin", "string", "", "The origin's name"),
    key("site[].preset", "\"plain\" or \"embed\"", "\"plain\"", "\"embed\": the headers for scripts that other people's pages load"),
    key("site[].strict", "boolean", "false", "RFC 9111 without our defaults: nothing stale unless you say so"),
    key("site[].request_directives", "boolean", "true if strict", "Whether Cache-Control of requests is heeded, beyond only-if-cached and stale-if-error; a browser's reload then reaches the origin"),
    key("site[].store_set_cookie", "boolean", "true if strict", "Whether a response with Set-Cookie is stored like any other; else only one marked public or s-maxage is"),
    key("site[].targeted", "list of header fields", "[\"Portico-Cache-Control\", \"CDN-Cache-Control\", \"Surrogate-Control\"]", "Fields that speak to this cache in place of Cache-Control, the strongest first; all but CDN-Cache-Control go no further"),
    key("site[].query", "\"ignore\", \"keep\", \"sort\" or a list of names", "\"ignore\"", "How the query takes part in the cache key"),
    key("site[].ttl", "duration", "what the response says", "The freshness lifetime, whatever the response says"),
    key("site[].ttl_default", "duration", "RFC 9111 section 4.2.2", "The freshness lifetime for a response that says nothing"),
    key("site[].ttl_min", "duration", "not set", "A freshness lifetime is at least this"),
    key("site[].ttl_max", "duration", "not set", "A freshness lifetime is at most this"),
    key("site[].ttl_negative", "duration", "\"10s\"", "How long a 404 or 410 that says nothing is kept"),
    key("site[].stale_while_revalidate", "duration", "\"1h\" unless strict", "How long a stale response is served while a new one is fetched"),
    key("site[].stale_if_error", "duration", "\"24h\" unless strict", "How long a stale response is served while the origin fails"),
    key("site[].heuristic", "boolean", "true", "Whether a response without a lifetime is fresh for a tenth of the time since it changed, at most a day"),
    key("site[].hsts", "duration", "not set", "Sends Strict-Transport-Security with this max-age, over https"),
    key("site[].index", "string", "not set", "Shown for a path that ends with a slash, such as \"index.html\""),
    key("site[].x_cache", "boolean", "false", "Whether X-Cache is sent beside Cache-Status"),
    key("site[].cache_status_key", "boolean", "false", "Whether Cache-Status shows the cache key"),
    key("site[].purge_method", "boolean", "false", "Whether PURGE is answered on the public port, to holders of a purge token"),
    key("site[].releases", "list of names", "[]", "What is released here: /<name>/<version or alias>/<path> leads to what was signed, and no other path to anything"),
    key("site[].trust", "list of public keys", "not set", "Whose signatures count: \"release:ed25519-...\" for versions, \"channel:ed25519-...\" for aliases, one of each at least; must be set with releases"),
    key("site[].rule[].path", "string", "", "A path, or a prefix that ends with *; the first rule that matches wins"),
    key("site[].rule[].ttl", "duration", "the site's", "As the site's, for these paths"),
    key("site[].rule[].ttl_default", "duration", "the site's", "As the site's, for these paths"),
    key("site[].rule[].ttl_min", "duration", "the site's", "As the site's, for these paths"),
    key("site[].rule[].ttl_max", "duration", "the site's", "As the site's, for these paths"),
    key("site[].rule[].ttl_negative", "duration", "the site's", "As the site's, for these paths"),
    key("site[].rule[].stale_while_revalidate", "duration", "the site's", "As the site's, for these paths"),
    key("site[].rule[].stale_if_error", "duration", "the site's", "As the site's, for these paths"),
    key("site[].rule[].heuristic", "boolean", "the site's", "As the site's, for these paths"),
    key("site[].rule[].query", "as the site's", "the site's", "As the site's, for these paths"),
    key("site[].rule[].coding", "boolean", "true", "Whether bodies are coded here; when not, they go on as the origin sent them"),
    key("site[].rule[].remove", "list of header fields", "[]", "Header fields of the origin that go no further"),
    key("site[].rule[].fields", "table of header fields", "{}", "Header fields to set on each response, after the preset"),

    key("releases.state", "path", "not set", "A folder of this node alone, where the last good channels are kept; must be set where a site has releases"),
    key("releases.poll", "duration", "\"5s\"", "How often the bucket is asked for channels"),

    key("limits.connections", "integer", "20000", "Client connections in all"),
    key("limits.connections_per_address", "integer", "1000", "Client connections per IPv4 address or IPv6 /64"),
    key("limits.header_bytes", "size", "\"16KiB\"", "A request's header block"),
    key("limits.header_count", "integer", "100", "Fields in a request's header block"),
    key("limits.uri_bytes", "size", "\"8KiB\"", "A request target"),
    key("limits.content_bytes", "size", "\"64MiB\"", "Content of a request, where it is relayed to an application"),
    key("limits.handshake", "duration", "\"10s\"", "From accept to the end of the TLS handshake"),
    key("limits.header", "duration", "\"10s\"", "From a request's first byte to the end of its header block"),
    key("limits.idle", "duration", "\"60s\"", "A connection without a request"),
    key("limits.write_stall", "duration", "\"30s\"", "A response of which the client takes nothing"),
    key("limits.h2_streams", "integer", "128", "HTTP/2 streams at once"),
    key("limits.h2_resets", "integer", "64", "HTTP/2 streams reset before they were answered"),
    key("limits.unproductive_bytes", "size", "\"64KiB\"", "Bytes received without any request coming of them"),

    key("log.access.format", "\"json\" or \"combined\"", "\"json\"", "How a line of the access log looks"),
    key("log.access.path", "path or \"-\"", "\"-\"", "A file, or \"-\" for standard output"),
    key("log.access.sample", "number", "1.0", "The share of exchanges that are written; errors (5xx) always are"),
    key("log.access.truncate_address", "boolean", "true", "Whether client addresses lose their last octet (IPv4) or 80 bits (IPv6)"),

    key("drain.delay", "duration", "\"5s\"", "Between readiness turning red and the sockets closing; 90s or more behind DNS"),
    key("drain.deadline", "duration", "\"30s\"", "From the sockets closing to the end of everything"),
];

/// All supported keys as a table in Markdown, for the README.
pub fn markdown() -> String {
    let mut table = String::from("| key | value | default | meaning |\n|---|---|---|---|\n");
    for key in KEYS.iter().filter(|key| key.supported) {
        let default = match key.default {
            "" => "must be set".to_owned(),
            words if words.parse::<toml::Value>().is_ok() => format!("`{words}`"),
            words => words.to_owned(),
        };
        let row = format!(
            "| `{}` | {} | {default} | {} |\n",
            key.path, key.kind, key.meaning
        );
        table.push_str(&row);
    }
    table
}

/// The keys that may stand directly in the table at `pattern` (empty for the file itself).
pub(super) fn children(pattern: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = KEYS
        .iter()
        .filter_map(|doc| rest_below(doc.path, pattern))
        .map(|rest| rest.split(['.', '[']).next().unwrap_or(rest))
        .collect();
    names.dedup();
    names
}

/// What is said of the key at exactly this place.
pub(super) fn doc(pattern: &str) -> Option<&'static KeyDoc> {
    KEYS.iter().find(|doc| doc.path == pattern)
}

/// The key that was probably meant: a slip of the hand, or the same words in another order.
pub(super) fn did_you_mean(written: &str, known: &[&'static str]) -> Option<&'static str> {
    let words = |key: &str| {
        let mut words: Vec<_> = key.split(['_', '-']).map(str::to_ascii_lowercase).collect();
        words.sort();
        words
    };
    let same_words = known.iter().find(|key| words(key) == words(written));
    same_words
        .or_else(|| {
            let slips_max = 1 + written.len() / 4;
            known
                .iter()
                .map(|key| (slips(written, key), key))
                .filter(|(slips, _)| *slips <= slips_max.min(3))
                .min_by_key(|(slips, _)| *slips)
                .map(|(_, key)| key)
        })
        .copied()
}

fn rest_below<'a>(path: &'a str, pattern: &str) -> Option<&'a str> {
    if pattern.is_empty() {
        return Some(path);
    }
    path.strip_prefix(pattern)?.strip_prefix('.')
}

/// The Levenshtein distance.
fn slips(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, a) in a.chars().enumerate() {
        let mut diagonal = at;
        let mut left = at + 1;
        let mut next = vec![left];
        for (b, above) in b.iter().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(a != *b)).min(left + 1).min(above + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_stands_once_and_says_what_it_means() {
        for (at, key) in KEYS.iter().enumerate() {
            assert!(
                KEYS.iter().skip(at + 1).all(|other| other.path != key.path),
                "{}",
                key.path
            );
            assert!(
                !key.meaning.is_empty() && !key.meaning.ends_with('.'),
                "{}",
                key.path
            );
        }
    }

    #[test]
    fn the_table_has_a_row_for_each_key() {
        let table = markdown();
        assert!(table.contains("| `limits.connections` | integer | `20000` | Client connections in all |\n"));
        assert!(table.contains("| `site[].origin` | string | must be set |"));
        assert!(!table.contains("proxy_protocol_from"));
        for row in table.lines() {
            assert_eq!(row.matches('|').count(), 5, "{row}");
        }
    }

    #[test]
    fn the_key_that_was_meant_is_found() {
        let check = |pattern: &str, written: &str, expected: Option<&str>| {
            assert_eq!(
                did_you_mean(written, &children(pattern)),
                expected,
                "{pattern} {written}"
            );
        };
        check("", "sites", Some("site"));
        check("", "lisen", Some("listen"));
        check("", "banana", None);
        check("site[]", "negative_ttl", Some("ttl_negative"));
        check("site[]", "host", Some("hosts"));
        check("site[].rule[]", "headers", None);
        check("cache", "Memory", Some("memory"));
        check("cache", "object-max", Some("object_max"));
    }
}
