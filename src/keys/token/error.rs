//! What can be wrong with a token, its key, or its signatures, in words for who has to mend it.
//!
//! Every text names the module, and the labels as far as they matter; none holds a PIN. Texts know
//! nothing of the PKCS#11 crate, so that a build without it has the same errors.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use countersign_protocol::key::KeyError;
use countersign_protocol::{ContentError, Fingerprint};
use thiserror::Error;

use super::MAX_SESSIONS;

/// Where a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The module's file.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// The key's label.
    pub key: String,
}

/// A PKCS#11 function that failed, with the code it gave.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{function} failed with {code}")]
pub struct CallError {
    /// Its name, such as `C_Sign`.
    pub function: String,
    /// Its answer, such as `CKR_DEVICE_REMOVED`.
    pub code: String,
}

/// Why there is no PIN in a PIN file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PinProblem {
    /// The file is missing or cannot be read.
    #[error("{}", unreadable(.0))]
    Unreadable(#[source] io::Error),
    /// There is nothing in it.
    #[error("is empty; the PIN of the token belongs here")]
    Empty,
    /// No PIN is that long.
    #[error("holds over 1 KiB; the PIN alone belongs here")]
    TooLong,
}

/// Why a token's key cannot be used, or did not sign.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The feature `pkcs11` is off.
    #[error(
        "{}: this build cannot load PKCS#11 modules; one with the feature pkcs11 is needed",
        .0.display()
    )]
    NotBuiltIn(PathBuf),
    /// The number of sessions makes no sense.
    #[error("{0} sessions are not possible; 1 to {MAX_SESSIONS} are")]
    Sessions(usize),
    /// There is no PIN.
    #[error("{}: {problem}", .file.display())]
    Pin {
        /// The PIN file.
        file: PathBuf,
        /// What is wrong with it.
        problem: PinProblem,
    },
    /// The module's file does not exist.
    #[error("{}: no such file; the PKCS#11 module of the token is needed", .0.display())]
    NoModule(PathBuf),
    /// The module's file is no library of this machine.
    #[error("{}: cannot be loaded: {reason}{}", .module.display(), static_hint())]
    NotLoaded {
        /// The module's file.
        module: PathBuf,
        /// What the loader says.
        reason: String,
    },
    /// A library, but another one.
    #[error("{}: is no PKCS#11 module: it has no C_GetFunctionList", .0.display())]
    NotAModule(PathBuf),
    /// The module does not start.
    #[error("{}: the module does not start: {call}", .module.display())]
    NotStarted {
        /// The module's file.
        module: PathBuf,
        /// What failed.
        call: CallError,
    },
    /// No token has the label.
    #[error(
        "{}: no token is labelled '{}'; {}",
        .at.module.display(), .at.token, present(.labels, "there is none", "present:")
    )]
    NoToken {
        /// What was searched for.
        at: Arc<Place>,
        /// The labels of the tokens that are there.
        labels: Vec<String>,
    },
    /// Several tokens have the label.
    #[error(
        "{}: {count} tokens are labelled '{}'; exactly one must be",
        .at.module.display(), .at.token
    )]
    SeveralTokens {
        /// What was searched for.
        at: Arc<Place>,
        /// How many.
        count: usize,
    },
    /// Nobody is logged in, and the key is not to be seen.
    #[error(
        "{}: no key '{}' is visible without a PIN; the token asks for one, name its file as pin_file",
        .0.token(), .0.key
    )]
    PinNeeded(Arc<Place>),
    /// The PIN is wrong, or was.
    #[error(
        "{}: the PIN was refused and is not tried again, as PINs lock after a few tries; put the right \
         one into the PIN file (after a change of the PIN on the token itself, restart)",
        .0.token()
    )]
    PinRefused(Arc<Place>),
    /// The next wrong PIN would lock the token.
    #[error(
        "{}: one more wrong PIN would lock the token, so none was tried; log in once by hand, such as \
         with pkcs11-tool --login --test, and start again",
        .0.token()
    )]
    PinLastTry(Arc<Place>),
    /// The token takes no PIN any more.
    #[error("{}: the PIN is locked; the token's security officer must set it anew", .0.token())]
    PinLocked(Arc<Place>),
    /// No private key has the label.
    #[error("{}: no RSA private key is labelled '{}'; {}",
        .at.token(), .at.key, present(.labels, "there is none", "present:")
    )]
    NoKey {
        /// What was searched for.
        at: Arc<Place>,
        /// The labels of the RSA private keys that are there.
        labels: Vec<String>,
    },
    /// Several private keys have the label.
    #[error("{}: {count} private keys have this label; exactly one must", .at.key())]
    SeveralKeys {
        /// What was searched for.
        at: Arc<Place>,
        /// How many.
        count: usize,
    },
    /// The private key is for another algorithm.
    #[error("{}: is {found}; an RSA private key is needed", .at.key())]
    NotRsa {
        /// Which key.
        at: Arc<Place>,
        /// Its algorithm in words.
        found: String,
    },
    /// The key's `CKA_SIGN` is false.
    #[error("{}: may not sign: its CKA_SIGN is false", .0.key())]
    MayNotSign(Arc<Place>),
    /// The key's `CKA_ALWAYS_AUTHENTICATE` is true.
    #[error(
        "{}: asks for the PIN at every signature (CKA_ALWAYS_AUTHENTICATE), which a sidecar cannot give",
        .0.key()
    )]
    AlwaysAuthenticates(Arc<Place>),
    /// Neither the private key nor a public one tells modulus and exponent.
    #[error(
        "{}: the token does not show its public half; put the public key beside it, with the same id or \
         label",
        .0.key()
    )]
    NoPublicHalf(Arc<Place>),
    /// The key is no key for messages.
    #[error("{}: {problem}", .at.key())]
    Unusable {
        /// Which key.
        at: Arc<Place>,
        /// What is wrong with it.
        problem: KeyError,
    },
    /// Another key has the label now.
    #[error(
        "{}: another key has this label now, {found} in place of {expected}; reload to sign with it",
        .at.key()
    )]
    AnotherKey {
        /// Which key.
        at: Arc<Place>,
        /// SHA-256 of the public half that was found at the start.
        expected: Fingerprint,
        /// SHA-256 of the one found now.
        found: Fingerprint,
    },
    /// The token failed.
    #[error("{}: {call}", .at.key())]
    Failed {
        /// Which key.
        at: Arc<Place>,
        /// What failed.
        call: CallError,
    },
    /// There is no session, and there was none when the token was last looked for, at most two
    /// seconds ago.
    #[error("no session with the token: {0}")]
    NoSession(Arc<TokenError>),
    /// Too many signatures wait.
    #[error("{}: {waiting} signatures wait for the token already", .at.key())]
    Busy {
        /// Which key.
        at: Arc<Place>,
        /// How many.
        waiting: usize,
    },
    /// The token takes too long.
    #[error("{}: no signature within {}", .at.key(), humantime::format_duration(*.limit))]
    Slow {
        /// Which key.
        at: Arc<Place>,
        /// How long was waited.
        limit: Duration,
    },
    /// What the token made is no signature of its key.
    #[error(
        "{}: what the token made is no signature of its public half, and was thrown away",
        .0.key()
    )]
    WrongSignature(Arc<Place>),
    /// The content is ambiguous.
    #[error("the content is ambiguous and was not signed")]
    Content(#[from] ContentError),
    /// The system gives no thread.
    #[error("no thread for the token's sessions: {0}")]
    NoThread(#[source] io::Error),
    /// A thread that was to sign ended.
    #[error("{}: the thread that was to sign has ended", .0.key())]
    Ended(Arc<Place>),
}

impl Place {
    /// The token in words.
    pub fn token(&self) -> String {
        format!("{}: token '{}'", self.module.display(), self.token)
    }

    /// The key in words.
    pub fn key(&self) -> String {
        format!("{}: key '{}'", self.token(), self.key)
    }
}

/// A list of labels for a message; long ones are cut.
fn present(labels: &[String], none: &str, some: &str) -> String {
    const SHOWN: usize = 8;
    if labels.is_empty() {
        return none.to_owned();
    }
    let shown = labels.iter().take(SHOWN);
    // Control characters in a label are made visible.
    let shown: Vec<_> = shown
        .map(|label| format!("'{}'", label.escape_debug()))
        .collect();
    let more = labels.len().saturating_sub(SHOWN);
    let rest = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{some} {}{rest}", shown.join(", "))
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file; the PIN of the token belongs here".to_owned(),
        io::ErrorKind::IsADirectory => "is a directory; name the PIN file in it".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

/// A static program has no loader for shared libraries.
fn static_hint() -> &'static str {
    if cfg!(target_feature = "crt-static") {
        "; this is a static binary, which can load no modules: use a dynamic one"
    } else {
        ""
    }
}
