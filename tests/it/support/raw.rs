//! HTTP as bytes: a client that writes what it is told, and a gateway that answers what it is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// An unsigned refusal, the smallest answer that passes.
pub const UNSIGNED: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 31\r\n\r\n{\"result\":{\"resultStatus\":\"F\"}}";

/// What a client got.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head: {}", String::from_utf8_lossy(bytes)));
        let head = bytes[..end]
            .iter()
            .map(|byte| char::from(*byte))
            .collect::<String>();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            status,
            head,
            body: bytes[end + 4..].to_vec(),
        }
    }

    /// Reads to the end of a connection.
    pub async fn read(mut stream: impl AsyncRead + Unpin) -> Self {
        let mut bytes = Vec::new();
        // A reset after a complete answer is how a server refuses the rest of a request.
        let _reset = stream.read_to_end(&mut bytes).await;
        Self::parse(&bytes)
    }

    /// The value of a field, by its exact spelling.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `verdict VERDICT`, or `CODE OUTCOME STATUS`.
    pub fn outcome(&self) -> String {
        match (
            self.field("countersign-verdict"),
            self.field("countersign-error"),
        ) {
            (Some(verdict), None) => format!("verdict {verdict}"),
            (None, Some(code)) => {
                format!(
                    "{code} {} {}",
                    self.field("countersign-outcome").unwrap(),
                    self.status
                )
            }
            other => panic!("{other:?}: {}", self.head),
        }
    }
}

/// Sends raw bytes on a connection of its own and reads until the other side closes.
pub async fn send(to: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request.as_ref()).await.unwrap();
    Answer::read(stream).await
}

/// Asks a proxy for a connection to `target`, with `rest` right behind the request. Returns the
/// connection, read up to the end of the answer's head, or to its end when it is no 200.
pub async fn connect(proxy: SocketAddr, target: &str, rest: &[u8]) -> (TcpStream, Answer) {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream
        .write_all(&[head.as_bytes(), rest].concat())
        .await
        .unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.unwrap());
    }
    (stream, Answer::parse(&bytes))
}

/// A TLS greeting that no library of today reads, though a server name stands in it.
pub fn unreadable_greeting(name: &str) -> Vec<u8> {
    let message = [b" old ".as_slice(), name.as_bytes(), b"\0"].concat();
    let length = u8::try_from(message.len()).unwrap();
    let head = [22, 3, 1, 0, length + 4, 1, 0, 0, length];
    [head.as_slice(), &message].concat()
}

/// A POST in the least possible number of headers.
pub fn post(target: &str, host: &str, extra: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: {host}\r\n{extra}Content-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A plain HTTP server that records requests and answers them as told.
pub struct RawGateway {
    pub address: SocketAddr,
    requests: mpsc::UnboundedReceiver<(Vec<u8>, TcpStream)>,
    connections: Arc<AtomicUsize>,
}

impl RawGateway {
    /// A gateway whose every whole request waits for the test to answer it by hand.
    pub async fn by_hand() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let (sender, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let sender = sender.clone();
                tokio::spawn(async move {
                    if let Some(request) = read_message(&mut stream).await {
                        let _test_over = sender.send((request, stream));
                    }
                });
            }
        });
        Self {
            address,
            requests,
            connections,
        }
    }

    /// A gateway that answers every request with the same bytes and closes.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> SocketAddr {
        let answer = answer.into();
        let mut gateway = Self::by_hand().await;
        let address = gateway.address;
        tokio::spawn(async move {
            loop {
                let (_, mut stream) = gateway.next().await;
                stream.write_all(&answer).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        address
    }

    /// The next request, with the connection it came on.
    pub async fn next(&mut self) -> (Vec<u8>, TcpStream) {
        self.requests.recv().await.unwrap()
    }

    /// A request that has arrived already, if there is one.
    pub fn arrived(&mut self) -> Option<(Vec<u8>, TcpStream)> {
        self.requests.try_recv().ok()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A message with a Content-Length or none, up to its end.
pub async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                return Some(bytes);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
