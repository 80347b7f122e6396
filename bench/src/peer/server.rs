//! A running server: its files written, its processes started on their core, its first answer seen.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::{Kind, Peer};
use crate::clock;
use crate::content::Content;
use crate::error::{Error, Result};
use crate::load::{Ask, Door, Groups, HOST, Judge, Protocol};
use crate::process::{Child, Memory, Spawn, Spent, memory};

/// What all servers share.
#[derive(Debug)]
pub(crate) struct Ground {
    /// Where their folders go.
    pub(crate) folder: PathBuf,
    pub(crate) content: Arc<Content>,
    pub(crate) origin: SocketAddr,
    pub(crate) certificate: Certificate,
    /// The core of the servers.
    pub(crate) core: Option<usize>,
    /// Whether servers make better coded forms of what they hold, behind their clients' backs.
    pub(crate) better_forms: bool,
}

/// The certificate that all servers show: ECDSA on P-256.
#[derive(Debug)]
pub(crate) struct Certificate {
    /// The authority's, for clients.
    pub(crate) ca: PathBuf,
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    /// Key and chain in one file, for those that want them so.
    pub(crate) bundle: PathBuf,
}

/// How long a server may take to answer for the first time, on a machine that is busy with others.
const START_MAX: Duration = Duration::from_secs(120);

/// How often a server is started that ends at once: the port that was free may have been taken meanwhile.
const STARTS_MAX: usize = 3;

/// A server that answers.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: &'static Kind,
    pub(crate) address: SocketAddr,
    children: Vec<Child>,
}

impl Certificate {
    /// Makes one in `folder`.
    pub(crate) fn make(folder: &Path) -> Result<Self> {
        let said = |error: &dyn std::fmt::Display| Error::Said(format!("cannot make a certificate: {error}"));
        let (ca, now) = (folder.join("ca"), clock::today());
        let authority = certs::DevCa::open_or_create(&ca, now).map_err(|error| said(&error))?;
        let names = [HOST.to_owned()];
        let address = [Ipv4Addr::LOCALHOST.into()];
        let pair = authority
            .issue(&names, &address, now)
            .map_err(|error| said(&error))?;
        let read = |path: &Path| fs::read_to_string(path).map_err(|error| Error::file("read", path, error));
        // Servers that give up their rights still have to read them; they are good for this run only.
        let place = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(|error| Error::file("write", &path, error))?;
            Ok::<_, Error>(path)
        };
        let (chain, key) = (read(&pair.chain)?, read(&pair.key)?);
        Ok(Self {
            ca: authority.certificate(),
            bundle: place("bundle.pem", &format!("{key}{chain}"))?,
            chain: place("chain.pem", &chain)?,
            key: place("key.pem", &key)?,
        })
    }
}

impl Server {
    /// Starts a peer in a folder of its own, and waits for its first answer.
    pub(crate) fn start(peer: &Peer, ground: &Ground) -> Result<Self> {
        let mut starts = 1;
        loop {
            match Self::start_once(peer, ground) {
                Err(Error::Start { .. }) if starts < STARTS_MAX => starts += 1,
                outcome => return outcome,
            }
        }
    }

    fn start_once(peer: &Peer, ground: &Ground) -> Result<Self> {
        let kind = peer.kind;
        let folder = ground
            .folder
            .join(format!("{}-{}", kind.name, free_address()?.port()));
        for inner in ["", "work", "cache", "log", "run"] {
            let path = folder.join(inner);
            fs::create_dir_all(&path).map_err(|error| Error::file("create", &path, error))?;
            open_to_all(&path)?;
        }
        let address = free_address()?;
        let values = values(peer, ground, &folder, address)?;
        for (name, template) in kind.files {
            let path = folder.join(name);
            fs::write(&path, filled(template, &values))
                .map_err(|error| Error::file("write", &path, error))?;
        }
        let mut server = Self {
            kind,
            address,
            children: Vec::new(),
        };
        for (number, (program, arguments)) in kind.commands.iter().enumerate() {
            let program = peer
                .programs
                .get(*program)
                .ok_or_else(|| Error::Said(kind.name.to_owned()))?;
            let mut words = vec![program.display().to_string()];
            words.extend(arguments.iter().map(|argument| filled(argument, &values)));
            let spawn = Spawn {
                name: kind.name,
                words: &words,
                core: ground.core,
                environment: &[],
                log: folder.join(format!("output-{number}.log")),
                piped: false,
            };
            server.children.push(spawn.start()?);
        }
        server.wait(ground)?;
        Ok(server)
    }

    /// A door to it.
    pub(crate) fn door(
        &self,
        ground: &Ground,
        protocol: Protocol,
        groups: Groups,
        resumed: bool,
    ) -> Result<Door> {
        Door::new(self.address, protocol, &ground.certificate.ca, groups, resumed)
            .map_err(|why| self.load(why))
    }

    /// A URL for load generators that are programs of their own.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{HOST}:{}{path}", self.address.port())
    }

    /// What its processes have used so far.
    pub(crate) fn spent(&self) -> Spent {
        Spent::look(&self.pids())
    }

    /// What its processes hold.
    pub(crate) fn memory(&self) -> Memory {
        memory(&self.pids())
    }

    /// A fault of a run.
    pub(crate) fn load(&self, why: String) -> Error {
        Error::Load {
            name: self.kind.name.to_owned(),
            why,
        }
    }

    fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }

    /// Waits for the first good answer.
    fn wait(&mut self, ground: &Ground) -> Result<()> {
        let judge = Judge::new(Arc::clone(&ground.content));
        let ask = Ask::plain(ground.content.file("/f1k.bin")?);
        let door = self.door(ground, Protocol::H1, Groups::Classic, false)?;
        let began = clock::now();
        loop {
            let answer = crate::scenario::block_on(async {
                let mut connection = door.connect(0).await?;
                let request = judge.request(&ask, &door)?;
                let answer = connection.send(request).await?;
                judge.judge(&ask, answer).await
            })?;
            let Err(why) = answer else { return Ok(()) };
            let ended = self.children.iter_mut().find_map(Child::ended);
            if ended.is_some() || began.elapsed() > START_MAX {
                return Err(Error::Start {
                    name: self.kind.name.to_owned(),
                    why: ended.map_or(why, |status| format!("it ended with {status}")),
                    log: self.children.iter().map(Child::last_words).collect(),
                });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What the names in templates stand for.
fn values(
    peer: &Peer,
    ground: &Ground,
    folder: &Path,
    address: SocketAddr,
) -> Result<HashMap<&'static str, String>> {
    let show = |path: &Path| path.display().to_string();
    let is_root = is_root();
    let as_user = |line: &str| if is_root { line.to_owned() } else { String::new() };
    let modern = peer
        .version
        .split('/')
        .nth(1)
        .is_some_and(|version| at_least(version, (1, 25)));
    let brotli = Path::new("/usr/lib/nginx/modules/ngx_http_brotli_static_module.so");
    let has_brotli = brotli.is_file() && peer.programs.iter().any(|program| program.starts_with("/usr"));
    let when = |condition: bool, text: &str| if condition { text.to_owned() } else { String::new() };
    Ok(HashMap::from([
        ("@port@", address.port().to_string()),
        ("@inner@", free_address()?.port().to_string()),
        ("@dir@", show(folder)),
        ("@content@", show(&ground.content.folder)),
        ("@origin@", ground.origin.to_string()),
        ("@origin_host@", ground.origin.ip().to_string()),
        ("@origin_port@", ground.origin.port().to_string()),
        ("@chain@", show(&ground.certificate.chain)),
        ("@key@", show(&ground.certificate.key)),
        ("@bundle@", show(&ground.certificate.bundle)),
        (
            "@user@",
            as_user(if peer.name() == "h2o" {
                "user: www-data"
            } else {
                "user www-data;"
            }),
        ),
        ("@connections@", connections().to_string()),
        ("@files@", (connections() / 2).to_string()),
        ("@hitch_user@", as_user("user = \"nobody\"\ngroup = \"nogroup\"")),
        (
            "@ats_user@",
            if is_root { "trafficserver" } else { "#-1" }.to_owned(),
        ),
        (
            "@modules@",
            when(has_brotli, &format!("load_module {};", brotli.display())),
        ),
        ("@recode@", when(!ground.better_forms, "recode_budget = 0.0")),
        ("@brotli@", when(has_brotli, "brotli_static on;")),
        ("@gzip_static@", when(has_gzip_static(peer), "gzip_static on;")),
        ("@http2_old@", when(!modern, " http2")),
        ("@http2_new@", when(modern, "http2 on;")),
    ]))
}

fn filled(template: &str, values: &HashMap<&'static str, String>) -> String {
    let mut text = template.to_owned();
    for (name, value) in values {
        if text.contains(name) {
            text = text.replace(name, value);
        }
    }
    text
}

/// Whether a version is at least this one.
fn at_least(version: &str, wanted: (u32, u32)) -> bool {
    let mut numbers = version
        .split(|character: char| !character.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= wanted
}

/// An address of loopback that nobody listens on.
fn free_address() -> Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| Error::io("find a free port", error))
}

/// Not every build of nginx has the module for coded files.
fn has_gzip_static(peer: &Peer) -> bool {
    let output = peer
        .programs
        .first()
        .filter(|_| peer.name().starts_with("nginx"))
        .and_then(|program| Command::new(program).arg("-V").output().ok());
    output.is_some_and(|output| String::from_utf8_lossy(&output.stderr).contains("http_gzip_static_module"))
}

/// As many connections as the limit of open files allows a proxy, which needs two for each.
fn connections() -> u64 {
    let files = rlimit::Resource::NOFILE.get_soft().unwrap_or(1024);
    (files.saturating_sub(500) / 2).clamp(200, 32_768)
}

fn open_to_all(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
        .map_err(|error| Error::file("open to all", path, error))
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.starts_with(b"0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_templates_are_filled_in_and_nothing_else() {
        let values = HashMap::from([("@port@", "8443".to_owned()), ("@user@", String::new())]);
        assert_eq!(
            filled("@user@\nlisten @port@; @other@ @type\n", &values),
            "\nlisten 8443; @other@ @type\n"
        );
    }

    #[test]
    fn versions_are_compared_by_number() {
        let check = |version, expected| assert_eq!(at_least(version, (1, 25)), expected, "{version}");
        check("1.22.1", false);
        check("1.31.3", true);
        check("1.25.1 (Debian)", true);
        check("2.0", true);
        check("?", false);
    }
}
