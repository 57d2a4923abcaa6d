//! The user's PIN: read once, overwritten when dropped, and given to the token as rarely as can be.
//!
//! Tokens lock after a few wrong PINs, and a lock may be for ever. So one that was refused is never
//! given to that token again by this process, whichever key or thread asks, and none is given when it
//! could be the last try: a container that is restarted again and again has no memory of its own.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::TokenInfo;
use cryptoki::types::RawAuthPin;
use zeroize::Zeroizing;

use super::error::{CallError, PinProblem, Place, TokenError};
use super::module::Lease;
use crate::confinement;

/// No PIN comes near this length, in bytes.
const LONGEST: u64 = 1024;

/// A PIN. It is in no `Debug`.
#[derive(PartialEq, Eq)]
pub(super) struct Pin(Zeroizing<Vec<u8>>);

impl Pin {
    /// Reads a PIN file. One line end behind the PIN is the editor's.
    pub(super) fn read(file: &Path) -> Result<Self, TokenError> {
        let fail = |problem| TokenError::Pin {
            file: file.to_owned(),
            problem,
        };
        let unreadable = |error| fail(PinProblem::Unreadable(error));
        // One buffer of the full size: growing would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(1024 + 1));
        let opened = File::open(file);
        let opened = opened.map_err(|error| unreadable(confinement::explain(file, error)))?;
        let read = opened.take(LONGEST + 1).read_to_end(&mut bytes);
        if u64::try_from(read.map_err(unreadable)?).is_ok_and(|length| length > LONGEST) {
            return Err(fail(PinProblem::TooLong));
        }
        for end in [b'\n', b'\r'] {
            if bytes.last() == Some(&end) {
                bytes.pop();
            }
        }
        if bytes.is_empty() {
            return Err(fail(PinProblem::Empty));
        }
        Ok(Self(bytes))
    }

    /// Logs the user in, for all sessions of this process with the token.
    pub(super) fn log_in(
        &self,
        lease: &Lease,
        session: &Session,
        token: &TokenInfo,
        at: &Arc<Place>,
    ) -> Result<(), TokenError> {
        let mut refused = lease.refused();
        let is_this =
            |(label, pin): &(String, Zeroizing<Vec<u8>>)| *label == at.token && **pin == *self.0;
        if refused.iter().any(is_this) {
            return Err(TokenError::PinRefused(Arc::clone(at)));
        }
        risk(token.user_pin_locked(), token.user_pin_final_try(), at)?;
        let pin = RawAuthPin::new(Box::new(self.0.to_vec()));
        match session.login_with_raw(UserType::User, &pin) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(Error::Pkcs11(
                RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange,
                _,
            )) => {
                refused.push((at.token.clone(), self.0.clone()));
                Err(TokenError::PinRefused(Arc::clone(at)))
            }
            Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(TokenError::PinLocked(Arc::clone(at))),
            Err(error) => Err(TokenError::Failed {
                at: Arc::clone(at),
                call: CallError::from(&error),
            }),
        }
    }
}

/// Refuses to log in when it cannot help, or when a mistake could not be made good.
fn risk(locked: bool, last_try: bool, at: &Arc<Place>) -> Result<(), TokenError> {
    match (locked, last_try) {
        (true, _) => Err(TokenError::PinLocked(Arc::clone(at))),
        (false, true) => Err(TokenError::PinLastTry(Arc::clone(at))),
        (false, false) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn takes_off_one_line_end_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pin");
        let rows: [(&[u8], &[u8]); 7] = [
            (b"1234", b"1234"),
            (b"1234\n", b"1234"),
            (b"1234\r\n", b"1234"),
            (b"1234\r", b"1234"),
            (b"1234\n\n", b"1234\n"),
            (b" 12 34 \n", b" 12 34 "),
            (b"\xc3\xa9\xff\n", b"\xc3\xa9\xff"),
        ];
        for (content, expected) in rows {
            fs::write(&file, content).unwrap();
            let pin = Pin::read(&file).unwrap();
            assert_eq!(**pin.0, *expected, "{content:?}");
        }
    }
}
