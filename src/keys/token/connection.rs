//! One session with the token, logged in, with the key found in it.
//!
//! Belongs to one thread at a time, as PKCS#11 sessions do. When the module was initialised anew in
//! between, the session is no more, and its number may be another's: then it is neither used nor
//! closed.

use std::sync::Arc;

use countersign_protocol::PublicKey;
use countersign_protocol::sign::DIGEST_INFO;
use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;

use super::error::{Place, TokenError};
use super::module::{Inside, Lease};
use super::pin::Pin;
use super::search::{self, failed};

/// What is needed to connect, again and again.
pub(super) struct Account {
    /// Where the key is.
    pub(super) at: Arc<Place>,
    /// The user's PIN, if one is to log in.
    pub(super) pin: Option<Pin>,
}

/// A session that can sign.
pub(super) struct Connection {
    lease: Lease,
    at: Arc<Place>,
    session: Option<Session>,
    generation: u64,
    key: ObjectHandle,
    public: PublicKey,
}

impl Account {
    /// Opens a session, logs in, and finds the key. A module that does not see the token is asked
    /// once more after it was initialised anew, where that disturbs nobody.
    pub(super) fn connect(&self, lease: &Lease) -> Result<Connection, TokenError> {
        let mut seen = Seen::default();
        let result = self.try_once(lease, &mut seen);
        match &result {
            Err(TokenError::NoToken { .. } | TokenError::Failed { .. })
                if lease.revive(seen.generation, &seen.labels) =>
            {
                self.try_once(lease, &mut seen)
            }
            _ => result,
        }
    }

    fn try_once(&self, lease: &Lease, seen: &mut Seen) -> Result<Connection, TokenError> {
        let inside = lease.enter();
        *seen = Seen {
            generation: inside.generation(),
            labels: Vec::new(),
        };
        let tokens = search::tokens(&inside, &self.at)?;
        let labels = tokens.iter().map(|token| token.info.label().to_owned());
        seen.labels = labels.collect();
        let token = search::token(tokens, &self.at)?;
        let opened = inside.pkcs11.open_ro_session_no_drop(token.slot);
        let session = opened.map_err(|error| failed(&self.at, &error))?;
        let found = self.find_key(lease, &session, &token);
        match found {
            Ok((key, public)) => {
                lease.connected(&self.at.token);
                Ok(Connection {
                    lease: lease.clone(),
                    at: Arc::clone(&self.at),
                    session: Some(session),
                    generation: inside.generation(),
                    key,
                    public,
                })
            }
            Err(error) => {
                // Why there is no key is worth more than why its session does not close.
                let _result = session.close();
                Err(error)
            }
        }
    }

    fn find_key(
        &self,
        lease: &Lease,
        session: &Session,
        token: &search::Token,
    ) -> Result<(ObjectHandle, PublicKey), TokenError> {
        if let Some(pin) = &self.pin {
            pin.log_in(lease, session, &token.info, &self.at)?;
        }
        let found = search::key(session, &self.at);
        match found {
            Err(TokenError::NoKey { .. }) if self.pin.is_none() && token.info.login_required() => {
                Err(TokenError::PinNeeded(Arc::clone(&self.at)))
            }
            found => found,
        }
    }
}

/// What a try to connect saw of the module.
#[derive(Default)]
struct Seen {
    generation: u64,
    labels: Vec<String>,
}

impl Connection {
    /// The public half of the key.
    pub(super) fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Signs; see [`countersign_protocol::digest_info`].
    pub(super) fn sign(&self, info: &[u8; DIGEST_INFO]) -> Result<Vec<u8>, TokenError> {
        let (_inside, session) = self.use_session()?;
        session
            .sign(&Mechanism::RsaPkcs, self.key, info)
            .map_err(|error| failed(&self.at, &error))
    }

    /// Asks whether the session still is one.
    pub(super) fn probe(&self) -> Result<(), TokenError> {
        let (_inside, session) = self.use_session()?;
        let info = session.get_session_info();
        info.map(|_| ()).map_err(|error| failed(&self.at, &error))
    }

    fn use_session(&self) -> Result<(Inside<'_>, &Session), TokenError> {
        let inside = self.lease.enter();
        let current = inside.generation() == self.generation;
        let gone = || {
            let code = RvError::SessionHandleInvalid;
            failed(&self.at, &Error::Pkcs11(code, Function::GetSessionInfo))
        };
        let session = self.session.as_ref().filter(|_| current);
        Ok((inside, session.ok_or_else(gone)?))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.lease.disconnected(&self.at.token);
        let inside = self.lease.enter();
        if let Some(session) = self.session.take()
            && inside.generation() == self.generation
        {
            // The usual reason to drop a connection is that its session is broken.
            let _result = session.close();
        }
    }
}
