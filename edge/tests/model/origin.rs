//! An origin that does as it is told, over real connections, and remembers what it was asked.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::oracle::{Contact, Said};
use crate::plan::{Fault, Purge, Script, Vary};

/// What the origin does next, and what it did.
#[derive(Default)]
struct State {
    /// The answer to GET and HEAD; the status of the answer to everything else, and the key that it names.
    script: Option<Script>,
    change: (u16, Option<u8>),
    now: u64,
    versions: Vec<u64>,
    numbers: u64,
    contacts: Vec<Contact>,
    changes: usize,
}

/// What is done when a purge comes while the origin is at work.
pub(crate) type Purger = Arc<dyn Fn(&Purge) + Send + Sync>;

/// The origin. It ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    purger: Arc<Mutex<Option<Purger>>>,
    epoch: u64,
}

impl Origin {
    /// An origin whose time begins at `epoch`, in seconds of Unix.
    pub(crate) async fn start(epoch: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
            purger: Arc::default(),
            epoch,
        };
        origin.lock().versions = vec![0; usize::from(crate::plan::KEYS)];
        let serving = origin.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let origin = serving.clone();
                tokio::spawn(async move {
                    let _ = origin.converse(stream).await;
                });
            }
        });
        origin
    }

    pub(crate) fn purge_with(&self, purger: Purger) {
        *self.purger.lock().unwrap() = Some(purger);
    }

    /// From now on, GET and HEAD are answered by `script`.
    pub(crate) fn tell(&self, script: &Script, now: u64, key: u8) {
        let mut state = self.lock();
        if script.changed || state.versions[usize::from(key)] == 0 {
            state.numbers += 1;
            state.versions[usize::from(key)] = state.numbers;
        }
        state.script = Some(script.clone());
        state.now = now;
    }

    /// From now on, unsafe methods are answered like this.
    pub(crate) fn tell_change(&self, status: u16, names: Option<u8>, now: u64) {
        let mut state = self.lock();
        state.change = (status, names);
        state.now = now;
    }

    /// What was asked since the last call.
    pub(crate) fn contacts(&self) -> Vec<Contact> {
        std::mem::take(&mut self.lock().contacts)
    }

    /// How many unsafe requests came since the last call.
    pub(crate) fn changes(&self) -> usize {
        std::mem::take(&mut self.lock().changes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn converse(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let end = loop {
                if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                    break end + 4;
                }
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            };
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            buffer.drain(..end);
            let length: usize = field(&head, "content-length").map_or(0, |text| text.parse().unwrap());
            while buffer.len() < length {
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            }
            buffer.drain(..length);
            let (answer, goes_on) = self.answer(&head);
            stream.write_all(&answer).await?;
            if !goes_on {
                return stream.shutdown().await;
            }
        }
    }

    /// The bytes of the answer, and whether the connection lives on.
    fn answer(&self, head: &str) -> (Vec<u8>, bool) {
        let mut words = head.split(' ');
        let method = words.next().unwrap_or_default();
        let Some(key) = crate::world::key_of(words.next().unwrap_or_default()) else {
            // The node looks whether the origin is back, when it likes: no client's request, and it changes nothing.
            let script = self.lock().script.clone();
            let is_well = script.is_none_or(|script| script.fault.is_none());
            let fine: &[u8] = b"HTTP/1.1 204 x\r\n\r\n";
            return (if is_well { fine.to_vec() } else { Vec::new() }, is_well);
        };
        if !matches!(method, "GET" | "HEAD") {
            let mut state = self.lock();
            state.changes += 1;
            let (status, names) = state.change;
            let mut answer = format!("HTTP/1.1 {status} x\r\n");
            if let Some(named) = names {
                let _ = write!(answer, "location: {}\r\n", crate::world::path(named));
            }
            if status != 204 {
                answer.push_str("content-length: 0\r\n");
            }
            answer.push_str("\r\n");
            return (answer.into_bytes(), true);
        }
        let script = self
            .lock()
            .script
            .clone()
            .expect("a script is told before anybody asks");
        if let Some(purge) = &script.purge {
            let purger = self.purger.lock().unwrap().clone();
            purger.expect("whoever purges is told")(purge);
        }
        let mut state = self.lock();
        let (answer, said) = compose(&mut state, head, method == "HEAD", key, &script, self.epoch);
        state.contacts.push(Contact {
            key,
            head: method == "HEAD",
            said,
            purge: script.purge.clone(),
            script: script.clone(),
        });
        let dies = script.fault.is_some();
        (answer, !dies)
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn compose(
    state: &mut State,
    request: &str,
    is_head: bool,
    key: u8,
    script: &Script,
    epoch: u64,
) -> (Vec<u8>, Said) {
    match script.fault {
        Some(Fault::Close) => return (Vec::new(), Said::Nothing),
        Some(Fault::Garbage) => return (b"\x00\x01 what is this\r\n\r\n".to_vec(), Said::Nothing),
        Some(Fault::HalfHead) => return (b"HTTP/1.1 200 OK\r\ncontent-ty".to_vec(), Said::Nothing),
        Some(Fault::Truncate) | None => {}
    }
    state.numbers += 1;
    let (number, version) = (state.numbers, state.versions[usize::from(key)]);
    // Where the answer varies each variant has a validator of its own.
    let variant = field(request, "x-variant")
        .filter(|_| script.vary == Vary::Field)
        .unwrap_or_default();
    let etag = format!("\"v{version}{variant}\"");
    let confirmed = script.etag
        && script.status == 200
        && field(request, "if-none-match").is_some_and(|list| list.split(',').any(|tag| tag.trim() == etag));
    let mut content = crate::world::content(key, version);
    let asked = field(request, "range").and_then(crate::world::read_range);
    let part = asked.filter(|_| script.ranges && script.status == 200 && !confirmed && !is_head);
    let part = part.filter(|(first, _)| *first < content.len() as u64);
    let status = match (confirmed, part) {
        (true, _) => 304,
        (_, Some(_)) => 206,
        _ => script.status,
    };
    let mut head = format!("HTTP/1.1 {status} x\r\nx-number: {number}\r\n");
    fields(&mut head, script, epoch + state.now);
    if script.etag {
        let _ = write!(head, "etag: {etag}\r\n");
    }
    if confirmed {
        head.push_str("\r\n");
        return (head.into_bytes(), Said::NotModified { number, version });
    }
    // A 304 lacks it, and so does what freshens the fields alone: what a client gets then is what was stored.
    let name = if is_head { "x-head-version" } else { "x-version" };
    let _ = write!(head, "{name}: {version}\r\ncontent-type: text/x-model\r\n");
    if let Some((first, last)) = part {
        let length = content.len() as u64;
        let last = last.min(length - 1);
        let _ = write!(head, "content-range: bytes {first}-{last}/{length}\r\n");
        content = content[first as usize..=last as usize].to_vec();
    }
    if status == 204 {
        content.clear();
    }
    let truncate = script.fault == Some(Fault::Truncate) && !is_head && !content.is_empty();
    let said = Said::Full {
        number,
        version,
        partial: part.is_some(),
        cut: truncate,
    };
    frame(&mut head, &content, script.chunked, status);
    let mut answer = head.into_bytes();
    if is_head || status == 204 {
        return (answer, said);
    }
    let sent = if truncate {
        &content[..content.len() / 2]
    } else {
        &content[..]
    };
    if !script.chunked {
        answer.extend(sent);
        return (answer, said);
    }
    for piece in sent.chunks(1000) {
        answer.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        answer.extend(piece);
        answer.extend(b"\r\n");
    }
    if !truncate {
        answer.extend(b"0\r\n\r\n");
    }
    (answer, said)
}

fn frame(head: &mut String, content: &[u8], chunked: bool, status: u16) {
    if status != 204 && chunked {
        head.push_str("transfer-encoding: chunked\r\n");
    } else if status != 204 {
        let _ = write!(head, "content-length: {}\r\n", content.len());
    }
    head.push_str("\r\n");
}

fn fields(head: &mut String, script: &Script, now: u64) {
    let date = |at: i64| {
        httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(at.max(0) as u64))
    };
    let said = now as i64 - script.date_behind as i64;
    let mut line = |name: &str, value: &str| {
        let _ = write!(head, "{name}: {value}\r\n");
    };
    line("date", &date(said));
    if let Some(control) = script.control.write() {
        line("cache-control", &control);
    }
    match script.expires {
        Some(Ok(delta)) => line("expires", &date(said + delta)),
        Some(Err(())) => line("expires", "0"),
        None => {}
    }
    if let Some(before) = script.last_modified {
        line("last-modified", &date(said - before as i64));
    }
    if let Some(age) = script.age {
        line("age", &age.to_string());
    }
    match script.vary {
        Vary::Nothing => {}
        Vary::Field => line("vary", "X-Variant"),
        Vary::Star => line("vary", "*"),
    }
    if let Some(tag) = script.tag {
        line("cache-tag", &format!("tag-{tag}"));
    }
}
