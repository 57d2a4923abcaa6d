//! What the service manager is told: that the sidecar is ready, reloads, drains, and lives.
//!
//! The protocol is that of `sd_notify(3)`: datagrams to the socket that `NOTIFY_SOCKET` names. It is
//! connected before the process confines itself, as Landlock keeps it from sockets of abstract names
//! afterwards; so the usual crate, which opens it for each message, is no choice. Never waits for a
//! manager that does not read, and never ends the process. Called by `run`.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{debug, warn};

use super::{environment, variable};
use crate::{clock, task};

/// Messages that may wait for a manager that is busy; more are lost.
const WAITING: usize = 16;

/// The way to a service manager, if there is one.
#[derive(Debug)]
pub(super) struct Line {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Line {
    /// Opens it as the environment says, before the process confines itself.
    pub(super) fn open() -> Self {
        let socket = variable("NOTIFY_SOCKET").and_then(|name| {
            let connected = connect(&name);
            let tell = |error| warn!(%error, "the service manager cannot be told (NOTIFY_SOCKET)");
            connected.map_err(tell).ok()
        });
        let number = |name| environment(name)?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| is_ours && *micros > 0);
        Self {
            socket,
            watchdog: watchdog.map(Duration::from_micros),
        }
    }

    /// Begins to speak, from within the runtime; the watchdog is told from now on that it turns.
    pub(super) fn speak(self) -> Supervisor {
        let socket = self.socket.and_then(|socket| {
            let socket = tokio::net::UnixDatagram::from_std(socket);
            let tell = |error| warn!(%error, "the service manager cannot be told (NOTIFY_SOCKET)");
            socket.map_err(tell).ok()
        });
        let queue = socket.map(|socket| {
            let (queue, messages) = mpsc::channel(WAITING);
            drop(task::spawn(write(socket, messages, self.watchdog)));
            queue
        });
        Supervisor {
            queue,
            serving: String::new(),
            is_leaving: false,
        }
    }
}

fn connect(name: &OsString) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => {
            return Err(io::Error::other(
                "is neither a path nor an abstract name (@…)",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

async fn write(
    socket: tokio::net::UnixDatagram,
    mut messages: Receiver<String>,
    watchdog: Option<Duration>,
) {
    // Twice in its time, as sd_watchdog_enabled(3) recommends.
    let mut ticks = watchdog.map(|most| {
        let mut ticks = interval((most / 2).max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    });
    loop {
        let message = tokio::select! {
            message = messages.recv() => message,
            () = tick(&mut ticks) => Some("WATCHDOG=1".to_owned()),
        };
        let Some(message) = message else {
            return;
        };
        if let Err(error) = socket.send(message.as_bytes()).await {
            debug!(%error, message, "the service manager was not told");
        }
    }
}

/// Never, where no watchdog waits.
async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// Who is told; without a service manager nobody.
#[derive(Debug)]
pub(super) struct Supervisor {
    queue: Option<Sender<String>>,
    /// What it serves, for people.
    serving: String,
    /// A drain has begun: nothing that happens now makes it ready again.
    is_leaving: bool,
}

impl Supervisor {
    /// All listeners are bound; `serving` is a line for people.
    pub(super) fn ready(&mut self, serving: String) {
        self.tell(format!("READY=1\nSTATUS={serving}"));
        self.serving = serving;
    }

    /// A reload that somebody asked for begins.
    pub(super) fn reloading(&self) {
        // Type=notify-reload tells by the time which signal it answers.
        let now = clock::monotonic_micros();
        self.tell(format!(
            "RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reloading"
        ));
    }

    /// It is over.
    pub(super) fn reloaded(&self, taken_over: bool) {
        let how = if taken_over {
            "reloaded"
        } else {
            "the last reload failed, see the log"
        };
        self.tell(format!("READY=1\nSTATUS={}; {how}", self.serving));
    }

    /// The drain begins.
    pub(super) fn stopping(&mut self, cause: &str) {
        self.tell(format!("STOPPING=1\nSTATUS=draining ({cause})"));
        self.is_leaving = true;
    }

    fn tell(&self, message: String) {
        let Some(queue) = self.queue.as_ref().filter(|_| !self.is_leaving) else {
            return;
        };
        if let Err(error) = queue.try_send(message) {
            debug!(%error, "the service manager was not told");
        }
    }
}
