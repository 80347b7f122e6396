//! The floor: tokio and rustls, and no server. It writes an answer that was put together before to every request for a file,
//! over HTTP/1.1, and looks at nothing of the request but its path. What a server takes beyond it is its own doing; what
//! both take is the kernel's and the cipher's.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::content::Content;
use crate::error::{Error, Result};
use crate::load::{Outcome, start};
use crate::scenario::block_on;

/// Longer request heads end their connection.
const HEAD_MAX: usize = 16 * 1024;

/// What the process is told, by its arguments.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    port: u16,
    chain: PathBuf,
    key: PathBuf,
    content: PathBuf,
}

/// Answers by path.
type Answers = HashMap<String, Bytes>;

/// Serves until the process is ended.
pub(crate) fn serve(arguments: &Arguments) -> Result<()> {
    let content = Content::read(arguments.content.clone())?;
    let answers: Answers = content
        .files
        .iter()
        .map(|file| (file.path.clone(), answer(&file.bytes)))
        .collect();
    let acceptor = acceptor(arguments).map_err(Error::Said)?;
    block_on(accept(arguments.port, &acceptor, &Arc::new(answers)))?.map_err(Error::Said)
}

fn answer(body: &Bytes) -> Bytes {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat().into()
}

fn acceptor(arguments: &Arguments) -> Outcome<TlsAcceptor> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(&arguments.chain)
        .and_then(Iterator::collect)
        .map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_file(&arguments.key).map_err(|error| error.to_string())?;
    let mut tls = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| error.to_string())?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

async fn accept(port: u16, acceptor: &TlsAcceptor, answers: &Arc<Answers>) -> Outcome<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            continue;
        };
        let (acceptor, answers) = (acceptor.clone(), Arc::clone(answers));
        start(async move {
            // A client that goes away is nobody's fault here.
            let _ = converse(tcp, &acceptor, &answers).await;
        });
    }
}

async fn converse(tcp: TcpStream, acceptor: &TlsAcceptor, answers: &Answers) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut stream = acceptor.accept(tcp).await?;
    let mut head = Vec::with_capacity(1024);
    loop {
        let end = head.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else {
            if head.len() > HEAD_MAX || stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let line = String::from_utf8_lossy(head.get(..end).unwrap_or_default());
        let known = line.split(' ').nth(1).and_then(|path| answers.get(path));
        let Some(known) = known else {
            return stream
                .write_all(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                .await;
        };
        stream.write_all(known).await?;
        stream.flush().await?;
        head.drain(..end + 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_long_its_body_is() {
        let answer = answer(&Bytes::from_static(b"body"));
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert!(answer.ends_with(b"content-length: 4\r\n\r\nbody"));
    }
}
