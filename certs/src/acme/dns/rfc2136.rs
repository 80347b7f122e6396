//! Dynamic update (RFC 2136), signed with a shared key (RFC 8945), over TCP.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::op::{Message, ResponseCode, update_message};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm as Algorithm;
use hickory_proto::rr::{Name, RData, Record, RecordSet, RecordType, TSigner};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Error, Provider};
use crate::settings::{Rfc2136Settings, TsigAlgorithm};
use crate::store::Boxed;
use crate::store::slot::unix;
use crate::tickets::Now;

/// How far the server's clock may be from ours (RFC 8945 section 10).
const FUDGE_SECONDS: u16 = 300;
const TTL_SECONDS: u32 = 60;
/// One update, from connect to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that takes updates of one zone.
pub struct Rfc2136 {
    server: SocketAddr,
    zone: Name,
    signer: TSigner,
    wait: Duration,
    now: Now,
}

impl Rfc2136 {
    /// The server of `settings`. Nothing is sent yet.
    pub fn new(settings: &Rfc2136Settings, now: Now) -> Result<Self, Error> {
        let key = STANDARD
            .decode(settings.secret.0.trim())
            .map_err(|_| Error::Key("it is not base64".into()))?;
        let algorithm = match settings.algorithm {
            TsigAlgorithm::HmacSha256 => Algorithm::HmacSha256,
            TsigAlgorithm::HmacSha384 => Algorithm::HmacSha384,
            TsigAlgorithm::HmacSha512 => Algorithm::HmacSha512,
        };
        let signer = TSigner::new(key, algorithm, parse(&settings.key_name)?, FUDGE_SECONDS)
            .map_err(|error| Error::Key(error.to_string()))?;
        Ok(Self {
            server: settings.server,
            zone: parse(&settings.zone)?,
            signer,
            wait: settings.wait,
            now,
        })
    }

    fn records(&self, name: &str, values: &[String]) -> Result<RecordSet, Error> {
        let owner = parse(name)?;
        if !self.zone.zone_of(&owner) {
            return Err(Error::Name(name.to_owned()));
        }
        let mut records = RecordSet::new(owner.clone(), RecordType::TXT, 0);
        for value in values {
            let text = RData::TXT(TXT::new(vec![value.clone()]));
            records.insert(Record::from_rdata(owner.clone(), TTL_SECONDS, text), 0);
        }
        Ok(records)
    }

    async fn send(&self, mut message: Message) -> Result<(), Error> {
        let unsendable = |error: hickory_proto::ProtoError| Error::Refused(error.to_string());
        let time = unix((self.now)());
        let verifier = message.finalize(&self.signer, time).map_err(unsendable)?;
        let bytes = message.to_vec().map_err(unsendable)?;
        let late = |_| Error::Network(std::io::ErrorKind::TimedOut.into());
        let answer = tokio::time::timeout(PATIENCE, exchange(self.server, &bytes))
            .await
            .map_err(late)?
            .map_err(Error::Network)?;
        // Without this anybody on the way could say that the record is there.
        let code = match verifier {
            Some(mut verifier) => {
                let response = verifier
                    .verify(&answer)
                    .map_err(|error| unsigned(&answer, &error))?;
                response.response_code
            }
            None => return Err(Error::Key("it does not sign updates".into())),
        };
        match code {
            ResponseCode::NoError => Ok(()),
            code => Err(Error::Refused(code.to_string())),
        }
    }
}

impl Provider for Rfc2136 {
    fn present<'a>(&'a self, name: &'a str, values: &'a [String]) -> Boxed<'a, Result<(), Error>> {
        Box::pin(async move {
            let records = self.records(name, values)?;
            self.send(update_message::append(records, self.zone.clone(), false, false))
                .await
        })
    }

    fn settle(&self) -> Boxed<'_, Result<(), Error>> {
        Box::pin(async {
            tokio::time::sleep(self.wait).await;
            Ok(())
        })
    }

    fn clear<'a>(&'a self, name: &'a str, values: &'a [String]) -> Boxed<'a, Result<(), Error>> {
        Box::pin(async move {
            let records = self.records(name, values)?;
            self.send(update_message::delete_by_rdata(records, self.zone.clone(), false))
                .await
        })
    }
}

impl fmt::Debug for Rfc2136 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rfc2136({} at {})", self.zone, self.server)
    }
}

/// A server that does not know the key, or whose clock is off, says so without a signature (RFC 8945 section 5.2).
fn unsigned(answer: &[u8], error: &hickory_proto::ProtoError) -> Error {
    let code = Message::from_vec(answer).map(|message| message.response_code.to_string());
    Error::Refused(format!(
        "its answer is not signed as it should be: {} ({error})",
        code.unwrap_or_default()
    ))
}

fn parse(name: &str) -> Result<Name, Error> {
    let mut parsed = Name::from_str(name).map_err(|_| Error::Name(name.to_owned()))?;
    parsed.set_fqdn(true);
    Ok(parsed)
}

/// RFC 1035 section 4.2.2: over TCP each message has its length before it.
async fn exchange(server: SocketAddr, message: &[u8]) -> std::io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    let mut stream = TcpStream::connect(server).await?;
    stream
        .write_all(&[&length.to_be_bytes(), message].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}
