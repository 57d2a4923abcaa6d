//! The key itself, as the keyring sees it: its public half, and a signature that takes a while.
//!
//! Never blocks the thread that asks for a signature. Hands out nothing its public half does not
//! verify.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use countersign_protocol::{ClientId, Content, Offset, PublicKey, Timestamp, digest_info, verify};

use super::connection::{Account, Connection};
use super::desk::Desk;
use super::error::{Place, TokenError};
use super::module::Lease;
use super::pin::Pin;
use super::worker::Worker;
use super::{Config, MAX_SESSIONS};
use crate::task;

/// How long a signature may take, the wait for a free session included.
const PATIENCE: Duration = Duration::from_secs(5);

/// A signing key in a token. Cloning is cheap and shares the sessions, which end with the last clone.
#[derive(Clone)]
pub struct TokenKey(Arc<Inner>);

struct Inner {
    at: Arc<Place>,
    public: PublicKey,
    account: Arc<Account>,
    desk: Arc<Desk>,
}

impl TokenKey {
    /// Finds the key, lets it sign once, and starts the threads that sign with it. Blocks: to be called
    /// at the start, at a reload and by `check`.
    ///
    /// The module stays loaded until the process ends.
    ///
    /// # Errors
    /// Each way in which module, token, PIN or key can be wrong has its own line.
    pub fn open(config: &Config) -> Result<Self, TokenError> {
        if !(1..=MAX_SESSIONS).contains(&config.sessions) {
            return Err(TokenError::Sessions(config.sessions));
        }
        let pin = config.pin_file.as_deref().map(Pin::read).transpose()?;
        let lease = Lease::take(&config.module)?;
        let at = Arc::new(config.place());
        let account = Arc::new(Account {
            at: Arc::clone(&at),
            pin,
        });
        let connection = account.connect(&lease)?;
        let public = connection.public_key().clone();
        prove(&connection, &at)?;
        let desk = Arc::new(Desk::new(Arc::clone(&at)));
        // From here on, dropping the key sends the threads home.
        let key = Self(Arc::new(Inner {
            at,
            public,
            account: Arc::clone(&account),
            desk,
        }));
        let mut connection = Some(connection);
        for _ in 0..config.sessions {
            let worker = Worker::new(&key.0.desk, &account, &lease, &key.0.public);
            let worker = match connection.take() {
                Some(connection) => worker.with(connection),
                None => worker,
            };
            task::thread("token", || worker.run()).map_err(TokenError::NoThread)?;
        }
        Ok(key)
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.0.public
    }

    /// Whether both log in with the same PIN.
    pub fn has_pin_of(&self, other: &Self) -> bool {
        self.0.account.pin == other.0.account.pin
    }

    /// How many sessions have the token now; none while it is away.
    pub fn connected(&self) -> usize {
        self.0.desk.sessions()
    }

    /// Signs a content: the same bytes as [`countersign_protocol::sign()`] would with the key in a file.
    ///
    /// Takes at most five seconds, the wait for a free session included. Dropping the future takes the
    /// request back.
    ///
    /// # Errors
    /// When the content is ambiguous, too many signatures wait, the token is away, fails, takes too
    /// long, or makes something that is no signature of the key.
    pub async fn sign(&self, content: &Content<'_>) -> Result<Vec<u8>, TokenError> {
        let Inner {
            at, public, desk, ..
        } = &*self.0;
        let answer = desk.hand_in(digest_info(content)?)?;
        let answered = tokio::time::timeout(PATIENCE, answer).await;
        let answered = answered.map_err(|_elapsed| TokenError::Slow {
            at: Arc::clone(at),
            limit: PATIENCE,
        })?;
        let value = answered.map_err(|_dropped| TokenError::Ended(Arc::clone(at)))??;
        check(public, content, &value, at)?;
        Ok(value)
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey")
            .field("token", &self.0.at.token)
            .field("key", &self.0.at.key)
            .field("fingerprint", &self.0.public.fingerprint())
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.desk.close();
    }
}

/// Lets the key sign something that is no message, so that one that cannot is found at the start.
fn prove(connection: &Connection, at: &Arc<Place>) -> Result<(), TokenError> {
    #[expect(
        clippy::expect_used,
        reason = "a constant, and letters make a client id"
    )]
    let client_id = ClientId::parse("countersign").expect("a client id");
    let content = Content {
        method: "NONE",
        uri: "*",
        client_id: &client_id,
        time: &Timestamp::at(UNIX_EPOCH, Offset::UTC),
        body: b"",
    };
    let value = connection.sign(&digest_info(&content)?)?;
    check(connection.public_key(), &content, &value, at)
}

fn check(
    public: &PublicKey,
    content: &Content<'_>,
    value: &[u8],
    at: &Arc<Place>,
) -> Result<(), TokenError> {
    verify(public, content, value).map_err(|_error| TokenError::WrongSignature(Arc::clone(at)))
}
