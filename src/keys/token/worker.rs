//! A thread with one session: signs what is handed in, and finds a token again that went away.
//!
//! A signature that failed is tried once more on a fresh session: the same bytes come out, and nothing
//! was sent yet. If that fails too, or there is no fresh session, the caller gets the reason, and the
//! thread looks for the token in growing pauses, whether anybody asks or not.

use std::sync::Arc;

use countersign_protocol::PublicKey;
use countersign_protocol::sign::DIGEST_INFO;
use tracing::{info, warn};

use super::connection::{Account, Connection};
use super::desk::{Desk, Pause, Task};
use super::error::TokenError;
use super::module::Lease;

/// What one thread works with.
pub(super) struct Worker {
    desk: Arc<Desk>,
    account: Arc<Account>,
    lease: Lease,
    /// The key that was found at the start, and no other.
    expected: PublicKey,
    connection: Option<Connection>,
    pause: Pause,
}

impl Worker {
    /// One that has no session yet.
    pub(super) fn new(
        desk: &Arc<Desk>,
        account: &Arc<Account>,
        lease: &Lease,
        expected: &PublicKey,
    ) -> Self {
        desk.arrive();
        Self {
            desk: Arc::clone(desk),
            account: Arc::clone(account),
            lease: lease.clone(),
            expected: expected.clone(),
            connection: None,
            pause: Pause::none(),
        }
    }

    /// Takes over a session.
    pub(super) fn with(mut self, connection: Connection) -> Self {
        self.desk.connected();
        self.connection = Some(connection);
        self
    }

    /// Works until the desk is closed.
    pub(super) fn run(mut self) {
        loop {
            let apart = self.connection.is_none().then_some(&self.pause);
            match self.desk.next(apart) {
                Task::Sign(job) => {
                    let result = self.serve(&job.info);
                    job.answer(result);
                }
                Task::Connect => {
                    // Told to the log, and to whoever asks meanwhile.
                    let _result = self.connect();
                }
                Task::Probe => self.probe(),
                Task::End => return,
            }
        }
    }

    fn serve(&mut self, info: &[u8; DIGEST_INFO]) -> Result<Vec<u8>, TokenError> {
        if self.connection.is_none()
            && let Some(reason) = self.desk.reason()
        {
            return Err(TokenError::NoSession(reason));
        }
        if let Ok(signature) = self.attempt(info) {
            return Ok(signature);
        }
        self.connect()?;
        self.attempt(info)
            .inspect_err(|_| self.pause = self.pause.next())
    }

    /// Signs in the session there is, and drops it when that fails: nobody knows what state it is in.
    fn attempt(&mut self, info: &[u8; DIGEST_INFO]) -> Result<Vec<u8>, TokenError> {
        let Some(connection) = &self.connection else {
            return Err(TokenError::Ended(Arc::clone(&self.account.at)));
        };
        let result = connection.sign(info);
        match &result {
            Ok(_) => self.pause = Pause::none(),
            Err(error) => self.lose(error),
        }
        result
    }

    fn probe(&mut self) {
        match self.connection.as_ref().map(Connection::probe) {
            Some(Err(error)) => self.lose(&error),
            Some(Ok(())) | None => self.pause = Pause::none(),
        }
    }

    fn connect(&mut self) -> Result<(), TokenError> {
        let found = self.account.connect(&self.lease);
        match found.and_then(|connection| self.expect(connection)) {
            Ok(connection) => {
                self.connection = Some(connection);
                if self.desk.connected() {
                    info!(key = %self.account.at.key(), "the token is there");
                }
                Ok(())
            }
            Err(error) => {
                self.pause = self.pause.next();
                let reason = Arc::new(error);
                if self.desk.explain(&reason) {
                    warn!(error = %reason, "no session with the token");
                }
                Err(TokenError::NoSession(reason))
            }
        }
    }

    fn expect(&self, connection: Connection) -> Result<Connection, TokenError> {
        if *connection.public_key() == self.expected {
            return Ok(connection);
        }
        Err(TokenError::AnotherKey {
            at: Arc::clone(&self.account.at),
            expected: self.expected.fingerprint(),
            found: connection.public_key().fingerprint(),
        })
    }

    fn lose(&mut self, error: &TokenError) {
        if self.connection.take().is_some() && self.desk.disconnected() {
            warn!(error = %error, "the token is lost");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.connection.is_some() {
            self.desk.disconnected();
        }
        self.desk.leave();
    }
}
