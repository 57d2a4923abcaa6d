//! Every way a connection can arrive at which HTTP/1 is spoken, to try the same bytes on all.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use countersign::clock::Clock;
use countersign::net::tls;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::inbound::Inbound;
use super::pki::{Pki, argument};
use super::raw::{RawGateway, connect};
use super::{Answer, Files, World};

/// A signed host, which the world's gateway stands for.
pub const SEA: &str = "open-sea-global.alipayplus.com";

/// A connection, with or without TLS.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<I: AsyncRead + AsyncWrite + Unpin + Send> Stream for I {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    BaseUrl,
    Proxy,
    InsideConnect,
    InsideTls,
    Ingress,
    IngressTls,
    Admin,
    Sandbox,
}

impl Way {
    pub const ALL: [Self; 8] = [
        Self::BaseUrl,
        Self::Proxy,
        Self::InsideConnect,
        Self::InsideTls,
        Self::Ingress,
        Self::IngressTls,
        Self::Admin,
        Self::Sandbox,
    ];

    /// The listener's name in metrics; the sandbox has none.
    pub fn listener(self) -> Option<&'static str> {
        match self {
            Self::BaseUrl | Self::Proxy | Self::InsideConnect | Self::InsideTls => Some("egress"),
            Self::Ingress | Self::IngressTls => Some("ingress"),
            Self::Admin => Some("admin"),
            Self::Sandbox => None,
        }
    }
}

/// Both directions, whose gateway and app must see nothing; and the sandbox.
pub struct Entrances {
    pub out: World,
    pub gateway: RawGateway,
    pub inbound: Inbound,
    pub over_tls: Inbound,
    pki: Pki,
    sandbox: countersign::sandbox::Started,
    files: Files,
}

impl Entrances {
    pub async fn new() -> Self {
        let (gateway, clock) = (RawGateway::by_hand().await, Clock::system());
        let upstream = format!("http://{}", gateway.address);
        let rest = "ca: { trust_directory: trust }";
        let out = World::before_at(clock.clone(), &upstream, "", rest).await;
        let (pki, files) = (Pki::new(), Files::new());
        let tls = format!(
            "  tls: {{ certificate_file: {}, key_file: {} }}",
            argument(&pki.path("one.pem")),
            argument(&pki.path("one.key"))
        );
        let sandbox = super::world::gateway(&files, &clock, false, "127.0.0.1:0").await;
        Self {
            out,
            gateway,
            inbound: Inbound::new().await,
            over_tls: Inbound::with("", &tls).await,
            pki,
            sandbox,
            files,
        }
    }

    pub fn sandbox(&self) -> &countersign::sandbox::Sandbox {
        &self.sandbox.gateway
    }

    fn address(&self, way: Way) -> SocketAddr {
        match way {
            Way::BaseUrl | Way::Proxy | Way::InsideConnect | Way::InsideTls => self.out.egress,
            Way::Ingress => self.inbound.ingress,
            Way::IngressTls => self.over_tls.ingress,
            Way::Admin => self.out.running.admin.unwrap(),
            Way::Sandbox => self.sandbox.address,
        }
    }

    /// What `Host` says there.
    pub fn host(&self, way: Way) -> String {
        match way {
            Way::Proxy | Way::InsideConnect | Way::InsideTls => SEA.to_owned(),
            _ => self.address(way).to_string(),
        }
    }

    /// A connection on which requests may begin.
    pub async fn open(&self, way: Way) -> Box<dyn Stream> {
        let address = self.address(way);
        let tls = async |stream, ca: &Path, name: &str| {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            let connector = TlsConnector::from(Arc::new(trusting(ca)));
            Box::new(connector.connect(name, stream).await.unwrap())
        };
        match way {
            Way::InsideConnect => Box::new(connect(address, &format!("{SEA}:80"), b"").await.0),
            Way::InsideTls => {
                let (stream, _) = connect(address, &format!("{SEA}:443"), b"").await;
                tls(stream, &self.out.files.path("trust/ca.pem"), SEA).await
            }
            Way::IngressTls => {
                let stream = TcpStream::connect(address).await.unwrap();
                tls(stream, &self.pki.path("ca.pem"), "localhost").await
            }
            Way::Sandbox => {
                let stream = TcpStream::connect(address).await.unwrap();
                tls(stream, &self.files.path("ca.pem"), "localhost").await
            }
            _ => Box::new(TcpStream::connect(address).await.unwrap()),
        }
    }

    /// What comes back for these bytes until the other side closes.
    pub async fn send(&self, way: Way, bytes: &[u8]) -> Answer {
        let mut stream = self.open(way).await;
        stream.write_all(bytes).await.unwrap();
        Answer::read(stream).await
    }

    /// How often a request was refused for that reason.
    pub fn refused(&self, way: Way, reason: &str) -> f64 {
        let Some(listener) = way.listener() else {
            return 0.0;
        };
        let labels = format!("listener=\"{listener}\",reason=\"{reason}\"");
        let line = format!("countersign_malformed_requests_total{{{labels}}}");
        match way {
            Way::Ingress => self.inbound.metric(&line),
            Way::IngressTls => self.over_tls.metric(&line),
            _ => self.out.metric(&line),
        }
    }

    /// Nothing has come out on the other side.
    pub fn nothing_passed(&mut self) -> bool {
        self.gateway.connections() == 0
            && self.inbound.app.connections() == 0
            && self.over_tls.app.connections() == 0
            && self.sandbox().deliveries() == 0
    }
}

/// What trusts one CA and speaks HTTP/1.1.
fn trusting(ca: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(tls::certificates(ca).unwrap());
    let mut config = tls::client(roots).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}
