//! A man in the middle who passes bytes on until he does not: he cuts, resets, stalls or alters a
//! connection at one byte of one of its ways.
//!
//! He reads nothing of what he passes, so TLS and HTTP/2 are bytes to him like any other.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus::IntGauge;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Request,
    Response,
}

/// What he does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Ends both ways in an orderly manner (FIN).
    Cut,
    /// Aborts both ways (RST).
    Reset,
    /// Passes nothing any more, and closes nothing.
    Stall,
    /// Flips these bits of the byte and goes on.
    Garble(u8),
}

/// Where he does it: behind that many bytes of one way, counted from when he is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub way: Way,
    pub at: usize,
    pub fault: Fault,
}

/// The man in the middle, between whoever connects to his address and a server.
#[derive(Clone)]
pub struct Faulty {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    server: SocketAddr,
    plan: Mutex<Option<Plan>>,
    /// Bytes of requests and of responses since he was told what to do.
    passed: [AtomicUsize; 2],
    /// Connections in his hands.
    open: watch::Sender<usize>,
    /// How often all of them were to end.
    ends: watch::Sender<usize>,
}

/// What becomes of a connection.
enum Turn {
    Onward,
    Struck(Fault),
    Over,
}

impl Faulty {
    /// Stands before `server` and does no harm yet.
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            server,
            plan: Mutex::new(None),
            passed: Default::default(),
            open: watch::Sender::new(0),
            ends: watch::Sender::new(0),
        });
        let accepting = Arc::clone(&state);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                accepting.open.send_modify(|open| *open += 1);
                let state = Arc::clone(&accepting);
                tokio::spawn(async move {
                    let ends = state.ends.subscribe();
                    if let Ok(server) = TcpStream::connect(state.server).await {
                        state.stay(client, server, ends).await;
                    }
                    state.open.send_modify(|open| *open -= 1);
                });
            }
        });
        Self { address, state }
    }

    /// Tells him what to do from now on; bytes are counted anew.
    pub fn plan(&self, plan: Option<Plan>) {
        *self.state.plan.lock().unwrap() = plan;
        for passed in &self.state.passed {
            passed.store(0, Ordering::SeqCst);
        }
    }

    /// Whether he has done it.
    pub fn has_struck(&self) -> bool {
        self.state.plan.lock().unwrap().is_none()
    }

    /// How many bytes went that way since he was told what to do.
    pub fn passed(&self, way: Way) -> usize {
        self.state.passed[way as usize].load(Ordering::SeqCst)
    }

    /// How many connections he holds.
    pub fn open(&self) -> usize {
        *self.state.open.borrow()
    }

    /// Ends all connections and waits until both sides have, too; then until the server, which shows
    /// its open connections, has done all it will.
    pub async fn end_all(&self, at_server: &IntGauge) {
        self.state.ends.send_modify(|ends| *ends += 1);
        let mut open = self.state.open.subscribe();
        open.wait_for(|open| *open == 0).await.unwrap();
        // Connections are accepted in their order: when this one is over, none waits to be.
        let mut last = TcpStream::connect(self.state.server).await.unwrap();
        last.shutdown().await.unwrap();
        swallow(&mut last.split().0).await;
        while at_server.get() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

impl State {
    async fn stay(
        &self,
        mut client: TcpStream,
        mut server: TcpStream,
        mut ends: watch::Receiver<usize>,
    ) {
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let (mut asked, mut told) = (vec![0; 16 << 10], vec![0; 16 << 10]);
        let (mut asking, mut telling) = (true, true);
        let struck = loop {
            let (mut from_client, mut to_client) = client.split();
            let (mut from_server, mut to_server) = server.split();
            let (turn, open) = tokio::select! {
                read = from_client.read(&mut asked), if asking => {
                    let data = asked.get_mut(..read.unwrap_or(0)).unwrap();
                    (self.pass(Way::Request, data, &mut to_server).await, &mut asking)
                }
                read = from_server.read(&mut told), if telling => {
                    let data = told.get_mut(..read.unwrap_or(0)).unwrap();
                    (self.pass(Way::Response, data, &mut to_client).await, &mut telling)
                }
                _ = ends.changed() => break Fault::Cut,
            };
            match turn {
                Turn::Onward => {}
                Turn::Struck(fault) => break fault,
                Turn::Over => *open = false,
            }
            if !asking && !telling {
                return;
            }
        };
        match struck {
            Fault::Reset => {
                for stream in [&client, &server] {
                    let _gone = SockRef::from(stream).set_linger(Some(Duration::ZERO));
                }
            }
            Fault::Stall => {
                {
                    let (mut from_client, _) = client.split();
                    tokio::select! {
                        () = swallow(&mut from_client) => {}
                        _ = ends.changed() => {}
                    }
                }
                end(&mut client, &mut server).await;
            }
            Fault::Cut | Fault::Garble(_) => end(&mut client, &mut server).await,
        }
    }

    /// Passes bytes on, up to where the plan strikes. No bytes are an end, which is passed on, too.
    async fn pass(&self, way: Way, data: &mut [u8], to: &mut WriteHalf<'_>) -> Turn {
        let passed = &self.passed[way as usize];
        let before = passed.load(Ordering::SeqCst);
        let plan = *self.plan.lock().unwrap();
        let plan = plan.filter(|plan| plan.way == way && !data.is_empty());
        let left = plan.map(|plan| (plan.at.saturating_sub(before), plan.fault));
        let (upto, struck) = match left {
            Some((at, Fault::Garble(bits))) if at < data.len() => {
                data[at] ^= bits;
                self.plan.lock().unwrap().take();
                (data.len(), None)
            }
            Some((at, fault @ (Fault::Cut | Fault::Reset | Fault::Stall))) if at <= data.len() => {
                self.plan.lock().unwrap().take();
                (at, Some(fault))
            }
            _ => (data.len(), None),
        };
        passed.fetch_add(upto, Ordering::SeqCst);
        let written = if data.is_empty() {
            to.shutdown().await
        } else {
            to.write_all(&data[..upto]).await
        };
        match (struck, written) {
            (Some(fault), _) => Turn::Struck(fault),
            (None, Ok(())) if !data.is_empty() => Turn::Onward,
            (None, _) => Turn::Over,
        }
    }
}

/// Ends both ways, and waits for both peers to end theirs.
async fn end(client: &mut TcpStream, server: &mut TcpStream) {
    for stream in [&mut *client, &mut *server] {
        let _gone = stream.shutdown().await;
    }
    let (mut from_client, _) = client.split();
    let (mut from_server, _) = server.split();
    tokio::join!(swallow(&mut from_client), swallow(&mut from_server));
}

async fn swallow(from: &mut ReadHalf<'_>) {
    let mut data = vec![0; 4096];
    while from.read(&mut data).await.is_ok_and(|read| read > 0) {}
}
